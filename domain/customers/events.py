"""What the world is told of changes of customers: which fields, never their values."""

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from domain.customers.fields import FIELDS
from domain.customers.inputs import CLEAR, input_path
from tenants.events import EventKind
from tenants.unit import Unit


def _spelled(name: str) -> str:
    return ".".join(map(str, input_path(name)))


_NAMES = frozenset(map(_spelled, [*FIELDS, *CLEAR, "tag_ids"]))
CREATED = EventKind("customer.created", "Customer", "A customer was added; `fields` are those that were set.", _NAMES)
UPDATED = EventKind("customer.updated", "Customer", "Fields of a customer changed.", _NAMES)
ARCHIVED = EventKind("customer.archived", "Customer", "A customer was taken out of the lists.")
HANDED_OVER = EventKind(
    "customer.handed_over", "Customer", "Another member looks after a customer.", frozenset({_spelled("owner_id")})
)
RESTORED = EventKind("customer.restored", "Customer", "An archived customer is back in the lists.")


def publish(unit: Unit, kind: EventKind, customer: UUID, names: Iterable[str] = ()) -> None:
    unit.publish(kind, [customer], map(_spelled, names))


def publish_created(unit: Unit, created: Sequence[tuple[UUID, Collection[str]]]) -> None:
    """`created` has the id and the names that were set; one audit entry for all that set the same fields."""
    alike: dict[frozenset[str], list[UUID]] = {}
    for customer, names in created:
        alike.setdefault(frozenset(names), []).append(customer)
    for fields, customers in alike.items():
        unit.publish(CREATED, customers, map(_spelled, fields))
