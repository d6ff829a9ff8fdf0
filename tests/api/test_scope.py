"""Row scope: by every way to a customer, a member reaches those that its roles speak of, each at its own level."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import delete

from api.paging import global_id
from domain import hand_overs
from domain.errors import Refused
from domain.imports import IMPORT
from jobs.handling import Handling
from jobs.imports import import_customers
from tenants.access import Grants, Level, Permission, RoleSpec, Scope, SearchRight, Sensitivity
from tenants.ids import any_local_id
from tenants.jobs.ledger import Ledger
from tenants.members import MemberRole
from tenants.roles import MemberOwnRole, TeamMember
from tenants.unit import GUARD, Unit
from tenants.viewers import Credential
from tests.api.test_websocket import Client, serving
from tests.api.test_websocket import Stage as Sockets
from tests.house import House

EDITS = frozenset(
    {
        Permission.CUSTOMERS_READ,
        Permission.CUSTOMERS_WRITE,
        Permission.CUSTOMERS_STAGE,
        Permission.CUSTOMERS_CLASSIFY,
        Permission.CUSTOMERS_ARCHIVE,
        Permission.CUSTOMERS_HAND_OVER,
        Permission.CUSTOMERS_IMPORT,
    }
)
READS = frozenset({Permission.CUSTOMERS_READ})
PLAIN = dict.fromkeys(Sensitivity, Level.PLAIN)
MASKED = dict.fromkeys(Sensitivity, Level.MASKED)
FULL = Grants(EDITS, PLAIN, frozenset(SearchRight), frozenset(Sensitivity))
OWN_PLAIN = RoleSpec(Grants(READS, MASKED), Scope.ALL, Grants(levels=PLAIN))
OWNERS = ("own", "mate", "other", "nobody")
REACHED = {Scope.ALL: set(OWNERS), Scope.TEAM: {"own", "mate"}, Scope.OWN: {"own"}}
PAGE = "query($f: CustomerFilter!) { customers(filter: $f) { totalCount nodes { id givenName emails governmentId } } }"
UPDATE = """mutation($id: ID!, $v: Int!, $i: CustomerInput!) { at: updateCustomer(id: $id, version: $v, input: $i)
    { customer { id givenName } userErrors { code path } } }"""
CREATE = "mutation($i: CustomerInput!) { at: createCustomer(input: $i) { customer { id } userErrors { code path } } }"


@dataclass(frozen=True)
class Scene:
    """A viewer, a team mate and another colleague, and a customer of each of them and of nobody, found by `source`."""

    house: House
    viewer: Credential
    mate: Credential
    other: Credential
    customers: dict[str, str]
    source: str

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        return await self.house.ask(document, variables, member=self.viewer)

    async def at(self, document: str, **variables: Any) -> Any:
        """The data under the only root field."""
        answer = await self.house.data(document, variables, member=self.viewer)
        return next(iter(answer.values()))

    async def named(self, document: str, **variables: Any) -> set[str]:
        """Whose the customers are that a connection holds."""
        return {self.whose(node["id"]) for node in (await self.at(document, **variables))["nodes"]}

    def whose(self, id: str) -> str:
        return next(owner for owner, each in self.customers.items() if each == id)


def id_of(member: Credential) -> str:
    return global_id("Member", member.principal)


def local(id: str) -> UUID:
    found = any_local_id(id)
    assert found is not None
    return found[1]


async def scene(house: House, *specs: RoleSpec) -> Scene:
    viewer, mate, other = await house.add_member(*specs), await house.add_member(), await house.add_member()
    await house.add_team(viewer, mate)
    source, made = f"s{uuid4().hex}", {}
    for name, owner in zip(OWNERS, (viewer, mate, other, None), strict=True):
        customer = await house.create(
            givenName="Zelda",
            familyName=source,
            emails=[f"{name}@{source}.org"],
            governmentId="1234567",
            externalId=f"{name}-{source}",
            source=source,
            ownerId=None if owner is None else id_of(owner),
        )
        made[name] = customer["id"]
    return Scene(house, viewer, mate, other, made, source)


@pytest.fixture(params=Scope)
async def scoped(house: House, request: pytest.FixtureRequest) -> tuple[Scene, set[str]]:
    """A viewer of that scope, and whose customers it reaches."""
    return await scene(house, RoleSpec(FULL, request.param)), REACHED[request.param]


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


async def state(superuser: asyncpg.Connection, of: Scene) -> list[Any]:
    ids = [local(id) for id in of.customers.values()]
    statement = "SELECT id, version, owner_id, archived_at, profile FROM customers WHERE id = ANY($1) ORDER BY id"
    return [tuple(row) for row in await superuser.fetch(statement, ids)]


# Reading


async def test_a_customer_beyond_the_scope_is_as_if_absent(scoped: tuple[Scene, set[str]]) -> None:
    seen, reached = scoped
    read = "query($id: ID!) { customer(id: $id) { id givenName } }"
    absent = refusal(await seen.ask(read, id=global_id("Customer", UUID(int=1))))
    for owner, id in seen.customers.items():
        answer = await seen.ask(read, id=id)
        if owner in reached:
            assert answer["data"] == {"customer": {"id": id, "givenName": "Zelda"}}
        else:
            assert refusal(answer) == absent


def refusal(answer: dict[str, Any]) -> dict[str, Any]:
    """All of it but the request's id."""
    del answer["errors"][0]["extensions"]["requestId"]
    return answer


