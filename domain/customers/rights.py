"""Who may write which field of a customer: personal ones by their class, clear ones by a permission."""

from collections.abc import Mapping
from types import MappingProxyType

from domain import rules
from domain.customers.fields import FIELDS
from tenants.access import Permission
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


def may_write(viewer: Viewer, name: str) -> bool:
    """`name` is a field of `FIELDS` or `CLEAR_WRITES`."""
    field = FIELDS.get(name)
    return viewer.may(CLEAR_WRITES[name]) if field is None else rules.may_write(viewer, field)
