"""Tokens of members' e-mails and of their linked identities, written anew by what their sealed values say."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from crypto.keyring import SealedCell
from tenants import members
from tenants.errors import MemberRefused
from tenants.keys.token_tables import TokenTable
from tenants.members import Member, MemberToken
from tenants.owned import places
from tenants.signing_in import links
from tenants.signing_in.sign_on import LinkedIdentity, MemberLink
from tenants.subjects import Subject
from tenants.unit import Unit
from tenants.viewers import MemberId

_WHY = "to index it anew"


async def _rewrite_emails(unit: Unit, owners: Sequence[UUID], versions: Collection[int]) -> None:
    """A member that no e-mail finds stays so: where two have the same, it finds one of them."""
    await _lock(unit, owners)
    mine = (MemberToken.tenant_id == unit.tenant.id, MemberToken.member_id.in_(owners))
    found = set(await unit.scalars(select(MemberToken.member_id).where(*mine)))
    known = await members.identities(unit, map(MemberId, found), _WHY) if found else {}
    await unit.run(_deleted(delete(MemberToken).where(*mine, MemberToken.bik_version.in_(versions))))
    rows = [row for member, who in known.items() for row in _email_rows(unit, member, who.email, versions)]
    if rows:
        await unit.run(insert(MemberToken).on_conflict_do_nothing(), rows)


async def _rewrite_links(unit: Unit, owners: Sequence[UUID], versions: Collection[int]) -> None:
    await _lock(unit, owners)
    mine = (MemberLink.tenant_id == unit.tenant.id, MemberLink.member_id.in_(owners))
    known = await _linked(unit, mine)
    await unit.run(_deleted(delete(MemberLink).where(*mine, MemberLink.bik_version.in_(versions))))
    await unit.load_subjects({member for _, member, _ in known})
    for (provider, member, identity), since in known.items():
        rows = links.links_of(unit, provider, member, identity, since)
        unit.add(*(row for row in rows if row.bik_version in versions))
    await unit.flush()


EMAILS = TokenTable("memberEmails", Member, MemberToken, MemberToken.member_id, MemberToken.index, _rewrite_emails)
LINKS = TokenTable("memberLinks", Member, MemberLink, MemberLink.member_id, MemberLink.provider_id, _rewrite_links)


async def _lock(unit: Unit, owners: Sequence[UUID]) -> None:
    """Whoever gives one of them a token waits: its foreign key locks the member too."""
    mine = select(Member.id).where(Member.tenant_id == unit.tenant.id, Member.id.in_(owners))
    await unit.rows(mine.order_by(Member.id).with_for_update())


def _email_rows(unit: Unit, member: UUID, email: str | None, versions: Collection[int]) -> list[dict[str, Any]]:
    try:
        return [row for row in members.tokens_of(unit, member, email or "") if row["bik_version"] in versions]
    except MemberRefused:
        return []


async def _linked(unit: Unit, mine: Any) -> dict[tuple[UUID, UUID, LinkedIdentity], datetime]:
    """Since when a provider's word for whom means which member."""
    statement = (
        select(MemberLink.provider_id, MemberLink.member_id, MemberLink.id, MemberLink.identity, MemberLink.created_at)
        .add_columns(Subject.secret)
        .join(Subject, (Subject.tenant_id == MemberLink.tenant_id) & (Subject.id == MemberLink.member_id))
        .where(*mine)
    )
    rows = await unit.rows(statement)
    cells = [SealedCell(row.identity, row.secret, row.member_id, row.id) for row in rows]
    opened = unit.open(places(MemberLink)["identity"], cells, _WHY)
    return {(row.provider_id, row.member_id, who): row.created_at for row, who in zip(rows, opened, strict=True)}


def _deleted(statement: Any) -> Any:
    return statement.execution_options(synchronize_session=False)
