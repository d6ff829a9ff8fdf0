"""Members: the people of a tenant who sign in; their e-mail is sealed and found by token."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped

from crypto.keyring import SealedCell
from crypto.values import Secret
from tenants.access import Role, Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.errors import MemberExists, MemberRefused
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.owned import Backup, TenantOwned, clear, places, sealed
from tenants.subjects import Subject
from tenants.unit import Unit
from tenants.viewers import MemberId

ADDED = EventKind("member.added", "Member", "A member was added to the tenant.", frozenset({"roles"}))
_EMAIL_PLACE, _EMAIL_INDEX, _EMAIL_NORMALISER = "members.identity", "email", 1


class MemberIdentity(Document):
    email: str | None = personal(Sensitivity.CONTACT, Mask.EMAIL)
    name: str | None = personal(Sensitivity.IDENTITY, Mask.NAME)


class Member(TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT UPDATE DELETE"):
    __tablename__ = "members"
    __table_args__ = (
        CheckConstraint("status IN ('INVITED', 'ACTIVE', 'DISABLED')", name="status"),
        CheckConstraint("kind IN ('PERSON', 'SERVICE')", name="kind"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    kind: Mapped[str] = clear("a person who signs in, or a service that has an API key", Text, default="PERSON")
    identity: Mapped[Any] = sealed(MemberIdentity, place="members.identity")
    password_hash: Mapped[str | None] = clear("Argon2id of the password, salted; None: none fits", Text, nullable=True)
    status: Mapped[str] = clear("decides whether the member may sign in", Text)
    created_at: Mapped[datetime] = clear("when the member came", TIMESTAMP(timezone=True))


class MemberRole(TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT DELETE"):
    __tablename__ = "member_roles"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
    )

    member_id: Mapped[UUID] = clear("whose role it is", primary_key=True)
    role: Mapped[str] = clear("read on every request, before any key", Text, primary_key=True)


class MemberToken(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE"):
    """Blind index of members' e-mails; unique, because a sign-in must mean one person."""

    __tablename__ = "member_tokens"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        Index("ix_member_tokens_member", "tenant_id", "member_id"),
        CheckConstraint("octet_length(token) = 16", name="token"),
    )

    index: Mapped[str] = clear("which field the token stands for", Text, primary_key=True)
    token: Mapped[bytes] = clear("keyed hash, random without the index key", LargeBinary, primary_key=True)
    bik_version: Mapped[int] = clear("which index key made it", SmallInteger, primary_key=True)
    member_id: Mapped[UUID] = clear("whose e-mail it is")


async def add(
    unit: Unit,
    *,
    email: str,
    name: str,
    password_hash: str | None,
    roles: Iterable[Role],
    status: str = "ACTIVE",
    told: EventKind = ADDED,
) -> MemberId:
    """Raises `MemberExists`, or `MemberRefused` for an e-mail that is none. `told` is the event that says so."""
    member, address = MemberId(new_id()), _address(email)
    unit.new_subject(member)
    unit.add(
        Member(
            tenant_id=unit.tenant.id,
            id=member,
            identity=Secret(MemberIdentity(email=address, name=name)),
            password_hash=password_hash,
            status=status,
            created_at=unit.now,
        )
    )
    unit.add(*(MemberRole(tenant_id=unit.tenant.id, member_id=member, role=role.value) for role in set(roles)))
    await unit.flush()
    try:
        await unit.run(insert(MemberToken), tokens_of(unit, member, address))
    except IntegrityError as error:
        raise MemberExists from error
    unit.publish(told, [member], ["roles"])
    return member


async def take_email(unit: Unit, member: MemberId, email: str) -> bool:
    """Let this e-mail find that member. False, and nothing changes, where another has it or it is no address."""
    try:
        async with unit.savepoint():
            await unit.run(insert(MemberToken), tokens_of(unit, member, email))
    except (MemberRefused, IntegrityError):
        return False
    return True


async def find_by_email(unit: Unit, email: str, *, status: str | None = "ACTIVE") -> Member | None:
    """The member of that address and status (None: any) in the unit's tenant. Any text may be asked for."""
    statement = select(Member).where(Member.tenant_id == unit.tenant.id, bears_email(unit, email))
    if status:
        statement = statement.where(Member.status == status)
    return next(iter(await unit.scalars(statement)), None)


def bears_email(unit: Unit, email: str) -> ColumnElement[bool]:
    """Whether a `Member` has that e-mail, by its token."""
    its_own = (MemberToken.tenant_id == unit.tenant.id, MemberToken.index == _EMAIL_INDEX)
    found = select(MemberToken.member_id).where(*its_own, MemberToken.token == email_tokens(unit, email)[0])
    return Member.id.in_(found)


def email_tokens(unit: Unit, email: str) -> list[bytes]:
    """16 bytes by each index key that is or was in force, the active first."""
    return [_email_token(unit, email, version) for version in unit.keyring.index_key_versions()]


def tokens_of(unit: Unit, member: UUID, email: str) -> list[dict[str, Any]]:
    """Rows of `MemberToken` by which a member is found: one under each index key that writers write.

    Raises `MemberRefused` for an e-mail that is none.
    """
    address = _address(email)
    return [
        {
            "tenant_id": unit.tenant.id,
            "index": _EMAIL_INDEX,
            "token": _email_token(unit, address, version),
            "bik_version": version,
            "member_id": member,
        }
        for version in unit.keyring.index_versions()
    ]


async def identities(unit: Unit, members: Iterable[MemberId], why: str) -> dict[MemberId, MemberIdentity]:
    """The opened identities of these members of the unit's tenant, in one statement."""
    statement = (
        select(Member.id, Member.identity, Subject.secret)
        .join(Subject, (Subject.tenant_id == Member.tenant_id) & (Subject.id == Member.id))
        .where(Member.tenant_id == unit.tenant.id, Member.id.in_(list(members)))
    )
    rows = await unit.rows(statement)
    place = places(Member)["identity"]
    cells = [SealedCell(row.identity, row.secret, row.id, row.id) for row in rows]
    opened = unit.open(place, cells, why)
    return {MemberId(row.id): identity for row, identity in zip(rows, opened, strict=True)}


def _email_token(unit: Unit, email: str, version: int) -> bytes:
    return unit.keyring.token(_EMAIL_PLACE, _EMAIL_INDEX, _EMAIL_NORMALISER, email.strip().casefold(), version)


def _address(email: str) -> str:
    try:
        return validate_email(email, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        raise MemberRefused("The member's e-mail is not a valid address.") from None
