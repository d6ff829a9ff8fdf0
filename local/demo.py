"""Coffer on one machine: its own Postgres and OpenBao in one folder, two tenants, and who sees what of them."""

import asyncio
import os
import secrets
import shlex
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from sqlalchemy.exc import SQLAlchemyError

from api.app import Api
from api.server import Server
from crypto.errors import CannotOpen, KeyRefused
from crypto.transit import TransitKeys
from domain import imports, jobs
from domain.paging import Window
from jobs.worker import beside
from local import people
from local.errors import LocalServiceError
from local.openbao import Credentials, OpenBao, configure, openbao
from local.postgres import Postgres, create_roles_and_database, postgres
from migrations.apply import upgrade
from settings import AppRole, Mode, Settings
from telemetry import logs
from tenants import members
from tenants.access import Role
from tenants.jobs import ENDED, JobId, JobState, job_acts
from tenants.provisioning import Provisioning
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import MemberId, TenantId

DATABASE = "coffer"

_LOOK = 0.02  # seconds between two looks at a job
_SHOWN = (Role.AGENT, Role.MANAGER, Role.AUDITOR)
_SIGN_IN = "mutation($tenant: String!, $email: String!, $password: String!) { signIn(tenant: $tenant, email: $email, password: $password) { accessToken } }"  # noqa: E501  # one document
_COPYABLE = 'mutation {{ signIn(tenant: "{tenant}", email: "{email}", password: "{password}") {{ accessToken }} }}'
_CUSTOMERS = """{ customers(first: 3, sort: { field: CREATED_AT, direction: ASC }) { nodes {
    displayName emails phones birthDate birthYear note externalId region address { lines city postalCode country }
} } }"""
_GOODBYE = 3  # seconds that requests get to end in


@dataclass(frozen=True, slots=True)
class _House:
    slug: str
    name: str
    region: str
    customers: Sequence[dict[str, Any]]


def run(folder: Path, listener: socket.socket, console: Console, *, once: bool) -> None:
    """Start, fill, show; then serve on `listener` until Ctrl-C, or end if `once`. All that was started is stopped.

    Raises `LocalServiceError` and `CofferError`, each a sentence; `KeyboardInterrupt` where it was cut off before it
    served. What was loaded by then stays, and the next start loads the rest.
    """
    logs.configure("WARNING")
    folder = folder.resolve()
    with _signals_as_interrupts(), ExitStack() as stack:
        with _told(console, "Postgres"):
            server = stack.enter_context(postgres(folder / "postgres"))
        with _told(console, "OpenBao"):
            bao = stack.enter_context(openbao(folder / "openbao"))
        with _explained(folder):
            with _told(console, "Roles, policies and tables"):
                settings = _prepared(server, bao, listener, folder)
            asyncio.run(_work_and_serve(settings, _password(folder), listener, console, once=once))


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and a closed terminal end us as Ctrl-C does, in good order, and nothing stays behind.

    SIGINT is set as well: a shell starts its background jobs with it ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)  # by way of SIGINT, which asyncio turns into a cancelled task

    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _told(console: Console, what: str) -> Iterator[None]:
    began = time.monotonic()
    with console.status(f"{what} …"):
        yield
    console.print(f"{what}: ready after {time.monotonic() - began:.1f} s", highlight=False)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    advice = f"move {folder} away and start again."
    try:
        yield
    except (KeyRefused, CannotOpen) as cause:
        raise LocalServiceError(f"The keys and the data in {folder} don't belong together; {advice}") from cause
    except SQLAlchemyError as cause:
        raise LocalServiceError(f"The database in {folder} is damaged; {advice}") from cause


def _prepared(server: Postgres, bao: OpenBao, listener: socket.socket, folder: Path) -> Settings:
    create_roles_and_database(server, DATABASE)
    settings = _settings(server, bao.address, configure(bao), listener.getsockname(), folder)
    _write_environment(settings, folder / "env")
    upgrade(server.url("coffer_owner", DATABASE, scheme="postgresql+asyncpg"))
    return settings


def _settings(
    server: Postgres, vault: str, credentials: Credentials, address: tuple[str, int], folder: Path
) -> Settings:
    urls = {
        role: server.url(f"coffer_{role}", DATABASE, scheme="postgresql+asyncpg")
        for role in ("app", "platform", "recorder", "owner")
    }
    host, port = address[:2]
    return Settings(
        mode=Mode.DEVELOPMENT,
        database_url=urls["app"],
        platform_database_url=urls["platform"],
        recorder_database_url=urls["recorder"],
        owner_database_url=urls["owner"],
        vault_address=vault,
        vault_ca_file=None,
        transit_mount="transit",
        signing_key="coffer-access",
        api_role=AppRole(credentials.api.role_id, credentials.api.secret_id),
        provisioner_role=AppRole(credentials.provisioner.role_id, credentials.provisioner.secret_id),
        rotator_role=AppRole(credentials.rotator.role_id, credentials.rotator.secret_id),
        backup_role=AppRole(credentials.backup.role_id, credentials.backup.secret_id),
        backup_stores=_backup_folders(folder),
        issuer=f"http://{host}:{port}",
        host=host,
        port=port,
        cors_origins=(),
        pool_size=10,
        key_ttl_seconds=300,
        log_level="WARNING",
        audit_store=f"file://{folder / 'audit'}",
    )


