"""The signed statement of what a backup holds and where; without it, shards are bytes that mean nothing.

A file of two lines, each ended by a newline: the statement, and ``{"keyVersion":1,"signature":"<base64>"}``. The
signature is Ed25519 (RFC 8032) of ``join("coffer.backup.manifest.v1", tenant 16, backup 16, digest)``, the digest being
SHA-256 of the statement. Statement and identity are canonical JSON (RFC 8785): keys sorted, no spaces; all text is
ASCII and every number a whole one below 2^53, so any JSON library that sorts keys makes the same bytes.

The *identity* is SHA-256 of the statement without ``generation`` and ``places``, in hex: what a repair may change is
not part of it. `previous` is the identity of the tenant's backup before this one, so a backup can't be left out, put
elsewhere or passed off as a newer one unseen.
"""

import hashlib
import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import orjson

from crypto import chain
from crypto.chunks import size_of
from crypto.encoding import join
from crypto.errors import CannotOpen
from jobs.backups.checks import CHECK_BYTES
from jobs.backups.codings import Coding
from jobs.backups.errors import ManifestRefused, Refusal
from jobs.backups.shapes import Layout, Shape
from jobs.backups.threads import in_thread

SIGNER = "coffer-backup"  # the Transit key
FORMAT = "coffer.backup.v1"
_DOMAIN = b"coffer.backup.manifest.v1"
_MOST = 1 << 53
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_ID = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_WHOSE = re.compile(rb'\{"backup":"(?P<backup>%s)",.*"tenant":"(?P<tenant>%s)"\}' % (_ID, _ID), re.DOTALL)

