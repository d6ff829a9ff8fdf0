"""Keys over GraphQL: who may see and turn them over, what is told, and that no byte of a key ever is."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from jobs.handling import Handling
from jobs.rotations.kek import rotate_kek_by
from tenants.access import Grants, Permission, Role, RoleSpec
from tenants.ids import any_local_id
from tenants.jobs.ledger import Ledger
from tenants.keys import rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import KeyPurpose
from tenants.signing_in import sessions
from tenants.signing_in.sessions import Method
from tenants.viewers import Credential, TenantId
from tests.house import House

SLUG = "turned"
KEYS = "{ keys { id purpose version state kekVersion createdAt changedAt ageDays } }"
ROTATE_KEY = """mutation($p: KeyPurpose!) { rotateKey(purpose: $p) {
    rotation { id purpose state cause fromVersion toVersion } job { id kind state createdBy { id } }
    userErrors { code } } }"""
ROTATIONS = """query($f: Int, $a: String, $p: KeyPurpose) { rotations(first: $f, after: $a, purpose: $p) { totalCount
    nodes { id purpose state startedAt movedAt endedAt proof keyVersion signature job { state } }
    pageInfo { endCursor hasNextPage } } }"""
COVERAGE = "{ keyCoverage { place version rows } }"
ALLOWED = (Role.OWNER, Role.ADMIN)
DENIED = [role for role in Role if role not in ALLOWED]


@pytest.fixture
async def turned(house: House) -> AsyncIterator[TenantId]:
    """A tenant whose keys may be changed, made once; no test counts as lately for the next."""
    if SLUG not in house.tenants:
        await house.add_tenant(SLUG)
    tenant = TenantId(house.tenants[SLUG].id)
    superuser = await asyncpg.connect(house.superuser_url)
    aged = "UPDATE rotations SET ended_at = ended_at - interval '2 hours' WHERE tenant_id = $1"
    await superuser.execute(aged, tenant)
    await superuser.close()
    yield tenant


async def proven(house: House, role: Role = Role.OWNER) -> Credential:
    """That member, in a session that has just begun."""
    who = house.members[SLUG][role]
    async with house.api.units.enter(who.tenant, None, write=True) as unit:
        return await sessions.begin(unit, who.principal, Method.PASSWORD)


async def rotate(house: House, purpose: str, role: Role = Role.OWNER) -> dict[str, Any]:
    """The payload."""
    told = await house.data(ROTATE_KEY, {"p": purpose}, member=await proven(house, role))
    payload: dict[str, Any] = told["rotateKey"]
    return payload


async def work(house: House, tenant: TenantId, job: str) -> None:
    """Lead a KEK rotation's job to its end, without the time of grace."""
    role = house.api.settings.rotator_role
    assert role is not None
    rotator = house.api.keys.__class__(house.api.settings.vault_address, role.role_id, role.secret_id)
    handler = rotate_kek_by(house.api.keys, rotator, None, timedelta())
    ledger = Ledger(house.api.database, house.api.platform, "test")
    found = any_local_id(job)
    assert found is not None
    assert await Handling(house.api.units, ledger, {ROTATE[KeyPurpose.KEK]: handler}).handle(tenant, found[1])  # type: ignore[arg-type]  # its id
    await rotator.close()


async def test_keys_are_listed_without_a_byte_of_them(house: House, turned: TenantId) -> None:
    response = await house.post(KEYS, tenant=SLUG)

    keys = response.json()["data"]["keys"]
    assert {key["purpose"] for key in keys} == {"AUD", "BIK", "DEK"}
    assert all(key["kekVersion"] >= 1 and key["ageDays"] == 0 for key in keys)
    assert not re.search(rb"vault:v|wrapped", response.content)


@pytest.mark.parametrize("role", ALLOWED)
async def test_owners_and_admins_turn_keys_over_once(house: House, turned: TenantId, role: Role) -> None:
    first, again = [await rotate(house, "KEK", role) for _ in range(2)]
    assert first["rotation"] == again["rotation"]
    assert (first["rotation"]["cause"], first["rotation"]["fromVersion"]) == ("ASKED", None)
    assert first["job"] == again["job"]
    assert (first["job"]["kind"], first["job"]["createdBy"]) == ("rotate_kek", None)
    await work(house, turned, first["job"]["id"])

    done = (await house.data(ROTATIONS, {"f": 1}, tenant=SLUG, role=role))["rotations"]["nodes"][0]
    assert (done["id"], done["state"]) == (first["rotation"]["id"], "RAISED")
    assert done["endedAt"] is not None
    assert done["job"]["state"] == "DONE"


