"""Erasing a customer over GraphQL: who may, what is left, what holds it up, and when it is finished."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from api.paging import global_id
from crypto.chain import is_signed
from crypto.encoding import join
from jobs.backups.errors import StoreAway
from tenants.access import SPECS, Role, RoleSpec, Scope
from tests.api.staff import ask, done, refused
from tests.erasing import ERASE, ERASURE, ERRORS, Leaver, local
from tests.house import House

ONE = f"query($id: ID!) {{ at: erasure(id: $id) {{ {ERASURE} }} }}"
ALL = f"{{ at: erasures(first: 100) {{ totalCount nodes {{ {ERASURE} }} }} }}"
HOLD = "hold { id reason ticket placedAt liftedAt customerId placedBy { id } liftedBy { id } }"
PLACE = f"""mutation($id: ID!, $r: String!, $t: String) {{
  at: placeHold(customer: $id, reason: $r, ticket: $t) {{ {HOLD} {ERRORS} }} }}"""
LIFT = f"mutation($id: ID!) {{ at: liftHold(id: $id) {{ {HOLD} {ERRORS} }} }}"
HOLDS = "query($id: ID!) { at: legalHolds(customer: $id) { id reason ticket liftedAt } }"
WHOLE = """query($id: ID!, $by: CustomerSearch!) { customer(id: $id) { id } node(id: $id) { id }
  findCustomers(by: $by) { nodes { id } } customers(first: 100) { nodes { id } } }"""


@pytest.fixture
async def leaver(house: House, tmp_path: Path) -> AsyncIterator[Leaver]:
    made = await Leaver.made(house, tmp_path)
    yield made
    await made.close()


async def erase(leaver: Leaver, id: str, role: Role = Role.OWNER, **more: Any) -> dict[str, Any]:
    payload = await done(leaver.house, await leaver.proven(role), ERASE, id=id, **more)
    assert payload["userErrors"] == [], payload
    erasure: dict[str, Any] = payload["erasure"]
    return erasure


async def test_nothing_of_an_erased_customer_is_left_or_found(leaver: Leaver) -> None:
    slug = leaver.tenant.slug
    tag = (await leaver.house.data('mutation { createTag(name: "vip") { tag { id } } }', tenant=slug))["createTag"]
    gone = await leaver.customer(governmentId="078-05-1120", note="prefers letters", tagIds=[tag["tag"]["id"]])
    stays = await leaver.customer(emails=["grace@example.org"])
    erasure = await erase(leaver, gone, Role.MANAGER, cause="CONSENT_WITHDRAWN", ticket="DSR-7")

    assert (erasure["number"], erasure["state"], erasure["customerId"]) == (1, "ERASED", gone)
    assert (erasure["cause"], erasure["ticket"], erasure["certificate"]) == ("CONSENT_WITHDRAWN", "DSR-7", None)
    for table, column in (
        *(("customers", "id"), ("subjects", "id"), ("customer_tokens", "customer_id")),
        ("customer_tags", "customer_id"),
    ):
        assert await leaver.count(table, f"{column} = $2", local(gone)) == 0
    found = await leaver.house.ask(WHOLE, {"id": gone, "by": {"email": "ada@example.org"}}, tenant=slug)
    assert [error["extensions"]["code"] for error in found["errors"]] == ["NOT_FOUND"]
    assert found["data"]["node"] is None and found["data"]["findCustomers"]["nodes"] == []
    assert [node["id"] for node in found["data"]["customers"]["nodes"]] == [stays]


async def test_no_row_of_any_table_has_a_value_of_the_erased(leaver: Leaver) -> None:
    """Every row of the tenant, as Postgres prints it: the only trace is the id, where only ids are promised."""
    secret, gone = None, await leaver.customer()
    (row,) = await leaver.fetch("SELECT secret FROM subjects WHERE tenant_id = $1 AND id = $2", local(gone))
    secret = row["secret"].hex()
    await erase(leaver, gone)
    await leaver.finish()
    tables = await leaver.superuser.fetch(
        "SELECT table_name AS name FROM information_schema.columns WHERE column_name = 'tenant_id'"
        " AND table_schema = 'public'"
    )
    named = set()
    for table in tables:
        rows = await leaver.fetch(f"SELECT t::text AS told FROM {table['name']} t WHERE tenant_id = $1")
        told = "\n".join(row["told"] for row in rows)
        assert secret not in told and "Lovelace" not in told and "ada@example.org" not in told
        named |= {table["name"]} if str(local(gone)) in told else set()
    assert named <= {"erasures", "erasure_certificates", "events", "audit_entries", "jobs", "outcomes"}


async def test_an_erasure_is_finished_when_no_store_lists_an_older_key_file(leaver: Leaver) -> None:
    before = await leaver.key_files.publish(leaver.tenant.id)
    gone = await leaver.customer()
    with_it = await leaver.key_files.publish(leaver.tenant.id)
    asked = await erase(leaver, gone, ticket="DSR-8")
    leaver.unmount(2)
    owner = await leaver.proven(Role.OWNER)

    assert await leaver.finish() == ["READY"]
    assert (await done(leaver.house, owner, ONE, id=asked["id"]))["state"] == "ERASED"
    leaver.mount(2)
    await leaver.superuser.execute("UPDATE jobs SET due_at = now() WHERE tenant_id = $1", leaver.tenant.id)
    assert await leaver.finish() == ["DONE"]
    for store in leaver.stores:
        names = await store.sizes(str(leaver.tenant.id))
        assert len(names) == 1 and min(int(name.rpartition("/")[2].removesuffix(".coffer")) for name in names) > with_it
    assert before < with_it
    file = await leaver.key_files.read(leaver.tenant.id)
    assert [row.subject for row in file.ledger] == [local(gone)]
    assert (await done(leaver.house, owner, ONE, id=asked["id"]))["state"] == "FINISHED"


async def test_the_certificate_is_signed_and_says_what_may_remain(leaver: Leaver) -> None:
    gone = await leaver.customer()
    asked = await erase(leaver, gone, cause="UNLAWFUL")
    await leaver.finish()
    found = (await done(leaver.house, await leaver.proven(Role.AUDITOR), ONE, id=asked["id"]))["certificate"]

    said, raw = json.loads(found["json"]), found["json"].encode()
    assert json.dumps(said, sort_keys=True, separators=(",", ":")).encode() == raw
    public = (await leaver.house.api.keys.public_keys("coffer-audit"))[found["keyVersion"]]
    signed = join(b"coffer.certificate.v1", leaver.tenant.id.bytes, raw)
    assert is_signed(public, b64decode(found["signature"]), signed)
    assert not is_signed(public, b64decode(found["signature"]), signed.replace(b"UNLAWFUL", b"REQUEST!"))
    assert (said["subject"], said["cause"], said["number"]) == (str(local(gone)), "UNLAWFUL", 1)
    assert said["destroyed"]["customers"] == said["destroyed"]["subjects"] == 1
    assert said["destroyed"]["customer_tokens"] > 3 and said["keyFile"] >= 1
    assert {each["where"] for each in said["mayRemain"]} >= {"backups", "write-ahead log", "replicas"}


async def test_one_key_file_finishes_all_that_were_erased_before_it(leaver: Leaver) -> None:
    people = [await leaver.customer(emails=[f"r{number}@example.org"]) for number in range(3)]
    for each in people:
        await erase(leaver, each)
    assert await leaver.finish() == ["DONE"] * 3
    listed = await done(leaver.house, await leaver.proven(Role.OWNER), ALL)
    files = {json.loads(node["certificate"]["json"])["keyFile"] for node in listed["nodes"]}
    assert listed["totalCount"] == 3 and len(files) == 1
    assert [node["customerId"] for node in listed["nodes"]] == people[::-1]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AGENT, Role.ANALYST, Role.AUDITOR, Role.INTEGRATION])
async def test_without_the_permission_nobody_erases(leaver: Leaver, role: Role) -> None:
    stays = await leaver.customer()
    assert await refused(leaver.house, await leaver.proven(role), ERASE, id=stays) == ["FORBIDDEN"]
    assert await leaver.count("customers") == 1


async def test_it_takes_a_fresh_proof_and_the_customer_in_reach(leaver: Leaver) -> None:
    slug, stays = leaver.tenant.slug, await leaver.customer()
    unproven = leaver.house.members[slug][Role.OWNER]
    assert await refused(leaver.house, unproven, ERASE, id=stays) == ["STEP_UP_REQUIRED"]

    manager = SPECS[Role.MANAGER]
    reader = RoleSpec(replace(manager.grants, permissions=frozenset({"CUSTOMERS_READ"})))  # type: ignore[arg-type]
    scoped = await leaver.house.add_member(replace(manager, scope=Scope.OWN), tenant=slug)
    reading = await leaver.house.add_member(replace(manager, scope=Scope.OWN), reader, tenant=slug)
    assert await refused(leaver.house, scoped, ERASE, id=stays) == ["NOT_FOUND"]
    assert await refused(leaver.house, reading, ERASE, id=stays) == ["FORBIDDEN"]
    assert await leaver.count("customers") == 1 and await leaver.count("erasures") == 0


async def test_who_is_erased_already_absent_or_anothers_is_not_found(leaver: Leaver) -> None:
    owner, gone = await leaver.proven(Role.OWNER), await leaver.customer()
    await erase(leaver, gone)
    foreign = (await leaver.house.create(givenName="Foreign"))["id"]
    for id in (gone, foreign, global_id("Customer", UUID(int=5)), "nonsense"):
        assert await refused(leaver.house, owner, ERASE, id=id) == ["NOT_FOUND"]
    assert await leaver.count("erasures") == 1


async def test_asking_again_under_a_key_tells_of_the_same_erasure(leaver: Leaver) -> None:
    owner, gone = await leaver.proven(Role.OWNER), await leaver.customer()
    headers = {"idempotency-key": "once", "authorization": f"Bearer {await leaver.house.token(owner)}"}
    answers = [await leaver.house.ask(ERASE, {"id": gone}, role=None, headers=headers) for _ in range(2)]
    assert answers[0]["data"] == answers[1]["data"] and answers[0]["data"]["at"]["erasure"]["number"] == 1
    assert await leaver.count("erasures") == 1


async def test_an_erasure_is_shown_to_who_asked_and_who_reads_the_log(leaver: Leaver) -> None:
    erasure = await erase(leaver, await leaver.customer(), Role.MANAGER)
    for role, is_shown in ((Role.MANAGER, True), (Role.AUDITOR, True), (Role.ADMIN, False), (Role.AGENT, False)):
        who = await leaver.proven(role)
        answer = await ask(leaver.house, who, ONE, id=erasure["id"])
        assert ("errors" not in answer) == is_shown
        node = await ask(leaver.house, who, "query($id: ID!) { node(id: $id) { id } }", id=erasure["id"])
        assert (node["data"]["node"] is not None) == is_shown
    assert await refused(leaver.house, await leaver.proven(Role.MANAGER), ALL) == ["FORBIDDEN"]


async def test_events_and_the_log_tell_of_it_by_ids_alone(leaver: Leaver) -> None:
    gone = await leaver.customer()
    await erase(leaver, gone, ticket="DSR-9")
    await leaver.finish()
    events = await leaver.fetch(
        "SELECT type FROM events WHERE tenant_id = $1 AND subject = $2 ORDER BY at, id", local(gone)
    )
    assert [row["type"] for row in events] == ["customer.created", "customer.erased", "customer.erasure_finished"]
    (entry,) = await leaver.fetch("SELECT * FROM audit_entries WHERE tenant_id = $1 AND action = 'customer.erased'")
    assert json.loads(entry["details"])["ticket"] == "DSR-9" and entry["actor"] is not None


async def test_a_hold_keeps_a_customer_until_it_is_lifted(leaver: Leaver) -> None:
    house, kept = leaver.house, await leaver.customer()
    owner, admin = await leaver.proven(Role.OWNER), await leaver.proven(Role.ADMIN)
    placed = await done(house, owner, PLACE, id=kept, r="a claim of Lovelace", t="LEGAL-3")
    second = await done(house, admin, PLACE, id=kept, r="an audit of 2024")
    assert placed["hold"]["reason"] == "a claim of Lovelace" and placed["hold"]["ticket"] == "LEGAL-3"

    assert await refused(house, owner, ERASE, id=kept) == ["LEGAL_HOLD"]
    assert (await done(house, owner, LIFT, id=placed["hold"]["id"]))["hold"]["liftedAt"] is not None
    assert await refused(house, owner, ERASE, id=kept) == ["LEGAL_HOLD"]
    again = await done(house, owner, LIFT, id=placed["hold"]["id"])
    assert again["userErrors"] == []
    await done(house, admin, LIFT, id=second["hold"]["id"])
    await erase(leaver, kept)
    assert await leaver.count("legal_holds") == 0


async def test_the_reason_of_a_hold_is_shown_by_the_level_of_free_text(leaver: Leaver) -> None:
    kept = await leaver.customer()
    await done(leaver.house, await leaver.proven(Role.OWNER), PLACE, id=kept, r="a claim")
    shown = {}
    for role in (Role.MANAGER, Role.ADMIN, Role.AGENT):
        (hold,) = (await ask(leaver.house, await leaver.proven(role), HOLDS, id=kept))["data"]["at"]
        shown[role] = hold["reason"]
    assert shown == {Role.MANAGER: "a claim", Role.ADMIN: None, Role.AGENT: None}
    assert await refused(leaver.house, await leaver.proven(Role.MANAGER), PLACE, id=kept, r="x") == ["FORBIDDEN"]
    sealed = await leaver.fetch("SELECT reason FROM legal_holds WHERE tenant_id = $1")
    assert b"claim" not in sealed[0]["reason"]


async def test_a_hold_needs_a_reason_and_a_customer(leaver: Leaver) -> None:
    owner, kept = await leaver.proven(Role.OWNER), await leaver.customer()
    assert await refused(leaver.house, owner, PLACE, id=kept, r="  ") == ["REQUIRED"]
    assert await refused(leaver.house, owner, PLACE, id=kept, r="x", t="free text") == ["INVALID"]
    assert await refused(leaver.house, owner, PLACE, id="nobody", r="x") == ["NOT_FOUND"]
    assert await refused(leaver.house, owner, LIFT, id="none") == ["NOT_FOUND"]
    assert await leaver.count("legal_holds") == 0


async def test_a_store_that_is_away_is_no_end(leaver: Leaver) -> None:
    """By the contract of key files that everything here stands on."""
    leaver.unmount(0)
    with pytest.raises(StoreAway):
        await leaver.key_files.publish(leaver.tenant.id)


async def test_whom_a_restore_took_away_can_still_be_erased(leaver: Leaver) -> None:
    """The row is gone, but the secret is there: a later restore would bring the person back."""
    house, slug, gone = leaver.house, leaver.tenant.slug, await leaver.customer()
    for statement in ("customer_tokens WHERE customer_id", "customers WHERE id"):
        await leaver.superuser.execute(f"DELETE FROM {statement} = $1", local(gone))
    manager = SPECS[Role.MANAGER]
    scoped = await house.add_member(replace(manager, scope=Scope.OWN), tenant=slug)
    assert await refused(house, scoped, ERASE, id=gone) == ["NOT_FOUND"]
    owner = await leaver.proven(Role.OWNER)
    for other in (leaver.tenant.id, house.members[slug][Role.ADMIN].principal):
        assert other is not None
        assert await refused(house, owner, ERASE, id=global_id("Customer", other)) == ["NOT_FOUND"]

    codes = await asyncio.gather(*(refused(house, owner, ERASE, id=gone) for _ in range(2)))
    assert sorted(codes) == [[], ["NOT_FOUND"]]
    assert await leaver.count("subjects", "id = $2", local(gone)) == 0
    assert await leaver.count("erasures") == 1
    assert await leaver.finish() == ["DONE"]
    assert await refused(house, owner, ERASE, id=gone) == ["NOT_FOUND"]


async def certified(leaver: Leaver, erasure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What may remain, by where."""
    found = (await done(leaver.house, await leaver.proven(Role.OWNER), ONE, id=erasure["id"]))["certificate"]
    return {each["where"]: each for each in json.loads(found["json"])["mayRemain"]}