def _backup_folders(folder: Path) -> tuple[str, ...]:
    """Six stores on one disk keep nothing safe; they show how it works."""
    folders = [folder / "backups" / str(n) for n in range(6)]
    for each in folders:
        each.mkdir(parents=True, exist_ok=True)
    return tuple(f"file://{each}" for each in folders)


def _write_environment(settings: Settings, path: Path) -> None:
    """For a shell that wants the `coffer` command beside the demo; only its owner may read it."""
    told = {
        "COFFER_ENV": settings.mode,
        "COFFER_DATABASE_URL": settings.database_url,
        "COFFER_PLATFORM_DATABASE_URL": settings.platform_database_url,
        "COFFER_RECORDER_DATABASE_URL": settings.recorder_database_url,
        "COFFER_OWNER_DATABASE_URL": settings.owner_database_url,
        "COFFER_VAULT_ADDR": settings.vault_address,
        "COFFER_VAULT_API_ROLE_ID": settings.api_role.role_id,
        "COFFER_VAULT_API_SECRET_ID": settings.api_role.secret_id,
        "COFFER_VAULT_PROVISIONER_ROLE_ID": settings.provisioner_role and settings.provisioner_role.role_id,
        "COFFER_VAULT_PROVISIONER_SECRET_ID": settings.provisioner_role and settings.provisioner_role.secret_id,
        "COFFER_VAULT_ROTATOR_ROLE_ID": settings.rotator_role and settings.rotator_role.role_id,
        "COFFER_VAULT_ROTATOR_SECRET_ID": settings.rotator_role and settings.rotator_role.secret_id,
        "COFFER_VAULT_BACKUP_ROLE_ID": settings.backup_role and settings.backup_role.role_id,
        "COFFER_VAULT_BACKUP_SECRET_ID": settings.backup_role and settings.backup_role.secret_id,
        "COFFER_BACKUP_STORES": ",".join(settings.backup_stores),
        "COFFER_ISSUER": settings.issuer,
        "COFFER_AUDIT_STORE": settings.audit_store,
    }
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"export {name}={shlex.quote(str(value))}\n" for name, value in told.items())


def _password(folder: Path) -> str:
    """One for all members of the demo, made on the first start: complete or absent, and never readable by others."""
    kept, unfinished = folder / "password", folder / "password.unfinished"
    try:
        if not kept.exists():
            unfinished.unlink(missing_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(8))
            unfinished.rename(kept)
        return kept.read_text().strip()
    except OSError as cause:
        raise LocalServiceError(f"{kept} can't be used; make it writable for this user, then start again.") from cause


async def _work_and_serve(
    settings: Settings, password: str, listener: socket.socket, console: Console, *, once: bool
) -> None:
    """A worker runs meanwhile, in this process."""
    async with beside(settings) as ring:
        await _show_and_serve(Api(settings, ring), password, listener, console, once=once)


async def _show_and_serve(api: Api, password: str, listener: socket.socket, console: Console, *, once: bool) -> None:
    houses = (
        _House("capitol", "Capitol CRM", "US", people.legislators()),
        _House("voyager", "Voyager Travel", "GB", people.travellers()),
    )
    try:
        await api.check()
        await _fill(api, houses, password, console)
        async with _served(api, listener) as serving:
            try:
                await _show(api.settings.issuer, houses, password, console)
            except httpx.HTTPError as cause:
                if not serving.done():
                    raise LocalServiceError("The demo's own requests got no answer; start it again.") from cause
            if not once:
                console.print(
                    "\nThe command beside it: set -a; . .coffer/env; set +a; .venv/bin/coffer --help", highlight=False
                )
                console.print("Ctrl-C stops it.", style="bold")
                with suppress(asyncio.CancelledError):  # Ctrl-C: the way in which this is meant to end
                    await serving
    finally:
        await api.close()


