"""What is written to members: the job holds a member's id alone; address and token come to be as the letter is drafted.

So neither stands in a queue. How it is sent is the job's affair.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select

from tenants import members
from tenants.access import Role
from tenants.jobs import JobId, JobKind, Priority
from tenants.members import Member, MemberRole
from tenants.signing_in import one_time_tokens
from tenants.signing_in.one_time_tokens import LIFETIMES, Use
from tenants.unit import Unit
from tenants.viewers import MemberId


class Template(StrEnum):
    PASSWORD_RESET = "PASSWORD_RESET"  # noqa: S105  # a code
    INVITATION = "INVITATION"
    WEBHOOK_DISABLED = "WEBHOOK_DISABLED"


_USES = {Template.PASSWORD_RESET: Use.RESET, Template.INVITATION: Use.INVITATION}
# Who is written to, and nobody else.
_OF = {Template.PASSWORD_RESET: "ACTIVE", Template.INVITATION: "INVITED", Template.WEBHOOK_DISABLED: "ACTIVE"}
_NEWS = timedelta(days=1)  # after which a letter that carries no link is no news any more
_ADMINISTRATORS = (Role.OWNER, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class SendMail:
    """After `until` it is too late to write."""

    member: UUID
    template: Template
    until: datetime


SEND_MAIL = JobKind("send_mail", SendMail, "Write a letter to a member.", priority=Priority.URGENT)


@dataclass(frozen=True, slots=True)
class Draft:
    """`token` is empty in a letter that carries no link of its reader's own."""

    to: str = field(repr=False)
    tenant: str
    token: str = field(repr=False)


async def enqueue(unit: Unit, member: MemberId, template: Template) -> JobId:
    lasts = LIFETIMES[_USES[template]] if template in _USES else _NEWS
    return await unit.enqueue(SEND_MAIL, SendMail(member, template, unit.now + lasts))


async def tell_administrators(unit: Unit, template: Template) -> None:
    """A letter to each owner and administrator who is active."""
    theirs = (MemberRole.tenant_id == Member.tenant_id) & (MemberRole.member_id == Member.id)
    active = (Member.tenant_id == unit.tenant.id, Member.status == "ACTIVE", Member.kind == "PERSON")
    having = select(Member.id).join(MemberRole, theirs).where(*active, MemberRole.role.in_(_ADMINISTRATORS)).distinct()
    for member in await unit.scalars(having):
        await enqueue(unit, MemberId(member), template)


async def draft(unit: Unit, wanted: SendMail) -> Draft | None:
    """With a new token, which voids that of an earlier draft; None where there is nobody to be written to any more."""
    member = MemberId(wanted.member)
    mine = (Member.tenant_id == unit.tenant.id, Member.id == member, Member.status == _OF[wanted.template])
    if unit.now > wanted.until or not await unit.scalars(select(Member.id).where(*mine)):
        return None
    identity = (await members.identities(unit, [member], "to write to the member"))[member]
    if identity.email is None:
        return None
    use = _USES.get(wanted.template)
    token = "" if use is None else await one_time_tokens.give(unit, member, use)
    return Draft(identity.email, unit.tenant.name, token)