async def test_nodes_beyond_the_scope_are_null(scoped: tuple[Scene, set[str]]) -> None:
    seen, reached = scoped
    nodes = "query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Customer { givenName } } }"
    found = await seen.at(nodes, ids=list(seen.customers.values()))
    assert [node and node["givenName"] for node in found] == ["Zelda" if o in reached else None for o in OWNERS]
    one = "query($id: ID!) { node(id: $id) { id } }"
    assert {o for o, id in seen.customers.items() if await seen.at(one, id=id)} == reached


async def test_a_list_and_its_count_hold_the_scope_alone(scoped: tuple[Scene, set[str]]) -> None:
    seen, reached = scoped
    page = await seen.at(PAGE, f={"source": seen.source})
    assert {seen.whose(node["id"]) for node in page["nodes"]} == reached
    assert page["totalCount"] == len(reached)


@pytest.mark.parametrize("field", ["CREATED_AT", "UPDATED_AT"])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_paging_in_any_order_stays_in_the_scope(
    scoped: tuple[Scene, set[str]], field: str, direction: str
) -> None:
    seen, reached = scoped
    document = """query($f: CustomerFilter!, $after: String, $s: CustomerSort!) {
        customers(filter: $f, first: 1, after: $after, sort: $s) {
            edges { cursor node { id } } pageInfo { hasNextPage } } }"""
    sort = {"field": field, "direction": direction}
    found: list[str] = []
    after, more = None, True
    while more:
        page = await seen.at(document, f={"source": seen.source}, s=sort, after=after)
        (edge,), more = page["edges"], page["pageInfo"]["hasNextPage"]
        found, after = [*found, seen.whose(edge["node"]["id"])], edge["cursor"]
    assert sorted(found) == sorted(reached)


async def test_a_filter_by_owner_narrows_and_never_widens(scoped: tuple[Scene, set[str]]) -> None:
    seen, reached = scoped
    for owner, member in (("own", seen.viewer), ("mate", seen.mate), ("other", seen.other)):
        page = await seen.at(PAGE, f={"source": seen.source, "ownerId": id_of(member)})
        assert {seen.whose(node["id"]) for node in page["nodes"]} == {owner} & reached
        assert page["totalCount"] == len({owner} & reached)


async def test_a_tag_leads_to_no_customer_beyond_the_scope(scoped: tuple[Scene, set[str]]) -> None:
    seen, reached = scoped
    made = await seen.house.data("mutation($n: String!) { createTag(name: $n) { tag { id } } }", {"n": seen.source})
    tag = made["createTag"]["tag"]["id"]
    for id in seen.customers.values():
        await seen.house.data(UPDATE, {"id": id, "v": 1, "i": {"tagIds": [tag]}})
    assert await seen.named(PAGE, f={"tagId": tag}) == reached


@pytest.mark.parametrize("by", ["namePrefix", "email", "externalId"])
async def test_a_search_finds_in_the_scope_alone(scoped: tuple[Scene, set[str]], by: str) -> None:
    seen, reached = scoped
    find = "query($by: CustomerSearch!) { findCustomers(by: $by) { nodes { id } } }"
    asked = {"namePrefix": "{s}", "email": "{o}@{s}.org", "externalId": "{o}-{s}"}[by]
    values = {asked.format(o=owner, s=seen.source) for owner in OWNERS}
    found = [await seen.named(find, by={by: value}) for value in values]
    assert set().union(*found) == reached


