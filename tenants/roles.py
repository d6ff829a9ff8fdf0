"""Roles of a tenant's own, teams, and who has and is in which: the tables that rights are made of.

A trigger counts the tenant's `access_epoch` up with every change of them, so what was read of them goes stale at once.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, Integer, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped

from tenants.owned import Backup, TenantOwned, clear


class OwnRole(TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT UPDATE DELETE"):
    """`spec` is what `tenants.access.RoleSpec` dumps."""

    __tablename__ = "roles"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    name: Mapped[str] = clear("a word for a kind of work, shown to all members", Text)
    description: Mapped[str] = clear("says what the role is for", Text)
    spec: Mapped[Mapping[str, Any]] = clear("read on requests, before any key", JSONB)
    version: Mapped[int] = clear("refuses changes made from an old reading", Integer)
    created_at: Mapped[datetime] = clear("when the role came", TIMESTAMP(timezone=True))
    updated_at: Mapped[datetime] = clear("when it was changed last", TIMESTAMP(timezone=True))


class MemberOwnRole(TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT DELETE"):
    """A role can't be deleted while somebody has it: the foreign key says so."""

    __tablename__ = "member_own_roles"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "role_id"], ["roles.tenant_id", "roles.id"]),
        Index("ix_member_own_roles_role", "tenant_id", "role_id"),
    )

    member_id: Mapped[UUID] = clear("whose role it is", primary_key=True)
    role_id: Mapped[UUID] = clear("which role", primary_key=True)


class Team(TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT UPDATE DELETE"):
    __tablename__ = "teams"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    name: Mapped[str] = clear("a word for a group of colleagues, shown to all members", Text)
    created_at: Mapped[datetime] = clear("when the team came", TIMESTAMP(timezone=True))


class TeamMember(TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT DELETE"):
    __tablename__ = "team_members"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "team_id"], ["teams.tenant_id", "teams.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        Index("ix_team_members_member", "tenant_id", "member_id"),
    )

    team_id: Mapped[UUID] = clear("which team", primary_key=True)
    member_id: Mapped[UUID] = clear("who is in it", primary_key=True)
