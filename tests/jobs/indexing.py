"""A tenant whose index key turns over: customers that change at random, members who sign in, and a job to be led."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID, uuid4

from crypto.errors import CofferError
from domain import customers
from domain.customers.tokens import tokens_of as customer_tokens_of
from domain.errors import Refused
from domain.indexes import INDEXES
from domain.name_search import matches_prefix
from domain.paging import Window
from jobs.rotations import bik
from jobs.rotations.bik import At, rotate_bik_by
from tenants import members
from tenants.access import Role
from tenants.jobs import JobId, JobState
from tenants.keys import rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import Cause, KeyPurpose, Rotation
from tenants.signing_in import vouching
from tenants.signing_in.sign_on import SignOnProvider
from tenants.signing_in.vouching import Vouched
from tenants.unit import Unit
from tenants.viewers import MemberId, TenantId
from tests.house import House
from tests.jobs.desk import Desk

BIK = KeyPurpose.BIK
WHY = "to compare it in a test"
POOL: dict[str, list[Any]] = {
    "given_name": ["Anna", "Annette", "Ulla", "Li", "王芳", None],
    "family_name": ["Müller", "Munoz", "Anders", None],
    "emails": [("a@example.org",), ("b@example.org", "c@example.org"), ("c@example.org",), ()],
    "phones": [("+4915112345678",), ("+12025550123",), ()],
    "government_id": ["AB123456", "CD999999", None],
    "external_id": ["X-100001", "X-100002", "X-100003", "X-100004", None],
}
QUERIES = {
    "name_prefix": ["Ann", "Annette", "Mül", "Li", "王", "And"],
    "email": ["a@example.org", "b@example.org", "c@example.org"],
    "phone": ["+4915112345678", "+12025550123"],
    "government_id": ["AB123456", "CD999999"],
    "external_id": ["X-100001", "X-100002", "X-100003", "X-100004"],
}
COUNT = 7
VOUCHED = Vouched("https://issuer.example.org", "subject-1")
Before = Callable[[At], Awaitable[None]]


class Between:
    """What a test does before each move of the job; it raises CancelledError to cut the job off."""

    def __init__(self) -> None:
        self.before: Before | None = None
        self.seen: list[At] = []
        self.failed: BaseException | None = None

    async def __call__(self, at: At) -> None:
        self.seen.append(at)
        if self.before is not None:
            try:
                await self.before(at)
            except Exception as error:
                self.failed = self.failed or error  # a job's failure is tried again, a test's is told
                raise

    @property
    def states(self) -> list[str]:
        return list(dict.fromkeys(at.state for at in self.seen))


@dataclass
class Turning:
    desk: Desk
    slug: str
    tenant: TenantId
    between: Between
    provider: SignOnProvider
    member: MemberId
    chance: Random = field(default_factory=lambda: Random(7))  # noqa: S311

    @classmethod
    async def opened(cls, desk: Desk, between: Between) -> "Turning":
        slug = f"turning-{uuid4().hex[:12]}"
        tenant = (await desk.house.add_tenant(slug)).id
        provider = await _provider(desk, tenant)
        async with desk.units.enter(tenant, None, write=True) as unit:
            linked = await vouching.admit(unit, provider, VOUCHED)
        made = cls(desk, slug, tenant, between, provider, linked.member)
        for _ in range(COUNT):
            while not await made.create():
                pass  # the external id was taken
        return made

    @property
    def house(self) -> House:
        return self.desk.house

    def unit(self, *, write: bool = True, fences: bool = False) -> Any:
        return self.desk.units.enter(self.tenant, None, write=write, fences=fences)

    async def begin(self) -> tuple[UUID, JobId]:
        """The rotation and its job."""
        async with self.unit() as unit:
            rotation = await rotating.begin(unit, BIK, Cause.ASKED)
            found = await rotating.find(unit, rotation)
            assert found.job_id is not None
            return rotation, JobId(found.job_id)

    async def lead(self, job: JobId) -> str:
        """The job's state after one try, which may be cut off."""
        await self.desk.set(job, "due_at = now()")
        handling = self.desk.handling()
        handler = rotate_bik_by(self.house.api.keys, self.house.provisioning._maker)
        handling._handlers = {ROTATE[BIK].name: (ROTATE[BIK], handler)}
        try:
            assert await handling.handle(self.tenant, job)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            assert current is not None
            current.uncancel()
        if self.between.failed is not None:
            raise self.between.failed
        return str((await self.desk.job(job))["state"])

    async def finish(self, job: JobId) -> None:
        """Led again and again, as a sweeper would while the tenant's writers are in the way of a fence."""
        for _ in range(50):
            state = await self.lead(job)
            if state != JobState.READY:
                break
        assert state == JobState.DONE, (await self.desk.job(job))["reason"]

    async def rotation(self, rotation: UUID) -> Rotation:
        async with self.unit(write=False) as unit:
            return await rotating.find(unit, rotation)

    async def rotate(self) -> Rotation:
        rotation, job = await self.begin()
        await self.finish(job)
        return await self.rotation(rotation)

    async def keys(self) -> dict[int, str]:
        """The state of each index key by its version."""
        rows = await self.desk.superuser.fetch(
            "SELECT version, state FROM data_keys WHERE tenant_id = $1 AND purpose = 'BIK'", self.tenant
        )
        return {row["version"]: row["state"] for row in rows}

    async def create(self, **values: Any) -> bool:
        """Whether nobody else had the external id."""
        sent = values or {name: self.chance.choice(pool) for name, pool in POOL.items()}
        async with self.unit() as unit:
            made = await customers.create_many(unit, [{"language": "en", **sent}])
        return not isinstance(made[0], Refused)

    async def change(self) -> None:
        """A new customer, or one or two values of one that there is, or none any more."""
        if self.chance.random() < 0.15:
            await self.create()
            return
        names = self.chance.sample(list(POOL), self.chance.randint(1, 2))
        sent = {name: self.chance.choice(POOL[name]) for name in names}
        try:
            owner = self.house.members[self.slug][Role.OWNER].principal
            async with self.desk.units.enter(self.tenant, owner, write=True) as unit:
                chosen = self.chance.choice((await _everybody(unit, [])).nodes)
                await customers.update(unit, chosen.id, chosen.version, sent)
        except Refused as refused:
            assert {error.code for error in refused.errors} <= {"EXTERNAL_ID_TAKEN", "MASKED_INPUT", "STALE_VERSION"}

    async def change_until(self, is_over: asyncio.Event) -> int:
        """How many changes were made beside the job; what a fence keeps out comes back, as clients do."""
        changes = 0
        while not is_over.is_set():
            try:
                await self.change()
            except CofferError as error:
                assert error.retryable, error.code
            changes += 1
            await asyncio.sleep(0.001)
        return changes

    async def check_search(self) -> None:
        """In one snapshot every search finds what a scan of all opened values finds."""
        async with self.unit(write=False) as unit:
            everybody = (await _everybody(unit)).nodes
            for by, queries in QUERIES.items():
                for query in queries:
                    found = await customers.find(unit, by, query, Window(1000))
                    expected = {each.id for each in everybody if _has(each, by, query)}
                    assert {each.id for each in found.nodes} == expected, (by, query)

    async def check_sign_in(self) -> None:
        """An e-mail and a provider's word find whom they mean."""
        async with self.unit(write=False) as unit:
            owner = await members.find_by_email(unit, f"owner@{self.slug}.example.org")
            linked = await vouching.find_member(unit, self.provider, VOUCHED)
        assert owner is not None
        assert linked == self.member

    async def check_tokens(self) -> None:
        """The tables of tokens hold those of the values, by the index keys that writers write, and no others."""
        async with self.unit(write=False) as unit:
            versions = set(unit.keyring.index_versions())
            expected = await _expected(unit)
        kept = await self.desk.superuser.fetch(
            "SELECT index, token, customer_id, bik_version FROM customer_tokens WHERE tenant_id = $1", self.tenant
        )
        assert sorted(tuple(row.values()) for row in kept) == sorted(expected)
        for index in INDEXES:
            found = await self.desk.superuser.fetch(
                f"SELECT bik_version, count(*) FROM {index.tokens.__tablename__} WHERE tenant_id = $1 GROUP BY 1",
                self.tenant,
            )
            assert {row["bik_version"] for row in found} == versions, index.name
            assert len({row["count"] for row in found}) == 1, index.name

    async def check(self) -> None:
        await self.check_search()
        await self.check_sign_in()


