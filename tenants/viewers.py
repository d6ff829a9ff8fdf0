"""Who is asking, frozen for one operation: the tenant as the database knows it now, the principal, and its grants."""

from dataclasses import dataclass
from typing import NewType
from uuid import UUID

from tenants.access import Grants, Level, Permission, Role, SearchRight, Sensitivity

TenantId = NewType("TenantId", UUID)
MemberId = NewType("MemberId", UUID)


@dataclass(frozen=True, slots=True)
class Credential:
    """What the edge verified: a tenant and a principal, no rights yet."""

    tenant: TenantId
    principal: MemberId


@dataclass(frozen=True, slots=True)
class TenantState:
    """A tenant as one transaction saw it. A changed `key_epoch` makes open keyrings stale."""

    id: TenantId
    slug: str
    name: str
    key_epoch: int
    access_epoch: int
    default_region: str
    default_language: str


@dataclass(frozen=True, slots=True)
class Viewer:
    """`principal` is None for the house itself (sign-in, provisioning), which has no grants."""

    tenant: TenantId
    principal: MemberId | None
    roles: frozenset[Role]
    grants: Grants

    def may(self, permission: Permission) -> bool:
        return permission in self.grants.permissions

    def may_search(self, right: SearchRight) -> bool:
        return right in self.grants.searches

    def may_write(self, sensitivity: Sensitivity) -> bool:
        return sensitivity in self.grants.writes

    def level(self, sensitivity: Sensitivity) -> Level:
        return self.grants.level(sensitivity)
