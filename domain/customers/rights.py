"""Who may write which field of a customer: personal ones by their class, clear ones by a permission."""

from collections.abc import Mapping
from types import MappingProxyType

from domain import rules
from domain.customers.fields import FIELDS
from tenants.access import Permission, Relation
from tenants.viewers import Viewer

CLEAR_WRITES: Mapping[str, Permission] = MappingProxyType(
    {
        "stage": Permission.CUSTOMERS_STAGE,
        "tag_ids": Permission.CUSTOMERS_CLASSIFY,
        "language": Permission.CUSTOMERS_CLASSIFY,
        "source": Permission.CUSTOMERS_CLASSIFY,
        "region": Permission.CUSTOMERS_CLASSIFY,
        "owner_id": Permission.CUSTOMERS_HAND_OVER,
    }
)


def may_write(viewer: Viewer, name: str, relation: Relation = Relation.OWN) -> bool:
    """`name` is a field of `FIELDS` or `CLEAR_WRITES`; a new customer is one's own."""
    field = FIELDS.get(name)
    if field is None:
        return CLEAR_WRITES[name] in viewer.on(relation).permissions
    return rules.may_write(viewer, field, relation)