async def test_a_right_to_search_holds_where_it_was_granted(house: House) -> None:
    reads_all = RoleSpec(Grants(READS, MASKED))
    finds_own = RoleSpec(Grants(READS, searches=frozenset({SearchRight.CONTACT})), Scope.OWN)
    seen = await scene(house, reads_all, finds_own)
    find = "query($by: CustomerSearch!) { findCustomers(by: $by) { nodes { id } } }"
    found = [await seen.named(find, by={"email": f"{owner}@{seen.source}.org"}) for owner in OWNERS]
    assert found == [{"own"}, set(), set(), set()]
    assert await seen.named(PAGE, f={"source": seen.source}) == set(OWNERS)


async def test_rows_of_an_import_tell_of_no_customer_that_left_the_scope(
    house: House, superuser: asyncpg.Connection
) -> None:
    seen = await scene(house, RoleSpec(FULL, Scope.OWN))
    start = """mutation($i: ImportInput!) { at: importCustomers(input: $i) { job { id } userErrors { code } } }"""
    text = io.StringIO()
    csv.writer(text).writerows([["name"], ["Kept"], ["Left"]])
    sent = {"csv": text.getvalue(), "columns": [{"column": "name", "field": "givenName"}]}
    job = (await seen.at(start, i=sent))["job"]["id"]
    handling = Handling(
        house.api.units, Ledger(house.api.database, house.api.platform, "t"), {IMPORT: import_customers}
    )
    assert await handling.handle(seen.viewer.tenant, local(job))  # type: ignore[arg-type]  # a job's id is a uuid
    rows = "query($j: ID!) { importRows(job: $j) { nodes { customer { id givenName } } } }"
    kept, left = [node["customer"] for node in (await seen.at(rows, j=job))["nodes"]]
    await superuser.execute("UPDATE customers SET owner_id = $1 WHERE id = $2", seen.mate.principal, local(left["id"]))
    assert [node["customer"] for node in (await seen.at(rows, j=job))["nodes"]] == [kept, None]


async def test_a_role_that_reads_no_customers_reaches_none(house: House) -> None:
    seen = await scene(house, RoleSpec(Grants(levels=PLAIN)))
    answer = await seen.ask(PAGE, f={"source": seen.source})
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await seen.at("query($i: ID!) { node(id: $i) { id } }", i=seen.customers["own"]) is None


# Changing


@pytest.mark.parametrize("change", ["update", "archive", "restore", "handOver"])
async def test_what_is_beyond_the_scope_is_not_changed(
    scoped: tuple[Scene, set[str]], superuser: asyncpg.Connection, change: str
) -> None:
    seen, reached = scoped
    documents = {
        "update": 'updateCustomer(id: $id, version: 1, input: {givenName: "Changed"})',
        "archive": "archiveCustomer(id: $id)",
        "restore": "restoreCustomer(id: $id)",
        "handOver": f'handOverCustomer(id: $id, to: "{id_of(seen.viewer)}")',
    }
    document = f"mutation($id: ID!) {{ at: {documents[change]} {{ customer {{ id }} userErrors {{ code path }} }} }}"
    before = await state(superuser, seen)
    for owner in set(OWNERS) - reached:
        payload = await seen.at(document, id=seen.customers[owner])
        assert payload == {"customer": None, "userErrors": [{"code": "NOT_FOUND", "path": ["id"]}]}
    assert await state(superuser, seen) == before
    for owner in reached:
        assert (await seen.at(document, id=seen.customers[owner]))["userErrors"] == []


async def test_a_right_to_write_holds_where_it_was_granted(house: House, superuser: asyncpg.Connection) -> None:
    reads_all, edits_own = RoleSpec(Grants(READS, PLAIN)), RoleSpec(FULL, Scope.OWN)
    seen = await scene(house, reads_all, edits_own)
    before = await state(superuser, seen)
    for document in (
        'updateCustomer(id: $id, version: 1, input: {givenName: "Changed"})',
        "updateCustomer(id: $id, version: 1, input: {})",
        "archiveCustomer(id: $id)",
        "restoreCustomer(id: $id)",
        f'handOverCustomer(id: $id, to: "{id_of(seen.mate)}")',
    ):
        answer = await seen.ask(
            f"mutation($id: ID!) {{ at: {document} {{ customer {{ id }} }} }}", id=seen.customers["mate"]
        )
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await state(superuser, seen) == before
    payload = await seen.at(UPDATE, id=seen.customers["own"], v=1, i={"givenName": "Changed"})
    assert payload["customer"]["givenName"] == "Changed"


