"""Whoever gives does so by its rights of now: whatever was true when its unit began."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, insert, update

from domain import member_acts, roles
from domain.errors import Forbidden, Refused
from tenants.access import Role
from tenants.errors import Unauthenticated
from tenants.members import Member, MemberRole
from tenants.roles import MemberOwnRole
from tenants.unit import Unit
from tenants.viewers import Credential
from tests.api.staff import held, join
from tests.house import House

Act = Callable[[Unit, Credential], Awaitable[object]]
GUILD = "gild"


@pytest.fixture(scope="module")
async def owner(house: House) -> Credential:
    await house.add_tenant(GUILD)
    return house.members[GUILD][Role.OWNER]


@asynccontextmanager
async def entered(house: House, who: Credential) -> AsyncIterator[Unit]:
    async with house.api.units.enter(who.tenant, who.principal, write=True) as unit:
        yield unit


async def demote(house: House, who: Credential) -> None:
    async with house.api.units.enter(who.tenant, None, write=True) as unit:
        await unit.run(
            delete(MemberRole).where(MemberRole.tenant_id == who.tenant, MemberRole.member_id == who.principal)
        )


async def disable(house: House, who: Credential) -> None:
    async with house.api.units.enter(who.tenant, None, write=True) as unit:
        mine = (Member.tenant_id == who.tenant, Member.id == who.principal)
        await unit.run(update(Member).where(*mine).values(status="DISABLED"))


ACTS: dict[str, Act] = {
    "make a role": lambda unit, _: roles.create(unit, {"name": f"role {uuid4()}"}),
    "change a role": lambda unit, _: roles.change(unit, UUID(int=1), 1, {"name": "mine"}),
    "delete a role": lambda unit, _: roles.remove(unit, UUID(int=1)),
    "give roles": lambda unit, target: member_acts.set_roles(unit, target.principal, [Role.ADMIN], []),
    "disable": lambda unit, target: member_acts.disable(unit, target.principal),
    "enable": lambda unit, target: member_acts.enable(unit, target.principal),
}


@pytest.mark.parametrize("lose", [demote, disable])
@pytest.mark.parametrize("name", ACTS)
async def test_rights_lost_since_the_unit_began_give_nothing(
    house: House, owner: Credential, name: str, lose: Callable[[House, Credential], Awaitable[None]]
) -> None:
    who, target = await join(house, GUILD, [Role.ADMIN]), await join(house, GUILD)
    before = await held(house, target)
    with pytest.raises(Forbidden):
        async with entered(house, who) as unit:
            await lose(house, who)
            await ACTS[name](unit, target)
    assert await held(house, target) == before


async def test_a_role_lost_since_the_unit_began_is_not_passed_on(house: House, owner: Credential) -> None:
    who, target = await join(house, GUILD, [Role.ADMIN, Role.MANAGER]), await join(house, GUILD)
    async with entered(house, who) as unit:
        async with house.api.units.enter(who.tenant, None, write=True) as other:
            manager = (MemberRole.member_id == who.principal, MemberRole.role == Role.MANAGER)
            await other.run(delete(MemberRole).where(MemberRole.tenant_id == who.tenant, *manager))
        with pytest.raises(Refused, match="beyond your own rights"):
            await member_acts.set_roles(unit, target.principal, [Role.MANAGER], [])
    assert (await held(house, target)).roles == frozenset()


async def test_the_house_itself_gives_no_roles(house: House, owner: Credential) -> None:
    target = await join(house, GUILD)
    with pytest.raises((Forbidden, Unauthenticated)):
        async with house.api.units.enter(owner.tenant, None, write=True) as unit:
            await member_acts.set_roles(unit, target.principal, [Role.OWNER], [])
    assert (await held(house, target)).roles == frozenset()


async def test_a_role_given_behind_the_lock_keeps_it_from_being_deleted(house: House, owner: Credential) -> None:
    async with entered(house, owner) as unit:
        made = await roles.create(unit, {"name": f"role {uuid4()}"})
    target = await join(house, GUILD)
    async with house.api.units.enter(owner.tenant, None, write=True) as unit:
        mine = {"tenant_id": owner.tenant, "member_id": target.principal, "role_id": made.id}
        await unit.run(insert(MemberOwnRole), [mine])
    with pytest.raises(Refused, match="1 member has this role"):
        async with entered(house, owner) as unit:
            await roles.remove(unit, made.id)
    assert (await held(house, target)).own_roles == {made.id}
