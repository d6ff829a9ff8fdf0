"""A backup's rows in a tenant that did not make it: sealed anew, under subjects' secrets that nobody had before.

People come as if they were invited: none has a password, an API key, a session or a second factor here. What reaches
out of the house, or lets in from outside, is switched off until somebody of the new tenant looks at it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from crypto.envelopes import Cell
from domain.customers.rows import Customer
from domain.restored_pages import Opened, Page, Source, count_of, tokens_of_page
from tenants import members
from tenants.backups import loading
from tenants.backups.loading import Row
from tenants.errors import Unrestorable
from tenants.members import Member
from tenants.subjects import fresh_secret
from tenants.unit import Unit
from tenants.viewers import MemberId


async def refuse_inhabited(unit: Unit) -> None:
    """Raises `Unrestorable`: nobody's rows are replaced by another tenant's."""
    for owned in (Member, Customer):
        mine = select(func.count()).select_from(owned).where(owned.tenant_id == unit.tenant.id)
        if (await unit.scalars(mine))[0]:
            raise Unrestorable("The new tenant has members or customers already.")


async def secrets(unit: Unit, opened: Opened, source: Source) -> dict[UUID, bytes]:
    """New ones for the subjects of a page, by the subject's id here; those that have one keep it."""
    wanted = {unit.tenant.id if subject == source.tenant else subject for subject in opened.secrets}
    known = await loading.secrets_of(unit, wanted)
    return {subject: known.get(subject) or fresh_secret() for subject in wanted}


def page_of(opened: Opened, source: Source, unit: Unit, secrets: Mapping[UUID, bytes]) -> Page:
    """As `restored_pages.page_of`, for another tenant than the backup's."""
    for name, place in opened.target.places.items():
        for row, document in zip(opened.rows, opened.documents[name], strict=True):
            if document is not None:
                subject = unit.tenant.id if place.subject == "tenant_id" else UUID(row[place.subject])
                cell = Cell(unit.tenant.id, subject, place.label, UUID(row["id"]))
                row[name] = "\\x" + unit.keyring.seal(document, secrets[subject], cell).hex()
    change = _CHANGED.get(opened.target.name)
    rows = opened.rows if change is None else [row | change(row) for row in opened.rows]
    tokens = tokens_of_page(opened, unit)
    return Page(opened.target, rows, opened.erased, dict(secrets), tokens, count_of(opened))


async def index_members(unit: Unit, opened: Opened) -> None:
    """Let members be found by their e-mails; of two that have the same one is."""
    if opened.target.name != Member.__tablename__:
        return
    place = opened.target.places["identity"]
    for row, document in zip(opened.rows, opened.documents["identity"], strict=True):
        email = None if document is None else place.document.load(document).email
        if email is not None and row["kind"] == "PERSON":
            await members.take_email(unit, MemberId(UUID(row["id"])), email)


def _member(row: Row) -> Row:
    return {"status": "INVITED"} if row["kind"] == "PERSON" and row["status"] != "DISABLED" else {}


def _off(**values: Any) -> Callable[[Row], Row]:
    return lambda _row: values


_CHANGED: Mapping[str, Callable[[Row], Row]] = MappingProxyType(
    {
        "members": _member,
        "schedules": _off(next_at=None),
        "sign_on_providers": _off(is_enabled=False),
        "webhook_endpoints": _off(state="DISABLED", disabled_why="RESTORED", failing_since=None),
    }
)
