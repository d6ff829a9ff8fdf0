"""Key files: the keys that a tenant's backups need, beside them on every store. How they are written, byte by byte.

Of each tenant every store has one object, its *key file* of the current generation. Without it no backup opens; with it
and the tenant's key in the key store every live backup does. So what is not in the current one is gone for good: an
erased person's secret, an expired backup's key. `KeyFiles` (`files.py`) publishes, reads, repairs and rewraps.

Numbers are big endian, ids their 16 bytes (RFC 4122), ``join`` is `crypto.encoding.join`, "wrapped" is what the key
store's Transit engine gave (``vault:vN:…``).

**Name.** ``<tenant>/keys/<generation>.coffer``: the id in lower case, the generation in at least 8 digits.

**File.** Two lines, each ended by a newline, and 256 buckets behind them::

    | statement | 0x0A | signature | 0x0A | bucket 0 | bucket 1 | … | bucket 255 |

**Statement** (`statements.py`): an object of canonical JSON (RFC 8785, ASCII)::

    backups      by number, each {"backup": id, "dataKeys": [versions], "number", "wrapped"}; the wrapping's context is
                 join("coffer.backup.key.v1", tenant, backup)
    buckets      256, each {"length", "offset", "sha256"}: bytes, from the end of the signature's line, of the sealed
                 bucket; in their order and without gaps
    created      RFC 3339, UTC, microseconds
    dataKeys     by purpose and version, each {"checkValue": hex of 8 bytes, "id", "purpose": "AUD" | "BIK" | "DEK",
                 "version", "wrapped"}; context and check value are those of `crypto.keys`
    fileKey      {"id", "opening": hex of 66 bytes, "wrapped"}: seals the buckets; context join("coffer.file.key.v1",
                 tenant, id)
    format       "coffer.keys.v1"
    generation   1, 2, …; some are left out
    ledger       {"erased": [{"at", "number", "subject"}, …], "head": hex of 32 bytes or null}: whom the tenant had
                 erased, as in `tenants.erasures`, all rows from 1; `at` as `created`
    previous     hex of the SHA-256 of the statement that was current before, or null
    tenant       id

Its identity is SHA-256 of the statement, without the newline: the file's other bytes hang on it.

**Signature**: ``{"keyVersion":1,"signature":"<base64>"}``, Ed25519 (RFC 8032) by the key ``coffer-backup`` of
``join("coffer.keys.v1", tenant, SHA-256 of the statement)``. The line has at most 512 bytes.

**Buckets** (`crypto/buckets.py`): the subjects' secrets by the last byte of the subject's id, each bucket one call of
AES-256-GCM under a key derived from the file key, which is fresh for every generation.

**Generations.** The database says which generation is current, and its identity; every manifest says which one was when
its backup was made. A new one is claimed in the database, which is told its identity, then written to every store,
committed in the database, and then every other is deleted from every store: only that is the end. One that was claimed
and never committed is not read, is overtaken by the next, and deleted with the others. A store that comes back with an
older one is refused until it is repaired. A later one whose identity the database has never heard of says that the
database is the older of the two: nothing goes on until `coffer recover` has brought it forward.

What is seen without keys: ids, times, counts, and how many subjects there are.

A format that differs is another ``format``, and this one is read for as long as the product exists: `tests/vectors`.
"""
