"""A tenant's profile: what it is called, what it reads numbers and texts by, and how carefully values leave it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, update

from domain import granting, normalise, required
from domain.errors import Refused, UserError
from tenants.access import Permission
from tenants.events import EventKind
from tenants.tenants import tenants
from tenants.unit import Unit

HIGHEST_BUDGET = 10_000_000
_FORMS = {"name": normalise.name, "default_region": normalise.country, "default_language": normalise.language}
_SPELLED = {
    "name": "name",
    "default_region": "defaultRegion",
    "default_language": "defaultLanguage",
    "disclosure_budget": "disclosureBudget",
    "reveal_needs_step_up": "revealNeedsStepUp",
}
UPDATED = EventKind("tenant.updated", "Tenant", "Settings of the tenant changed.", frozenset(_SPELLED.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`disclosure_budget` is of plain values per member and hour; None for no bound."""

    id: UUID
    slug: str
    name: str
    status: str
    default_region: str
    default_language: str
    created_at: datetime
    disclosure_budget: int | None
    reveal_needs_step_up: bool


async def get(unit: Unit) -> Profile:
    return _profile((await unit.rows(select(tenants).where(tenants.c.id == unit.tenant.id)))[0])


async def change(unit: Unit, given: Mapping[str, Any]) -> Profile:
    """`given` has names of a `Profile`. Raises `Refused`: REQUIRED, INVALID; and `Forbidden` where it takes an owner.

    It takes one to let more leave: to raise or lift the budget, or to let values be revealed without a step up.
    """
    giver = await granting.lock(unit, Permission.TENANT_MANAGE)
    before = await get(unit)
    wanted = normalised({**given})
    changed = {name: value for name, value in wanted.items() if value != getattr(before, name)}
    if _widens(before, changed):
        granting.refuse_but_owners(giver, "raise the disclosure budget, or drop the step up before a reveal")
    if changed:
        await unit.run(update(tenants).where(tenants.c.id == unit.tenant.id).values(**changed))
        unit.publish(UPDATED, [unit.tenant.id], [_SPELLED[name] for name in changed])
    return await get(unit)


def normalised(given: Mapping[str, Any], spelled: Mapping[str, str] = _SPELLED) -> dict[str, Any]:
    """The same in the form to keep. Raises `Refused` naming what can't be, as it is `spelled` by the client."""
    kept, errors = dict(given), list[UserError]()
    for name, form in _FORMS.items():
        if name in given:
            kept[name] = required.text(errors, (spelled[name],), given[name], form)
    budget = given.get("disclosure_budget")
    if budget is not None and not 1 <= budget <= HIGHEST_BUDGET:
        errors.append(_invalid(spelled["disclosure_budget"], f"is not within 1 and {HIGHEST_BUDGET:,}; null lifts it"))
    if "reveal_needs_step_up" in given and given["reveal_needs_step_up"] is None:
        errors.append(_invalid(spelled["reveal_needs_step_up"], "is true or false"))
    if errors:
        raise Refused(errors)
    return kept


def _invalid(name: str, reason: str) -> UserError:
    return UserError("INVALID", (name,), f"{name} {reason}.")


def _widens(before: Profile, changed: Mapping[str, Any]) -> bool:
    if "disclosure_budget" in changed and before.disclosure_budget is not None:
        budget = changed["disclosure_budget"]
        if budget is None or budget > before.disclosure_budget:
            return True
    return changed.get("reveal_needs_step_up") is False


def _profile(row: Row[Any]) -> Profile:
    return Profile(**{name: getattr(row, name) for name in Profile.__dataclass_fields__})