async def test_a_store_of_before_keeps_no_key_file_or_stands_in_the_certificate(leaver: Leaver) -> None:
    first, second = await leaver.customer(), await leaver.customer(emails=["grace@example.org"])
    await leaver.key_files.publish(leaver.tenant.id)
    stores, former = leaver.stores, leaver.stores[0]
    leaver.unmount(0)
    leaver.stores = stores[1:]
    one = await erase(leaver, first)
    assert await leaver.finish() == ["DONE"]
    assert (await certified(leaver, one))["former stores"]["stores"] == [former.url]

    leaver.stores = stores
    leaver.mount(0)
    leaver.stores = stores[1:]
    assert len(await former.sizes(str(leaver.tenant.id))) == 1
    two = await erase(leaver, second)
    assert await leaver.finish() == ["DONE", "DONE"]
    assert await former.sizes(str(leaver.tenant.id)) == {}
    assert "former stores" not in await certified(leaver, two)


async def test_the_certificate_names_every_backup_that_may_lie_anywhere(leaver: Leaver) -> None:
    """Also one of after the erasure's moment, whose snapshot may be older, and one that is about to go."""
    erasure = await erase(leaver, await leaver.customer())
    for number, state, key in ((1, "EXPIRED", ""), (2, "EXPIRED", "vault:v1:a"), (3, "VERIFIED", "vault:v1:b")):
        await leaver.fetch(
            "INSERT INTO backups (tenant_id, id, number, kind, state, created_at, coding, dek_versions, wrapped_key)"
            " VALUES ($1, gen_random_uuid(), $2, 'ASKED', $3, now(), '4+2', '{}', $4) RETURNING 1",
            *(number, state, key),
        )
    assert await leaver.finish() == ["DONE"]
    remains = await certified(leaver, erasure)
    assert remains["backups"]["numbers"] == [2, 3]
    assert remains["dead rows of tables"]["opens"] is True


