"""Members of any roles, and requests as one of them; a tenant of its own where a test changes what others stand on."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import update

from api.paging import global_id
from tenants import members, rights
from tenants.access import Role
from tenants.ids import any_local_id
from tenants.members import Member
from tenants.rights import Held
from tenants.roles import MemberOwnRole
from tenants.viewers import Credential, MemberId, TenantId
from tests.house import House

PERSON, SERVICE = "PERSON", "SERVICE"
ROLE = """id name description version holders grants { scope permissions levels { class level } fields { field level }
  ownLevels { class level } ownFields { field level } searches writes fieldWrites }"""
ERRORS = "userErrors { code path message }"
CREATE = f"mutation($i: RoleInput!) {{ at: createRole(input: $i) {{ role {{ {ROLE} }} {ERRORS} }} }}"
UPDATE = f"""mutation($id: ID!, $v: Int!, $i: RoleInput!) {{
  at: updateRole(id: $id, version: $v, input: $i) {{ role {{ {ROLE} }} {ERRORS} }} }}"""
DELETE = f"mutation($id: ID!) {{ at: deleteRole(id: $id) {{ deletedId {ERRORS} }} }}"
SET = f"""mutation($id: ID!, $roles: [Role!]!, $own: [ID!]!) {{
  at: setMemberRoles(id: $id, roles: $roles, ownRoles: $own) {{
    member {{ id roles ownRoles {{ id }} }} {ERRORS} }} }}"""
DISABLE = f"mutation($id: ID!) {{ at: disableMember(id: $id) {{ member {{ id status }} {ERRORS} }} }}"
ENABLE = f"mutation($id: ID!) {{ at: enableMember(id: $id) {{ member {{ id status }} {ERRORS} }} }}"


async def join(
    house: House, tenant: str, roles: Iterable[Role] = (), own: Iterable[str] = (), kind: str = PERSON
) -> Credential:
    """A new member; `own` are global ids of the tenant's own roles."""
    mine = house.tenants[tenant].id
    async with house.api.units.enter(mine, None, write=True) as unit:
        email = f"{uuid4().hex}@example.org"
        member = await members.add(unit, email=email, name="Grace Hopper", password_hash="-", roles=roles)
        await unit.run(update(Member).where(Member.tenant_id == mine, Member.id == member).values(kind=kind))
        unit.add(*(MemberOwnRole(tenant_id=mine, member_id=member, role_id=local(role)) for role in own))
    return Credential(TenantId(mine), MemberId(member))


async def ask(house: House, who: Credential, document: str, **variables: Any) -> dict[str, Any]:
    """The parsed body; it may hold errors."""
    headers = {"authorization": f"Bearer {await house.token(who)}"}
    return await house.ask(document, variables, role=None, headers=headers)


async def done(house: House, who: Credential, document: str, **variables: Any) -> dict[str, Any]:
    """The payload under `at` of an answer that must have no errors."""
    answer = await ask(house, who, document, **variables)
    assert "errors" not in answer, answer["errors"]
    payload: dict[str, Any] = answer["data"]["at"]
    return payload


async def refused(house: House, who: Credential, document: str, **variables: Any) -> list[str]:
    """The codes of a refusal, the user's errors or the request's."""
    answer = await ask(house, who, document, **variables)
    if "errors" in answer:
        return [error["extensions"]["code"] for error in answer["errors"]]
    return [error["code"] for error in answer["data"]["at"]["userErrors"]]


async def make_role(house: House, owner: Credential, **parts: Any) -> dict[str, Any]:
    payload = await done(house, owner, CREATE, i={"name": f"role {uuid4().hex}", **parts})
    assert payload["userErrors"] == []
    role: dict[str, Any] = payload["role"]
    return role


async def held(house: House, who: Credential) -> Held:
    """As it stands in the database."""
    async with house.api.units.enter(who.tenant, None, write=False) as unit:
        return (await rights.held(unit, [who.principal]))[who.principal]


def id_of(who: Credential) -> str:
    return global_id("Member", who.principal)


def local(text: str) -> UUID:
    found = any_local_id(text)
    assert found is not None
    return found[1]
