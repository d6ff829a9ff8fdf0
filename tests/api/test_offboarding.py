"""A tenant leaves: two people, a frozen time, then its key is gone, and with it all that was ever sealed for it."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cli.offboarding import printed
from crypto.errors import KeyRefused, KeyUnavailable
from crypto.keys import wrapping_context
from crypto.shredding import Shredder
from jobs.backups.errors import StoreAway
from jobs.shredding import shred
from tenants import tenants
from tenants.access import Role
from tenants.erasures import certificates, shredding
from tenants.erasures.certificates import Signed
from tenants.errors import OffboardingHeld, OffboardingNotDue, OffboardingUnknown, TenantClosed
from tests.api.staff import ask, done, id_of, join, refused
from tests.cli.test_cli import coffer, environment  # noqa: F401  # a fixture
from tests.erasing import ERRORS, Leaver
from tests.house import House
from tests.soak import soak_only

OFFBOARDING = "offboarding { state coolingDays shredAfter endedAt requestedBy { id } approvedBy { id } }"
REQUEST = f"mutation($d: Int! = 14) {{ at: requestOffboarding(coolingDays: $d) {{ {OFFBOARDING} {ERRORS} }} }}"
APPROVE = f"mutation {{ at: approveOffboarding {{ {OFFBOARDING} {ERRORS} }} }}"
CANCEL = f"mutation {{ at: cancelOffboarding {{ {OFFBOARDING} {ERRORS} }} }}"
SHOWN = f"{{ {OFFBOARDING} }}"
TAG = 'mutation { at: createTag(name: "anything") { userErrors { code } } }'
READ = "{ customers { nodes { givenName } } }"
OVER = "UPDATE offboardings SET shred_after = now() - interval '1 second' WHERE tenant_id = $1"


@pytest.fixture
async def leaver(house: House, tmp_path: Path) -> AsyncIterator[Leaver]:
    made = await Leaver.made(house, tmp_path)
    yield made
    await made.close()


async def second_owner(leaver: Leaver) -> Any:
    """Another owner, in a session that has just begun."""
    leaver.house.members[leaver.tenant.slug][Role.ANALYST] = await join(leaver.house, leaver.tenant.slug, [Role.OWNER])
    return await leaver.proven(Role.ANALYST)


async def approved(leaver: Leaver) -> tuple[Any, Any]:
    """Cooling by now; who asked and who approved."""
    first, second = await leaver.proven(Role.OWNER), await second_owner(leaver)
    assert (await done(leaver.house, first, REQUEST))["userErrors"] == []
    assert (await done(leaver.house, second, APPROVE))["userErrors"] == []
    return first, second


def shredders_token(house: House) -> str:
    wish: Any = {"policies": ["coffer-shredder"], "no_default_policy": True, "ttl": "1m"}
    headers = {"X-Vault-Token": house.vault.bao.root_token}
    made = requests.post(f"{house.vault.bao.address}/v1/auth/token/create", json=wish, headers=headers, timeout=5)
    return str(made.json()["auth"]["client_token"])


async def shredded(leaver: Leaver, token: str | None = None) -> Signed:
    api = leaver.house.api
    fresh = await asyncio.to_thread(shredders_token, leaver.house)
    shredder = Shredder(leaver.house.vault.bao.address, token or fresh)
    try:
        return await shred(
            await tenants.get(api.platform, leaver.tenant.slug),
            app=api.database,
            platform=api.platform,
            keys=api.keys,
            shredder=shredder,
            stores=leaver.stores,
        )
    finally:
        await shredder.close()


async def test_two_members_freeze_a_tenant_and_one_can_call_it_off(leaver: Leaver) -> None:
    house, slug = leaver.house, leaver.tenant.slug
    await leaver.customer()
    first, second = await leaver.proven(Role.OWNER), await second_owner(leaver)
    asked = (await done(house, first, REQUEST, d=3))["offboarding"]
    assert (asked["state"], asked["coolingDays"], asked["shredAfter"]) == ("REQUESTED", 3, None)
    assert await refused(house, first, TAG) == []

    given = (await done(house, second, APPROVE))["offboarding"]
    assert (given["state"], given["requestedBy"]["id"]) == ("COOLING", id_of(first))
    assert given["approvedBy"]["id"] == id_of(second)
    after = datetime.fromisoformat(given["shredAfter"]) - datetime.now().astimezone()
    assert timedelta(days=2, hours=23) < after < timedelta(days=3, hours=1)
    assert await refused(house, first, TAG) == ["TENANT_FROZEN"]
    assert (await house.data(READ, tenant=slug))["customers"]["nodes"] == [{"givenName": "Ada"}]
    assert (await ask(house, first, SHOWN))["data"]["offboarding"]["state"] == "COOLING"

    assert (await done(house, first, CANCEL))["offboarding"]["state"] == "CANCELLED"
    assert await refused(house, first, TAG) == ["TAKEN"]
    assert await refused(house, first, CANCEL) == ["NO_OFFBOARDING"]


async def test_whoever_may_cancel_can_still_sign_in_while_it_is_frozen(leaver: Leaver) -> None:
    await approved(leaver)
    sign_in = """mutation($t: String!, $e: String!) { at: signIn(tenant: $t, email: $e,
      password: "correct horse battery staple") { accessToken refreshToken userErrors { code } } }"""
    variables = {"t": leaver.tenant.slug, "e": f"owner@{leaver.tenant.slug}.example.org"}
    answer = await leaver.house.ask(sign_in, variables, role=None)
    headers = {"authorization": f"Bearer {answer['data']['at']['accessToken']}"}
    called_off = await leaver.house.ask(CANCEL, role=None, headers=headers)
    assert called_off["data"]["at"]["offboarding"]["state"] == "CANCELLED"


async def test_nobody_does_it_alone_or_without_right_or_proof(leaver: Leaver) -> None:
    house = leaver.house
    owner, admin = await leaver.proven(Role.OWNER), await leaver.proven(Role.ADMIN)
    unproven = house.members[leaver.tenant.slug][Role.OWNER]
    assert await refused(house, admin, REQUEST) == ["FORBIDDEN"]
    assert await refused(house, unproven, REQUEST) == ["STEP_UP_REQUIRED"]
    assert await refused(house, owner, APPROVE) == ["NO_OFFBOARDING"]
    assert await refused(house, owner, REQUEST, d=0) == ["INVALID"]
    await done(house, owner, REQUEST)
    assert await refused(house, owner, APPROVE) == ["SECOND_MEMBER_NEEDED"]
    second = await second_owner(leaver)
    assert await refused(house, second, REQUEST) == ["OFFBOARDING_OPEN"]
    assert await refused(house, house.members[leaver.tenant.slug][Role.ANALYST], APPROVE) == ["STEP_UP_REQUIRED"]
    assert await refused(house, owner, TAG) == []


async def test_two_who_ask_at_once_make_one_offboarding(leaver: Leaver) -> None:
    first, second = await leaver.proven(Role.OWNER), await second_owner(leaver)
    codes = await asyncio.gather(*(refused(leaver.house, who, REQUEST) for who in (first, second, first, second)))
    assert sorted(map(len, codes)) == [0, 0, 1, 1]
    assert await leaver.count("offboardings") == 1


async def test_before_two_have_agreed_and_time_has_passed_nothing_is_shredded(leaver: Leaver) -> None:
    with pytest.raises(OffboardingUnknown):
        await shredded(leaver)
    first, _ = await approved(leaver)
    with pytest.raises(OffboardingNotDue):
        await shredded(leaver)
    await leaver.fetch(OVER)
    with pytest.raises(KeyRefused):
        await shredded(leaver, "s.wrong")
    assert (await ask(leaver.house, first, READ))["data"]["customers"]["nodes"] == []
    assert (await done(leaver.house, first, CANCEL))["userErrors"] == []
    with pytest.raises(OffboardingUnknown):
        await shredded(leaver)


@dataclass(frozen=True)
class Stolen:
    """What a thief had copied before, beside the rights of the API at the key store."""

    wrapped: list[tuple[str, bytes]]
    objects: int


async def stolen(leaver: Leaver) -> Stolen:
    rows = await leaver.fetch("SELECT id, purpose, wrapped FROM data_keys WHERE tenant_id = $1")
    wrapped = [(row["wrapped"], wrapping_context(leaver.tenant.id, row["id"], row["purpose"])) for row in rows]
    assert await leaver.house.api.keys.unwrap(leaver.tenant.id, wrapped)  # until now it opens
    objects = [len(await store.sizes(str(leaver.tenant.id))) for store in leaver.stores]
    return Stolen(wrapped, sum(objects))


def assert_signed_as_printed(public_keys: Mapping[int, bytes], tenant: UUID, text: str) -> None:
    """By nothing but what docs/govern.md says."""
    shown = json.loads(text)
    parts = (b"coffer.certificate.v1", tenant.bytes, shown["json"].encode())
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    Ed25519PublicKey.from_public_bytes(public_keys[shown["keyVersion"]]).verify(b64decode(shown["signature"]), message)
    assert json.loads(shown["json"]) == shown["certificate"]


async def test_when_the_key_is_gone_nothing_that_was_ever_copied_opens(leaver: Leaver) -> None:
    house, slug = leaver.house, leaver.tenant.slug
    await leaver.customer(note="prefers letters")
    await leaver.key_files.publish(leaver.tenant.id)
    copy = await stolen(leaver)
    assert copy.objects == 3
    first, _ = await approved(leaver)
    await leaver.fetch(OVER)
    signed = await shredded(leaver)

    with pytest.raises(KeyRefused):
        await house.api.keys.unwrap(leaver.tenant.id, copy.wrapped)
    answer = await ask(house, first, READ)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]
    with pytest.raises(TenantClosed):
        async with house.api.units.enter(leaver.tenant.id, None, write=False):
            pass
    assert [await store.sizes(str(leaver.tenant.id)) for store in leaver.stores] == [{}, {}, {}]
    for table in ("customers", "customer_tokens", "subjects", "members", "member_sessions", "tags", "jobs", "events"):
        assert await leaver.count(table) == 0
    assert await leaver.count("data_keys", "wrapped <> ''") == 0
    assert await leaver.count("audit_entries") > 0

    public_keys = await house.api.keys.public_keys("coffer-audit")
    assert certificates.fits(public_keys, leaver.tenant.id, signed)
    assert_signed_as_printed(public_keys, leaver.tenant.id, printed(signed))
    assert signed.said["rows"]["customers"] == 1
    assert [each["objects"] for each in signed.said["stores"]] == [1, 1, 1]
    (row,) = await leaver.fetch("SELECT * FROM offboardings WHERE tenant_id = $1")
    assert (row["state"], json.loads(row["certificate"])) == ("CLOSED", dict(signed.said))
    assert (await tenants.get(house.api.platform, slug)).status == "CLOSED"


async def test_no_sealed_value_of_a_closed_tenant_is_left_in_any_table(leaver: Leaver) -> None:
    await leaver.customer()
    await approved(leaver)
    await leaver.fetch(OVER)
    await shredded(leaver)
    columns = await leaver.superuser.fetch(
        "SELECT c.relname AS table, a.attname AS column FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey)"
        " WHERE k.contype = 'c' AND pg_get_constraintdef(k.oid) LIKE '%c101%'"
    )
    assert len(columns) > 5
    for each in columns:
        assert await leaver.count(each["table"], f"{each['column']} IS NOT NULL") == 0, each


async def test_a_shredding_that_was_cut_off_goes_on_and_ends_with_one_certificate(leaver: Leaver) -> None:
    await leaver.key_files.publish(leaver.tenant.id)
    await approved(leaver)
    await leaver.fetch(OVER)
    leaver.unmount(1)
    with pytest.raises(StoreAway):
        await shredded(leaver)
    (row,) = await leaver.fetch("SELECT state, shredded_at FROM offboardings WHERE tenant_id = $1")
    assert row["state"] == "SHREDDING"
    leaver.mount(1)

    signed = await shredded(leaver)  # the key store has no such key any more: that counts as done
    assert signed.said["keyDestroyedAt"] == certificates.moment(row["shredded_at"])
    assert await shredded(leaver) == signed


async def test_a_legal_hold_keeps_the_tenant_until_it_is_lifted(leaver: Leaver) -> None:
    house, customer = leaver.house, await leaver.customer()
    place = f'mutation($id: ID!) {{ at: placeHold(customer: $id, reason: "a claim") {{ hold {{ id }} {ERRORS} }} }}'
    lift = f"mutation($id: ID!) {{ at: liftHold(id: $id) {{ {ERRORS} }} }}"
    first, second = await leaver.proven(Role.OWNER), await second_owner(leaver)
    hold = (await done(house, first, place, id=customer))["hold"]["id"]
    (error,) = (await done(house, first, REQUEST))["userErrors"]
    assert error["code"] == "LEGAL_HOLD" and hold in error["message"]
    await done(house, first, lift, id=hold)
    assert await refused(house, first, REQUEST) == []
    hold = (await done(house, first, place, id=customer))["hold"]["id"]
    assert await refused(house, second, APPROVE) == ["LEGAL_HOLD"]
    await done(house, first, lift, id=hold)
    assert await refused(house, second, APPROVE) == []

    hold = (await done(house, first, place, id=customer))["hold"]["id"]
    await leaver.fetch(OVER)
    with pytest.raises(OffboardingHeld, match=hold):
        await shredded(leaver)
    assert (await leaver.fetch("SELECT state FROM offboardings WHERE tenant_id = $1"))[0]["state"] == "COOLING"
    await done(house, first, lift, id=hold)
    await shredded(leaver)


async def test_the_certificate_counts_what_all_tries_deleted_also_from_stores_of_before(leaver: Leaver) -> None:
    await leaver.customer()
    await leaver.key_files.publish(leaver.tenant.id)
    former, gone = leaver.stores[2], leaver.stores[1]
    leaver.unmount(1)
    leaver.stores = leaver.stores[:1]
    await approved(leaver)
    await leaver.fetch(OVER)
    people = await leaver.count("members")
    signer, leaver.house.api.keys = leaver.house.api.keys, None  # type: ignore[assignment]  # cut off before it is signed
    try:
        with pytest.raises(AttributeError):
            await shredded(leaver)
    finally:
        leaver.house.api.keys = signer
    assert await leaver.count("members") == 0

    said = (await shredded(leaver)).said
    assert said["rows"]["customers"] == 1 and said["rows"]["members"] == people
    counts = {leaver.stores[0].url: 1, gone.url: 0, former.url: 1}
    assert {each["store"]: each["objects"] for each in said["stores"]} == counts
    assert await former.sizes(str(leaver.tenant.id)) == {}
    assert [each["stores"] for each in said["mayRemain"] if each["where"] == "former stores"] == [[gone.url]]


async def test_once_the_key_is_being_destroyed_nobody_calls_it_off(leaver: Leaver) -> None:
    first, _ = await approved(leaver)
    await leaver.fetch("UPDATE offboardings SET state = 'SHREDDING' WHERE tenant_id = $1")
    assert await refused(leaver.house, first, CANCEL) == ["NO_OFFBOARDING"]
    assert await refused(leaver.house, first, TAG) == ["TENANT_FROZEN"]


async def test_who_calls_it_off_at_the_last_moment_keeps_the_key(leaver: Leaver) -> None:
    """Between the operator's look at it and the deed."""
    first, _ = await approved(leaver)
    await leaver.fetch(OVER)
    (row,) = await leaver.fetch("SELECT id FROM offboardings WHERE tenant_id = $1")
    await done(leaver.house, first, CANCEL)
    with pytest.raises(OffboardingUnknown):
        await shredding.begin(leaver.house.api.database, leaver.tenant.id, UUID(str(row["id"])))
    assert await refused(leaver.house, first, TAG) == []


