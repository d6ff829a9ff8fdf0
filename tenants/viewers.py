"""Who is asking, frozen for one operation: the tenant as the database knows it now, the principal, and its grants."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NewType
from uuid import UUID

from tenants.access import Access, Grants, Level, Permission, Relation, Role, SearchRight
from tenants.documents import PersonalField

TenantId = NewType("TenantId", UUID)
MemberId = NewType("MemberId", UUID)
SessionId = NewType("SessionId", UUID)


@dataclass(frozen=True, slots=True)
class Credential:
    """What the edge verified: a tenant and a principal, no rights yet.

    It opens nothing once its session has ended, or the API key whose secret has this SHA-256 was revoked.
    """

    tenant: TenantId
    principal: MemberId
    session: SessionId | None = None
    key: bytes | None = field(default=None, repr=False)


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
    disclosure_budget: int | None  # plain values per member and hour; None for no bound
    reveal_needs_step_up: bool
    frozen: str | None = None  # why nothing may be written now


@dataclass(frozen=True, slots=True)
class Viewer:
    """`principal` is None for the house itself (sign-in, provisioning), which has no grants.

    `own_roles` are ids of the tenant's own. `confirmed_at` is when whoever sits there last proved to be that member.
    """

    tenant: TenantId
    principal: MemberId | None
    roles: frozenset[Role]
    access: Access
    own_roles: frozenset[UUID] = frozenset()
    mates: frozenset[UUID] = frozenset()
    is_service: bool = False
    session: SessionId | None = None
    confirmed_at: datetime | None = None

    @property
    def grants(self) -> Grants:
        """For whatever is no customer."""
        return self.access.on[Relation.NONE]

    def on(self, relation: Relation) -> Grants:
        return self.access.on[relation]

    @property
    def best(self) -> Grants:
        """The most that is granted for any customer: for what is decided before a row is known."""
        return self.access.on[Relation.OWN]

    def relation(self, owner: UUID | None) -> Relation:
        """To a customer of that owner. OTHER where nothing hangs on it."""
        if self.access.is_uniform or owner is None:
            return Relation.OTHER
        if owner == self.principal:
            return Relation.OWN
        return Relation.TEAM if owner in self.mates else Relation.OTHER

    def may(self, permission: Permission) -> bool:
        return permission in self.grants.permissions

    def may_search(self, right: SearchRight) -> bool:
        """Some customers; see `domain.customers.reach` for which."""
        return right in self.best.searches

    def levels(self, field: PersonalField) -> tuple[Level, ...]:
        """What is granted of a field, by `Relation`. Grants of single fields are of customers' fields alone."""
        other, team, own, none = self.access.on
        of_customers = (grants.level(field.sensitivity, field.name) for grants in (other, team, own))
        return (*of_customers, none.level(field.sensitivity))

    def capped(self) -> "Viewer":
        """The same viewer, who sees nothing in plain any more."""
        return replace(self, access=self.access.capped())
