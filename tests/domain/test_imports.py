"""Imports: each row of a file becomes a customer or is refused with a reason, once, under the rights of now."""

import asyncio
import csv
import io
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select

from domain import customers, imports
from domain.customers import CustomerView
from domain.errors import Forbidden, Refused
from domain.imports import IMPORT, Column, ImportRow
from domain.paging import Window
from jobs import imports as handlers
from jobs.handling import Handling
from tenants import members
from tenants.access import Role
from tenants.jobs import Job, JobId, JobState, job_acts
from tenants.jobs.ledger import Ledger
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId
from tests.house import House

LEGISLATORS = Path(__file__).parents[2] / "examples" / "legislators.csv"
COLUMNS = [
    Column("Bioguide Id", "external_id"),
    Column("First Name", "given_name"),
    Column("Last Name", "family_name"),
    Column("Official Name", "display_name"),
    Column("Birthday", "birth_date"),
    Column("Phone", "phones"),
    Column("Office Address", "address_lines"),
    Column("State", "region"),
]


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


async def someone(house: House, role: Role, tenant: str = "acme") -> Credential:
    """A new member, so that a test may change its roles."""
    async with house.api.units.enter(house.tenants[tenant].id, None, write=True) as unit:
        email = f"{uuid4().hex}@example.org"
        made = await members.add(unit, email=email, name="Importer", password_hash="-", roles=[role])
    return Credential(house.tenants[tenant].id, MemberId(made))


async def become(superuser: asyncpg.Connection, who: Credential, role: Role) -> None:
    await superuser.execute("UPDATE member_roles SET role = $1 WHERE member_id = $2", role.value, who.principal)


async def start(house: House, who: Credential, text: str, columns: Sequence[Column]) -> JobId:
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        return await imports.start(unit, columns, text)


async def run(house: House, who: Credential, job: JobId) -> None:
    ledger = Ledger(house.api.database, house.api.platform, "test")
    handling = Handling(house.api.units, ledger, {IMPORT: handlers.import_customers})
    assert await handling.handle(who.tenant, job)


async def seen(house: House, who: Credential, look: Callable[[Unit], Awaitable[Any]]) -> Any:
    async with house.api.units.enter(who.tenant, who.principal, write=False) as unit:
        return await look(unit)


async def job_of(house: House, who: Credential, job: JobId) -> Job:
    found: Job = await seen(house, who, lambda unit: job_acts.get(unit, job))
    return found


async def told(house: House, who: Credential, job: JobId) -> list[Any]:
    page = await seen(house, who, lambda unit: imports.outcomes(unit, job, Window(1000)))
    return list(page.nodes)


async def imported(house: House, who: Credential, text: str, *columns: tuple[str, str]) -> list[Any]:
    job = await start(house, who, text, [Column(header, target) for header, target in columns])
    await run(house, who, job)
    return await told(house, who, job)


async def opened(house: House, who: Credential, made: Sequence[UUID], column: str = "profile") -> list[Any]:
    async with house.api.units.enter(who.tenant, who.principal, write=False) as unit:
        views = await customers.get_many(unit, made, [column])
        return [view.document(column, "to test it") for view in views if view]


def reasons(row: Any) -> list[tuple[str, str]]:
    return [(error["code"], ".".join(error["path"])) for error in row.errors or ()]


async def test_a_whole_file_becomes_customers_of_exactly_its_values(house: House) -> None:
    tenant = await house.add_tenant(f"file-{uuid4().hex[:8]}")
    who = house.members[tenant.slug][Role.MANAGER]
    text = LEGISLATORS.read_text(encoding="utf-8")
    job = await start(house, who, text, COLUMNS)
    await run(house, who, job)
    ended, rows = await job_of(house, who, job), list(csv.DictReader(io.StringIO(text)))
    assert (ended.state, ended.done, ended.total) == (JobState.DONE, 537, 537)
    assert ended.result == {"created": 537, "refused": 0}
    assert await seen(house, who, lambda unit: customers.count(unit, customers.Filter())) == 537
    made = [row.customer_id for row in await told(house, who, job)]
    profiles = await opened(house, who, made)
    assert [p.given_name for p in profiles] == [row["First Name"] for row in rows]
    assert [p.birth_date.isoformat() for p in profiles] == [row["Birthday"] for row in rows]
    assert [len(p.phones) for p in profiles] == [bool(row["Phone"]) for row in rows]
    ids = await opened(house, who, made, "external_id")
    assert [each.external_id for each in ids] == [row["Bioguide Id"] for row in rows]