async def test_a_frozen_tenants_customers_still_get_what_is_kept_about_them(leaver: Leaver) -> None:
    id = await leaver.customer()
    first, _ = await approved(leaver)
    document = f'mutation($id: ID!) {{ at: exportCustomer(id: $id, purpose: "x") {{ export {{ json }} {ERRORS} }} }}'
    payload = await done(leaver.house, first, document, id=id)
    assert json.loads(payload["export"]["json"])["values"]["givenName"] == "Ada"


async def test_a_key_store_that_is_away_ends_nothing(leaver: Leaver) -> None:
    await approved(leaver)
    await leaver.fetch(OVER)
    shredder = Shredder("http://127.0.0.1:9", "s.token")
    api = leaver.house.api
    with pytest.raises(KeyUnavailable):
        await shred(
            await tenants.get(api.platform, leaver.tenant.slug),
            app=api.database,
            platform=api.platform,
            keys=api.keys,
            shredder=shredder,
            stores=[],
        )
    await shredder.close()
    assert (await tenants.get(api.platform, leaver.tenant.slug)).status == "ACTIVE"


@soak_only
async def test_the_operator_approves_for_a_sole_owner_and_shreds_by_the_command(
    leaver: Leaver,
    environment: dict[str, str],  # noqa: F811
) -> None:
    slug, owner = leaver.tenant.slug, await leaver.proven(Role.OWNER)
    none = await coffer("tenant", "approve-offboarding", slug, environment=environment)
    assert (none.returncode, none.stderr.strip()) == (1, "Nobody has asked for the end of this tenant.")
    await done(leaver.house, owner, REQUEST)
    given = await coffer("tenant", "approve-offboarding", slug, environment=environment)
    assert given.returncode == 0 and "is frozen" in given.stdout, given.stderr

    early = await coffer("tenant", "shred", slug, environment=environment | {"COFFER_SHREDDER_TOKEN": "s.none"})
    assert early.returncode == 1 and "may still call off its end" in early.stderr
    without = await coffer("tenant", "shred", slug, environment=environment)
    assert without.returncode == 2 and "COFFER_SHREDDER_TOKEN" in without.stderr
    await leaver.fetch(OVER)
    token = await asyncio.to_thread(shredders_token, leaver.house)
    stores = {"COFFER_BACKUP_STORES": ",".join(store.url for store in leaver.stores)}
    ended = await coffer("tenant", "shred", slug, environment=environment | stores | {"COFFER_SHREDDER_TOKEN": token})
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    assert shown["certificate"]["approvedBy"] is None and token not in ended.stdout + ended.stderr
    verified = await coffer("erasures", "verify", slug, environment=environment)
    assert verified.returncode == 1 and "closed" in verified.stderr


async def test_the_operator_does_not_approve_where_another_owner_can(
    leaver: Leaver,
    environment: dict[str, str],  # noqa: F811
) -> None:
    await second_owner(leaver)
    await done(leaver.house, await leaver.proven(Role.OWNER), REQUEST)
    refusal = await coffer("tenant", "approve-offboarding", leaver.tenant.slug, environment=environment)
    assert refusal.returncode == 1 and "another owner" in refusal.stderr
