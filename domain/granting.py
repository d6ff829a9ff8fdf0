"""Nobody grants beyond their own: what is given is held against the giver's rights as they are under the lock.

A role's TEAM and OWN customers are other ones for whoever is given it. So a giver must have for all customers, whoever
owns them, what it gives for some.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from domain.customers.covering import beyond
from domain.errors import Forbidden, Path, Refused, UserError
from tenants import rights
from tenants.access import Access, Permission, Relation, Role, RoleSpec
from tenants.unit import Unit

BEYOND = "BEYOND_YOUR_RIGHTS"
NO_ROLE = UserError("REQUIRED", ("roles",), "Give at least one role.")


@dataclass(frozen=True, slots=True)
class Giver:
    """Who gives, by its rights of now. With its disclosure budget spent it has nothing in PLAIN to give."""

    roles: frozenset[Role]
    access: Access
    is_over_budget: bool


async def lock(unit: Unit, permission: Permission) -> Giver:
    """The viewer by its rights of now, which hold until the unit ends: nobody else changes anybody's meanwhile.

    Raises `Forbidden` where the permission is gone by now, and for a service: its key may outlast whoever made it, and
    must not let them in again.
    """
    if unit.viewer.is_service:
        raise Forbidden("A service does not govern a tenant; a member must do this.")
    access = await rights.hold_still(unit)
    if unit.viewer.principal is None or permission not in access.on[Relation.NONE].permissions:
        raise Forbidden(f"This needs the permission {permission}.")
    held = await rights.held(unit, [unit.viewer.principal])
    return Giver(held[unit.viewer.principal].roles, access, unit.is_over_budget)


def refuse_beyond(giver: Giver, given: Iterable[RoleSpec], path: Path = ()) -> None:
    """Raises `Refused`, BEYOND_YOUR_RIGHTS, which names what of these roles the giver does not have."""
    if found := lacking(giver, given):
        why = " Your disclosure budget is spent for this hour, and with it PLAIN." if giver.is_over_budget else ""
        raise Refused([UserError(BEYOND, path, f"This is beyond your own rights: {', '.join(found)}.{why}")])


def lacking(giver: Giver, given: Iterable[RoleSpec]) -> list[str]:
    """Names of what these roles grant for some customers, or beside them, and the giver does not have for all."""
    mine = (giver.access.capped() if giver.is_over_budget else giver.access).on
    theirs = Access.of(list(given)).on
    most = beyond(mine[Relation.OTHER], theirs[Relation.OWN])  # theirs for OTHER and TEAM are among those for OWN
    return sorted({*most, *beyond(mine[Relation.NONE], theirs[Relation.NONE])})


def refuse_but_owners(giver: Giver, act: str = "do this to another") -> None:
    """Raises `Forbidden`, which says what only an owner may do."""
    if Role.OWNER not in giver.roles:
        raise Forbidden(f"Only a member with the role {Role.OWNER} may {act}.")