async def _everybody(unit: Unit, documents: Any = tuple(customers.DOCUMENTS)) -> Any:
    return await customers.page(unit, customers.Filter(), customers.Order(), Window(1000), documents)


async def _expected(unit: Unit) -> list[tuple[Any, ...]]:
    everybody = (await _everybody(unit)).nodes
    rows: list[tuple[Any, ...]] = []
    for each in everybody:
        documents = {name: each.document(name, WHY) or made() for name, made in customers.DOCUMENTS.items()}
        tokens = customer_tokens_of(unit, each.id, customers.FIELDS, documents)
        rows += [(row["index"], row["token"], row["customer_id"], row["bik_version"]) for row in tokens]
    return rows


def _has(view: customers.CustomerView, by: str, query: str) -> bool:
    """By its own reading of the values, without an index."""
    values: list[str] = []
    for name in customers.SEARCHES.get(by, (by,)):
        value = getattr(view.document(customers.COLUMN_OF[name], WHY), name, None)
        values += value if isinstance(value, tuple) else [value] if value else []
    return any(matches_prefix(value, query) if by == "name_prefix" else value == query for value in values)


async def _provider(desk: Desk, tenant: TenantId) -> SignOnProvider:
    async with desk.units.enter(tenant, None, write=True) as unit:
        provider = SignOnProvider(
            tenant_id=tenant,
            id=uuid4(),
            name="Provider",
            issuer=VOUCHED.issuer,
            client_id="coffer",
            access_tokens="NONE",  # a mode
            scopes=[],
            role_map=[],
            default_roles=["AGENT"],
            default_own_roles=[],
            is_enabled=True,
            created_at=unit.now,
            updated_at=unit.now,
        )
        unit.add(provider)
        await unit.flush()
        return provider


def watch(monkeypatch: Any) -> Between:
    """Pages are so small that there are many."""
    between, move_on = Between(), bik._move_on

    async def moved_on(run: Any, at: At, *keys: Any) -> None:
        await between(at)
        await move_on(run, at, *keys)

    monkeypatch.setattr(bik, "_move_on", moved_on)
    for name in ("FILLED_AT_ONCE", "PROVEN_AT_ONCE", "CLEARED_AT_ONCE"):
        monkeypatch.setattr(bik, name, 6)
    return between