async def test_a_field_is_written_where_its_class_was_granted(house: House, superuser: asyncpg.Connection) -> None:
    names_all = RoleSpec(Grants(EDITS, PLAIN, writes=frozenset({Sensitivity.IDENTITY})))
    notes_own = RoleSpec(Grants(READS, writes=frozenset({Sensitivity.FREE_TEXT})), Scope.OWN)
    seen = await scene(house, names_all, notes_own)
    before = await state(superuser, seen)
    answer = await seen.ask(UPDATE, id=seen.customers["mate"], v=1, i={"givenName": "New", "note": "Not mine"})
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await state(superuser, seen) == before
    for owner, sent in (("mate", {"givenName": "New"}), ("own", {"note": "Mine"})):
        assert (await seen.at(UPDATE, id=seen.customers[owner], v=1, i=sent))["userErrors"] == []


async def test_who_is_shown_masks_may_not_send_them_back_and_the_owner_may_save_all(
    house: House, superuser: asyncpg.Connection
) -> None:
    edits = RoleSpec(Grants(EDITS, MASKED, writes=frozenset(Sensitivity)), own=Grants(levels=PLAIN))
    seen = await scene(house, edits)
    before = await state(superuser, seen)
    read = "query($id: ID!) { customer(id: $id) { givenName emails governmentId version } }"
    for owner, codes in (("mate", {"MASKED_INPUT"}), ("own", set())):
        shown = (await seen.ask(read, id=seen.customers[owner]))["data"]["customer"]
        payload = await seen.at(UPDATE, id=seen.customers[owner], v=shown.pop("version"), i=shown)
        assert {error["code"] for error in payload["userErrors"]} == codes
        if codes:
            assert await state(superuser, seen) == before


async def test_an_external_id_is_set_by_none_who_could_not_find_it_everywhere(
    house: House, superuser: asyncpg.Connection
) -> None:
    seen = await scene(house, RoleSpec(FULL, Scope.OWN))
    before = await superuser.fetchval("SELECT count(*) FROM customers")
    for taken in (f"other-{seen.source}", uuid4().hex):
        create = await seen.ask(CREATE, i={"givenName": "New", "externalId": taken})
        update = await seen.ask(UPDATE, id=seen.customers["own"], v=1, i={"externalId": taken})
        assert [each["errors"][0]["extensions"]["code"] for each in (create, update)] == ["FORBIDDEN"] * 2
    assert await superuser.fetchval("SELECT count(*) FROM customers") == before


async def test_what_goes_out_of_reach_as_it_is_written_is_not_shown(house: House) -> None:
    seen = await scene(house, RoleSpec(replace_grants(EDITS), Scope.OWN))
    created = await seen.ask(CREATE, i={"givenName": "Gone", "ownerId": id_of(seen.mate)})
    update = await seen.ask(UPDATE, id=seen.customers["own"], v=1, i={"ownerId": id_of(seen.mate)})
    for answer in (created, update):
        assert answer["data"]["at"] == {"customer": None, "userErrors": []}
    assert await seen.named(PAGE, f={"ownerId": id_of(seen.viewer)}) == set()
    read = await house.data("query($id: ID!) { customer(id: $id) { owner { id } } }", {"id": seen.customers["own"]})
    assert read["customer"]["owner"]["id"] == id_of(seen.mate)


def replace_grants(permissions: frozenset[Permission]) -> Grants:
    return Grants(permissions, PLAIN, writes=frozenset(Sensitivity))


async def test_of_a_batch_the_rows_out_of_reach_are_counted_and_not_shown(house: House) -> None:
    seen = await scene(house, RoleSpec(FULL, Scope.OWN))
    many = """mutation($i: [CustomerInput!]!) { at: createCustomers(input: $i)
        { created outcomes { customer { givenName } userErrors { code } } } }"""
    rows = [{"givenName": "Kept"}, {"givenName": "Given", "ownerId": id_of(seen.mate)}]
    headers = {"idempotency-key": seen.source}
    first, again = [(await house.data(many, {"i": rows}, member=seen.viewer, headers=headers))["at"] for _ in range(2)]
    assert [outcome["customer"] for outcome in first["outcomes"]] == [{"givenName": "Kept"}, None]
    assert first["created"] == 2
    assert again == first