async def test_the_refusal_names_the_holds(leaver: Leaver) -> None:
    owner, kept = await leaver.proven(Role.OWNER), await leaver.customer()
    hold = (await done(leaver.house, owner, PLACE, id=kept, r="a claim of Lovelace", t="LEGAL-3"))["hold"]["id"]
    (error,) = (await done(leaver.house, owner, ERASE, id=kept))["userErrors"]
    assert f"{hold} (LEGAL-3)" in error["message"] and "Lovelace" not in error["message"]


async def test_a_tenant_that_leaves_still_erases_and_holds_and_one_that_is_restored_waits(leaver: Leaver) -> None:
    owner, customer = await leaver.proven(Role.OWNER), await leaver.customer()
    await leaver.superuser.execute("UPDATE tenants SET frozen = 'RESTORE' WHERE id = $1", leaver.tenant.id)
    for document, more in ((ERASE, {}), (PLACE, {"r": "x"}), (LIFT, {})):
        assert await refused(leaver.house, owner, document, id=customer, **more) == ["TENANT_FROZEN"]

    await leaver.superuser.execute("UPDATE tenants SET frozen = 'OFFBOARDING' WHERE id = $1", leaver.tenant.id)
    hold = (await done(leaver.house, owner, PLACE, id=customer, r="x"))["hold"]["id"]
    assert (await done(leaver.house, owner, LIFT, id=hold))["userErrors"] == []
    await erase(leaver, customer)
    assert await leaver.finish() == ["DONE"]