async def _fill(api: Api, houses: Sequence[_House], password: str, console: Console) -> None:
    role = api.settings.provisioner_role
    assert role is not None  # noqa: S101  # _settings gave one
    maker = TransitKeys(api.settings.vault_address, role.role_id, role.secret_id)
    provisioning = Provisioning(api.platform, api.database, maker, api.keys)
    hashed = await api.passwords.hash(password)
    try:
        for house in houses:
            tenant = await provisioning.provision(house.slug, house.name, region=house.region)
            async with api.units.enter(tenant.id, None, write=True) as unit:
                await _add_members(unit, house.slug, hashed)
            loaded = await _load(api.units, tenant.id, house, console)
            total = len(house.customers)
            console.print(f"{house.name}: {total} customers, {loaded} of them loaded now", highlight=False)
    finally:
        await maker.close()


async def _add_members(unit: Unit, slug: str, hashed: str) -> None:
    for role in Role:
        email = _email(role, slug)
        if await members.find_by_email(unit, email) is None:
            await members.add(unit, email=email, name=role.value.title(), password_hash=hashed, roles=[role])


async def _load(units: Units, tenant: TenantId, house: _House, console: Console) -> int:
    """How many customers this start made; an import that an earlier one began goes on where that was cut off."""
    async with units.enter(tenant, None, write=False) as unit:
        owner = await members.find_by_email(unit, _email(Role.OWNER, house.slug))
    assert owner is not None  # noqa: S101  # added just now
    async with units.enter(tenant, MemberId(owner.id), write=True) as unit:
        begun = (await jobs.page(unit, Window(1, is_last=True), kind=[imports.IMPORT.name])).nodes
        job = begun[0].id if begun else await imports.start(unit, *people.as_file(house.customers))
    return await _watch(units, tenant, job, house, console)


async def _watch(units: Units, tenant: TenantId, job: UUID, house: _House, console: Console) -> int:
    before: int | None = None
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(house.name, total=len(house.customers))
        while True:
            async with units.enter(tenant, None, write=False) as unit:
                found, made = await job_acts.get(unit, job), (await imports.summary(unit, JobId(job))).created
            before = made if before is None else before
            progress.update(task, completed=found.done)
            if found.state in ENDED or found.state == JobState.PAUSED:
                return made - before
            await asyncio.sleep(_LOOK)


@asynccontextmanager
async def _served(api: Api, listener: socket.socket) -> AsyncIterator["asyncio.Task[None]"]:
    server = Server(api, goodbye=_GOODBYE)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn has a flag, no event
            await asyncio.sleep(0.01)
        yield serving
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await serving


async def _show(url: str, houses: Sequence[_House], password: str, console: Console) -> None:
    console.print(f"\nGraphiQL: {url}/", style="bold", highlight=False)
    console.print("\nSign in as any of these; paste one line into GraphiQL:")
    for house in houses:
        for role in Role:
            line = _COPYABLE.format(tenant=house.slug, email=_email(role, house.slug), password=password)
            console.print(line, soft_wrap=True, markup=False, highlight=False)  # never broken: it is to be copied
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        answers = [await _customers_as(client, houses[0].slug, role, password) for role in _SHOWN]
    console.print()
    console.print(_table(f"The same customers of {houses[0].name}, as GraphQL gives them to", answers))


async def _customers_as(client: httpx.AsyncClient, slug: str, role: Role, password: str) -> list[dict[str, Any]]:
    who = {"tenant": slug, "email": _email(role, slug), "password": password}
    token = (await _ask(client, _SIGN_IN, who, {}))["signIn"]["accessToken"]
    if token is None:
        raise LocalServiceError(
            "The kept password is not the members'; move the demo's folder away and start again, or wait a while."
        )
    answer = await _ask(client, _CUSTOMERS, {}, {"authorization": f"Bearer {token}"})
    nodes: list[dict[str, Any]] = answer["customers"]["nodes"]
    return nodes


async def _ask(
    client: httpx.AsyncClient, document: str, variables: dict[str, Any], headers: dict[str, str]
) -> dict[str, Any]:
    sent = {"query": document, "variables": variables}
    answer = (await client.post("/graphql", json=sent, headers=headers)).json()
    if answer.get("errors"):
        raise LocalServiceError(f"The API refused the demo's own request: {answer['errors'][0]['message']}")
    data: dict[str, Any] = answer["data"]
    return data


def _table(title: str, answers: Sequence[list[dict[str, Any]]]) -> Table:
    columns = [Column(role.value, overflow="fold") for role in _SHOWN]  # a shortened value would look masked
    table = Table("field", *columns, title=title, caption="–: hidden, or there is none")
    for customer in zip(*answers, strict=True):
        flat = [_flattened(seen) for seen in customer]
        for name in flat[0]:
            table.add_row(name, *(_text(seen[name]) for seen in flat))
        table.add_section()
    return table


def _flattened(seen: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in seen.items() if name != "address"}
    return rest | {f"address.{name}": value for name, value in seen["address"].items()}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "–"
    return "–" if value is None else str(value)


def _email(role: Role, slug: str) -> str:
    return f"{role.value.lower()}@{slug}.example.org"
