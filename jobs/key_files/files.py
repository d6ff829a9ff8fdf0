"""The key files of tenants: published, read, repaired, and wrapped anew. What they are says the package.

Only these acts touch them. Each opens units of its own, so none may be asked for inside of one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from crypto.errors import CofferError, KeyRefused
from crypto.transit import TransitKeys, wrapped_version
from jobs.backups.errors import StoreAway
from jobs.backups.stores import Store
from jobs.key_files import finding, publishing, trusting
from jobs.key_files.contexts import backup_key_context
from jobs.key_files.errors import KeyFileRefused, KeyFileUnknown, NotForBackups, Refusal
from jobs.key_files.reading import KeyFile
from jobs.key_files.statements import SIGNER, Signed
from jobs.key_files.trusting import Found
from tenants import backups
from tenants.errors import Conflict
from tenants.keys import key_files
from tenants.keys.key_files import Known
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import TenantId

PATIENCE = 30.0  # seconds to wait for another that writes the same tenant's
_PAUSE = 0.1
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Repaired:
    """`rewritten` are the stores that got the current file; `refused` says what was wrong with what they had."""

    generation: int
    refused: Mapping[str, Refusal]
    rewritten: Sequence[str]


class KeyFiles:
    """`keys` may decrypt, `backup_keys` may make keys of backups and sign; None: this process only reads.

    Without `stores` there are no key files: nothing is written, and nothing is found.
    """

    def __init__(
        self,
        units: Units,
        keys: TransitKeys,
        backup_keys: TransitKeys | None,
        stores: Sequence[Store],
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.stores = stores
        self._units = units
        self._keys = keys
        self._maker = backup_keys
        self._patience = patience

    async def publish(self, tenant: TenantId) -> int:
        """The generation that holds all that was committed before this was called; no store lists another.

        0 where no stores are configured. Killed anywhere, it is asked for again. Raises `StoreAway`, `StoreFull`,
        `KeyUnavailable`, `Conflict`, which pass; `KeyFileRefused`, AHEAD, where the database is a copy of the past;
        `NotForBackups`.
        """
        if not self.stores:
            _log.info("no key file: no stores", tenant=str(tenant))
            return 0
        if self._maker is None:
            raise NotForBackups
        await self._refuse_ahead(tenant)
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            generation = await key_files.claim(unit, [store.url for store in self.stores])
        key = await publishing.fresh_key(tenant, self._maker, self._keys)
        async with self._holding(tenant) as snapshot:
            current = await self._current(tenant)
            if current is None or current.generation < generation:
                previous = None if current is None else current.sha256
                signed = await publishing.write(
                    snapshot,
                    self.stores,
                    generation,
                    previous=previous,
                    key=key,
                    signer=self._maker,
                    note=lambda sha256: self._note(tenant, generation, sha256),
                )
                await self._commit(tenant, signed)
            else:
                generation = current.generation  # it was claimed later, so it holds all that this one would
            await finding.keep_only(self.stores, tenant, generation)
            await self._empty_former(tenant)
        return generation

    async def read(self, tenant: TenantId, *, at_least: int | None = None) -> KeyFile:
        """The current one, proven and held against what the database knows; from any store that has it.

        Raises `KeyFileRefused` with what is wrong, OLD where it is before `at_least`; `KeyFileUnknown`, `StoreAway`.
        """
        found = await self.find(tenant)
        if at_least is not None and found.file.generation < at_least:
            raise KeyFileRefused(Refusal.OLD)
        return found.file

    async def find(self, tenant: TenantId) -> Found:
        """As `read`; and what the other stores have."""
        public_keys = await self._keys.public_keys(SIGNER)
        before: Known | None = None
        while True:
            listed = await finding.listed(self.stores, tenant)
            known = await self._known(tenant)  # after the list, so that whatever was written by us is in it
            current = trusting.current(known)
            await trusting.refuse_ahead(tenant, listed, known, public_keys)
            try:
                return await trusting.find(tenant, listed, current, public_keys, self._keys)
            except CofferError:
                if current == before:
                    raise
            before = current  # another may have been published since the stores were listed

    async def newest(self, tenant: TenantId) -> KeyFile | None:
        """The newest that is proven, whatever the database says: for who brings that forward. None where none is.

        Raises `StoreAway` unless every store answers: the one that is away may have a newer one.
        """
        listed = await finding.listed(self.stores, tenant)
        listed.require_all()
        return await trusting.newest(tenant, listed, await self._keys.public_keys(SIGNER), self._keys)

    async def repair(self, tenant: TenantId) -> Repaired:
        """Every store has the current file whole, and lists no other; published anew where no store has it.

        Raises `StoreAway`, `StoreFull`, `KeyFileRefused` where only others are there, `Conflict`.
        """
        try:
            async with self._holding(tenant):
                found = await self.find(tenant)
                if found.away:
                    raise StoreAway
                worse = {*found.refused, *found.missing} | await self._rotten(found.file)
                await self._copy(found.file, [store for store in self.stores if store.url in worse])
                await finding.keep_only(self.stores, tenant, found.file.generation)
                await self._empty_former(tenant)
                return Repaired(found.file.generation, found.refused, sorted(worse))
        except (KeyFileUnknown, KeyFileRefused) as error:
            if isinstance(error, KeyFileRefused) and error.why is Refusal.AHEAD:
                raise
        return Repaired(await self.publish(tenant), {}, [store.url for store in self.stores])

    async def rewrap(self, tenant: TenantId, rotator: TransitKeys) -> None:
        """All that key files hold, wrapped by the newest version of the tenant's key, and published so.

        The data keys are rewrapped by who rotates, before. Raises what `publish` does, and `KeyRefused` at the end
        where the key store refused the key of a backup, which stays as it was.
        """
        async with self._units.enter(tenant, None, write=False) as unit:
            live = await backups.live(unit)
        pairs = [(each.wrapped_key, backup_key_context(tenant, each.id)) for each in live]
        wrapped = dict(zip(live, await rotator.rewrap(tenant, pairs), strict=True)) if pairs else {}
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            for backup, text in wrapped.items():
                if text is not None:
                    await key_files.rewrap_backup(unit, backup, text)
        await self.publish(tenant)
        if refused := [backup for backup, text in wrapped.items() if text is None]:
            names = ", ".join(str(each.id) for each in refused)
            raise KeyRefused(f"The key store refused the keys of backups: {names}.")

    async def oldest_kek_version(self, tenant: TenantId) -> int | None:
        """Of the tenant's key, among all that wrapped what is in key files on any store; None where there are none.

        Old files that stores came back with are taken away first. Raises what `repair` does.
        """
        if not self.stores:
            return None
        listed = await finding.listed(self.stores, tenant)
        listed.require_all()
        current = await self._current(tenant)
        if current is None and not any(listed.files.values()):
            return None
        if current is None or any(set(files) != {current.generation} for files in listed.files.values()):
            await self.repair(tenant)
            current = await self._current(tenant)
        async with self._units.enter(tenant, None, write=False) as unit:
            live = await backups.live(unit)
        versions = [wrapped_version(each.wrapped_key) for each in live]
        return min([*versions, *(current.kek_versions if current is not None else ())], default=None)

    @asynccontextmanager
    async def _holding(self, tenant: TenantId) -> AsyncIterator[Unit]:
        """A snapshot of the tenant, while nobody else writes its key files."""
        ends = time.monotonic() + self._patience
        while True:
            async with self._units.enter(tenant, None, write=False) as unit:
                if await key_files.hold(unit):
                    yield unit
                    return
            if time.monotonic() > ends:
                raise Conflict
            await asyncio.sleep(_PAUSE)

    async def _note(self, tenant: TenantId, generation: int, sha256: bytes) -> None:
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            if not await key_files.note(unit, generation, sha256):
                raise Conflict

    async def _empty_former(self, tenant: TenantId) -> None:
        """Stores that are configured no longer keep nothing; one that does not answer stays on the list for later."""
        now = {store.url for store in self.stores}
        async with self._units.enter(tenant, None, write=False) as unit:
            former = [Store(url) for url in sorted(await key_files.places(unit) - now)]
        emptied = await finding.emptied(former, tenant)
        if emptied:
            async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
                await key_files.emptied(unit, emptied)

    async def _commit(self, tenant: TenantId, signed: Signed) -> None:
        statement = signed.statement
        async with self._units.enter(tenant, None, write=True, thaws=True) as unit:
            versions = {"kek_versions": [*statement.kek_versions], "dek_versions": [*statement.dek_versions]}
            if not await key_files.commit(unit, statement.generation, signed.sha256, **versions):
                raise Conflict
            said = {"generation": statement.generation}
            unit.audit("key_file.published", subject_type="Tenant", subjects=[tenant], details=said)

    async def _known(self, tenant: TenantId) -> list[Known]:
        async with self._units.enter(tenant, None, write=False) as unit:
            return await key_files.known(unit)

    async def _current(self, tenant: TenantId) -> Known | None:
        return trusting.current(await self._known(tenant))

    async def _refuse_ahead(self, tenant: TenantId) -> None:
        listed = await finding.listed(self.stores, tenant)
        listed.require_all()
        await trusting.refuse_ahead(tenant, listed, await self._known(tenant), await self._keys.public_keys(SIGNER))

    async def _rotten(self, file: KeyFile) -> set[str]:
        """The stores of which some bucket is not what was signed."""
        rotten = set()
        for store in file.sources:
            try:
                async for _ in file.sealed_buckets(store):
                    pass
            except KeyFileRefused:
                rotten.add(store.url)
        return rotten

    async def _copy(self, file: KeyFile, targets: Sequence[Store]) -> None:
        buckets = (sealed async for _, sealed in file.sealed_buckets())
        if targets:
            await finding.write(targets, file.name, file.lines, buckets)
