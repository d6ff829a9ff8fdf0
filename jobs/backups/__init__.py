"""Backups of one tenant: how they are written, byte by byte, and what keeps them whole.

A backup is a stream of records, sealed under a key of its own and spread over stores so that some of them may be lost.
This package knows bytes, stores and signatures; which tables a record comes from, who holds the keys and when a backup
is made is known elsewhere. `examples/verify_backup.py` reads the format without any of it. Numbers are big endian,
ids their 16 bytes (RFC 4122), ``join`` is `crypto.encoding.join`: each part behind its length as u32.

**Names.** A store is a folder or bucket below a URL. A backup's objects are in ``<tenant>/<backup>/``, both as UUIDs in
lower case::

    00-000000 … NN-SSSSSS     shard NN of segment SSSSSS, both decimal, from 0
    manifest-000001.json      the manifest, by generation; the highest that is proven counts
    .<name>.<random>.part     only in folders: half-written, by a process that lives or was killed

**Records to stream** (`records.py`). Records are ``length u32 | record``, at most 16 MiB each. As many as fill a MiB
make the content of a block, ``length u32 | zstd frame`` (RFC 8878, content size in its header); no record crosses
blocks. The stream is all blocks in their order. An empty backup has an empty stream.

**Stream to chunks** (`crypto/chunks.py`). The stream is cut in parts of ``chunkBytes - 16`` bytes, the last one
shorter; each is sealed by one call of AES-256-GCM to a chunk, 4 MiB in all but the last. Tag, nonce and associated
data bind it to its backup, its index, and whether it is the last. Salt and key check are the manifest's ``opening``.

**Chunks to pieces** (`codings.py`). Chunk i becomes stripe i: one piece of ``ceil(length / k)`` bytes per shard.

    single, mirror:n    k = 1: every piece is the chunk
    rs:k+m              pieces 0 … k-1 are the chunk, cut, the last filled up with zeros; piece p from k to k+m-1 is the
                        sum over j < k of ``piece j / (p XOR j)``, byte by byte in GF(2^8) modulo
                        x^8 + x^4 + x^3 + x^2 + 1 (0x11D): ISA-L's Cauchy matrix. Any k pieces give the chunk.

**Pieces to shards** (`shapes.py`, `checks.py`). A segment is ``stripes`` (256) stripes in a row. Per shard and segment
there is one object::

    | piece of its 1st stripe | piece of its 2nd | … | checks |

    checks:   per stripe of the segment, per shard from 0: | SHA-256 of the piece 32 | CRC-32 of it u32 |

The checks are the same in each shard's object. The manifest has, per segment, the check of the checks: so all bytes of
all objects hang on its signature, and rot is found, and named by shard and stripe, without any key. SHA-256 decides;
CRC-32 (zlib's) puts a single damaged byte right where the pieces left are too few. Lengths and places of everything
follow from ``chunks``, ``sealedBytes``, ``chunkBytes``, ``stripes`` and ``coding``.

**The manifest** (`manifests.py`) lies on every store. Two lines: the statement, and its signature. The statement is an
object of canonical JSON (RFC 8785, ASCII)::

    backup, tenant     ids
    bytes and counts   chunkBytes, chunks, sealedBytes (all chunks), stripes (of a segment), records, recordBytes
    checks             per segment, hex of 36 bytes
    coding             as above
    created            RFC 3339, UTC, microseconds
    format             "coffer.backup.v1"
    generation         1, and one more each time its shards move
    keyFile            generation of the tenant's key file that can open it
    kind               a word in capitals
    number, previous   its place behind the tenant's backup before: 1, 2, … and that one's identity, or null
    opening            of the chunks, hex of 70 bytes
    places             per shard, the URL of its store
    tables             rows by table

The signature is Ed25519 of ``join("coffer.backup.manifest.v1", tenant, backup, SHA-256 of the statement)``, in base64
beside the version of its key. The identity is SHA-256, in hex, of the statement without ``generation`` and ``places``.

No key in any form and no token is in a backup, and no hash of what it holds in clear: the same data look different each
time. What is seen without keys: ids, times, counts and lengths.

**Whole or not at all.** An object appears under its name when it is complete, and the manifest when all objects are; a
folder without a manifest is no backup. A repair replaces objects by whole ones with the same bytes.

A format that differs is another ``format``, and this one is read for as long as the product exists: `tests/vectors`.
"""
