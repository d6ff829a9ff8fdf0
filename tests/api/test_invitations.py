"""Somebody becomes a member by the link of a letter, with roles within the rights of who invited, and once."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.paging import global_id
from tenants.access import Role
from tenants.errors import Unauthenticated
from tenants.ids import any_local_id
from tenants.viewers import Credential, MemberId
from tests.house import House
from tests.inbox import deliver, receiving
from tests.visitors import Visitor, a_member, a_visitor

CHOSEN = "a password of my own choosing"
INVITE = """mutation($e: String!, $n: String!, $r: [Role!]!, $o: [ID!]) {
    inviteMember(email: $e, name: $n, roles: $r, ownRoles: $o) {
        member { id name email status roles ownRoles { id } } userErrors { code path message } } }"""
CANCEL = "mutation($id: ID!) { cancelInvitation(id: $id) { cancelledId userErrors { code path } } }"
ACCEPT = """mutation($t: String!, $p: String!, $n: String) {
    acceptInvitation(token: $t, password: $p, name: $n) { tenant userErrors { code path } } }"""
MAKE_ROLE = """mutation($i: RoleInput!) { createRole(input: $i) { role { id } userErrors { code } } }"""


async def invited(
    house: House, *roles: Role, by: Role = Role.OWNER, email: str | None = None, **more: Any
) -> tuple[Visitor, dict[str, Any]]:
    """The member to be, and what was answered."""
    address = email or f"{uuid4().hex}@elsewhere.example.org"
    sent = {"e": address, "n": "Nina New", "r": [role.value for role in roles or [Role.AGENT]], **more}
    answer: dict[str, Any] = (await house.data(INVITE, sent, role=by))["inviteMember"]
    found = any_local_id(answer["member"]["id"]) if answer["member"] else None
    member = MemberId(found[1] if found else UUID(int=0))
    return Visitor(house, "acme", address, member, password=CHOSEN), answer


async def link_of(visitor: Visitor) -> str:
    async with receiving() as inbox:
        await deliver(visitor.house, inbox)
    return inbox.token_for(visitor.email)


async def accept(house: House, token: str, password: str = CHOSEN, name: str | None = None) -> Any:
    answer = (await house.data(ACCEPT, {"t": token, "p": password, "n": name}, role=None))["acceptInvitation"]
    return [error["code"] for error in answer["userErrors"]] or answer["tenant"]


async def rows(visitor: Visitor) -> int:
    return len(await visitor.sql("SELECT FROM members WHERE id = $1", visitor.member))


async def test_who_is_invited_accepts_by_the_letters_link_and_signs_in(house: House) -> None:
    visitor, answer = await invited(house, Role.AGENT, Role.ANALYST)
    assert answer["userErrors"] == []
    assert (answer["member"]["status"], sorted(answer["member"]["roles"])) == ("INVITED", ["AGENT", "ANALYST"])
    assert await accept(house, await link_of(visitor)) == "acme"
    assert await visitor.sign_in() == "IN"
    me = await visitor.data("{ me { name email roles } }")
    assert me == {"name": "Nina New", "email": visitor.email, "roles": ["AGENT", "ANALYST"]}
    assert {"member.invited", "member.joined", "member.signed_in"} <= {action for action, _ in await visitor.actions()}


async def test_who_accepts_may_say_another_name(house: House) -> None:
    visitor, _ = await invited(house)
    token = await link_of(visitor)
    assert await accept(house, token, name=" ") == ["INVALID"]
    assert await accept(house, token, name="Nina Newer") == "acme"
    await visitor.sign_in()
    assert (await visitor.data("{ me { name } }"))["name"] == "Nina Newer"


async def test_before_they_accept_nobody_gets_in(house: House) -> None:
    visitor, _ = await invited(house)
    assert await visitor.sign_in() == "SIGN_IN_REFUSED"
    with pytest.raises(Unauthenticated):
        async with house.api.units.enter(house.tenants["acme"].id, visitor.member, write=False):
            pass
    visitor.access = await house.api.tokens.issue(Credential(house.tenants["acme"].id, visitor.member))
    assert not await visitor.is_in()


async def test_a_link_is_accepted_once_also_by_two_at_once(house: House) -> None:
    visitor, _ = await invited(house)
    token = await link_of(visitor)
    both = await asyncio.gather(accept(house, token), accept(house, token, CHOSEN + " too"))
    assert sorted(map(str, both)) == ["['TOKEN_REFUSED']", "acme"]
    assert await accept(house, token) == ["TOKEN_REFUSED"]


async def test_a_link_is_good_for_seven_days(house: House) -> None:
    visitor, _ = await invited(house)
    token = await link_of(visitor)
    left = "SELECT extract(epoch FROM expires_at - now()) / 86400 AS days FROM one_time_tokens WHERE member_id = $1"
    assert 6.9 < (await visitor.sql(left, visitor.member))[0]["days"] <= 7
    await visitor.sql("UPDATE one_time_tokens SET expires_at = now() WHERE member_id = $1", visitor.member)
    assert await accept(house, token) == ["TOKEN_REFUSED"]
    assert await visitor.sign_in() == "SIGN_IN_REFUSED"


async def test_a_bad_password_leaves_the_link_as_it_was(house: House) -> None:
    visitor, _ = await invited(house)
    token = await link_of(visitor)
    for word in ("short", "the acme password", visitor.email):
        assert await accept(house, token, word) == ["MEMBER_REFUSED"]
    assert await accept(house, token) == "acme"


async def test_a_link_to_accept_resets_no_password(house: House) -> None:
    visitor, _ = await invited(house)
    token = await link_of(visitor)
    reset = 'mutation($t: String!) { resetPassword(token: $t, newPassword: "%s") { isChanged userErrors { code } } }'
    answer = await house.data(reset % CHOSEN, {"t": token}, role=None)
    assert answer["resetPassword"] == {"isChanged": False, "userErrors": [{"code": "TOKEN_REFUSED"}]}
    assert await accept(house, token) == "acme"


async def test_inviting_again_voids_the_old_link_and_changes_roles_and_name(house: House) -> None:
    visitor, _ = await invited(house, Role.MANAGER)
    old = await link_of(visitor)
    again, answer = await invited(house, Role.AGENT, email=visitor.email.upper(), n="Nina Renamed")
    assert (again.member, answer["member"]["name"]) == (visitor.member, "Nina Renamed")
    assert await accept(house, old) == ["TOKEN_REFUSED"]
    assert await accept(house, await link_of(visitor)) == "acme"
    await visitor.sign_in()
    assert (await visitor.data("{ me { roles } }"))["roles"] == ["AGENT"]


async def test_a_cancelled_invitation_leaves_nothing(house: House) -> None:
    visitor, answer = await invited(house)
    token = await link_of(visitor)
    sent = {"id": answer["member"]["id"]}
    assert (await house.data(CANCEL, sent))["cancelInvitation"]["userErrors"] == []
    assert await accept(house, token) == ["TOKEN_REFUSED"]
    assert await rows(visitor) == 0
    assert await visitor.sql("SELECT FROM subjects WHERE id = $1", visitor.member) == []
    assert (await house.data(CANCEL, sent))["cancelInvitation"]["userErrors"] == [{"code": "NOT_FOUND", "path": ["id"]}]
    _, again = await invited(house, email=visitor.email)
    assert again["userErrors"] == []


async def test_a_member_is_not_cancelled_as_an_invitation(house: House) -> None:
    visitor = await a_visitor(house)
    for tenant in ("acme", "globex"):
        answer = await house.data(CANCEL, {"id": global_id("Member", visitor.member)}, tenant=tenant)
        assert answer["cancelInvitation"]["userErrors"] == [{"code": "NOT_FOUND", "path": ["id"]}]
    assert await visitor.is_in()


async def test_a_cancelled_invitation_of_another_tenant_stays(house: House) -> None:
    visitor, answer = await invited(house)
    await house.data(CANCEL, {"id": answer["member"]["id"]}, tenant="globex")
    assert await accept(house, await link_of(visitor)) == "acme"


async def test_a_member_is_not_invited_again(house: House) -> None:
    visitor = await a_member(house)
    _, answer = await invited(house, email=f" {visitor.email.upper()} ")
    assert [(each["code"], each["path"]) for each in answer["userErrors"]] == [("MEMBER_EXISTS", ["email"])]
    assert await visitor.sign_in() == "IN"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"e": "no address"}, [("INVALID", ["email"])]),
        ({"n": " "}, [("REQUIRED", ["name"])]),
        ({"n": "x" * 1000}, [("INVALID", ["name"])]),
        ({"e": "", "n": ""}, [("REQUIRED", ["name"]), ("REQUIRED", ["email"])]),
    ],
)
async def test_what_can_not_be_an_email_or_a_name_is_refused(
    house: House, sent: dict[str, str], told: list[tuple[str, list[str]]]
) -> None:
    given: dict[str, Any] = {"e": "nina@elsewhere.example.org", "n": "Nina", "r": ["AGENT"], **sent}
    answer = (await house.data(INVITE, given))["inviteMember"]
    assert (answer["member"], [(each["code"], each["path"]) for each in answer["userErrors"]]) == (
        None,
        told,
    )


@pytest.mark.parametrize("role", [Role.OWNER, Role.MANAGER, Role.AUDITOR, Role.INTEGRATION])
async def test_nobody_invites_beyond_their_own_rights(house: House, role: Role) -> None:
    visitor, answer = await invited(house, Role.ADMIN, role, by=Role.ADMIN)
    assert answer["userErrors"][0]["code"] == "BEYOND_YOUR_RIGHTS"
    before = await visitor.sql("SELECT count(*) FROM members WHERE status = 'INVITED'")
    _, again = await invited(house, Role.ADMIN, role, by=Role.ADMIN)
    assert (answer["member"], again["member"]) == (None, None)
    assert await visitor.sql("SELECT count(*) FROM members WHERE status = 'INVITED'") == before


async def test_nobody_takes_back_or_changes_what_they_could_not_have_given(house: House) -> None:
    visitor, answer = await invited(house, Role.OWNER)
    _, again = await invited(house, Role.ADMIN, by=Role.ADMIN, email=visitor.email)
    assert again["userErrors"][0]["code"] == "BEYOND_YOUR_RIGHTS"
    cancelled = await house.data(CANCEL, {"id": answer["member"]["id"]}, role=Role.ADMIN)
    assert cancelled["cancelInvitation"]["userErrors"][0]["code"] == "BEYOND_YOUR_RIGHTS"
    assert await accept(house, await link_of(visitor)) == "acme"
    await visitor.sign_in()
    assert (await visitor.data("{ me { roles } }"))["roles"] == ["OWNER"]


@pytest.mark.parametrize("role", [Role.MANAGER, Role.AGENT, Role.AUDITOR, Role.INTEGRATION])
async def test_who_does_not_manage_members_invites_nobody(house: House, role: Role) -> None:
    sent = {"e": f"{uuid4().hex}@elsewhere.example.org", "n": "Nina", "r": [], "o": []}
    answer = await house.ask(INVITE, sent, role=role)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_own_roles_are_given_and_another_tenants_are_not_found(house: House) -> None:
    made = {}
    for tenant in ("acme", "globex"):
        sent = {"i": {"name": f"Helpers {uuid4().hex[:8]}", "permissions": ["CUSTOMERS_READ"]}}
        made[tenant] = (await house.data(MAKE_ROLE, sent, tenant=tenant))["createRole"]["role"]["id"]
    _, refused = await invited(house, o=[made["globex"]])
    assert [(each["code"], each["path"]) for each in refused["userErrors"]] == [("NOT_FOUND", ["ownRoles"])]
    _, answer = await invited(house, o=[made["acme"]])
    assert [role["id"] for role in answer["member"]["ownRoles"]] == [made["acme"]]


async def test_the_same_email_may_be_invited_by_another_tenant(house: House) -> None:
    visitor, _ = await invited(house)
    sent = {"e": visitor.email, "n": "Nina", "r": ["AGENT"]}
    answer = await house.data(INVITE, sent, tenant="globex")
    assert answer["inviteMember"]["userErrors"] == []


async def test_of_two_invitations_at_once_there_is_one_member(house: House) -> None:
    address = f"{uuid4().hex}@elsewhere.example.org"
    both = await asyncio.gather(invited(house, email=address), invited(house, email=address))
    assert [answer["userErrors"] for _, answer in both] == [[], []]
    assert both[0][0].member == both[1][0].member


async def test_who_has_not_joined_is_not_disabled_but_uninvited(house: House) -> None:
    visitor, answer = await invited(house)
    disable = "mutation($id: ID!) { disableMember(id: $id) { userErrors { code } } }"
    refused = await house.data(disable, {"id": answer["member"]["id"]})
    assert refused["disableMember"]["userErrors"] == [{"code": "INVITED"}]
    (row,) = await visitor.sql("SELECT status FROM members WHERE id = $1", visitor.member)
    assert row["status"] == "INVITED"


async def test_who_is_to_have_no_role_is_not_invited(house: House) -> None:
    visitor, answer = await invited(house, r=[])
    assert [(error["code"], error["path"]) for error in answer["userErrors"]] == [("REQUIRED", ["roles"])]
    assert await rows(visitor) == 0
