"""Whom a provider vouches for: one member for each issuer and subject, with the roles that are claimed, and no more."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from api.paging import local_id
from tenants import members
from tenants.access import Role
from tenants.audit.entries import AuditEntry
from tenants.members import Member
from tenants.signing_in.new_passwords import NewPasswords
from tests.house import PASSWORD, House
from tests.openid.asking import (
    AGENTS,
    LINK,
    added,
    begun,
    codes,
    completed,
    me,
    refusals,
    remove_all,
    signed_in,
)
from tests.openid.provider import PUBLIC_CLIENT, REDIRECT, Browser, OpenIdProvider

REFUSED = ["SIGN_ON_REFUSED"]
ROLES = "mutation($id: ID!, $r: [Role!]!) { setMemberRoles(id: $id, roles: $r, ownRoles: []) { userErrors { code } } }"
DISABLE = "mutation($id: ID!) { disableMember(id: $id) { userErrors { code } } }"
SIGN_IN = """mutation($e: String!, $p: String!) { signIn(tenant: "acme", email: $e, password: $p) {
  accessToken userErrors { code } } }"""
SESSIONS = "{ sessions { nodes { method isCurrent } } }"


@pytest.fixture
async def acme(signed_on: House, provider: OpenIdProvider) -> AsyncIterator[House]:
    await added(signed_on, provider)
    yield signed_on
    await remove_all(signed_on)


@pytest.fixture
async def account(provider: OpenIdProvider, request: pytest.FixtureRequest) -> str:
    """Somebody at the provider whom no other test signs in."""
    name = f"of-{request.node.name[-50:]}"
    await provider.send(accounts={name: {"groups": ["crm-agents"], "name": "Some Body"}})
    return name


async def with_groups(provider: OpenIdProvider, account: str, *groups: str, **claims: Any) -> None:
    await provider.send(accounts={account: {"groups": list(groups), **claims}})


async def test_roles_follow_the_claims_at_each_sign_in(
    acme: House, browser: Browser, provider: OpenIdProvider, account: str
) -> None:
    await remove_all(acme)
    await added(acme, provider, roleMap=[AGENTS, {"value": "crm-analysts", "roles": ["ANALYST"]}])
    seen = []
    for groups in (["crm-agents"], ["crm-analysts", "other"], ["crm-agents", "crm-analysts"]):
        await with_groups(provider, account, *groups)
        payload = await signed_in(acme, browser, account, f=True)
        seen.append((await me(acme, payload["accessToken"]))["roles"])
    assert seen == [["AGENT"], ["ANALYST"], ["AGENT", "ANALYST"]]


async def test_a_role_that_no_claim_can_give_no_claim_takes(
    acme: House, browser: Browser, provider: OpenIdProvider, account: str
) -> None:
    who = await me(acme, (await signed_in(acme, browser, account))["accessToken"])
    await acme.data(ROLES, {"id": who["id"], "r": ["AGENT", "AUDITOR"]})
    await with_groups(provider, account, "elsewhere")

    payload = await signed_in(acme, browser, account)
    assert (await me(acme, payload["accessToken"]))["roles"] == ["AUDITOR"]


async def test_who_lost_every_role_is_refused_and_keeps_none(
    acme: House, browser: Browser, provider: OpenIdProvider, account: str
) -> None:
    first = await signed_in(acme, browser, account)
    await with_groups(provider, account, "elsewhere")

    assert codes(await signed_in(acme, browser, account)) == REFUSED
    assert (await me(acme, first["accessToken"]))["roles"] == []


async def test_the_last_owner_stays_one_whatever_is_claimed(
    signed_on: House, browser: Browser, provider: OpenIdProvider, account: str
) -> None:
    await signed_on.add_tenant("sole")
    await added(signed_on, provider, tenant="sole", roleMap=[{"value": "owners", "roles": ["OWNER"]}])
    await with_groups(provider, account, "owners")
    try:
        who = await me(signed_on, (await signed_in(signed_on, browser, account, "sole"))["accessToken"])
        await shut_out(signed_on, "sole", Role.OWNER)
        await with_groups(provider, account, "elsewhere")
        again = await me(signed_on, (await signed_in(signed_on, browser, account, "sole"))["accessToken"])
    finally:
        await shut_out(signed_on, "sole", Role.OWNER, status="ACTIVE")
        await remove_all(signed_on, "sole")
    assert (again["id"], again["roles"]) == (who["id"], ["OWNER"])


async def shut_out(house: House, tenant: str, role: Role, status: str = "DISABLED") -> None:
    who = house.members[tenant][role]
    async with house.api.units.enter(who.tenant, None, write=True) as unit:
        mine = (Member.tenant_id == unit.tenant.id, Member.id == who.principal)
        await unit.run(update(Member).where(*mine).values(status=status))


async def test_the_same_email_is_not_the_same_person(acme: House, browser: Browser) -> None:
    before = await acme.data("{ me { id } }", role=Role.AGENT)
    made = await me(acme, (await signed_in(acme, browser, "bob"))["accessToken"])

    assert made["id"] != before["me"]["id"]
    assert made["email"] == "agent@acme.example.org"  # it is shown, and finds the other one still
    signed = await acme.data(SIGN_IN, {"e": "agent@acme.example.org", "p": PASSWORD}, role=None)
    assert (await me(acme, signed["signIn"]["accessToken"]))["id"] == before["me"]["id"]


@pytest.mark.parametrize("claims", [{}, {"email_verified": False}, {"email_verified": "true"}, {"email_verified": 1}])
async def test_an_email_that_the_provider_did_not_verify_is_not_taken(
    acme: House, browser: Browser, provider: OpenIdProvider, claims: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    account = f"unverified {request.node.name[-20:]}"
    await with_groups(provider, account, "crm-agents", email="claimed@login.example.org", **claims)

    assert (await me(acme, (await signed_in(acme, browser, account))["accessToken"]))["email"] is None


async def test_who_comes_by_a_provider_gets_no_password_by_mail(
    acme: House, browser: Browser, provider: OpenIdProvider, account: str
) -> None:
    await with_groups(provider, account, "crm-agents", email="sso@login.example.org", email_verified=True)
    who = await me(acme, (await signed_in(acme, browser, account))["accessToken"])
    for email in ("sso@login.example.org", "agent@acme.example.org"):
        await new_passwords_of(acme).request("acme", email)

    asked = await asked_for_reset(acme)
    assert acme.members["acme"][Role.AGENT].principal in asked
    assert local_id("Member", who["id"]) not in asked


async def asked_for_reset(house: House) -> set[UUID]:
    async with house.api.units.enter(house.tenants["acme"].id, None, write=False) as unit:
        asked = select(AuditEntry.subjects).where(
            AuditEntry.tenant_id == unit.tenant.id, AuditEntry.action == "member.password_reset_requested"
        )
        return {subject for subjects in await unit.scalars(asked) for subject in subjects}


async def test_two_first_sign_ins_at_once_make_one_member(acme: House, account: str) -> None:
    browsers = [Browser() for _ in range(4)]
    payloads = await asyncio.gather(*(signed_in(acme, each, account) for each in browsers))
    await asyncio.gather(*(each.close() for each in browsers))

    assert len({(await me(acme, each["accessToken"]))["id"] for each in payloads}) == 1


async def test_a_disabled_member_is_refused(acme: House, browser: Browser, account: str) -> None:
    first = await signed_in(acme, browser, account)
    who = await me(acme, first["accessToken"])
    await acme.data(DISABLE, {"id": who["id"]})

    assert codes(await signed_in(acme, browser, account)) == REFUSED
    assert (await refusals(acme))[-1] == {"method": "OIDC", "why": "member-not-active"}


async def test_a_subject_of_one_tenant_is_nobody_in_another(
    acme: House, browser: Browser, provider: OpenIdProvider, account: str
) -> None:
    await added(acme, provider, tenant="globex", clientId=PUBLIC_CLIENT, clientSecret=None, audience="x")
    try:
        ours = await me(acme, (await signed_in(acme, browser, account))["accessToken"])
        theirs = await me(acme, (await signed_in(acme, browser, account, "globex"))["accessToken"])
    finally:
        await remove_all(acme, "globex")
    assert ours["id"] != theirs["id"]


async def test_the_session_is_of_its_own_kind_and_listed(acme: House, browser: Browser, account: str) -> None:
    payload = await signed_in(acme, browser, account)
    answer = await acme.client.post(
        "/graphql", json={"query": SESSIONS}, headers={"authorization": f"Bearer {payload['accessToken']}"}
    )
    assert answer.json()["data"]["sessions"]["nodes"] == [{"method": "OIDC", "isCurrent": True}]


async def linked(house: House, browser: Browser, account: str, token: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}"}
    asked = {"query": LINK, "variables": {"r": REDIRECT}}
    begin = (await house.client.post("/graphql", json=asked, headers=headers)).json()["data"]["linkSignOn"]
    if begin["userErrors"]:
        return dict(begin)
    return await completed(house, await browser.sign_in(begin["authorizationUrl"], account), begin["handle"])


async def password_token(house: House, email: str) -> str:
    """Of a new member, an auditor, who has just signed in by password."""
    hashed = await house.api.passwords.hash(PASSWORD)
    async with house.api.units.enter(house.tenants["acme"].id, None, write=True) as unit:
        await members.add(unit, email=email, name="Linked", password_hash=hashed, roles=[Role.AUDITOR])
    return str((await house.data(SIGN_IN, {"e": email, "p": PASSWORD}, role=None))["signIn"]["accessToken"])


async def test_a_member_who_asks_is_linked_and_signs_in_as_itself(acme: House, browser: Browser, account: str) -> None:
    token = await password_token(acme, "linked@acme.example.org")
    before = await me(acme, token)

    assert codes(await linked(acme, browser, account, token)) == []
    later = await me(acme, (await signed_in(acme, browser, account))["accessToken"])
    assert later["id"] == before["id"]
    assert later["roles"] == ["AGENT", "AUDITOR"]


async def test_an_identity_is_linked_to_one_member(acme: House, browser: Browser, account: str) -> None:
    mine = await me(acme, (await signed_in(acme, browser, account))["accessToken"])

    theirs = await password_token(acme, "other@acme.example.org")
    assert codes(await linked(acme, browser, account, theirs)) == REFUSED
    assert (await me(acme, (await signed_in(acme, browser, account))["accessToken"]))["id"] == mine["id"]


async def test_linking_wants_a_fresh_proof(acme: House, browser: Browser, account: str) -> None:
    token = await acme.token(acme.members["acme"][Role.ANALYST])  # of no session, so nobody proved anything lately

    assert codes(await linked(acme, browser, account, token)) == ["STEP_UP_REQUIRED"]


async def test_a_sign_in_at_the_provider_is_a_fresh_proof_only_if_it_asked_for_one(
    acme: House, browser: Browser, account: str
) -> None:
    usual = (await signed_in(acme, browser, account))["accessToken"]
    fresh = (await signed_in(acme, browser, account, f=True))["accessToken"]

    assert codes(await linked(acme, browser, account, usual)) == ["STEP_UP_REQUIRED"]
    assert codes(await linked(acme, browser, account, fresh)) == []


async def test_a_link_is_made_by_who_began_it_alone(acme: House, browser: Browser, account: str) -> None:
    token = await password_token(acme, "beginner@acme.example.org")
    asked = {"query": LINK, "variables": {"r": REDIRECT}}
    answer = await acme.client.post("/graphql", json=asked, headers={"authorization": f"Bearer {token}"})
    begin = answer.json()["data"]["linkSignOn"]
    returned = await browser.sign_in(begin["authorizationUrl"], account)

    assert codes(await completed(acme, returned, (await begun(acme))["handle"])) == REFUSED


async def test_nobody_begins_a_link_without_signing_in(acme: House) -> None:
    answer = await acme.ask(LINK, {"r": REDIRECT}, role=None)

    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


def new_passwords_of(house: House) -> NewPasswords:
    api = house.api
    return NewPasswords(api.units, api.platform, api.passwords, api.sign_ins)
