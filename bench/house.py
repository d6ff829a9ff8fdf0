"""A loaded Coffer kept in a folder: Postgres, OpenBao, tenants with three members each, sealed customers."""

import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import UUID

import asyncpg
from sqlalchemy import update

import settings as configuration
from api.app import Api
from bench.cores import SERVER_CORE, on_core
from bench.people import person
from crypto.transit import TransitKeys
from domain import customers
from domain.errors import Refused
from local.openbao import Credentials, OpenBao, configure, openbao
from local.postgres import Postgres, create_roles_and_database, postgres
from migrations.apply import upgrade_async
from settings import Mode, Settings
from tenants import members
from tenants.access import BUILT_IN, Grants, Level, Permission, Role, RoleSpec
from tenants.ids import new_id
from tenants.provisioning import Provisioning
from tenants.roles import MemberOwnRole, OwnRole
from tenants.tenants import tenants
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId, TenantId

TENANTS = 20
DATABASE = "coffer_bench"
_VERSIONS = Path(__file__).parent.parent / "migrations" / "versions"
_LOADED = "loaded.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A tenant by its ids, as they are kept in the folder.

    `keeper` sees every other customer in plain, because it is its owner, and all the rest masked.
    """

    tenant: str
    manager: str
    agent: str
    keeper: str

    def credential(self, member: str) -> Credential:
        return Credential(TenantId(UUID(self.tenant)), MemberId(UUID(member)))


@dataclass(frozen=True, slots=True)
class House:
    """`tenants` hold `rows_each` customers each; `spare` is one more, which the bench creates customers in."""

    settings: Settings
    tenants: list[Loaded]
    spare: Loaded
    rows_each: int


@asynccontextmanager
async def house(folder: Path, rows: int) -> AsyncIterator[House]:
    """Loaded on the first use of `folder` with that many rows; a change of the migrations or of this loads anew."""
    made_by = [*sorted(_VERSIONS.glob("*.py")), Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_by))
    kept = folder / f"{rows}-{digest.hexdigest()[:8]}"
    if not (kept / _LOADED).exists():
        _forget_stale(folder, rows)
    with _services(kept) as (server, bao, credentials):
        create_roles_and_database(server, DATABASE)
        chosen = _settings(server, bao, credentials, kept)
        assert chosen.owner_database_url is not None
        await upgrade_async(chosen.owner_database_url)
        if not (kept / _LOADED).exists():
            with on_core(SERVER_CORE):
                loaded = await _load(chosen, max(rows // TENANTS, 1))
            await _settle(server)
            (kept / _LOADED).write_text(json.dumps([asdict(each) for each in loaded]))
        *tenants, spare = [Loaded(**each) for each in json.loads((kept / _LOADED).read_text())]
        yield House(chosen, tenants, spare, max(rows // TENANTS, 1))


def _forget_stale(folder: Path, rows: int) -> None:
    """What other migrations made, or a loading that was cut off."""
    for stale in folder.glob(f"{rows}-*"):
        shutil.rmtree(stale)


@contextmanager
def _services(folder: Path) -> Iterator[tuple[Postgres, OpenBao, Credentials]]:
    with postgres(folder / "postgres") as server, openbao(folder / "openbao") as bao:
        yield server, bao, configure(bao)


def _settings(server: Postgres, bao: OpenBao, credentials: Credentials, folder: Path) -> Settings:
    def url(role: str) -> str:
        return server.url(role, DATABASE, scheme="postgresql+asyncpg")

    return Settings(
        mode=Mode.PRODUCTION,
        database_url=url("coffer_app"),
        platform_database_url=url("coffer_platform"),
        recorder_database_url=url("coffer_recorder"),
        owner_database_url=url("coffer_owner"),
        vault_address=bao.address,
        vault_ca_file=None,
        transit_mount="transit",
        signing_key="coffer-access",
        api_role=configuration.AppRole(credentials.api.role_id, credentials.api.secret_id),
        provisioner_role=configuration.AppRole(credentials.provisioner.role_id, credentials.provisioner.secret_id),
        rotator_role=configuration.AppRole(credentials.rotator.role_id, credentials.rotator.secret_id),
        issuer="http://127.0.0.1:8000",
        host="127.0.0.1",
        port=8000,
        cors_origins=(),
        pool_size=10,
        key_ttl_seconds=3600,
        log_level="WARNING",
        rate_percent=10_000,  # counted, but never reached
        audit_store=f"file://{folder / 'audit'}",
    )


async def _load(chosen: Settings, rows_each: int) -> list[Loaded]:
    api, role = Api(chosen), chosen.provisioner_role
    assert role is not None
    maker = TransitKeys(chosen.vault_address, role.role_id, role.secret_id)
    provisioning = Provisioning(api.platform, api.database, maker, api.keys)
    started, loaded = time.monotonic(), []
    try:
        for number in range(TENANTS + 1):
            tenant = await _tenant(api, provisioning, f"bench-{number}")
            loaded.append(tenant)
            if number < TENANTS:
                await _customers(api, tenant, range(number * rows_each, (number + 1) * rows_each))
                done, seconds = (number + 1) * rows_each, time.monotonic() - started
                print(f"loaded {done:,} of {rows_each * TENANTS:,} customers in {seconds:.0f} s", flush=True)
    finally:
        await maker.close()
        await api.close()
    return loaded


async def _tenant(api: Api, provisioning: Provisioning, slug: str) -> Loaded:
    tenant = await provisioning.provision(slug, slug.title(), region="US")
    made = []
    async with api.units.enter(TenantId(tenant.id), None, write=True) as unit:
        mine = update(tenants).where(tenants.c.id == tenant.id)
        await unit.run(mine.values(disclosure_budget=2_000_000_000))  # counted, but never reached
        for role in (Role.MANAGER, Role.AGENT):
            name = role.value.lower()
            email, nobodys = f"{name}@example.org", "-"  # tokens are issued here, not earned by signing in
            made.append(await members.add(unit, email=email, name=name, password_hash=nobodys, roles=[role]))
        made.append(await members.add(unit, email="keeper@example.org", name="keeper", password_hash=nobodys, roles=[]))
        await _give_role(unit, made[-1])
    return Loaded(str(tenant.id), *map(str, made))


async def _give_role(unit: Unit, member: MemberId) -> None:
    """PLAIN for the owner of the customer, else MASKED, of all that a manager sees in plain."""
    seen = [each for each, level in BUILT_IN[Role.MANAGER].levels.items() if level is Level.PLAIN]
    masked, plain = [Grants(levels=dict.fromkeys(seen, level)) for level in (Level.MASKED, Level.PLAIN)]
    spec = RoleSpec(replace(masked, permissions=frozenset({Permission.CUSTOMERS_READ})), own=plain)
    named = {"name": "keeper", "description": "", "spec": spec.dump()}
    role = OwnRole(tenant_id=unit.tenant.id, id=new_id(), **named, version=1, created_at=unit.now, updated_at=unit.now)
    unit.add(role)
    await unit.flush()
    unit.add(MemberOwnRole(tenant_id=unit.tenant.id, member_id=member, role_id=role.id))


async def _customers(api: Api, tenant: Loaded, numbers: range) -> None:
    step = customers.MOST_AT_ONCE
    for start in range(numbers.start, numbers.stop, step):
        batch = [
            person(number) | {"owner_id": UUID(tenant.keeper) if number % 2 else None}
            for number in range(start, min(start + step, numbers.stop))
        ]
        async with api.units.enter(TenantId(UUID(tenant.tenant)), None, write=True) as unit:
            for outcome in await customers.create_many(unit, batch):
                if isinstance(outcome, Refused):
                    raise AssertionError(f"a made-up person was refused: {outcome.errors}")


async def _settle(server: Postgres) -> None:
    """So that the first measurement doesn't pay for the loading."""
    connection = await asyncpg.connect(server.url("postgres", DATABASE))
    try:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
