"""What is written to members: the job holds a member's id alone; address and token come to be as the letter is drafted.

So neither stands in a queue. How it is sent is the job's affair.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select

from tenants import members, one_time_tokens
from tenants.jobs import JobId, JobKind, Priority
from tenants.members import Member
from tenants.one_time_tokens import LIFETIMES, Use
from tenants.unit import Unit
from tenants.viewers import MemberId


class Template(StrEnum):
    PASSWORD_RESET = "PASSWORD_RESET"  # noqa: S105  # a code
    INVITATION = "INVITATION"


_USES = {Template.PASSWORD_RESET: Use.RESET, Template.INVITATION: Use.INVITATION}
_OF = {Template.PASSWORD_RESET: "ACTIVE", Template.INVITATION: "INVITED"}  # who is written to, and nobody else


@dataclass(frozen=True, slots=True)
class SendMail:
    """After `until` it is too late to write."""

    member: UUID
    template: Template
    until: datetime


SEND_MAIL = JobKind("send_mail", SendMail, "Write a letter to a member.", priority=Priority.URGENT)


@dataclass(frozen=True, slots=True)
class Draft:
    to: str = field(repr=False)
    tenant: str
    token: str = field(repr=False)


async def enqueue(unit: Unit, member: MemberId, template: Template) -> JobId:
    return await unit.enqueue(SEND_MAIL, SendMail(member, template, unit.now + LIFETIMES[_USES[template]]))


async def draft(unit: Unit, wanted: SendMail) -> Draft | None:
    """With a new token, which voids that of an earlier draft; None where there is nobody to be written to any more."""
    member = MemberId(wanted.member)
    mine = (Member.tenant_id == unit.tenant.id, Member.id == member, Member.status == _OF[wanted.template])
    if unit.now > wanted.until or not await unit.scalars(select(Member.id).where(*mine)):
        return None
    identity = (await members.identities(unit, [member], "to write to the member"))[member]
    if identity.email is None:
        return None
    return Draft(identity.email, unit.tenant.name, await one_time_tokens.give(unit, member, _USES[wanted.template]))
