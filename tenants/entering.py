"""Who is asking, told as a transaction begins: in one round trip, and another only where rights are not known yet.

Made for `tenants.unit` alone.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Boolean, Uuid

from tenants.access import SPECS, Access, Role, RoleSpec, access_of
from tenants.errors import TenantClosed, TenantFrozen, TenantNotReady, TenantSuspended, Unauthenticated
from tenants.viewers import MemberId, SessionId, TenantId, TenantState, Viewer

_ENTER = text("SELECT * FROM coffer_enter(:tenant, :principal, :writes, :session, :key, :fences)").bindparams(
    bindparam("tenant", type_=Uuid),
    bindparam("principal", type_=Uuid),
    bindparam("writes", type_=Boolean),
    bindparam("session", type_=Uuid),
    bindparam("key", type_=LargeBinary),
    bindparam("fences", type_=Boolean),
)
# In one statement, so that what it finds is of one moment, and that moment has its epoch.
_RIGHTS = text(
    """
    SELECT t.access_epoch,
        (SELECT coalesce(jsonb_object_agg(r.id, r.spec), '{}') FROM roles r
            WHERE r.tenant_id = t.id AND r.id = ANY(:roles)) AS specs,
        ARRAY(SELECT DISTINCT mate.member_id FROM team_members mine
            JOIN team_members mate ON mate.tenant_id = mine.tenant_id AND mate.team_id = mine.team_id
            WHERE mine.tenant_id = t.id AND mine.member_id = :principal) AS mates
    FROM tenants t WHERE t.id = :tenant
    """
).bindparams(bindparam("tenant", type_=Uuid), bindparam("principal", type_=Uuid), bindparam("roles", type_=ARRAY(Uuid)))
_KNOWN = 10_000
_SHUT = {"SUSPENDED": TenantSuspended, "CLOSED": TenantClosed}


@dataclass(frozen=True, slots=True)
class _Rights:
    """Of one member, as of an epoch."""

    epoch: int
    roles: frozenset[Role]
    own_roles: frozenset[UUID]
    access: Access
    mates: frozenset[UUID]


class Entrance:
    """Remembers what members' roles add up to until their tenant's `access_epoch` moves on."""

    def __init__(self, admits: Collection[str] = ("ACTIVE",)) -> None:
        """`admits` are the states of tenants that may be entered."""
        self._admits = admits
        self._known: OrderedDict[tuple[TenantId, MemberId], _Rights] = OrderedDict()

    async def enter(
        self,
        session: AsyncSession,
        tenant: TenantId,
        principal: MemberId | None,
        *,
        write: bool,
        under: SessionId | None = None,
        key: bytes | None = None,
        fences: bool = False,
        thaws: bool = False,
    ) -> tuple[TenantState, Viewer]:
        """Scope the transaction to the tenant.

        Raises `Unauthenticated`, `TenantSuspended`, `TenantNotReady`, `TenantFrozen` (unless it `thaws`) and, where
        writers don't end soon enough, `Conflict`. One that `fences` waits for all writers, and then keeps them out.

        `under` is the session, `key` the SHA-256 of the API key's secret, that the credential stands and falls with.
        """
        asked: dict[str, Any] = {"tenant": tenant, "principal": principal, "writes": write, "fences": fences}
        asked |= {"session": under, "key": key}
        row = (await session.execute(_ENTER, asked)).one_or_none()
        if row is None or (principal is not None and not row.is_member):
            raise Unauthenticated
        if row.status not in self._admits:
            raise _SHUT.get(row.status, TenantNotReady)
        if write and row.frozen and not thaws:
            raise TenantFrozen
        state = _state(tenant, row)
        roles, own_roles = frozenset(map(Role, row.roles)), frozenset(row.own_roles)
        access, mates = access_of(roles), frozenset[UUID]()
        if own_roles and principal is not None:
            rights = await self._rights(session, state, principal, roles, own_roles)
            access, mates = rights.access, rights.mates
        viewer = Viewer(tenant, principal, roles, access, own_roles, mates, row.is_service, under, row.confirmed_at)
        return state, viewer

    async def _rights(
        self,
        session: AsyncSession,
        state: TenantState,
        principal: MemberId,
        roles: frozenset[Role],
        own_roles: frozenset[UUID],
    ) -> _Rights:
        known = self._known.get((state.id, principal))
        now = (state.access_epoch, roles, own_roles)
        if known is not None and (known.epoch, known.roles, known.own_roles) == now:
            self._known.move_to_end((state.id, principal))
            return known
        parameters = {"tenant": state.id, "principal": principal, "roles": list(own_roles)}
        row = (await session.execute(_RIGHTS, parameters)).one()
        access = Access.of(specs_of(roles, row.specs))
        rights = _Rights(row.access_epoch, roles, own_roles, access, frozenset(row.mates))
        self._known[state.id, principal] = rights
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return rights


def specs_of(roles: Collection[Role], stored: dict[str, Any]) -> list[RoleSpec]:
    return [*(SPECS[role] for role in roles), *(RoleSpec.load(spec) for spec in stored.values())]


def _state(tenant: TenantId, row: Any) -> TenantState:
    return TenantState(
        id=tenant,
        slug=row.slug,
        name=row.name,
        key_epoch=row.key_epoch,
        access_epoch=row.access_epoch,
        default_region=row.default_region,
        default_language=row.default_language,
        disclosure_budget=row.disclosure_budget,
        reveal_needs_step_up=row.reveal_needs_step_up,
        frozen=row.frozen,
    )
