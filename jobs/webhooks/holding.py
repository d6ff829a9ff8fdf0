"""What is claimed and yet not sent: what its senders died of, and what only a newer release knows how to send."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from jobs.webhooks.schedules import next_try
from tenants.events import KINDS
from tenants.webhooks import DeliveryState
from tenants.webhooks.ledger import Claimed, Outcome

MOST_LOST = 3  # leases in a row; a worker may be killed for many reasons
PUT_OFF_LONG = timedelta(minutes=1)
STRANGE_FOR = timedelta(days=1)  # that a release may take to reach all processes; longer, and its subject waits in vain


def held_back(endpoint: UUID, claimed: Sequence[Claimed], now: datetime, chance: Callable[[], float]) -> list[Outcome]:
    """One whose leases were lost counts as tried, and goes by the schedule. An unknown type is put off."""
    found = []
    for each in claimed:
        if each.lost >= MOST_LOST:
            found.append(_given_up(endpoint, each, next_try(each.tries + 1, now, chance)))
        elif each.type not in KINDS and now - each.happened_at < STRANGE_FOR:
            found.append(Outcome(endpoint, each, DeliveryState.PENDING, due_at=now + PUT_OFF_LONG))
    return found


def _given_up(endpoint: UUID, delivery: Claimed, due_at: datetime | None) -> Outcome:
    if due_at is None:
        return Outcome(endpoint, delivery, DeliveryState.SKIPPED, "ATTEMPTS_SPENT", is_given_up=True)
    return Outcome(endpoint, delivery, DeliveryState.PENDING, due_at=due_at, is_given_up=True)