Sign = Callable[[bytes], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a backup is. `previous` and `number` place it behind the tenant's last one; the first is number 1.

    `kind` is a word in capitals; `key_file` the generation of the tenant's key file that can open it.
    """

    tenant: UUID
    backup: UUID
    number: int
    previous: str | None
    created: datetime
    kind: str
    key_file: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`opening` is that of `crypto.chunks`; `checks` per segment, of its checks; `places` per shard, a store's URL."""

    about: About
    layout: Layout
    opening: bytes
    records: int
    record_bytes: int
    tables: Mapping[str, int]
    checks: tuple[bytes, ...]
    places: tuple[str, ...]
    generation: int = 1

    @property
    def identity(self) -> str:
        lasting = {name: said for name, said in self._said().items() if name not in ("generation", "places")}
        return hashlib.sha256(_canonical(lasting)).hexdigest()

    async def signed(self, sign: Sign) -> bytes:
        """The file. `sign` answers with the version of its key and 64 bytes, as `TransitKeys.sign` does."""
        statement, message = await in_thread(self._drawn_up)
        version, signature = await sign(message)
        return (
            statement + b"\n" + _canonical({"keyVersion": version, "signature": b64encode(signature).decode()}) + b"\n"
        )

    def moved(self, places: tuple[str, ...]) -> "Manifest":
        """The next generation, with its shards elsewhere."""
        return replace(self, places=places, generation=self.generation + 1)

    def _drawn_up(self) -> tuple[bytes, bytes]:
        statement = _canonical(self._said())
        return statement, _signed_bytes(self.about.tenant, self.about.backup, statement)

    def _said(self) -> dict[str, Any]:
        about, layout = self.about, self.layout
        return {
            "format": FORMAT,
            "tenant": str(about.tenant),
            "backup": str(about.backup),
            "number": about.number,
            "previous": about.previous,
            "created": about.created.astimezone(UTC).isoformat(timespec="microseconds"),
            "kind": about.kind,
            "keyFile": about.key_file,
            "generation": self.generation,
            "coding": str(layout.shape.coding),
            "stripes": layout.shape.stripes,
            "chunkBytes": layout.shape.chunk_bytes,
            "chunks": layout.chunks,
            "sealedBytes": layout.sealed_bytes,
            "opening": self.opening.hex(),
            "records": self.records,
            "recordBytes": self.record_bytes,
            "tables": dict(self.tables),
            "checks": [each.hex() for each in self.checks],
            "places": list(self.places),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is known of a backup elsewhere; whatever is None is not asked for."""

    tenant: UUID
    backup: UUID | None = None
    number: int | None = None  # of the tenant's newest backup known, where the newest is wanted
    generation: int = 1  # of this backup's newest manifest known
    identity: str | None = None


def read(raw: bytes, public_keys: Mapping[int, bytes], expected: Expected) -> Manifest:
    """The manifest in a file. Raises `ManifestRefused`, which says why.

    `public_keys` are 32 bytes each, by version, as `TransitKeys.public_keys` gives them.
    """
    statement, version, signature = _lines(raw)
    _require_signed(statement, version, signature, public_keys)
    manifest = _parsed(statement)
    _require(manifest, expected)
    return manifest


def require_order(manifests: Sequence[Manifest]) -> None:
    """Raises `ManifestRefused`, REORDERED, unless each follows the one before it.

    Where retention has taken some between two, their numbers tell, and only their order is proven.
    """
    for before, after in pairwise(manifests):
        step = after.about.number - before.about.number
        if step < 1 or (step == 1 and after.about.previous != before.identity):
            raise ManifestRefused(Refusal.REORDERED)


def _require_signed(statement: bytes, version: int, signature: bytes, public_keys: Mapping[int, bytes]) -> None:
    """Before it is parsed: what nobody has signed may be made to become very large."""
    whose = _WHOSE.fullmatch(statement)
    if whose is None:
        raise ManifestRefused(Refusal.TRUNCATED)
    key = public_keys.get(version)
    if key is None:
        raise ManifestRefused(Refusal.UNKNOWN_KEY)
    tenant, backup = (UUID(whose[name].decode()) for name in ("tenant", "backup"))
    if not chain.is_signed(key, signature, _signed_bytes(tenant, backup, statement)):
        raise ManifestRefused(Refusal.EDITED)


def _require(manifest: Manifest, expected: Expected) -> None:
    about = manifest.about
    if about.tenant != expected.tenant or expected.backup not in (None, about.backup):
        raise ManifestRefused(Refusal.FOREIGN)
    if manifest.generation < expected.generation or about.number < (expected.number or 0):
        raise ManifestRefused(Refusal.OLD)
    if expected.identity not in (None, manifest.identity):
        raise ManifestRefused(Refusal.REORDERED)


def _lines(raw: bytes) -> tuple[bytes, int, bytes]:
    lines = raw.split(b"\n")
    if len(lines) == 2 and lines[0] and not lines[1]:
        raise ManifestRefused(Refusal.UNSIGNED)
    if len(lines) != 3 or lines[2]:
        raise ManifestRefused(Refusal.TRUNCATED)
    try:
        said = orjson.loads(lines[1])
        return lines[0], int(said["keyVersion"]), b64decode(said["signature"], validate=True)
    except (ValueError, LookupError, TypeError, Error):
        raise ManifestRefused(Refusal.UNSIGNED) from None


def _parsed(statement: bytes) -> Manifest:
    """One that is signed and could be; another is refused as EDITED, and what is not even JSON as TRUNCATED."""
    try:
        said = orjson.loads(statement)
    except ValueError:
        raise ManifestRefused(Refusal.TRUNCATED) from None
    try:
        manifest = _of(said)
        if not _is_sound(manifest) or _canonical(manifest._said()) != statement:
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError, CannotOpen):
        raise ManifestRefused(Refusal.EDITED) from None
    return manifest


def _of(said: dict[str, Any]) -> Manifest:
    shape = Shape(Coding.parse(said["coding"]), said["chunkBytes"], said["stripes"])
    about = About(
        tenant=UUID(said["tenant"]),
        backup=UUID(said["backup"]),
        number=said["number"],
        previous=said["previous"],
        created=datetime.fromisoformat(said["created"]),
        kind=said["kind"],
        key_file=said["keyFile"],
    )
    return Manifest(
        about=about,
        layout=Layout(shape, said["chunks"], said["sealedBytes"]),
        opening=bytes.fromhex(said["opening"]),
        records=said["records"],
        record_bytes=said["recordBytes"],
        tables=said["tables"],
        checks=tuple(bytes.fromhex(each) for each in said["checks"]),
        places=tuple(said["places"]),
        generation=said["generation"],
    )


def _is_sound(manifest: Manifest) -> bool:
    """Whether its numbers can be those of a backup, so that no arithmetic on them goes wrong later."""
    about, layout = manifest.about, manifest.layout
    shape = layout.shape
    counts = (about.number, about.key_file, manifest.generation, manifest.records, manifest.record_bytes)
    sizes = (layout.chunks, layout.sealed_bytes, shape.stripes, shape.chunk_bytes)
    if any(type(each) is not int or not 0 <= each < _MOST for each in (*counts, *sizes, *manifest.tables.values())):
        return False
    last = layout.sealed_bytes - (layout.chunks - 1) * shape.chunk_bytes
    return (
        about.number > 0 < manifest.generation
        and layout.chunks > 0 < shape.stripes
        and 0 < last <= shape.chunk_bytes == size_of(manifest.opening)
        and len(manifest.checks) == layout.segments
        and all(len(each) == CHECK_BYTES for each in manifest.checks)
        and len(manifest.places) == shape.coding.shards
        and (about.previous is None or _IDENTITY.fullmatch(about.previous) is not None)
        and _KIND.fullmatch(about.kind) is not None
    )


def _signed_bytes(tenant: UUID, backup: UUID, statement: bytes) -> bytes:
    return join(_DOMAIN, tenant.bytes, backup.bytes, hashlib.sha256(statement).digest())


def _canonical(said: Mapping[str, Any]) -> bytes:
    raw = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    if not raw.isascii():
        raise ValueError("a manifest's text is ASCII")
    return raw