async def test_a_replay_shows_what_is_within_reach_now(house: House, superuser: asyncpg.Connection) -> None:
    seen, headers = await scene(house, RoleSpec(FULL, Scope.OWN)), {"idempotency-key": uuid4().hex}

    async def create() -> dict[str, Any]:
        return await house.ask(CREATE, {"i": {"givenName": "Once"}}, member=seen.viewer, headers=headers)

    first = (await create())["data"]["at"]["customer"]
    away = "UPDATE customers SET owner_id = $1 WHERE id = $2"
    await superuser.execute(away, seen.mate.principal, local(first["id"]))
    gone = [{"code": "NOT_FOUND", "path": ["input"]}]
    assert (await create())["data"]["at"] == {"customer": None, "userErrors": gone}
    await superuser.execute(away, seen.viewer.principal, local(first["id"]))
    assert (await create())["data"]["at"] == {"customer": first, "userErrors": []}


@pytest.mark.parametrize("document", ["update", "handOver", "handOverMany", "handOverAll"])
async def test_nobody_takes_a_customer_to_see_more_of_it(
    house: House, superuser: asyncpg.Connection, document: str
) -> None:
    spec = RoleSpec(Grants(EDITS, MASKED, writes=frozenset(Sensitivity)), Scope.ALL, Grants(levels=PLAIN))
    seen = await scene(house, spec)
    before, me, id = await state(superuser, seen), id_of(seen.viewer), seen.customers["mate"]
    act = {
        "update": f'updateCustomer(id: "{id}", version: 1, input: {{ownerId: "{me}"}})',
        "handOver": f'handOverCustomer(id: "{id}", to: "{me}")',
        "handOverMany": f'handOverCustomers(ids: ["{id}"], to: "{me}")',
        "handOverAll": f'handOverCustomers(from: "{id_of(seen.mate)}", to: "{me}")',
    }[document]
    shown = "outcomes { userErrors { code } } userErrors { code }" if "Many" in document else "userErrors { code }"
    payload = await seen.at(f"mutation {{ at: {act} {{ {shown} }} }}")
    errors = [*payload["userErrors"], *chain(*(each["userErrors"] for each in payload.get("outcomes", [])))]
    assert [error["code"] for error in errors] == ["BEYOND_YOUR_RIGHTS"]
    assert await state(superuser, seen) == before


async def test_an_empty_budget_does_not_hide_what_one_would_get(house: House, superuser: asyncpg.Connection) -> None:
    """Over its budget a viewer sees all masked, its own too: taking a customer must not look like no gain by that."""
    spec = RoleSpec(Grants(EDITS, MASKED), Scope.ALL, Grants(levels=PLAIN))
    seen = await scene(house, spec)
    before, (me, mates) = await state(superuser, seen), (seen.viewer, local(seen.customers["mate"]))
    async with house.api.units.enter(me.tenant, me.principal, write=True) as unit:
        unit.viewer, unit.is_over_budget = unit.viewer.capped(), True
        with pytest.raises(Refused, match="more rights"):
            await hand_overs.one(unit, mates, me.principal)
        await hand_overs.one(unit, local(seen.customers["own"]), seen.mate.principal)
    after = await state(superuser, seen)
    assert [row for row in after if row not in before] == [
        row for row in after if row[0] == local(seen.customers["own"])
    ]


# Levels by row


async def test_the_owner_sees_plain_and_all_others_masked(house: House) -> None:
    seen = await scene(house, OWN_PLAIN)
    answer = await seen.ask(PAGE, f={"source": seen.source})
    shown = {seen.whose(n["id"]): (n["givenName"], n["governmentId"]) for n in answer["data"]["customers"]["nodes"]}
    masked = ("Z.", "•••••••67")
    assert shown == {"own": ("Zelda", "1234567"), "mate": masked, "other": masked, "nobody": masked}


