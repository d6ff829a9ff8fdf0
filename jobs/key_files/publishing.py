"""A key file is written: from one snapshot, bucket by bucket, to every store at once."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from crypto.buckets import BUCKETS, Sealing
from crypto.transit import TransitKeys
from jobs.backups.stores import Store
from jobs.backups.threads import in_thread
from jobs.key_files import finding
from jobs.key_files.contexts import file_key_context
from jobs.key_files.statements import SIGNER, FileKey, Signed, Statement, in_order
from tenants.errors import Conflict
from tenants.ids import new_id
from tenants.keys import key_files
from tenants.keys.key_files import Contents
from tenants.unit import Unit


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A file key that nobody has used yet; `secret` is 32 bytes."""

    id: UUID
    wrapped: str
    secret: bytes


async def fresh_key(tenant: UUID, maker: TransitKeys, opener: TransitKeys) -> FreshKey:
    """`maker` may make keys of backups, `opener` may open them. Raises `KeyUnavailable`, `KeyRefused`."""
    key = new_id()
    context = file_key_context(tenant, key)
    wrapped = await maker.make_data_key(tenant, context)
    (secret,) = await opener.unwrap(tenant, [(wrapped, context)])
    return FreshKey(key, wrapped, secret)


async def write(
    snapshot: Unit,
    stores: Sequence[Store],
    generation: int,
    *,
    previous: bytes | None,
    key: FreshKey,
    signer: TransitKeys,
    note: Callable[[bytes], Awaitable[None]],
) -> Signed:
    """The same file on every store, or on some if this raises: `StoreAway`, `StoreFull`.

    `note` is told its identity before the first byte is written.

    `snapshot` reads only, and holds the tenant's key files. All buckets are sealed twice, to be measured and to be
    written, so that one at a time is in memory.
    """
    contents = await key_files.contents(snapshot)
    sealing = Sealing(key.secret, snapshot.tenant.id, generation)
    measured = [
        (len(sealed), hashlib.sha256(sealed).digest()) async for sealed in _sealed(snapshot, sealing, "measured")
    ]
    file_key = FileKey(key.id, key.wrapped, sealing.opening)
    statement = _statement(snapshot, generation, previous, file_key, contents, measured)
    signed = await statement.signed(lambda message: signer.sign(SIGNER, message))
    await note(signed.sha256)
    name = finding.name(snapshot.tenant.id, generation)
    await finding.write(stores, name, signed.lines, _held(snapshot, _sealed(snapshot, sealing, "written")))
    return signed


def _statement(
    snapshot: Unit,
    generation: int,
    previous: bytes | None,
    file_key: FileKey,
    contents: Contents,
    measured: Sequence[tuple[int, bytes]],
) -> Statement:
    return Statement(
        tenant=snapshot.tenant.id,
        generation=generation,
        created=snapshot.now,
        previous=previous,
        file_key=file_key,
        backups=contents.backups,
        data_keys=contents.data_keys,
        ledger=contents.ledger,
        buckets=in_order(measured),
    )


async def _sealed(snapshot: Unit, sealing: Sealing, name: str) -> AsyncIterator[bytes]:
    """All buckets, the empty ones too."""
    number = 0
    async for bucket, content in key_files.secrets(snapshot, name):
        while number < bucket:
            yield sealing.seal(number, b"")
            number += 1
        yield await in_thread(sealing.seal, bucket, content)
        number += 1
    while number < BUCKETS:
        yield sealing.seal(number, b"")
        number += 1


async def _held(snapshot: Unit, buckets: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whoever lost the transaction has lost its hold, and another may be done by now: then nothing gets its name."""
    async for sealed in buckets:
        yield sealed
    if not await key_files.hold(snapshot):
        raise Conflict
