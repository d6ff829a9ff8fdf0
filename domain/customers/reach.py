"""Which customers a viewer reaches at all: by their owners, as far as the scopes of the viewer's roles go."""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, any_, false, literal
from sqlalchemy.dialects.postgresql import ARRAY

from domain.customers.covering import covers
from domain.customers.rows import Customer
from domain.errors import Forbidden, Path, UserError
from tenants.access import Grants, Permission, Relation, SearchRight
from tenants.unit import Unit
from tenants.viewers import Viewer


def readable(unit: Unit, *searched_by: SearchRight) -> list[ColumnElement[bool]]:
    """Conditions of the rows that the viewer may read, and find by all of these; none where those are all rows."""
    return _where(unit, lambda on: _finds(on, searched_by))


def may_find(viewer: Viewer, relation: Relation, *by: SearchRight) -> bool:
    """Whether the viewer may read customers in that relation, and find them by all of these."""
    return _finds(viewer.on(relation), by)


def is_everything(unit: Unit) -> bool:
    """Whether the viewer may read all customers."""
    return not readable(unit)


def check(unit: Unit, owner: UUID | None, permission: Permission) -> Relation:
    """The viewer's relation to a customer of that owner. Raises `Forbidden` where the permission ends before it."""
    relation = unit.viewer.relation(owner)
    if unit.viewer.principal is not None and permission not in unit.viewer.on(relation).permissions:
        raise Forbidden(f"This needs the permission {permission} for this customer.")
    return relation


def gains(unit: Unit, relation: Relation, to: UUID | None, path: Path) -> list[UserError]:
    """Why the viewer may not give a customer in that relation to `to`: it would get more of it than it has.

    Else the right to hand over were the right to see as its owner does whatever one takes.
    """
    if unit.viewer.principal is None or not _is_more(unit, relation, unit.viewer.relation(to)):
        return []
    sentence = "You would get more rights to the customer than you have; let somebody do it who has them."
    return [UserError("BEYOND_YOUR_RIGHTS", path, sentence)]


def _is_more(unit: Unit, than: Relation, relation: Relation) -> bool:
    if unit.is_over_budget:  # capped for now: what else it would get does not show
        return relation > than
    return not covers(unit.viewer.on(than), unit.viewer.on(relation))


def _finds(on: Grants, by: Sequence[SearchRight]) -> bool:
    return Permission.CUSTOMERS_READ in on.permissions and on.searches.issuperset(by)


def _where(unit: Unit, allows: Callable[[Grants], bool]) -> list[ColumnElement[bool]]:
    viewer = unit.viewer
    if viewer.principal is None or allows(viewer.on(Relation.OTHER)):
        return []
    owners: set[UUID] = {viewer.principal} if allows(viewer.on(Relation.OWN)) else set()
    if allows(viewer.on(Relation.TEAM)):
        owners |= viewer.mates
    if len(owners) <= 1:  # one owner's customers lie in the order of the lists
        return [Customer.owner_id == owner for owner in owners] or [false()]
    # One parameter, however many mates there are.
    return [Customer.owner_id == any_(literal(sorted(owners), ARRAY(Uuid)))]