async def test_the_answer_says_that_the_level_is_by_row(house: House) -> None:
    seen = await scene(house, OWN_PLAIN)
    answer = await seen.ask("query($f: CustomerFilter!) { customers(filter: $f) { nodes { givenName } } }", f={})
    assert answer["extensions"]["disclosure"] == [
        {
            "field": "Customer.givenName",
            "level": "BY_ROW",
            "rule": "@personal(class: IDENTITY, mask: NAME)",
            "levels": {"OTHER": "MASKED", "TEAM": "MASKED", "OWN": "PLAIN"},
        }
    ]


async def test_a_record_is_kept_per_relation_with_its_own_counts(house: House, superuser: asyncpg.Connection) -> None:
    teams = RoleSpec(Grants(READS, {Sensitivity.IDENTITY: Level.PLAIN}), Scope.TEAM)
    seen = await scene(house, OWN_PLAIN, teams)
    await seen.at(PAGE, f={"source": seen.source})
    statement = "SELECT * FROM audit_entries WHERE action = 'personal.disclosed' AND actor = $1"
    entries = {
        frozenset(entry["subjects"]): (entry["details"], entry["fields"])
        for entry in await superuser.fetch(statement, seen.viewer.principal)
    }
    own, mate, other, nobody = [local(seen.customers[owner]) for owner in OWNERS]
    fields = ["Customer.emails", "Customer.givenName", "Customer.governmentId"]
    assert entries == {
        frozenset({own}): ('{"records": 1, "plain": 3, "masked": 0}', [f"{each}:PLAIN" for each in fields]),
        frozenset({mate}): (
            '{"records": 1, "plain": 1, "masked": 2}',
            ["Customer.emails:MASKED", "Customer.givenName:PLAIN", "Customer.governmentId:MASKED"],
        ),
        frozenset({other, nobody}): (
            '{"records": 2, "plain": 0, "masked": 6}',
            [f"{each}:MASKED" for each in fields],
        ),
    }


async def test_documents_of_rows_that_are_hidden_stay_sealed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    own = RoleSpec(Grants(READS), own=Grants(levels=PLAIN))
    seen, opened = await scene(house, own), []
    unspied = Unit.open

    def spied(unit: Unit, place: Any, cells: Any, why: str) -> Any:
        opened.append((place.label, why, {cell.row for cell in cells}))
        return unspied(unit, place, cells, why)

    monkeypatch.setattr(Unit, "open", spied)
    page = await seen.at(PAGE, f={"source": seen.source})
    assert [n["givenName"] for n in page["nodes"] if n["id"] == seen.customers["own"]] == ["Zelda"]
    assert [n["givenName"] for n in page["nodes"] if n["id"] != seen.customers["own"]] == [None] * 3
    mine = {local(seen.customers["own"])}
    assert sorted(opened) == [("customers.guarded", GUARD, mine), ("customers.profile", GUARD, mine)]


async def test_two_roles_together_give_each_row_no_more_than_one_of_them_alone(house: House) -> None:
    """A wide one with few rights and a narrow one with many are no wide one with many."""
    wide = RoleSpec(Grants(READS, {Sensitivity.IDENTITY: Level.MASKED}))
    narrow = RoleSpec(FULL, Scope.TEAM)
    seen = await scene(house, wide, narrow)
    page = await seen.at(PAGE, f={"source": seen.source})
    shown = {seen.whose(n["id"]): (n["givenName"], n["emails"], n["governmentId"]) for n in page["nodes"]}
    assert shown == {
        "own": ("Zelda", [f"own@{seen.source}.org"], "1234567"),
        "mate": ("Zelda", [f"mate@{seen.source}.org"], "1234567"),
        "other": ("Z.", None, None),
        "nobody": ("Z.", None, None),
    }


async def test_a_payload_shows_a_row_at_the_level_of_its_new_owner(house: House) -> None:
    edits = RoleSpec(Grants(EDITS, MASKED, writes=frozenset(Sensitivity)), own=Grants(levels=PLAIN))
    seen = await scene(house, edits)
    sent = {"givenName": "Xaver", "ownerId": id_of(seen.other)}
    payload = await seen.at(UPDATE, id=seen.customers["own"], v=1, i=sent)
    assert payload["customer"]["givenName"] == "X."


# Changes of who reaches what


