"""The audit chain links every committed entry once, and whatever is done to it afterwards is found and named."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from crypto import chain
from crypto.cache import KeyringCache
from crypto.errors import KeyUnavailable
from crypto.keys import Purpose
from tenants.audit import checkpoints
from tenants.audit.chains import AuditChains
from tenants.audit.entries import Entry
from tenants.audit.store import CheckpointStore
from tenants.audit.verify import Verdict
from tenants.database import Database
from tenants.errors import ChainBroken, ChainTooLong
from tenants.units import Units
from tests.house import House
from tests.tenants.chained import Chained, act, chained, fetch

SOAK = os.environ.get("COFFER_SOAK") == "1"
AT_ONCE = 100_000 if SOAK else 1_500
WRITERS, LINKERS = 8, 4


@pytest.fixture
async def mine(house: House, tmp_path: Path) -> Chained:
    return await chained(house, tmp_path)


@pytest.fixture
async def linked(mine: Chained) -> tuple[Chained, list[UUID]]:
    """Ten entries, vouched for after the sixth."""
    entries = await mine.enter(6)
    await mine.link()
    await mine.chains.checkpoints.make(mine.tenant)
    entries += await mine.enter(4)
    await mine.link()
    assert await mine.found() is None
    return mine, entries


async def test_a_chain_as_it_was_made_is_intact(linked: tuple[Chained, list[UUID]]) -> None:
    mine, _ = linked
    verdict = await mine.verify()
    assert (verdict.entries, verdict.checkpoints, verdict.copies, verdict.broken) == (10, 1, 1, None)


async def test_another_tenants_chain_is_not_touched_by_a_break(
    linked: tuple[Chained, list[UUID]], house: House
) -> None:
    mine, entries = linked
    other = await chained(house, mine.folder / "other")
    await other.enter(2)
    await other.link()
    await act(house, "DELETE FROM audit_links WHERE entry_id = $1", entries[3])
    assert (await mine.found(), await other.found()) == (("GAP", 4), None)


# What may be done to it, and what is then said. {t} is the tenant, {e[n]} the entry at seq n + 1.

COLUMNS = {
    "at": "at + interval '1 microsecond'",
    "actor": "gen_random_uuid()",
    "action": "'thing.undone'",
    "subject_type": "NULL",
    "subjects": "'{{}}'",
    "fields": "ARRAY['Customer.note', '']",
    "outcome": "'FORBIDDEN'",
    "details": """'{{"records": 0}}'""",
    "purpose": "''",
    "request_id": "NULL",
}
_MOVE_HEAD = (
    "UPDATE audit_heads h SET seq = l.seq, mac = l.mac FROM audit_links l"
    " WHERE h.id = '{t}' AND l.tenant_id = h.id AND l.seq = %d"
)
_CUT = (
    "DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_links WHERE tenant_id = '{t}' AND seq > 4)",
    "DELETE FROM audit_links WHERE tenant_id = '{t}' AND seq > 4",
    _MOVE_HEAD % 4,
)
_MOVE = "UPDATE audit_links SET seq = %d WHERE tenant_id = '{t}' AND seq = %d"
_RENAME = "UPDATE audit_links SET entry_id = '%s' WHERE tenant_id = '{t}' AND entry_id = '%s'"
_NOWHERE = UUID(int=0)
TAMPERED: dict[str, tuple[tuple[str, ...], tuple[str, int]]] = {
    **{
        f"an entry's {column} edited": (
            (f"UPDATE audit_entries SET {column} = {value} WHERE id = '{{e[3]}}'",),
            ("EDIT", 4),
        )
        for column, value in COLUMNS.items()
    },
    "a mac edited": (
        ("UPDATE audit_links SET mac = sha256(mac) WHERE tenant_id = '{t}' AND seq = 4",),
        ("EDIT", 4),
    ),
    "the last mac edited, and the head's with it": (
        ("UPDATE audit_links SET mac = sha256(mac) WHERE tenant_id = '{t}' AND seq = 10", _MOVE_HEAD % 10),
        ("EDIT", 10),
    ),
    "a link's day edited": (
        ("UPDATE audit_links SET day = day + 1 WHERE tenant_id = '{t}' AND seq = 4",),
        ("EDIT", 4),
    ),
    "a link deleted": (("DELETE FROM audit_links WHERE tenant_id = '{t}' AND seq = 4",), ("GAP", 4)),
    "the first link deleted": (("DELETE FROM audit_links WHERE tenant_id = '{t}' AND seq = 1",), ("GAP", 1)),
    "an entry deleted": (("DELETE FROM audit_entries WHERE id = '{e[3]}'",), ("GAP", 4)),
    "an entry deleted with its link": (
        ("DELETE FROM audit_entries WHERE id = '{e[3]}'", "DELETE FROM audit_links WHERE entry_id = '{e[3]}'"),
        ("GAP", 4),
    ),
    "an entry put in later": (
        (
            "INSERT INTO audit_entries (tenant_id, id, xid, at, action, subjects, fields, outcome, details)"
            " SELECT tenant_id, 'ffffffff-ffff-4fff-bfff-ffffffffffff', xid, at, 'thing.done', '{{}}', '{{}}', 'OK',"
            " '{{}}' FROM audit_entries WHERE id = '{e[4]}'",
        ),
        ("GAP", 6),
    ),
    "two links that changed places": (
        (_MOVE % (99, 3), _MOVE % (3, 8), _MOVE % (8, 99)),
        ("REORDER", 3),
    ),
    "two neighbours that changed places": (
        (_MOVE % (99, 4), _MOVE % (4, 5), _MOVE % (5, 99)),
        ("REORDER", 4),
    ),
    "a link moved far away": ((_MOVE % (500, 4),), ("REORDER", 4)),
    "two entries that changed links": (
        (
            _RENAME % (_NOWHERE, "{e[2]}"),
            _RENAME % ("{e[2]}", "{e[7]}"),
            _RENAME % ("{e[7]}", _NOWHERE),
        ),
        ("REORDER", 3),
    ),
    "the last links deleted": (("DELETE FROM audit_links WHERE tenant_id = '{t}' AND seq > 8",), ("TRUNCATED", 9)),
    "the end cut off, and the head moved back": (_CUT, ("TRUNCATED", 5)),
    "the end cut off with head and checkpoints": (
        (*_CUT, "DELETE FROM audit_checkpoints WHERE tenant_id = '{t}'"),
        ("TRUNCATED", 5),
    ),
    "everything deleted": (
        tuple(f"DELETE FROM audit_{name} WHERE tenant_id = '{{t}}'" for name in ("heads", "links", "checkpoints")),
        ("TRUNCATED", 1),
    ),
    "the head deleted": (("DELETE FROM audit_heads WHERE id = '{t}'",), ("TRUNCATED", 11)),
    "the head's mac edited": (("UPDATE audit_heads SET mac = sha256(mac) WHERE id = '{t}'",), ("FORK", 10)),
    "the head moved back alone": ((_MOVE_HEAD % 8,), ("FORK", 9)),
    "a checkpoint's mac edited": (
        ("UPDATE audit_checkpoints SET mac = sha256(mac) WHERE tenant_id = '{t}'",),
        ("EDIT", 6),
    ),
    "a checkpoint's time edited": (
        ("UPDATE audit_checkpoints SET at = at + interval '1 microsecond' WHERE tenant_id = '{t}'",),
        ("EDIT", 6),
    ),
    "a checkpoint's seq edited": (
        ("UPDATE audit_checkpoints SET seq = 5 WHERE tenant_id = '{t}'",),
        ("EDIT", 5),
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
async def test_what_was_done_to_it_is_named(linked: tuple[Chained, list[UUID]], name: str) -> None:
    mine, entries = linked
    statements, expected = TAMPERED[name]
    for statement in statements:
        await act(mine.house, statement.format(t=mine.tenant, e=entries))
    assert await mine.found() == expected


async def test_the_entry_of_the_break_is_named_too(linked: tuple[Chained, list[UUID]]) -> None:
    mine, entries = linked
    await act(mine.house, "UPDATE audit_entries SET outcome = 'NO' WHERE id = ANY($1)", [entries[7], entries[3]])
    broken = (await mine.verify()).broken
    assert broken is not None
    assert broken.entry == entries[3]


@pytest.mark.parametrize(
    ("constraint", "key", "seq"),
    [
        ("uq_audit_links_tenant_id_entry_id", "UNIQUE (tenant_id, entry_id)", 11),
        ("pk_audit_links", "PRIMARY KEY (tenant_id, seq)", 4),
    ],
)
async def test_a_link_made_twice_is_a_fork(
    linked: tuple[Chained, list[UUID]], constraint: str, key: str, seq: int
) -> None:
    mine, entries = linked
    twice = (
        "INSERT INTO audit_links (tenant_id, seq, entry_id, day, mac)"
        " SELECT tenant_id, $1, $2, day, mac FROM audit_links WHERE tenant_id = $3 AND seq = 4"
    )
    other = entries[3] if seq == 11 else uuid4()
    await act(mine.house, f"ALTER TABLE audit_links DROP CONSTRAINT {constraint}")
    try:
        await act(mine.house, twice, seq, other, mine.tenant)
        assert await mine.found() == ("FORK", seq)
    finally:
        await act(mine.house, "DELETE FROM audit_links WHERE tenant_id = $1", mine.tenant)
        await act(mine.house, f"ALTER TABLE audit_links ADD CONSTRAINT {constraint} {key}")


async def test_a_tail_made_anew_under_todays_key_contradicts_its_checkpoint(
    linked: tuple[Chained, list[UUID]],
) -> None:
    mine, entries = linked
    await act(mine.house, "UPDATE audit_entries SET outcome = 'FORBIDDEN' WHERE id = $1", entries[4])
    await mine.relink(5)
    assert await mine.found() == ("FORK", 6)
    await act(mine.house, "DELETE FROM audit_checkpoints WHERE tenant_id = $1", mine.tenant)
    assert await mine.found() == ("FORK", 6)  # the second place remembers


async def test_without_a_checkpoint_a_tail_made_anew_under_todays_key_is_not_seen(mine: Chained) -> None:
    """What README says of the limits of the chain, so that nobody promises more."""
    entries = await mine.enter(3)
    await mine.link()
    await act(mine.house, "UPDATE audit_entries SET outcome = 'FORBIDDEN' WHERE id = $1", entries[1])
    await mine.relink(2)
    assert await mine.found() is None


async def test_a_day_that_has_passed_cannot_be_made_anew(mine: Chained) -> None:
    entries = await mine.enter(3)
    await mine.link()
    mine.clock.move(days=1)
    await mine.enter(1)
    await mine.link()
    await act(mine.house, "UPDATE audit_entries SET outcome = 'FORBIDDEN' WHERE id = $1", entries[1])
    await mine.relink(2)
    assert await mine.found() == ("EDIT", 2)


async def test_a_copy_changed_in_the_second_place_is_named(linked: tuple[Chained, list[UUID]]) -> None:
    mine, _ = linked
    (copy,) = (mine.folder / "second" / "audit" / str(mine.tenant)).iterdir()
    assert copy.name == f"{6:020}.json"
    said = json.loads(copy.read_text())
    copy.write_text(json.dumps({**said, "mac": "00" * 32}))
    assert await mine.found() == ("EDIT", 6)
    copy.write_text("no checkpoint at all")
    assert await mine.found() == ("EDIT", 6)


async def test_another_tenants_copy_proves_nothing(linked: tuple[Chained, list[UUID]], house: House) -> None:
    mine, _ = linked
    other = await chained(house, mine.folder)
    await other.enter(6)
    await other.link()
    await other.chains.checkpoints.make(other.tenant)
    folder = mine.folder / "second" / "audit"
    (folder / str(mine.tenant) / f"{6:020}.json").write_bytes(
        (folder / str(other.tenant) / f"{6:020}.json").read_bytes()
    )
    assert await mine.found() == ("EDIT", 6)


async def test_links_that_lost_their_head_get_no_new_one(linked: tuple[Chained, list[UUID]]) -> None:
    mine, _ = linked
    await act(mine.house, "DELETE FROM audit_heads WHERE id = $1", mine.tenant)
    await mine.enter(1)
    with pytest.raises(ChainBroken):
        await mine.link()


async def test_a_chain_beyond_the_limit_is_not_begun(linked: tuple[Chained, list[UUID]]) -> None:
    mine, _ = linked
    with pytest.raises(ChainTooLong):
        await mine.verify(most=9)
    assert (await mine.verify(most=10)).entries == 10


# Every entry is linked, whatever the order of commits


@asynccontextmanager
async def open_transaction(mine: Chained) -> AsyncIterator[asyncpg.Connection]:
    """One that has written an entry and not ended yet; it commits with the block."""
    connection = await asyncpg.connect(mine.house.superuser_url)
    statement = (
        "INSERT INTO audit_entries (tenant_id, id, at, action, subjects, fields, outcome, details)"
        " VALUES ($1, $2, now(), 'thing.late', '{}', '{}', 'OK', '{}')"
    )
    try:
        async with connection.transaction():
            await connection.execute(statement, mine.tenant, uuid4())
            yield connection
    finally:
        await connection.close()


async def test_entries_that_commit_late_are_linked(mine: Chained) -> None:
    await mine.enter(2)
    async with open_transaction(mine), open_transaction(mine):
        await mine.enter(3)
        assert await mine.link() <= 2  # what came after the one that runs must wait for it
    assert await mine.link() >= 5
    assert (await mine.verify(), await links(mine)) == (Verdict(7, 0, 0, None), 7)


async def test_a_transaction_undone_leaves_no_gap(mine: Chained) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_transaction(mine):
            await mine.enter(2)
            raise ZeroDivisionError
    assert await mine.link() == 2
    assert await mine.found() is None


async def test_small_bites_link_the_same(mine: Chained) -> None:
    async with mine.units.enter(mine.tenant, None, write=True) as unit:
        for _ in range(5):
            unit.audit("thing.done")  # one transaction, so one xid
    await mine.enter(4)
    assert await mine.link(most=2) == 9
    assert await mine.found() is None


async def test_after_a_restore_into_another_cluster_linking_goes_on(mine: Chained) -> None:
    await mine.enter(2)
    await mine.link()
    far = 1 << 61
    await act(mine.house, "UPDATE audit_heads SET xid = $1 WHERE id = $2", far, mine.tenant)
    (unlinked,) = await mine.enter(1)
    await act(mine.house, "UPDATE audit_entries SET xid = $1 WHERE id = $2", far + 5, unlinked)
    await mine.enter(2)
    assert await mine.found() is None
    assert await mine.link() == 3
    assert (await mine.verify()).entries == 5


async def test_linkers_that_begin_at_once_make_one_chain(mine: Chained) -> None:
    await mine.enter(20)
    await asyncio.gather(*(mine.chains.link(mine.tenant, 3) for _ in range(8)))
    await mine.link()
    assert (await mine.verify()).entries == 20


async def test_eight_processes_write_while_four_linkers_link(mine: Chained) -> None:
    settings, each = mine.house.api.settings, AT_ONCE // WRITERS
    order = json.dumps([settings.recorder_database_url, str(mine.tenant), each])
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.tenants.record_at_once", order)
        for _ in range(WRITERS)
    ]
    databases = [Database(settings.database_url, pool_size=2) for _ in range(LINKERS)]
    linkers = [asyncio.create_task(_link_on(mine, database)) for database in databases]
    assert [await writer.wait() for writer in writers] == [0] * WRITERS
    for linker in linkers:
        linker.cancel()
    done = await asyncio.gather(*linkers, return_exceptions=True)
    assert {type(each) for each in done} == {asyncio.CancelledError}
    for database in databases:
        await database.close()
    await mine.link()
    assert (await mine.verify(), await links(mine)) == (Verdict(each * WRITERS, 0, 0, None), each * WRITERS)


async def _link_on(mine: Chained, database: Database) -> None:
    store = CheckpointStore(f"file://{mine.folder}/second")
    chains = AuditChains(Units(database, mine.house.api.keys, KeyringCache()), mine.house.api.keys, store)
    while True:
        await chains.link(mine.tenant, 200)


async def links(mine: Chained) -> int:
    return int((await fetch(mine.house, "SELECT count(*) FROM audit_links WHERE tenant_id = $1", mine.tenant))[0][0])


# Keys and days


async def test_a_keyring_holds_no_audit_key(mine: Chained) -> None:
    async with mine.units.enter(mine.tenant, None, write=True) as unit:
        with pytest.raises(KeyUnavailable):
            unit.keyring.active_version(Purpose.AUD)


async def test_the_audit_key_is_opened_once_for_a_chain(mine: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    unwrap = mine.house.api.keys.unwrap

    async def counting(tenant: UUID, wrapped: Any) -> list[bytes]:
        opened.append(len(wrapped))
        return await unwrap(tenant, wrapped)

    monkeypatch.setattr(mine.house.api.keys, "unwrap", counting)
    for _ in range(3):
        await mine.enter(1)
        await mine.link()
        mine.clock.move(days=3)
    assert opened == [2, 1]  # DEK and BIK for the keyring, the audit key for the first link


async def test_the_turn_of_the_day_replaces_the_key_over_idle_days(mine: Chained) -> None:
    await mine.enter(2)
    await mine.link()
    before = await mine.key_of_today()
    mine.clock.move(days=5)
    await mine.enter(2)
    await mine.link()
    assert await mine.key_of_today() == chain.key_after(before, 5)
    days = [row["day"] for row in await fetch(mine.house, _DAYS, mine.tenant)]
    assert [days[2] - days[0], days[3] - days[0]] == [timedelta(days=5)] * 2
    assert await mine.verify() == Verdict(4, 1, 1, None)  # with the checkpoint that the turn made


_DAYS = "SELECT day FROM audit_links WHERE tenant_id = $1 ORDER BY seq"


async def test_an_idle_chain_takes_the_new_days_key_too(mine: Chained) -> None:
    await mine.enter(1)
    await mine.link()
    before = await mine.key_of_today()
    mine.clock.move(days=1)
    assert await mine.link() == 0
    assert await mine.key_of_today() == chain.next_key(before)


async def test_a_clock_behind_does_not_turn_the_day_back(mine: Chained) -> None:
    await mine.enter(1)
    await mine.link()
    before = await mine.key_of_today()
    mine.clock.move(days=-1)
    await mine.enter(1)
    await mine.link()
    assert await mine.key_of_today() == before
    assert await mine.found() is None


# Checkpoints


async def test_checkpoints_come_once_a_minute_at_most(mine: Chained) -> None:
    made = []
    for seconds in (0, 30, 31):
        mine.clock.move(seconds=seconds)
        await mine.enter(1)
        await mine.link()
        made.append(await mine.chains.checkpoints.make(mine.tenant))
    assert made == [True, False, True]
    assert await mine.verify() == Verdict(3, 2, 2, None)


async def test_while_the_second_place_is_away_linking_goes_on_and_copies_are_owed(house: House, tmp_path: Path) -> None:
    (tmp_path / "place").write_text("a file where a folder should be")
    mine = await chained(house, tmp_path, f"file://{tmp_path}/place")
    await mine.enter(1)
    await mine.link()
    await mine.chains.checkpoints.make(mine.tenant)
    assert await mine.verify() == Verdict(1, 1, None, None)
    assert await mine.chains.checkpoints.settle() == 1
    (tmp_path / "place").unlink()
    assert await mine.chains.checkpoints.settle() == 0
    assert await mine.verify() == Verdict(1, 1, 1, None)


class Limbo(CheckpointStore):
    """A second place that takes connections and never answers."""

    def __init__(self) -> None:
        super().__init__("file:///nowhere")
        self.asked = 0

    async def put(self, tenant: UUID, seq: int, content: bytes) -> bool:
        self.asked += 1
        await asyncio.Event().wait()
        return True


async def test_a_second_place_that_never_answers_is_waited_for_once_and_shortly(mine: Chained) -> None:
    chains = AuditChains(mine.units, mine.house.api.keys, limbo := Limbo())
    for count in (1, 2, 3):
        await mine.enter(1)
        await mine.link()
        async with asyncio.timeout(5):
            assert await chains.checkpoints.make(mine.tenant, at_once=True)
        assert chains.checkpoints.owed == count
    assert limbo.asked == 1


async def test_a_copy_that_is_not_taken_in_time_is_owed(mine: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    chains = AuditChains(mine.units, mine.house.api.keys, limbo := Limbo())
    await mine.enter(1)
    await mine.link()
    await chains.checkpoints.make(mine.tenant)
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0.05)
    async with asyncio.timeout(5):
        assert await chains.checkpoints.settle() == 1
    assert limbo.asked == 2


async def test_an_older_copy_is_never_overwritten(linked: tuple[Chained, list[UUID]]) -> None:
    mine, _ = linked
    store = CheckpointStore(f"file://{mine.folder}/second")
    assert not await store.put(mine.tenant, 6, b"other")
    assert (await mine.verify()).copies == 1


# What left, counted; and who may touch what


async def test_disclosures_are_counted_per_viewer_and_hour_once(mine: Chained, house: House) -> None:
    viewer, at = uuid4(), mine.clock.now().replace(minute=30)
    what: dict[str, int | str] = {"records": 2, "plain": 4, "masked": 6}
    entries = [
        Entry(
            tenant=mine.tenant, at=at + timedelta(hours=n // 2), actor=viewer, action="personal.disclosed", details=what
        )
        for n in range(3)
    ]
    await house.api.recorder.record(entries)
    await mine.link(most=1)
    await mine.link()
    rows = await fetch(house, "SELECT * FROM disclosure_counters WHERE tenant_id = $1 ORDER BY hour", mine.tenant)
    counted = [tuple(row[name] for name in ("viewer", "records", "plain", "masked")) for row in rows]
    assert counted == [(viewer, 4, 8, 12), (viewer, 2, 4, 6)]


@pytest.mark.parametrize("table", ["audit_entries", "audit_links", "audit_checkpoints"])
async def test_the_serving_role_changes_nothing_of_the_log(house: House, table: str) -> None:
    connection = await asyncpg.connect(house.url("coffer_app"))
    try:
        await connection.execute("SELECT set_config('coffer.tenant', $1, false)", str(house.tenants["acme"].id))
        for statement in (f"UPDATE {table} SET tenant_id = tenant_id", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
