"""How much of its disclosure budget a member has spent, for that member to see."""

from datetime import datetime

import strawberry

from api.directives import public
from tenants import budgets
from tenants.unit import Unit

_OWN = "what one may know of oneself"
_MOST = 2**31 - 1  # an Int


@strawberry.type(description="How many plain values one may be shown in an hour. Beyond them one sees masks.")
class DisclosureBudget:
    limit: int = public(_OWN)
    spent: int = public(_OWN, description="In this hour, as far as it is on record.")
    resets_at: datetime = public(_OWN, description="The next full hour, UTC: from then on values are plain again.")


async def own_budget(unit: Unit) -> DisclosureBudget | None:
    """None where the tenant sets no bound."""
    limit, member = unit.tenant.disclosure_budget, unit.viewer.principal
    if limit is None or member is None:
        return None
    spent = min(await budgets.spent(unit, member), _MOST)
    return DisclosureBudget(limit=limit, spent=spent, resets_at=budgets.resets_at(unit.now))
