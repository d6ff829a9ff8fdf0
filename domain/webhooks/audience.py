"""Who is told of what: by the type of what changed, the permission that an endpoint's roles must grant.

An event of a type that is not named here is sent to nobody, so a new one is closed until somebody opens it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tenants.access import Permission
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