BAD = """given,email,phone,born,stage,id
Good,good@example.org,,1970-01-01,lead,
Mail,not an address,,,,
Phone,,12,,,
Born,,,31.12.1999,,
Never,,,1999-02-31,,
Stage,,,,best friend,
Two,bad,bad,,,
,,,,,
Once,,,,,{taken}
Twice,,,,,{taken}
Last,,,,,
"""


async def test_a_bad_row_is_refused_with_its_reasons_and_stops_no_other(house: House) -> None:
    who = house.members["acme"][Role.MANAGER]
    columns = [("given", "given_name"), ("email", "emails"), ("phone", "phones"), ("born", "birth_date")]
    columns += [("stage", "stage"), ("id", "external_id")]
    rows = await imported(house, who, BAD.format(taken=uuid4().hex), *columns)
    assert [(row.row, reasons(row)) for row in rows if row.outcome == "REFUSED"] == [
        (2, [("INVALID", "emails.0")]),
        (3, [("INVALID", "phones.0")]),
        (4, [("INVALID", "birthDate")]),
        (5, [("INVALID", "birthDate")]),
        (6, [("INVALID", "stage")]),
        (7, [("INVALID", "emails.0"), ("INVALID", "phones.0")]),
        (8, [("REQUIRED", "")]),
        (10, [("EXTERNAL_ID_TAKEN", "externalId")]),
    ]
    assert [row.row for row in rows if row.outcome == "CREATED" and row.customer_id] == [1, 9, 11]


async def test_a_row_tells_what_is_wrong_before_and_after_reading_it(house: House) -> None:
    who = house.members["acme"][Role.MANAGER]
    (row,) = await imported(house, who, "born,email\nlong ago,not one\n", ("born", "birth_date"), ("email", "emails"))
    assert sorted(reasons(row)) == [("INVALID", "birthDate"), ("INVALID", "emails.0")]


@pytest.mark.parametrize("cell", ["=1+1", "+1-2", "-2+3", "@SUM(A1:A9)", '=HYPERLINK("http://x","y")', "'=1"])
async def test_a_formula_is_kept_exactly(house: House, cell: str) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["name", "note"], [cell, cell]])
    who = house.members["acme"][Role.OWNER]
    (row,) = await imported(house, who, text.getvalue(), ("name", "family_name"), ("note", "note"))
    (profile,), (note,) = [await opened(house, who, [row.customer_id], c) for c in ("profile", "note")]
    assert (profile.family_name, note.note) == (cell, cell)


async def test_lists_come_of_several_columns_and_of_cells_that_are_split(house: House) -> None:
    who = house.members["acme"][Role.OWNER]
    columns = [Column("private", "emails"), Column("work", "emails", "|"), Column("street", "address_lines", "\n")]
    text = 'private,work,street\na@example.org,b@example.org| c@example.org |,"Ink Street 1\nFloor 2"\n,,\n'
    job = await start(house, who, text, [*columns, Column("private", "display_name")])
    await run(house, who, job)
    first, second = await told(house, who, job)
    (profile,) = await opened(house, who, [first.customer_id])
    assert profile.emails == ("a@example.org", "b@example.org", "c@example.org")
    assert profile.address_lines == ("Ink Street 1", "Floor 2")
    assert reasons(second) == [("REQUIRED", "")]


async def test_columns_that_are_not_named_are_not_kept(house: House) -> None:
    who = house.members["acme"][Role.OWNER]
    job = await start(house, who, "name,secret\nAda,Unmapped\n", [Column("name", "given_name")])
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        (row,) = await unit.scalars(select(ImportRow).where(ImportRow.job_id == job))
        await unit.load_subjects([unit.tenant.id])
        assert unit.open_row(row, "cells", "to test it").cells == '{"given_name":"Ada"}'


