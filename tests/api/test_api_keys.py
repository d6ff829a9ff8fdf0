"""API keys: shown once, as strong as their service's roles, and shut out from the moment they end."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.identity import Identities
from api.paging import global_id
from tenants.access import Role
from tenants.errors import Unauthenticated
from tenants.signing_in import api_keys
from tenants.signing_in.live_keys import LiveKeys
from tenants.viewers import Credential
from tests.api.test_websocket import Stage, serving
from tests.house import House
from tests.jobs.desk import Desk
from tests.tenants.chained import fetch

CREATE = """mutation($name: String! = "importer", $roles: [Role!]! = [INTEGRATION], $own: [ID!], $until: DateTime) {
  createApiKey(name: $name, roles: $roles, ownRoles: $own, expiresAt: $until) {
    secret apiKey { id name prefix roles ownRoles { name } createdAt expiresAt revokedAt lastUsedAt service { id } }
    userErrors { code path } } }"""
ROTATE = """mutation($id: ID!, $overlap: Int! = 86400) { rotateApiKey(id: $id, overlapSeconds: $overlap) {
  secret apiKey { id expiresAt service { id } } userErrors { code path } } }"""
ANOTHER = """mutation($service: ID, $name: String, $roles: [Role!]) {
  createApiKey(service: $service, name: $name, roles: $roles) {
    secret apiKey { id service { id status } } userErrors { code path } } }"""
REVOKE = "mutation($id: ID!) { revokeApiKey(id: $id) { apiKey { id revokedAt } userErrors { code } } }"
KEYS = """query($first: Int, $after: String) { apiKeys(first: $first, after: $after) {
  totalCount nodes { id prefix name } pageInfo { endCursor } } }"""
ME = "{ me { id name email roles permissions } }"
MANY = "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { created } }"


async def made(house: House, *, role: Role = Role.OWNER, tenant: str = "acme", **sent: Any) -> dict[str, Any]:
    """The payload of a key that could be made: `secret` and `apiKey`."""
    answer = await house.data(CREATE, sent, role=role, tenant=tenant)
    assert answer["createApiKey"]["userErrors"] == []
    payload: dict[str, Any] = answer["createApiKey"]
    return payload


async def by(house: House, secret: str, document: str, **variables: Any) -> Any:
    return await house.post(document, variables, role=None, headers={"authorization": f"Bearer {secret}"})


def codes(payload: dict[str, Any]) -> list[str]:
    """Of a refusal, which makes no key and shows no secret."""
    assert (payload["apiKey"], payload["secret"]) == (None, None)
    return [error["code"] for error in payload["userErrors"]]


async def may_enter(house: House, secret: str) -> bool:
    response = await by(house, secret, ME)
    assert response.status_code in (200, 401)
    return bool(response.status_code == 200)


async def rows(house: House, tenant: str = "acme") -> list[Any]:
    statement = """SELECT (SELECT count(*) FROM api_keys WHERE tenant_id = $1),
        (SELECT count(*) FROM members WHERE tenant_id = $1), (SELECT count(*) FROM member_roles WHERE tenant_id = $1)"""
    return await fetch(house, statement, house.tenants[tenant].id)


@pytest.fixture(scope="module")
async def stage(house: House) -> AsyncIterator[Stage]:
    async with serving() as running:
        running.app = house.api.app
        yield running


async def test_a_key_acts_as_its_service_with_its_roles(house: House) -> None:
    key = await made(house, name="night import")
    me = (await by(house, key["secret"], ME)).json()["data"]["me"]
    assert (me["name"], me["email"], me["roles"]) == ("night import", None, ["INTEGRATION"])
    assert me["id"] == key["apiKey"]["service"]["id"]
    created = (await by(house, key["secret"], MANY, i=[{"givenName": "Ada"}])).json()
    assert created["data"]["createCustomers"]["created"] == 1
    hidden = (await by(house, key["secret"], "{ customers { nodes { givenName } } }")).json()
    assert {node["givenName"] for node in hidden["data"]["customers"]["nodes"]} == {None}


async def test_the_secret_is_shown_once_and_kept_nowhere(house: House) -> None:
    key = await made(house)
    listed = await house.data(KEYS, {"first": 100})
    (entry,) = [node for node in listed["apiKeys"]["nodes"] if node["id"] == key["apiKey"]["id"]]
    assert entry["prefix"] == f"cof_…{key['secret'][-6:]}"
    stored = await fetch(house, "SELECT k::text FROM api_keys k WHERE prefix = $1", entry["prefix"])
    assert key["secret"] not in str(stored)
    assert await fetch(house, "SELECT 1 FROM audit_entries WHERE strpos(details::text, 'cof_') > 0") == []


async def test_keys_are_paged_newest_first(house: House) -> None:
    new = [(await made(house, name=name))["apiKey"]["id"] for name in ("one", "two", "three")]
    first = (await house.data(KEYS, {"first": 2}))["apiKeys"]
    rest = (await house.data(KEYS, {"first": 1, "after": first["pageInfo"]["endCursor"]}))["apiKeys"]
    assert [node["id"] for node in first["nodes"] + rest["nodes"]] == new[::-1]
    assert first["totalCount"] >= 3


WITHOUT = [role for role in Role if role not in (Role.OWNER, Role.ADMIN)]


@pytest.mark.parametrize("role", WITHOUT)
async def test_without_the_permission_there_are_no_keys(house: House, role: Role) -> None:
    key, before = await made(house), await rows(house)
    sent = [(KEYS, {}), (CREATE, {}), (ROTATE, {"id": key["apiKey"]["id"]}), (REVOKE, {"id": key["apiKey"]["id"]})]
    told = [(await house.ask(*each, role=role))["errors"][0]["extensions"]["code"] for each in sent]
    node = await house.data("query($i: ID!) { node(id: $i) { id } }", {"i": key["apiKey"]["id"]}, role=role)
    assert told == ["FORBIDDEN"] * 4
    assert node["node"] is None
    assert await rows(house) == before
    assert await may_enter(house, key["secret"])


async def test_nobody_gives_a_key_more_than_they_have(house: House) -> None:
    before = await rows(house)
    answer = await house.data(CREATE, {"roles": ["MANAGER"]}, role=Role.ADMIN)
    assert codes(answer["createApiKey"]) == ["BEYOND_YOUR_RIGHTS"]
    assert await rows(house) == before


async def test_rotating_a_stronger_services_key_would_be_taking_its_rights(house: House) -> None:
    key = await made(house, roles=["MANAGER"])
    before = await rows(house)
    answer = await house.data(ROTATE, {"id": key["apiKey"]["id"]}, role=Role.ADMIN)
    assert codes(answer["rotateApiKey"]) == ["BEYOND_YOUR_RIGHTS"]
    assert await rows(house) == before


async def test_a_key_makes_rotates_and_revokes_no_keys(house: House) -> None:
    key = await made(house, roles=["OWNER"])
    before, mine = await rows(house), {"id": key["apiKey"]["id"]}
    for document, sent in ((CREATE, {"roles": ["ANALYST"]}), (ROTATE, mine), (REVOKE, mine)):
        (error,) = (await by(house, key["secret"], document, **sent)).json()["errors"]
        assert error["extensions"]["code"] == "FORBIDDEN"
    assert await rows(house) == before
    assert await may_enter(house, key["secret"])


async def test_an_own_role_of_another_tenant_is_not_there(house: House) -> None:
    role = await house.data(
        'mutation { createRole(input: { name: "theirs" }) { role { id } userErrors { code } } }', tenant="globex"
    )
    before = await rows(house)
    answer = await house.data(CREATE, {"own": [role["createRole"]["role"]["id"]], "roles": []})
    assert answer["createApiKey"]["userErrors"] == [{"code": "NOT_FOUND", "path": ["ownRoles"]}]
    assert await rows(house) == before


async def test_a_key_has_its_own_roles_too(house: House) -> None:
    role = await house.data(
        'mutation { createRole(input: { name: "reader", permissions: [CUSTOMERS_READ] }) { role { id } } }'
    )
    key = await made(house, roles=[], own=[role["createRole"]["role"]["id"]])
    assert key["apiKey"]["ownRoles"] == [{"name": "reader"}]
    assert (await by(house, key["secret"], ME)).json()["data"]["me"]["permissions"] == ["CUSTOMERS_READ"]


@pytest.mark.parametrize(
    ("sent", "code", "path"),
    [
        ({"name": " "}, "REQUIRED", ["name"]),
        ({"name": "x" * 300}, "INVALID", ["name"]),
        ({"until": "2020-01-01T00:00:00Z"}, "INVALID", ["expiresAt"]),
    ],
)
async def test_what_cannot_be_used_is_refused(house: House, sent: dict[str, Any], code: str, path: list[str]) -> None:
    before = await rows(house)
    answer = await house.data(CREATE, sent)
    assert answer["createApiKey"] == {"secret": None, "apiKey": None, "userErrors": [{"code": code, "path": path}]}
    assert await rows(house) == before


def forged(secret: str) -> dict[str, str]:
    """Keys that are none, by what is wrong with them; all but the first three are well-formed."""
    known = api_keys.read(secret)
    assert known is not None
    tenant, member = known.tenant, known.principal
    return {
        "cut off": secret[:-1],
        "of a wrong checksum": secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        "no base64": "cof_!" + secret[5:],
        "of another secret": api_keys.make(tenant, member)[0],
        "of no such member": api_keys.make(tenant, uuid4())[0],
        "of no such tenant": api_keys.make(uuid4(), member)[0],
    }


@pytest.mark.parametrize("wrong", list(forged(api_keys.make(uuid4(), uuid4())[0])))
async def test_a_key_that_is_none_gets_the_same_answer_as_no_token(house: House, wrong: str) -> None:
    key = await made(house)
    response = await by(house, forged(key["secret"])[wrong], ME)
    usual = await by(house, "nonsense", ME)
    assert (response.status_code, usual.status_code) == (401, 401)
    assert response.headers["www-authenticate"] == usual.headers["www-authenticate"]
    assert _answer(response) == _answer(usual)


async def test_a_secret_opens_nothing_in_another_tenant(house: House) -> None:
    key = await made(house)
    mine, theirs = api_keys.read(key["secret"]), house.members["globex"][Role.OWNER]
    assert mine is not None
    assert mine.key is not None
    for principal in (mine.principal, theirs.principal):
        moved = Credential(theirs.tenant, principal, key=mine.key)
        with pytest.raises(Unauthenticated):
            async with house.api.units.enter(moved.tenant, moved.principal, write=False, key=moved.key):
                pass


async def test_a_key_does_not_open_another_member_of_its_tenant(house: House) -> None:
    mine = api_keys.read((await made(house))["secret"])
    owner = house.members["acme"][Role.OWNER]
    assert mine is not None
    with pytest.raises(Unauthenticated):
        async with house.api.units.enter(owner.tenant, owner.principal, write=False, key=mine.key):
            pass


def _answer(response: Any) -> Any:
    (error,) = response.json()["errors"]
    del error["extensions"]["requestId"]
    return error


def test_a_key_reads_back_and_no_letter_of_it_may_differ() -> None:
    tenant, member = uuid4(), uuid4()
    text, prefix, digest = api_keys.make(tenant, member)
    assert api_keys.read(text) == Credential(tenant, member, key=digest)  # type: ignore[arg-type]  # any ids will do
    assert prefix == "cof_…" + text[-6:]
    changed = [text[:n] + ("A" if text[n] != "A" else "B") + text[n + 1 :] for n in range(len(text))]
    assert [each for each in changed if api_keys.read(each)] == []
    assert [
        each for each in (text + "A", text + "=", text + "\n", "", "cof_", text.upper()) if api_keys.read(each)
    ] == []


def test_the_form_of_a_key_never_changes() -> None:
    body = "cof_AAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAAAAAAAAAAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg"
    known = api_keys.read(body + "0HzCsQ")
    assert known is not None
    assert (known.tenant, known.principal) == (UUID(int=1), UUID(int=2))
    assert known.key is not None
    assert known.key.hex() == "75877bb41d393b5fb8455ce60ecd8dda001d06316496b14dfa7f895656eeca4a"


async def test_a_key_cannot_sign_in(house: House) -> None:
    await made(house, name="importer")
    answer = await house.data(
        'mutation { signIn(tenant: "acme", email: "importer", password: "") { accessToken userErrors { code } } }',
        role=None,
    )
    assert answer["signIn"] == {"accessToken": None, "userErrors": [{"code": "SIGN_IN_REFUSED"}]}


async def test_a_revoked_key_is_shut_out_by_the_next_request(house: House) -> None:
    key = await made(house)
    assert await may_enter(house, key["secret"])
    revoked = await house.data(REVOKE, {"id": key["apiKey"]["id"]})
    assert revoked["revokeApiKey"]["apiKey"]["revokedAt"] is not None
    before = await fetch(house, "SELECT count(*) FROM customers")
    assert not await may_enter(house, key["secret"])
    assert (await by(house, key["secret"], MANY, i=[{"givenName": "Ada"}])).status_code == 401
    assert await fetch(house, "SELECT count(*) FROM customers") == before
    assert (await house.data(REVOKE, {"id": key["apiKey"]["id"]})) == revoked


async def test_an_expired_key_is_shut_out(house: House) -> None:
    until = datetime.now(UTC) + timedelta(seconds=60)
    key = await made(house, until=until.isoformat())
    assert await may_enter(house, key["secret"])
    past = until - timedelta(minutes=5)
    await fetch(house, "UPDATE api_keys SET expires_at = $1 WHERE prefix = $2", past, key["apiKey"]["prefix"])
    assert not await may_enter(house, key["secret"])
    refused = await house.data(ROTATE, {"id": key["apiKey"]["id"]})
    assert refused["rotateApiKey"]["userErrors"] == [{"code": "KEY_ENDED", "path": ["id"]}]


async def test_with_its_last_key_a_service_is_disabled(house: House) -> None:
    key = await made(house)
    second = (await house.data(ROTATE, {"id": key["apiKey"]["id"]}))["rotateApiKey"]
    service = api_keys.read(key["secret"])
    assert service is not None
    status = ("SELECT status FROM members WHERE id = $1", service.principal)
    await house.data(REVOKE, {"id": key["apiKey"]["id"]})
    assert (await fetch(house, *status))[0]["status"] == "ACTIVE"
    assert await may_enter(house, second["secret"])
    await house.data(REVOKE, {"id": second["apiKey"]["id"]})
    assert (await fetch(house, *status))[0]["status"] == "DISABLED"


async def test_queued_jobs_of_a_disabled_service_do_not_run(house: House) -> None:
    key = await made(house)
    credential = api_keys.read(key["secret"])
    assert credential is not None
    async with Desk.opened(house) as desk:
        job = await desk.enqueue(principal=credential.principal)
        await house.data(REVOKE, {"id": key["apiKey"]["id"]})
        await desk.handling().handle(desk.acme, job)
        assert (await desk.job(job))["reason"] == "UNAUTHENTICATED"
        assert await desk.effects(job) == []


async def test_rotation_overlaps_and_then_the_old_key_ends(house: House) -> None:
    until = datetime.now(UTC) + timedelta(days=90)
    key = await made(house, until=until.isoformat())
    fresh = (await house.data(ROTATE, {"id": key["apiKey"]["id"], "overlap": 600}))["rotateApiKey"]
    assert fresh["apiKey"]["service"] == key["apiKey"]["service"]
    assert datetime.fromisoformat(fresh["apiKey"]["expiresAt"]) >= until
    assert await may_enter(house, key["secret"])
    assert await may_enter(house, fresh["secret"])
    (old,) = await fetch(house, "SELECT * FROM api_keys WHERE prefix = $1", key["apiKey"]["prefix"])
    assert timedelta(minutes=9) < old["expires_at"] - datetime.now(UTC) <= timedelta(minutes=10)


async def test_rotation_without_overlap_ends_the_old_key_at_once(house: House) -> None:
    key = await made(house)
    fresh = (await house.data(ROTATE, {"id": key["apiKey"]["id"], "overlap": 0}))["rotateApiKey"]
    assert (await may_enter(house, key["secret"]), await may_enter(house, fresh["secret"])) == (False, True)
    again = await house.data(ROTATE, {"id": key["apiKey"]["id"], "overlap": 0})
    assert again["rotateApiKey"]["userErrors"] == [{"code": "KEY_ENDED", "path": ["id"]}]


@pytest.mark.parametrize("overlap", [-1, 30 * 86_400 + 1])
async def test_an_overlap_is_bounded(house: House, overlap: int) -> None:
    key = await made(house)
    before = await rows(house)
    answer = await house.data(ROTATE, {"id": key["apiKey"]["id"], "overlap": overlap})
    assert answer["rotateApiKey"]["userErrors"] == [{"code": "INVALID", "path": ["overlapSeconds"]}]
    assert await rows(house) == before


async def test_another_tenants_key_is_not_there(house: House) -> None:
    key = await made(house, tenant="globex")
    before = await rows(house, "globex")
    for document in (ROTATE, REVOKE):
        (payload,) = (await house.data(document, {"id": key["apiKey"]["id"]})).values()
        assert payload["userErrors"][0]["code"] == "NOT_FOUND"
    listed = await house.data(KEYS, {"first": 100})
    assert key["apiKey"]["id"] not in [node["id"] for node in listed["apiKeys"]["nodes"]]
    assert await rows(house, "globex") == before
    assert await may_enter(house, key["secret"])


async def test_a_tenant_has_at_most_two_hundred_live_keys(house: House) -> None:
    tenant = await house.add_tenant(f"keys-{uuid4().hex[:8]}")
    first = await made(house, tenant=tenant.slug)
    service = api_keys.read(first["secret"])
    assert service is not None
    copy = """INSERT INTO api_keys (tenant_id, id, member_id, hash, prefix, created_at)
        SELECT $1, gen_random_uuid(), $2, sha256(n::text::bytea), 'cof_', now() FROM generate_series(2, 200) AS n"""
    await fetch(house, copy, tenant.id, service.principal)
    before = await rows(house, tenant.slug)
    refused = await house.data(CREATE, tenant=tenant.slug)
    assert refused["createApiKey"]["userErrors"] == [{"code": "TOO_MANY", "path": []}]
    assert await rows(house, tenant.slug) == before
    await house.data(REVOKE, {"id": first["apiKey"]["id"]}, tenant=tenant.slug)
    await made(house, tenant=tenant.slug)


async def test_when_a_key_was_used_is_written_off_the_requests_path(house: House) -> None:
    key = await made(house)
    used = ("SELECT last_used_at FROM api_keys WHERE prefix = $1", key["apiKey"]["prefix"])
    before = datetime.now(UTC)
    assert await may_enter(house, key["secret"])
    assert (await fetch(house, *used))[0]["last_used_at"] is None
    await house.api.live_keys.flush()
    assert before < (await fetch(house, *used))[0]["last_used_at"] < datetime.now(UTC)


async def test_uses_are_written_in_the_background(house: House) -> None:
    key = await made(house)
    credential = api_keys.read(key["secret"])
    assert credential is not None
    mine, at = LiveKeys(house.api.database, every=0.01), datetime.now(UTC)
    mine.used(credential, at - timedelta(seconds=1))
    mine.used(credential, at)
    writer = mine._writer
    assert writer is not None
    await asyncio.wait_for(writer, 5)  # it ends when nothing is left to write
    (row,) = await fetch(house, "SELECT last_used_at FROM api_keys WHERE hash = $1", credential.key)
    assert row["last_used_at"] == at
    mine.used(house.members["acme"][Role.OWNER], at)  # who comes with a token uses no key
    assert mine._writer is writer


async def test_a_use_that_could_not_be_written_waits(house: House) -> None:
    key = await made(house)
    credential = api_keys.read(key["secret"])
    assert credential is not None
    used = ("SELECT last_used_at FROM api_keys WHERE hash = $1", credential.key)
    mine, at = LiveKeys(house.api.database), datetime.now(UTC)
    mine.used(credential, at)
    await fetch(house, "REVOKE UPDATE ON api_keys FROM coffer_app")
    try:
        await mine.flush()
    finally:
        await fetch(house, "GRANT UPDATE ON api_keys TO coffer_app")
    assert (await fetch(house, *used))[0]["last_used_at"] is None
    await mine.close()
    assert (await fetch(house, *used))[0]["last_used_at"] == at


async def test_a_known_key_is_not_looked_up_before_its_request(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await made(house)
    now = [0.0]
    mine = LiveKeys(house.api.database, clock=lambda: now[0])
    identities = Identities(house.api.tokens, mine)
    await identities.prove([f"Bearer {key['secret']}"])
    monkeypatch.setattr(house.api.database, "session", None)  # a look would fail
    await identities.prove([f"Bearer {key['secret']}"])
    now[0] = 901.0
    with pytest.raises(TypeError):
        await identities.prove([f"Bearer {key['secret']}"])


async def test_a_socket_takes_a_key_and_no_forged_one(house: House, stage: Stage) -> None:
    key = await made(house, roles=["MANAGER"])
    async with stage.acknowledged({"authorization": f"Bearer {key['secret']}"}) as client:
        await client.subscribe({"query": ME})
        assert (await client.receive())["payload"]["data"]["me"]["roles"] == ["MANAGER"]
    wrong = {"authorization": f"Bearer {forged(key['secret'])['of another secret']}"}
    async with stage.connect() as client:
        await client.send({"type": "connection_init", "payload": wrong})
        assert await client.closed() == 4403


async def test_a_stream_ends_within_seconds_of_its_keys_end(house: House, stage: Stage) -> None:
    key = await made(house, roles=["MANAGER"])
    async with stage.acknowledged({"authorization": f"Bearer {key['secret']}"}) as client:
        await client.subscribe({"query": "subscription { customerChanged { type } }"})
        await house.data(REVOKE, {"id": key["apiKey"]["id"]})
        async with asyncio.timeout(5):
            assert await client.error() == "UNAUTHENTICATED"
            assert await client.closed() == 4403


async def test_what_happens_to_keys_is_on_record(house: House) -> None:
    key = await made(house)
    await house.data(ROTATE, {"id": key["apiKey"]["id"]})
    await house.data(REVOKE, {"id": key["apiKey"]["id"]})
    entries = await house.data(
        "query($i: ID!) { auditEntries(filter: { subject: $i }) { nodes { action fields } } }",
        {"i": key["apiKey"]["id"]},
    )
    told = [(node["action"], node["fields"]) for node in entries["auditEntries"]["nodes"]]
    assert told == [("api_key.revoked", []), ("api_key.rotated", []), ("api_key.created", ["roles"])]


async def test_a_key_whose_successor_was_lost_is_rotated_again_for_as_long(house: House) -> None:
    until = datetime.now(UTC) + timedelta(days=90)
    key = await made(house, until=until.isoformat())
    sent = {"id": key["apiKey"]["id"], "overlap": 600}
    lost, fresh = [(await house.data(ROTATE, sent))["rotateApiKey"] for _ in range(2)]
    assert datetime.fromisoformat(fresh["apiKey"]["expiresAt"]) >= until
    entering = [await may_enter(house, each["secret"]) for each in (key, lost, fresh)]
    assert entering == [True, False, True]


async def test_a_key_that_never_ends_is_rotated_again_into_one_that_never_ends(house: House) -> None:
    key = await made(house)
    sent = {"id": key["apiKey"]["id"], "overlap": 600}
    first, second = [(await house.data(ROTATE, sent))["rotateApiKey"] for _ in range(2)]
    await house.data(ROTATE, {"id": second["apiKey"]["id"]})
    third = (await house.data(ROTATE, sent))["rotateApiKey"]
    assert [each["apiKey"]["expiresAt"] for each in (first, second, third)] == [None] * 3
    (old,) = await fetch(house, "SELECT expires_at FROM api_keys WHERE prefix = $1", key["apiKey"]["prefix"])
    assert old["expires_at"] - datetime.now(UTC) <= timedelta(minutes=10)


async def test_a_successor_that_was_used_outlives_another_rotation(house: House) -> None:
    key = await made(house)
    used = (await house.data(ROTATE, {"id": key["apiKey"]["id"]}))["rotateApiKey"]
    assert await may_enter(house, used["secret"])
    await house.api.live_keys.flush()
    fresh = (await house.data(ROTATE, {"id": key["apiKey"]["id"]}))["rotateApiKey"]
    assert [await may_enter(house, each["secret"]) for each in (used, fresh)] == [True, True]


async def test_a_service_whose_keys_have_ended_is_given_another(house: House) -> None:
    key = await made(house)
    service = key["apiKey"]["service"]["id"]
    await house.data(REVOKE, {"id": key["apiKey"]["id"]})
    payload = (await house.data(ANOTHER, {"service": service}))["createApiKey"]
    assert payload["userErrors"] == []
    assert payload["apiKey"]["service"] == {"id": service, "status": "ACTIVE"}
    me = (await by(house, payload["secret"], ME)).json()["data"]["me"]
    assert (me["id"], me["name"], me["roles"]) == (service, "importer", ["INTEGRATION"])


async def test_a_key_of_a_service_takes_all_that_it_has(house: House) -> None:
    key, before = await made(house, roles=["MANAGER"]), await rows(house)
    service = key["apiKey"]["service"]["id"]
    refused = (await house.data(ANOTHER, {"service": service}, role=Role.ADMIN))["createApiKey"]
    assert codes(refused) == ["BEYOND_YOUR_RIGHTS"]
    assert await rows(house) == before


async def test_a_key_is_for_a_service_that_had_one(house: House) -> None:
    before, person = await rows(house), global_id("Member", house.members["acme"][Role.AGENT].principal)
    elsewhere = (await made(house, tenant="globex"))["apiKey"]["service"]["id"]
    for service in (person, elsewhere, "zz"):
        assert codes((await house.data(ANOTHER, {"service": service}))["createApiKey"]) == ["NOT_FOUND"]
    assert await rows(house) == before


async def test_a_service_has_its_name_and_roles_already(house: House) -> None:
    service = (await made(house))["apiKey"]["service"]["id"]
    before = await rows(house)
    payload = (await house.data(ANOTHER, {"service": service, "name": "new", "roles": ["ANALYST"]}))["createApiKey"]
    assert [error["path"] for error in payload["userErrors"]] == [["name"], ["roles"]]
    assert codes(payload) == ["INVALID", "INVALID"]
    assert await rows(house) == before


async def test_a_new_service_has_a_name_and_a_role(house: House) -> None:
    before = await rows(house)
    payload = (await house.data(ANOTHER, {"roles": []}))["createApiKey"]
    assert [(error["code"], error["path"]) for error in payload["userErrors"]] == [
        ("REQUIRED", ["name"]),
        ("REQUIRED", ["roles"]),
    ]
    assert await rows(house) == before