async def test_the_proof_that_is_told_is_what_was_signed(house: House, turned: TenantId) -> None:
    begun = await rotate(house, "KEK")
    await work(house, turned, begun["job"]["id"])

    told = (await house.data(ROTATIONS, {"f": 1}, tenant=SLUG))["rotations"]["nodes"][0]

    async with house.api.units.enter(turned, None, write=False) as unit:
        row = await rotating.find(unit, any_local_id(told["id"])[1])  # type: ignore[index]  # one of ours
    assert rotating.canonical(row.proof).decode() == told["proof"]
    assert (row.key_version, row.signature) == (told["keyVersion"], told["signature"])
    assert rotating.is_proven(row, await house.api.keys.public_keys(rotating.SIGNED_BY))


async def test_rotations_are_paged_newest_first(house: House, turned: TenantId) -> None:
    for purpose in ("KEK", "DEK", "BIK"):
        await rotate(house, purpose)
    seen, after = list[dict[str, Any]](), None
    while True:
        found = (await house.data(ROTATIONS, {"f": 1, "a": after}, tenant=SLUG))["rotations"]
        seen += found["nodes"]
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    narrowed = (await house.data(ROTATIONS, {"p": "BIK"}, tenant=SLUG))["rotations"]
    assert len(seen) == found["totalCount"] >= 3
    assert [each["startedAt"] for each in seen] == sorted((each["startedAt"] for each in seen), reverse=True)
    assert {each["purpose"] for each in narrowed["nodes"]} == {"BIK"}


async def test_coverage_counts_what_is_sealed_by_place(house: House, turned: TenantId) -> None:
    before = {row["place"]: row["rows"] for row in (await house.data(COVERAGE, tenant=SLUG))["keyCoverage"]}
    await house.create(tenant=SLUG, givenName="Ada", note="Likes tea.")

    after = (await house.data(COVERAGE, tenant=SLUG))["keyCoverage"]

    counted = {row["place"]: row["rows"] for row in after}
    assert {row["version"] for row in after} == {1}
    for place in ("customers.profile", "customers.note"):
        assert counted[place] == before.get(place, 0) + 1


@pytest.mark.parametrize("role", DENIED)
async def test_nobody_else_sees_or_turns_keys(house: House, turned: TenantId, role: Role) -> None:
    count = "{ rotations { totalCount } }"
    before = await house.data(count, tenant=SLUG)
    for document, variables in ((KEYS, {}), (ROTATIONS, {}), (COVERAGE, {}), (ROTATE_KEY, {"p": "DEK"})):
        answer = await house.ask(document, variables, tenant=SLUG, role=role)
        assert [each["extensions"]["code"] for each in answer["errors"]] == ["FORBIDDEN"]
    assert await house.data(count, tenant=SLUG) == before


async def test_a_role_with_that_right_alone_suffices(house: House) -> None:
    spec = RoleSpec(Grants(frozenset({Permission.KEYS_MANAGE})))
    member = await house.add_member(spec)
    assert (await house.data(KEYS, member=member))["keys"]


async def test_another_tenants_key_and_rotation_are_not_there(house: House, turned: TenantId) -> None:
    begun = (await rotate(house, "BIK"))["rotation"]["id"]
    key = (await house.data(KEYS, tenant=SLUG))["keys"][0]["id"]
    node = "query($i: [ID!]!) { nodes(ids: $i) { id } }"
    assert await house.data(node, {"i": [begun, key]}, tenant="acme") == {"nodes": [None, None]}
    assert await house.data(node, {"i": [begun, key]}, tenant=SLUG) == {"nodes": [{"id": begun}, {"id": key}]}


async def test_it_takes_a_fresh_proof_and_a_pause_between_two(house: House, turned: TenantId) -> None:
    unproven = (await house.data(ROTATE_KEY, {"p": "KEK"}, tenant=SLUG))["rotateKey"]
    assert (unproven["rotation"], unproven["userErrors"]) == (None, [{"code": "STEP_UP_REQUIRED"}])
    begun = await rotate(house, "KEK")
    await work(house, turned, begun["job"]["id"])

    again = await rotate(house, "KEK")
    assert (again["rotation"], again["userErrors"]) == (None, [{"code": "KEY_ROTATED_LATELY"}])


async def test_jobs_of_many_rotations_are_read_in_one_statement(house: House, turned: TenantId) -> None:
    for purpose in ("KEK", "DEK", "BIK"):
        await rotate(house, purpose)
    statements = list[str]()

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    engine = house.api.database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    found = await house.data("{ rotations { nodes { id job { id } } } }", tenant=SLUG)
    event.remove(engine, "before_cursor_execute", note)

    assert sum(node["job"] is not None for node in found["rotations"]["nodes"]) >= 3
    assert sum("FROM jobs" in each for each in statements) == 1