@pytest.mark.parametrize(
    ("columns", "code", "path"),
    [
        ([], "REQUIRED", ("columns",)),
        ([Column("absent", "given_name")], "UNKNOWN_COLUMN", ("columns", 0, "column")),
        ([Column("a", "note"), Column("b", "note")], "FIELD_TWICE", ("columns", 1, "field")),
        ([Column("twin", "note")], "AMBIGUOUS_COLUMN", ("columns", 0, "column")),
        ([Column("a", "note", ";")], "INVALID", ("columns", 0, "separator")),
        ([Column("a", "emails", "")], "INVALID", ("columns", 0, "separator")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_columns_that_do_not_fit_the_file_are_refused(
    house: House, columns: list[Column], code: str, path: tuple[Any, ...]
) -> None:
    with pytest.raises(Refused) as caught:
        await start(house, house.members["acme"][Role.OWNER], "a,b,twin,twin\n1,2,3,4\n", columns)
    (error,) = caught.value.errors
    assert (error.code, error.path) == (code, path)


@pytest.mark.parametrize(
    ("role", "target"),
    [
        (Role.AGENT, "given_name"),
        (Role.ADMIN, "given_name"),
        (Role.ANALYST, "given_name"),
        (Role.AUDITOR, "given_name"),
        (Role.MANAGER, "government_id"),
        (Role.INTEGRATION, "owner_id"),
    ],
)
async def test_who_may_not_write_a_field_imports_none(
    house: House, superuser: asyncpg.Connection, role: Role, target: str
) -> None:
    who, text = house.members["acme"][role], "a,b\n1,2\n"
    before = await superuser.fetchval("SELECT count(*) FROM import_rows")
    with pytest.raises(Forbidden):
        await start(house, who, text, [Column("a", "note"), Column("b", target)])
    assert await superuser.fetchval("SELECT count(*) FROM import_rows") == before


PEOPLE = "name,id\n" + "".join(f"Person {n},ID-{n:04d}\n" for n in range(12))


@pytest.mark.parametrize(("role", "path"), [(Role.AGENT, ""), (Role.MANAGER, "governmentId")])
async def test_a_right_lost_midway_refuses_the_rows_that_are_left(
    house: House, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, role: Role, path: str
) -> None:
    who = await someone(house, Role.OWNER)
    job = await start(house, who, PEOPLE, [Column("name", "given_name"), Column("id", "government_id")])
    work, steps = imports.work, 0

    async def worked(unit: Unit, job: JobId, after: int) -> tuple[int, int]:
        nonlocal steps
        steps += 1
        tried = await work(unit, job, after, 5)
        if steps == 1:
            await become(superuser, who, role)
        return tried

    monkeypatch.setattr(imports, "work", worked)
    await run(house, who, job)
    rows, ended = await told(house, who, job), await job_of(house, who, job)
    assert [row.outcome for row in rows] == ["CREATED"] * 5 + ["REFUSED"] * 7
    assert [reasons(row) for row in rows[5:]] == [[("FORBIDDEN", path)]] * 7
    assert await superuser.fetchval("SELECT count(cells) FROM import_rows WHERE job_id = $1", job) == 0
    assert (ended.state, ended.done, ended.result) == (JobState.DONE, 12, {"created": 5, "refused": 7})


async def everything(superuser: asyncpg.Connection) -> str:
    tables = await superuser.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    names = [row["tablename"] for row in tables]
    rows = [row[0] for name in names for row in await superuser.fetch(f'SELECT t::text FROM "{name}" t')]
    return "\n".join(rows)


async def test_the_database_holds_no_cell_in_clear_at_any_time(house: House, superuser: asyncpg.Connection) -> None:
    canary = f"canary{uuid4().hex}"
    who, text = house.members["acme"][Role.OWNER], f"a,b,{canary}\n{canary},{canary}@x,1\n{canary},,2\n"
    columns = [Column("a", "given_name"), Column("b", "emails"), Column(canary, "note")]
    job = await start(house, who, text, columns)
    before = await everything(superuser)
    await run(house, who, job)
    after = await everything(superuser)
    assert str(job) in before
    for dump in (before, after):
        assert canary not in dump
        assert canary.encode().hex() not in dump


async def test_a_row_that_was_tried_has_no_cells_any_more(house: House, superuser: asyncpg.Connection) -> None:
    who, count = house.members["acme"][Role.OWNER], "SELECT count(cells) FROM import_rows WHERE job_id = $1"
    job = await start(house, who, "a,b\nAda,\nBad,31.12.1999\n", [Column("a", "note"), Column("b", "birth_date")])
    assert await superuser.fetchval(count, job) == 2
    await run(house, who, job)
    assert await superuser.fetchval(count, job) == 0


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_an_import_that_is_cut_off_in_a_step_goes_on_and_makes_each_customer_once(
    house: House, monkeypatch: pytest.MonkeyPatch, at: int, is_done: bool
) -> None:
    who, source = house.members["acme"][Role.OWNER], uuid4().hex
    text = "name,source\n" + "".join(f"Person {n},{source}\n" for n in range(12))
    job = await start(house, who, text, [Column("name", "given_name"), Column("source", "source")])
    await cut_off(monkeypatch, at, is_done, run(house, who, job))
    before = await job_of(house, who, job)
    await run(house, who, job)
    rows, ended = await told(house, who, job), await job_of(house, who, job)
    assert (before.state, before.done) == (JobState.READY, min(5 * (at - 1), 12))
    assert (ended.state, ended.done, ended.result) == (JobState.DONE, 12, {"created": 12, "refused": 0})
    mine = customers.Filter(source=source)
    assert await seen(house, who, lambda unit: customers.count(unit, mine)) == len({r.customer_id for r in rows}) == 12


async def cut_off(monkeypatch: pytest.MonkeyPatch, at: int, is_done: bool, running: Coroutine[Any, Any, None]) -> None:
    """Cancel the run before or after the work of that step of 5 rows, but before its commit."""
    work, calls, reached = imports.work, itertools.count(1), asyncio.Event()

    async def worked(unit: Unit, job: JobId, after: int) -> tuple[int, int]:
        is_last = next(calls) == at
        tried = (after, 0) if is_last and not is_done else await work(unit, job, after, 5)
        if is_last:
            reached.set()
            await asyncio.Event().wait()
        return tried

    monkeypatch.setattr(imports, "work", worked)
    task = asyncio.create_task(running)
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_import_keeps_what_it_made_and_makes_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = house.members["acme"][Role.OWNER]
    job = await start(house, who, PEOPLE, [Column("name", "given_name")])
    work = imports.work

    async def worked(unit: Unit, job: JobId, after: int) -> tuple[int, int]:
        async with house.api.units.enter(who.tenant, who.principal, write=True) as another:
            await job_acts.cancel(another, job)
        return await work(unit, job, after, 5)

    monkeypatch.setattr(imports, "work", worked)
    await run(house, who, job)
    ended, outcomes = await job_of(house, who, job), [row.outcome for row in await told(house, who, job)]
    assert (ended.state, ended.done, outcomes) == (JobState.CANCELLED, 5, ["CREATED"] * 5 + [None] * 7)


async def test_the_next_import_forgets_the_cells_of_cancelled_ones(house: House, superuser: asyncpg.Connection) -> None:
    who, stranger = house.members["acme"][Role.OWNER], house.members["globex"][Role.OWNER]
    cancelled, waiting = [await start(house, who, PEOPLE, [Column("name", "note")]) for _ in range(2)]
    elsewhere = await start(house, stranger, PEOPLE, [Column("name", "note")])
    ended = "UPDATE jobs SET state = 'CANCELLED', ended_at = now() WHERE id = ANY($1)"
    await superuser.execute(ended, [cancelled, elsewhere])
    await start(house, who, PEOPLE, [Column("name", "note")])
    rows, asked = "SELECT count(*), count(cells) FROM import_rows WHERE job_id = $1", (cancelled, waiting, elsewhere)
    left = [tuple(row) for job in asked for row in await superuser.fetch(rows, job)]
    assert left == [(12, 0), (12, 12), (12, 12)]


async def test_another_tenants_import_has_no_rows_here(house: House) -> None:
    who, stranger = house.members["acme"][Role.OWNER], house.members["globex"][Role.OWNER]
    job = await start(house, who, PEOPLE, [Column("name", "given_name")])
    async with house.api.units.enter(stranger.tenant, stranger.principal, write=True) as unit:
        assert await imports.work(unit, job, 0) == (0, 0)
        assert await imports.summary(unit, job) == imports.Summary(0, 0)
    assert await told(house, stranger, job) == []
    assert [row.outcome for row in await told(house, who, job)] == [None] * 12


async def test_that_an_import_was_started_stands_in_the_audit_log(house: House, superuser: asyncpg.Connection) -> None:
    who = house.members["acme"][Role.MANAGER]
    job = await start(house, who, PEOPLE, [Column("name", "given_name"), Column("id", "city")])
    (entry,) = await superuser.fetch("SELECT * FROM audit_entries WHERE subjects = $1", [job])
    assert (entry["action"], entry["actor"], entry["outcome"]) == ("import.started", who.principal, "OK")
    assert (entry["fields"], entry["details"]) == (["address.city", "givenName"], '{"rows": 12}')


async def test_opening_cells_is_recorded_with_its_reason(house: House) -> None:
    who = house.members["acme"][Role.OWNER]
    job = await start(house, who, PEOPLE, [Column("name", "given_name")])
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        await imports.work(unit, job, 0)
        (opening,) = [each for each in unit.openings if each.place == "import_rows.cells"]
    assert (opening.count, opening.why) == (12, "to make customers of a file's rows")


async def test_a_customer_of_an_import_is_its_starters(house: House) -> None:
    who = house.members["acme"][Role.MANAGER]
    (row,) = await imported(house, who, "name\nAda\n", ("name", "given_name"))
    (view,) = await seen(house, who, lambda unit: customers.get_many(unit, [row.customer_id]))
    assert isinstance(view, CustomerView)
    assert view.owner_id == who.principal