async def test_a_change_of_teams_shows_on_the_next_request(house: House) -> None:
    seen = await scene(house, RoleSpec(FULL, Scope.TEAM))
    before = await seen.named(PAGE, f={"source": seen.source})
    team = await house.add_team(seen.viewer, seen.other)
    widened = await seen.named(PAGE, f={"source": seen.source})
    async with house.api.units.enter(seen.viewer.tenant, None, write=True) as unit:
        await unit.run(delete(TeamMember).where(TeamMember.team_id == team))
    assert (before, widened) == ({"own", "mate"}, {"own", "mate", "other"})
    assert await seen.named(PAGE, f={"source": seen.source}) == before


async def test_a_role_taken_away_shows_on_the_next_request(house: House) -> None:
    seen = await scene(house, RoleSpec(FULL, Scope.OWN), RoleSpec(FULL, Scope.ALL))
    assert await seen.named(PAGE, f={"source": seen.source}) == set(OWNERS)
    async with house.api.units.enter(seen.viewer.tenant, None, write=True) as unit:
        await unit.run(delete(MemberRole).where(MemberRole.member_id == seen.viewer.principal))
        await unit.run(delete(MemberOwnRole).where(MemberOwnRole.member_id == seen.viewer.principal))
    answer = await seen.ask(PAGE, f={"source": seen.source})
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


# Streams

CHANGED = "subscription($ids: [ID!]) { customerChanged(ids: $ids) { type customer { id givenName } } }"


@pytest.fixture(scope="module")
async def sockets(house: House) -> AsyncIterator[Sockets]:
    async with serving() as made:
        made.app = house.api.app
        yield made


@asynccontextmanager
async def following(sockets: Sockets, seen: Scene) -> AsyncIterator[Client]:
    """The viewer's subscription to all four customers, which is known to hear."""
    token = await seen.house.token(seen.viewer)
    async with sockets.acknowledged({"authorization": f"Bearer {token}"}) as client:
        hearing, before = seen.house.api.feed._events, count_hearing(seen.house)
        await client.subscribe({"query": CHANGED, "variables": {"ids": list(seen.customers.values())}})
        async with asyncio.timeout(5):
            while count_hearing(seen.house) == before:  # noqa: ASYNC110  # the protocol has no word for "subscribed"
                await asyncio.sleep(0.005)
        assert hearing
        yield client


def count_hearing(house: House) -> int:
    return sum(bool(each.since) for each in chain(*house.api.feed._events.values()))


async def rename(seen: Scene, owner: str) -> None:
    read = "query($id: ID!) { customer(id: $id) { version } }"
    version = (await seen.house.data(read, {"id": seen.customers[owner]}))["customer"]["version"]
    variables = {"id": seen.customers[owner], "v": version, "i": {"givenName": "Yvo"}}
    await seen.house.data(UPDATE, variables)


async def heard(client: Client, seen: Scene) -> tuple[str, str]:
    message = await client.receive()
    told = message["payload"]["data"]["customerChanged"]["customer"]
    return seen.whose(told["id"]), told["givenName"]


async def test_a_stream_tells_of_the_scope_alone_each_at_its_level(sockets: Sockets, house: House) -> None:
    masked_teams = RoleSpec(Grants(READS, MASKED), Scope.TEAM, Grants(levels=PLAIN))
    seen = await scene(house, masked_teams)
    async with following(sockets, seen) as client:
        for owner in ("nobody", "other", "mate", "own"):
            await rename(seen, owner)
        assert [await heard(client, seen) for _ in range(2)] == [("mate", "Y."), ("own", "Yvo")]


async def test_an_open_stream_follows_a_change_of_teams(sockets: Sockets, house: House) -> None:
    seen = await scene(house, RoleSpec(FULL, Scope.TEAM))
    async with following(sockets, seen) as client:
        await rename(seen, "other")
        await rename(seen, "own")
        assert await heard(client, seen) == ("own", "Yvo")  # so the one before it was decided without the team
        await house.add_team(seen.viewer, seen.other)
        await rename(seen, "other")
        async with asyncio.timeout(5):
            assert await heard(client, seen) == ("other", "Yvo")
        async with house.api.units.enter(seen.viewer.tenant, None, write=True) as unit:
            await unit.run(delete(TeamMember).where(TeamMember.member_id == seen.viewer.principal))
        for owner in ("other", "mate", "own"):
            await rename(seen, owner)
        async with asyncio.timeout(5):
            assert await heard(client, seen) == ("own", "Yvo")
