"""A tenant's rights held still: whoever changes them takes this lock first, and decides on what is true by then."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, bindparam, select, text, update
from sqlalchemy.types import Uuid

from tenants.access import Access, Role
from tenants.entering import specs_of
from tenants.members import Member, MemberRole
from tenants.tenants import tenants
from tenants.unit import Unit
from tenants.viewers import MemberId, Viewer

_MINE = text(
    """
    SELECT ARRAY(SELECT r.role FROM member_roles r WHERE r.tenant_id = m.tenant_id AND r.member_id = m.id) AS roles,
        (SELECT coalesce(jsonb_object_agg(r.id, r.spec), '{}') FROM roles r
            JOIN member_own_roles o ON o.tenant_id = r.tenant_id AND o.role_id = r.id
            WHERE r.tenant_id = m.tenant_id AND o.member_id = m.id) AS specs
    FROM members m WHERE m.tenant_id = :tenant AND m.id = :principal AND m.status = 'ACTIVE'
    """
).bindparams(bindparam("tenant", type_=Uuid), bindparam("principal", type_=Uuid))
_HELD = text(
    """
    SELECT m.id, m.kind, m.status,
        ARRAY(SELECT r.role FROM member_roles r WHERE r.tenant_id = m.tenant_id AND r.member_id = m.id) AS roles,
        ARRAY(SELECT r.role_id FROM member_own_roles r
            WHERE r.tenant_id = m.tenant_id AND r.member_id = m.id) AS own_roles
    FROM members m WHERE m.tenant_id = :tenant AND m.id = ANY(:members)
    """
).bindparams(bindparam("tenant", type_=Uuid), bindparam("members", type_=ARRAY(Uuid)))
_MADE_OF = text(
    """
    SELECT (SELECT coalesce(jsonb_object_agg(r.id, r.spec), '{}') FROM roles r
            WHERE r.tenant_id = :tenant AND r.id = ANY(:roles)) AS specs,
        ARRAY(SELECT DISTINCT mate.member_id FROM team_members mine
            JOIN team_members mate ON mate.tenant_id = mine.tenant_id AND mate.team_id = mine.team_id
            WHERE mine.tenant_id = :tenant AND mine.member_id = :member) AS mates
    """
).bindparams(bindparam("tenant", type_=Uuid), bindparam("member", type_=Uuid), bindparam("roles", type_=ARRAY(Uuid)))


@dataclass(frozen=True, slots=True)
class Held:
    """Which roles a member has: built-in ones, and ids of the tenant's own."""

    id: UUID
    kind: str
    status: str
    roles: frozenset[Role]
    own_roles: frozenset[UUID]

    @property
    def is_active(self) -> bool:
        return self.status == "ACTIVE"


async def hold_still(unit: Unit) -> Access:
    """What the viewer's own roles add up to from now on; until the unit ends, others who change rights wait.

    What the viewer had when the unit was entered may have been taken away since: decide on this.
    """
    mine = tenants.c.id == unit.tenant.id
    await unit.run(update(tenants).where(mine).values(access_epoch=tenants.c.access_epoch + 1))
    found = await unit.rows(_MINE.bindparams(tenant=unit.tenant.id, principal=unit.viewer.principal))
    return Access.of(specs_of(list(map(Role, found[0].roles)), found[0].specs) if found else [])


async def hold(unit: Unit) -> None:
    """As `hold_still`, for who changes nobody's rights, or not yet: the epoch stays as it is."""
    await unit.rows(select(tenants.c.id).where(tenants.c.id == unit.tenant.id).with_for_update(key_share=True))


async def held(unit: Unit, members: Collection[UUID]) -> dict[UUID, Held]:
    """In one statement; members that are not there are left out."""
    rows = await unit.rows(_HELD.bindparams(tenant=unit.tenant.id, members=list(members)))
    return {
        row.id: Held(row.id, row.kind, row.status, frozenset(map(Role, row.roles)), frozenset(row.own_roles))
        for row in rows
    }


async def has_other_owner(unit: Unit, member: UUID) -> bool:
    """Whether the tenant keeps an owner without that member: one that is active, and a person, as a key may be lost."""
    others = (
        select(Member.id)
        .join(MemberRole, (MemberRole.tenant_id == Member.tenant_id) & (MemberRole.member_id == Member.id))
        .where(Member.tenant_id == unit.tenant.id, Member.id != member, MemberRole.role == Role.OWNER.value)
        .where(Member.status == "ACTIVE", Member.kind == "PERSON")
    )
    return bool(await unit.rows(others.limit(1)))


async def viewer_of(unit: Unit, member: Held) -> Viewer:
    """That member as it would enter now; without any rights while it may not."""
    roles = member.roles if member.is_active else frozenset[Role]()
    own_roles = member.own_roles if member.is_active else frozenset[UUID]()
    asked = {"tenant": unit.tenant.id, "member": member.id, "roles": list(own_roles)}
    (row,) = await unit.rows(_MADE_OF.bindparams(**asked))
    return Viewer(
        tenant=unit.tenant.id,
        principal=MemberId(member.id),
        roles=roles,
        access=Access.of(specs_of(roles, row.specs)),
        own_roles=own_roles,
        mates=frozenset(row.mates),
        is_service=member.kind == "SERVICE",
    )
