"""Hand-overs over GraphQL: one, many and all of a member; who may, what is told, and what it changes for whom."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from api.paging import global_id
from domain.hand_overs import HAND_OVER
from jobs.hand_overs import hand_over_customers
from jobs.handling import Handling
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Scope, Sensitivity
from tenants.ids import any_local_id
from tenants.jobs import JobId
from tenants.jobs.ledger import Ledger
from tenants.viewers import Credential
from tests.house import House

RIGHTS = frozenset({Permission.CUSTOMERS_READ, Permission.CUSTOMERS_HAND_OVER})
HANDS = Grants(RIGHTS, dict.fromkeys(Sensitivity, Level.PLAIN))
ONE = """mutation($c: ID!, $t: ID!, $v: Int) { at: handOverCustomer(id: $c, to: $t, version: $v)
    { customer { id version givenName owner { id } } userErrors { code path } } }"""
MANY = """mutation($c: [ID!], $f: ID, $t: ID!) { at: handOverCustomers(ids: $c, from: $f, to: $t) {
    handedOver outcomes { row customer { id } userErrors { code path } } job { id kind progress { total } }
    userErrors { code path } } }"""
MAY = {Role.OWNER, Role.MANAGER}


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


def id_of(member: Credential) -> str:
    return global_id("Member", member.principal)


def local(id: str) -> UUID:
    found = any_local_id(id)
    assert found is not None
    return found[1]


async def customer_of(house: House, owner: Credential | None, tenant: str = "acme") -> str:
    made = await house.create(tenant=tenant, givenName="Ada", ownerId=None if owner is None else id_of(owner))
    return str(made["id"])


async def state(superuser: asyncpg.Connection, *customers: str) -> list[Any]:
    statement = "SELECT id, owner_id, version, updated_at FROM customers WHERE id = ANY($1) ORDER BY id"
    return [tuple(row) for row in await superuser.fetch(statement, list(map(local, customers)))]


async def owners(superuser: asyncpg.Connection, *customers: str) -> list[UUID | None]:
    found = {row[0]: row[1] for row in await state(superuser, *customers)}
    return [found[local(customer)] for customer in customers]


async def events_of(superuser: asyncpg.Connection, customer: str) -> list[tuple[str, list[str]]]:
    rows = await superuser.fetch("SELECT type, fields FROM events WHERE subject = $1 ORDER BY xid, id", local(customer))
    return [(row["type"], row["fields"]) for row in rows if row["type"] != "customer.created"]


# One


async def test_a_customer_goes_to_another_member(house: House, superuser: asyncpg.Connection) -> None:
    one, other = await house.add_member(), await house.add_member()
    customer = await customer_of(house, one)
    (before,) = await state(superuser, customer)
    payload = (await house.data(ONE, {"c": customer, "t": id_of(other), "v": 1}))["at"]
    shown = {"id": customer, "version": 2, "givenName": "Ada", "owner": {"id": id_of(other)}}
    assert payload == {"customer": shown, "userErrors": []}
    (after,) = await state(superuser, customer)
    assert after[1:3] == (other.principal, 2)
    assert after[3] > before[3]
    assert await events_of(superuser, customer) == [("customer.handed_over", ["ownerId"])]


async def test_handing_over_to_the_owner_changes_nothing(house: House, superuser: asyncpg.Connection) -> None:
    one = await house.add_member()
    customer = await customer_of(house, one)
    before = await state(superuser, customer)
    assert (await house.data(ONE, {"c": customer, "t": id_of(one)}))["at"]["userErrors"] == []
    assert await state(superuser, customer) == before
    assert await events_of(superuser, customer) == []


async def test_a_key_hands_over_once(house: House, superuser: asyncpg.Connection) -> None:
    one, other, headers = await house.add_member(), await house.add_member(), {"idempotency-key": uuid4().hex}
    customer, sent = await customer_of(house, one), {"t": id_of(other), "v": 1}
    first, again = [await house.data(ONE, {"c": customer, **sent}, headers=headers) for _ in range(2)]
    assert first == again
    assert [row[2] for row in await state(superuser, customer)] == [2]


async def test_an_update_of_the_owner_is_told_as_a_hand_over(house: House, superuser: asyncpg.Connection) -> None:
    customer, other = await customer_of(house, None), await house.add_member()
    update = (
        "mutation($c: ID!, $o: ID) { updateCustomer(id: $c, version: 1, input: {ownerId: $o}) { customer { id } } }"
    )
    await house.data(update, {"c": customer, "o": id_of(other)})
    told = [("customer.updated", ["ownerId"]), ("customer.handed_over", ["ownerId"])]
    assert sorted(await events_of(superuser, customer)) == sorted(told)


async def test_a_customer_of_nobody_can_be_handed_over(house: House, superuser: asyncpg.Connection) -> None:
    customer, other = await customer_of(house, None), await house.add_member()
    await house.data(ONE, {"c": customer, "t": id_of(other)}, role=Role.MANAGER)
    assert await owners(superuser, customer) == [other.principal]


@pytest.mark.parametrize("role", sorted(set(Role) - MAY))
async def test_who_may_not_hand_over_hands_over_none(house: House, superuser: asyncpg.Connection, role: Role) -> None:
    me = house.members["acme"][role]
    customer = await customer_of(house, me)
    before = await state(superuser, customer)
    for document, variables in (
        (ONE, {"c": customer, "t": id_of(me)}),
        (MANY, {"c": [customer], "t": id_of(me)}),
        (MANY, {"f": id_of(me), "t": id_of(house.members["acme"][Role.OWNER])}),
    ):
        answer = await house.ask(document, variables, role=role)
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert answer["data"] == {"at": None}
    assert await state(superuser, customer) == before


async def disabled(superuser: asyncpg.Connection, house: House) -> str:
    member = await house.add_member()
    await superuser.execute("UPDATE members SET status = 'DISABLED' WHERE id = $1", member.principal)
    return id_of(member)


@pytest.mark.parametrize("who", ["nobody", "disabled", "elsewhere", "no member"])
async def test_only_an_active_member_gets_customers(house: House, superuser: asyncpg.Connection, who: str) -> None:
    customer = await customer_of(house, house.members["acme"][Role.OWNER])
    before = await state(superuser, customer)
    to = {
        "nobody": global_id("Member", UUID(int=9)),
        "disabled": await disabled(superuser, house),
        "elsewhere": id_of(house.members["globex"][Role.OWNER]),
        "no member": customer,
    }[who]
    from_ = id_of(house.members["acme"][Role.OWNER])
    for document, variables in ((ONE, {"c": customer}), (MANY, {"c": [customer]}), (MANY, {"f": from_})):
        payload = (await house.data(document, {**variables, "t": to}))["at"]
        assert payload["userErrors"] == [{"code": "NOT_FOUND", "path": ["to"]}]
    update = """mutation($c: ID!, $o: ID) { at: updateCustomer(id: $c, version: 1, input: {ownerId: $o})
        { userErrors { code path } } }"""
    payload = (await house.data(update, {"c": customer, "o": to}))["at"]
    assert payload["userErrors"] == [{"code": "NOT_FOUND", "path": ["input", "ownerId"]}]
    assert await state(superuser, customer) == before


async def test_a_customer_of_a_disabled_member_stays_theirs_and_can_be_saved(
    house: House, superuser: asyncpg.Connection
) -> None:
    gone = await house.add_member()
    customer = await customer_of(house, gone)
    await superuser.execute("UPDATE members SET status = 'DISABLED' WHERE id = $1", gone.principal)
    update = """mutation($c: ID!, $o: ID) { at: updateCustomer(id: $c, version: 1, input: {ownerId: $o, note: "New"})
        { customer { owner { id } note } userErrors { code } } }"""
    payload = (await house.data(update, {"c": customer, "o": id_of(gone)}))["at"]
    assert payload == {"customer": {"owner": {"id": id_of(gone)}, "note": "New"}, "userErrors": []}


async def test_a_version_that_is_not_the_latest_is_refused(house: House, superuser: asyncpg.Connection) -> None:
    customer, other = await customer_of(house, None), await house.add_member()
    before = await state(superuser, customer)
    payload = (await house.data(ONE, {"c": customer, "t": id_of(other), "v": 7}))["at"]
    assert payload == {"customer": None, "userErrors": [{"code": "STALE_VERSION", "path": ["version"]}]}
    assert await state(superuser, customer) == before


async def test_another_tenants_customer_is_not_found(house: House, superuser: asyncpg.Connection) -> None:
    customer = await customer_of(house, None, "globex")
    before, me = await state(superuser, customer), id_of(house.members["acme"][Role.OWNER])
    one = (await house.data(ONE, {"c": customer, "t": me}))["at"]
    many = (await house.data(MANY, {"c": [customer], "t": me}))["at"]
    assert one["userErrors"] == [{"code": "NOT_FOUND", "path": ["id"]}]
    assert many["outcomes"][0]["userErrors"] == [{"code": "NOT_FOUND", "path": ["id"]}]
    assert (many["handedOver"], await state(superuser, customer)) == (0, before)


async def test_who_gives_its_own_away_sees_it_no_longer(house: House, superuser: asyncpg.Connection) -> None:
    me, other = await house.add_member(RoleSpec(HANDS, Scope.OWN)), await house.add_member()
    first, second = [await customer_of(house, me) for _ in range(2)]
    one = (await house.data(ONE, {"c": first, "t": id_of(other)}, member=me))["at"]
    many = (await house.data(MANY, {"c": [second], "t": id_of(other)}, member=me))["at"]
    assert one == {"customer": None, "userErrors": []}
    assert (many["handedOver"], many["outcomes"]) == (1, [{"row": 0, "customer": None, "userErrors": []}])
    assert await owners(superuser, first, second) == [other.principal] * 2
    assert (await house.data("query($i: ID!) { node(id: $i) { id } }", {"i": first}, member=me))["node"] is None


# Many


async def test_of_many_each_succeeds_or_fails_alone(house: House, superuser: asyncpg.Connection) -> None:
    sees_all = RoleSpec(Grants(frozenset({Permission.CUSTOMERS_READ}), HANDS.levels))
    me, other = await house.add_member(sees_all, RoleSpec(HANDS, Scope.OWN)), await house.add_member()
    mine, theirs, absent = (
        await customer_of(house, me),
        await customer_of(house, other),
        global_id("Customer", UUID(int=3)),
    )
    third = await house.add_member()
    payload = (await house.data(MANY, {"c": [mine, theirs, absent], "t": id_of(third)}, member=me))["at"]
    assert payload["handedOver"] == 1
    assert [[error["code"] for error in each["userErrors"]] for each in payload["outcomes"]] == [
        [],
        ["FORBIDDEN"],
        ["NOT_FOUND"],
    ]
    assert await owners(superuser, mine, theirs) == [third.principal, other.principal]
    statement = "SELECT subjects, outcome FROM audit_entries WHERE actor = $1 AND action = 'access.refused'"
    rows = await superuser.fetch(statement, me.principal)
    assert [(row["subjects"], row["outcome"]) for row in rows] == [([local(theirs)], "FORBIDDEN")]


async def test_many_leave_one_entry_in_the_log_and_an_event_each(house: House, superuser: asyncpg.Connection) -> None:
    customers, other = [await customer_of(house, None) for _ in range(3)], await house.add_member()
    headers = {"idempotency-key": uuid4().hex}
    sent = {"c": customers, "t": id_of(other)}
    first, again = [await house.data(MANY, sent, headers=headers) for _ in range(2)]
    assert first == again
    assert [outcome["customer"]["id"] for outcome in first["at"]["outcomes"]] == customers
    rows = await superuser.fetch("SELECT subjects FROM audit_entries WHERE action = 'customer.handed_over'")
    mine = [row["subjects"] for row in rows if local(customers[0]) in row["subjects"]]
    assert [set(each) for each in mine] == [set(map(local, customers))]
    for customer in customers:
        assert await events_of(superuser, customer) == [("customer.handed_over", ["ownerId"])]


@pytest.mark.parametrize("given", ["none", "both", "no ids", "an id twice", "too many ids"])
async def test_what_is_no_list_of_customers_is_refused(house: House, superuser: asyncpg.Connection, given: str) -> None:
    me, customer = id_of(house.members["acme"][Role.OWNER]), await customer_of(house, None)
    before = await state(superuser, customer)
    sent: dict[str, dict[str, Any]] = {
        "none": {},
        "both": {"c": [customer], "f": me},
        "no ids": {"c": []},
        "an id twice": {"c": [customer, customer]},
        "too many ids": {"c": [customer, *(global_id("Customer", UUID(int=n)) for n in range(500))]},
    }
    thin = "mutation($c: [ID!], $f: ID, $t: ID!) { at: handOverCustomers(ids: $c, from: $f, to: $t) { handedOver } }"
    answer = await house.ask(thin, {**sent[given], "t": me})
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert await state(superuser, customer) == before


# All of a member


async def test_all_of_a_member_are_handed_over_by_a_job(house: House, superuser: asyncpg.Connection) -> None:
    one, other = await house.add_member(), await house.add_member()
    customers, apart = [await customer_of(house, one) for _ in range(3)], await customer_of(house, None)
    await house.data("mutation($c: ID!) { archiveCustomer(id: $c) { customer { id } } }", {"c": customers[0]})
    payload = (await house.data(MANY, {"f": id_of(one), "t": id_of(other)}, role=Role.MANAGER))["at"]
    job = payload["job"]
    assert (job["kind"], job["progress"]) == ("hand_over_customers", {"total": 3})
    assert (payload["handedOver"], payload["outcomes"]) == (0, [])
    handling = Handling(
        house.api.units, Ledger(house.api.database, house.api.platform, "t"), {HAND_OVER: hand_over_customers}
    )
    assert await handling.handle(one.tenant, JobId(local(job["id"])))
    read = "query($j: ID!) { job(id: $j) { state progress { done } result { name count } } }"
    assert (await house.data(read, {"j": job["id"]}, role=Role.MANAGER))["job"] == {
        "state": "DONE",
        "progress": {"done": 3},
        "result": [{"name": "handedOver", "count": 3}],
    }
    assert await owners(superuser, *customers, apart) == [*[other.principal] * 3, None]


async def test_a_key_starts_one_job(house: House, superuser: asyncpg.Connection) -> None:
    one, other, headers = await house.add_member(), await house.add_member(), {"idempotency-key": uuid4().hex}
    sent = {"f": id_of(one), "t": id_of(other)}
    first, again = [await house.data(MANY, sent, headers=headers) for _ in range(2)]
    assert first == again
    count = "SELECT count(*) FROM jobs WHERE kind = 'hand_over_customers' AND arguments->>'owner' = $1"
    assert await superuser.fetchval(count, str(one.principal)) == 1


async def test_handing_all_to_the_same_member_is_refused(house: House, superuser: asyncpg.Connection) -> None:
    before = await superuser.fetchval("SELECT count(*) FROM jobs")
    me = id_of(house.members["acme"][Role.OWNER])
    payload = (await house.data(MANY, {"f": me, "t": me}))["at"]
    assert payload["userErrors"] == [{"code": "INVALID", "path": ["to"]}]
    assert await superuser.fetchval("SELECT count(*) FROM jobs") == before


@pytest.mark.parametrize("scope", [Scope.OWN, Scope.TEAM])
async def test_all_of_a_member_beyond_the_scope_are_not_handed_over(
    house: House, superuser: asyncpg.Connection, scope: Scope
) -> None:
    me, other = await house.add_member(RoleSpec(HANDS, scope)), await house.add_member()
    customer, before = await customer_of(house, other), await superuser.fetchval("SELECT count(*) FROM jobs")
    answer = await house.ask(MANY, {"f": id_of(other), "t": id_of(me)}, member=me)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await superuser.fetchval("SELECT count(*) FROM jobs") == before
    assert await owners(superuser, customer) == [other.principal]
