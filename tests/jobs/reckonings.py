"""The reckoning at the end of a storm: whatever of a tenant is not as it must be, as sentences.

Values are opened and compared as the house sees them, rows are read as superuser, past all code of the product.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg
from sqlalchemy import select

from domain.customers.fields import DOCUMENTS, FIELDS
from domain.customers.rows import Customer, CustomerToken
from domain.customers.tokens import tokens_of
from domain.erasures import verify
from jobs.backups.folders import PART
from jobs.backups.stores import Store
from jobs.key_files import finding
from jobs.key_files.files import KeyFiles
from tests.jobs.crowds import Crowd

_WHY = "to look whether it opens"
_FAULTS = {
    "a job did not end well": """
        SELECT kind, state, reason FROM jobs WHERE tenant_id = $1 AND state NOT IN ('DONE', 'CANCELLED')""",
    "the tenant is frozen": "SELECT frozen FROM tenants WHERE id = $1 AND frozen IS NOT NULL",
    "a purpose has not one active key": """
        SELECT purpose, count(*) FILTER (WHERE state = 'ACTIVE') FROM data_keys WHERE tenant_id = $1
        GROUP BY purpose HAVING count(*) FILTER (WHERE state = 'ACTIVE') <> 1""",
    "a key waits for its rotation": "SELECT purpose, version FROM data_keys WHERE tenant_id = $1 AND state = 'NEXT'",
    "a rotation is open": "SELECT purpose, state FROM rotations WHERE tenant_id = $1 AND ended_at IS NULL",
    "a backup is half done": """
        SELECT number, state, reason FROM backups WHERE tenant_id = $1 AND state NOT IN ('VERIFIED', 'EXPIRED')""",
    "no backup counts": """
        SELECT 1 WHERE NOT EXISTS (SELECT FROM backups WHERE tenant_id = $1 AND state = 'VERIFIED')""",
    "a key of a backup that is gone is kept": """
        SELECT number FROM backups WHERE tenant_id = $1 AND state = 'EXPIRED' AND wrapped_key <> ''""",
    "the newest good backup was not drilled well": """
        SELECT number, drill_outcome FROM (
            SELECT * FROM backups WHERE tenant_id = $1 AND state = 'VERIFIED' ORDER BY number DESC LIMIT 1
        ) newest WHERE drill_outcome IS DISTINCT FROM 'OK'""",
    "an erasure has no certificate": """
        SELECT e.number FROM erasures e WHERE e.tenant_id = $1 AND NOT EXISTS (
            SELECT FROM erasure_certificates c WHERE (c.tenant_id, c.id) = (e.tenant_id, e.id))""",
}


@dataclass
class Reckoning:
    crowd: Crowd
    superuser: asyncpg.Connection
    key_files: KeyFiles
    stores: Sequence[Path]

    async def faults(self, *, may_park: Sequence[str] = ()) -> list[str]:
        """`may_park` are reasons for which a job may have been given up."""
        found = list(self.crowd.wrongs)
        for fault, sql in _FAULTS.items():
            rows = [tuple(row) for row in await self.superuser.fetch(sql, self.crowd.tenant)]
            found += [f"{fault}: {row}" for row in rows if not set(row) & set(may_park)]
        found += [each async for each in self._of_people()]
        found += [each async for each in self._of_index()]
        found += [each async for each in self._of_key_files()]
        found += [each async for each in self._of_ledger()]
        return [*found, *[each async for each in self._left_behind()]]

    async def _of_people(self) -> AsyncIterator[str]:
        nodes = {node["id"]: node for node in await self.crowd.everybody()}
        for person in self.crowd.people:
            node = nodes.pop(person.id, None)
            name = f"person {person.number} of {self.crowd.slug}"
            if person.is_erased:
                if node is not None or person.id in await self.crowd.found(person.mail(person.sent)):
                    yield f"the erased {name} is there"
            elif node is None:
                if person.id and person.kept is not None:
                    yield f"{name}, kept at {person.kept}, is lost"
            elif not (person.kept or 0) <= (change := int(node["note"])) <= person.sent:
                yield f"{name}, kept at {person.kept}, sent {person.sent}, is at {change}"
            elif await self.crowd.found(person.mail(change)) != [person.id]:
                yield f"{name} is not found by its e-mail"
            elif await self.crowd.named(person.name(change)) != {person.id}:
                yield f"{name} is not found by its name"
        for customer in nodes:
            yield f"nobody asked for the customer {customer}"

    async def _of_index(self) -> AsyncIterator[str]:
        """All rows open, and the index has exactly the tokens of the values."""
        tenant = self.crowd.tenant
        columns = (CustomerToken.index, CustomerToken.token, CustomerToken.customer_id, CustomerToken.bik_version)
        async with self.crowd.house.api.units.enter(tenant, None, write=False) as unit:
            rows: Sequence[Customer] = await unit.scalars(select(Customer).where(Customer.tenant_id == tenant))
            await unit.load_subjects([row.id for row in rows])
            wanted = set()
            for row in rows:
                documents = {name: unit.open_row(row, name, _WHY) or DOCUMENTS[name]() for name in DOCUMENTS}
                tokens = tokens_of(unit, row.id, FIELDS, documents)
                wanted |= {(t["index"], t["token"], t["customer_id"], t["bik_version"]) for t in tokens}
            kept = await unit.rows(select(*columns).where(CustomerToken.tenant_id == tenant))
        there = [(row.index, bytes(row.token), row.customer_id, row.bik_version) for row in kept]
        if set(there) != wanted or len(there) != len(wanted):
            yield f"the index has {len(there)} tokens, {len(wanted - set(there))} of {len(wanted)} are missing"

    async def _of_key_files(self) -> AsyncIterator[str]:
        """Each store lists the current one alone, which has the living and none of the erased."""
        tenant = self.crowd.tenant
        erased = {person.local for person in self.crowd.people if person.is_erased}
        living = {UUID(str(row["id"])) for row in await self.superuser.fetch(_LIVING, tenant)}
        current = (await self.key_files.read(tenant)).generation
        for folder in self.stores:
            store = Store(f"file://{folder}")
            listed = list(await finding.generations(store, tenant))
            if listed != [current]:
                yield f"{folder.name} lists the key files {listed}, {current} is current"
                continue
            file = await self.key_files.read(tenant)
            file.sources = [store]
            if await file.secrets(erased):
                yield f"the key file on {folder.name} has secrets of erased people"
            if {subject.subject for subject in file.ledger} < erased:
                yield f"the key file on {folder.name} does not tell of all erased people"
            if missing := living - set(await file.secrets(living)):
                yield f"the key file on {folder.name} lacks {len(missing)} subjects"

    async def _of_ledger(self) -> AsyncIterator[str]:
        async with self.crowd.house.api.units.enter(self.crowd.tenant, None, write=False) as unit:
            keys = await self.crowd.house.api.keys.public_keys("coffer-audit")
            for problem in (await verify(unit, keys)).problems:
                yield problem

    async def _left_behind(self) -> AsyncIterator[str]:
        """Objects of backups that are not there, and what killed processes left half-written."""
        query = "SELECT id FROM backups WHERE tenant_id = $1 AND state = 'VERIFIED'"
        live = {str(row["id"]) for row in await self.superuser.fetch(query, self.crowd.tenant)}
        for path in self._objects():
            if path.name.endswith(PART):
                yield f"{path} is half-written"
            elif path.parent.name not in {*live, "keys"}:
                yield f"{path} is of no backup"

    def _objects(self) -> Iterator[Path]:
        for folder in self.stores:
            yield from (path for path in (folder / str(self.crowd.tenant)).rglob("*") if path.is_file())


# Those who are in a backup that counts, and had their secret before the newest key file was asked for.
_LIVING = """
    SELECT s.id FROM subjects s JOIN customers c ON (c.tenant_id, c.id) = (s.tenant_id, s.id)
    WHERE s.tenant_id = $1 AND c.created_at < (
        SELECT max(created_at) FROM backups WHERE tenant_id = $1 AND state = 'VERIFIED')
"""
