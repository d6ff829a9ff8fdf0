"""Who is told of what: by the type of what changed, the permission that an endpoint's roles must grant.

An event of a type that is not named here is sent to nobody, so a new one is closed until somebody opens it.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import select

from domain.customers.reach import readable
from domain.customers.rows import Customer
from tenants.access import Permission
from tenants.events import KINDS
from tenants.unit import Unit
from tenants.viewers import Viewer
from tenants.webhooks import TESTED

CUSTOMER = "Customer"  # besides, the scopes of the roles decide for each
PERMISSIONS: Mapping[str, Permission] = MappingProxyType(
    {
        CUSTOMER: Permission.CUSTOMERS_READ,
        "Member": Permission.MEMBERS_READ,
        "OwnRole": Permission.MEMBERS_READ,
        "Team": Permission.MEMBERS_READ,
        "Session": Permission.MEMBERS_MANAGE,
        "ApiKey": Permission.API_KEYS_MANAGE,
        "SignOnProvider": Permission.SIGN_ON_MANAGE,
        "Tenant": Permission.TENANT_MANAGE,
        "Job": Permission.JOBS_READ,
        "KeyRotation": Permission.KEYS_MANAGE,
        "DataKey": Permission.KEYS_MANAGE,
        "Backup": Permission.BACKUPS_MANAGE,
        "Restore": Permission.BACKUPS_MANAGE,
        "Erasure": Permission.CUSTOMERS_ERASE,
        "AuditCheckpoint": Permission.AUDIT_READ,
        "WebhookEndpoint": Permission.WEBHOOKS_MANAGE,
    }
)


def may_hear(viewer: Viewer, kind: str, subject: str) -> bool:
    """Whether a viewer may know of such an event at all; `subject` is the GraphQL type of what changed.

    Of customers some at least. A test event is for whoever asked to be sent it.
    """
    needed = PERMISSIONS.get(subject)
    if kind == TESTED.name:
        return True
    if needed is None:
        return False
    return needed in (viewer.best if subject == CUSTOMER else viewer.grants).permissions


async def heard(unit: Unit, events: Sequence[tuple[str, UUID]]) -> list[bool]:
    """In order: whether the unit's viewer may know of an event of that type, with that subject.

    Of customers those that it may read; one that is gone was nobody's own.
    """
    kinds = [KINDS.get(name) for name, _ in events]
    hears = [kind is not None and may_hear(unit.viewer, kind.name, kind.subject) for kind in kinds]
    of_customers = [kind is not None and kind.subject == CUSTOMER for kind in kinds]
    asked = zip(events, hears, of_customers, strict=True)
    reached = await _reached(unit, {subject for (_, subject), hear, of_one in asked if hear and of_one})
    return [
        hear and (not of_one or subject in reached)
        for (_, subject), hear, of_one in zip(events, hears, of_customers, strict=True)
    ]


async def _reached(unit: Unit, subjects: Collection[UUID]) -> Collection[UUID]:
    bounds = readable(unit)
    if not subjects or not bounds:
        return subjects
    mine = (Customer.tenant_id == unit.tenant.id, Customer.id.in_(subjects))
    return set(await unit.scalars(select(Customer.id).where(*mine, *bounds)))
