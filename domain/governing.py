"""Who governs is governed by nobody smaller: who may shut out, strip or weaken the account of whom."""

from collections.abc import Sequence

from domain import granting, roles
from domain.errors import Forbidden
from domain.granting import Giver
from tenants.access import SPECS, Access, Permission, Relation, Role, RoleSpec
from tenants.rights import Held
from tenants.unit import Unit

GOVERNING = frozenset(
    {
        Permission.MEMBERS_MANAGE,
        Permission.ROLES_MANAGE,
        Permission.API_KEYS_MANAGE,
        Permission.SIGN_ON_MANAGE,
        Permission.TENANT_MANAGE,
        Permission.KEYS_MANAGE,
        Permission.BACKUPS_MANAGE,
    }
)


async def check(unit: Unit, giver: Giver, target: Held) -> None:
    """Raises `Forbidden` for an owner where the giver is none, and for who governs what the giver does not."""
    if Role.OWNER in target.roles:
        granting.refuse_but_owners(giver)
    more = _governed_by(await _specs(unit, target)) - giver.access.on[Relation.NONE].permissions
    if more:
        raise Forbidden(f"That member governs what you do not: {', '.join(sorted(more))}.")


async def check_opening(unit: Unit, giver: Giver, target: Held) -> None:
    """The same for what makes an account easier to take over. Raises `Forbidden` also for who governs and has more."""
    await check(unit, giver, target)
    specs = await _specs(unit, target)
    if _governed_by(specs) and granting.lacking(giver, specs):
        raise Forbidden("That member governs, and has more rights than you; somebody must do this who has them.")


async def _specs(unit: Unit, target: Held) -> list[RoleSpec]:
    """Of all its roles, also while it is disabled: it may be let in again."""
    own = await roles.get_many(unit, target.own_roles)
    return [*(SPECS[role] for role in target.roles), *(role.spec for role in own if role is not None)]


def _governed_by(specs: Sequence[RoleSpec]) -> frozenset[Permission]:
    return Access.of(specs).on[Relation.NONE].permissions & GOVERNING
