"""Which backups are kept: the newest of each of the last days, weeks and months that have one. No row is read here.

What was made out of turn is kept for a while besides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tenants.backups import BackupKind, Generation

MOST = 400  # of one generation


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days, weeks (of ISO 8601) and months, all of UTC, each keep their newest backup."""

    daily: int = 7
    weekly: int = 5
    monthly: int = 12


DEFAULT = Retention()
OUT_OF_TURN_KEPT = timedelta(days=14)  # at least; what somebody asked for, and what a restore replaced
_SLOTS: Mapping[Generation, Callable[[datetime], tuple[int, ...]]] = {
    Generation.DAILY: lambda at: (at.year, at.month, at.day),
    Generation.WEEKLY: lambda at: at.isocalendar()[:2],
    Generation.MONTHLY: lambda at: (at.year, at.month),
}


def kept(made: Iterable[tuple[datetime, UUID]], retention: Retention) -> dict[UUID, list[Generation]]:
    """Those that stay, and as what; the newest one of all always does."""
    newest_first = sorted(made, reverse=True)
    found: dict[UUID, list[Generation]] = {}
    for generation, slot in _SLOTS.items():
        most = getattr(retention, generation.lower())
        for backup in _newest_of_each(newest_first, slot, most):
            found.setdefault(backup, []).append(generation)
    if newest_first:
        found.setdefault(newest_first[0][1], [])
    return found


def is_young(kind: str, age: timedelta) -> bool:
    """Whether a backup stays beside the others, in nobody's place: it was made out of turn, and lately."""
    return kind != BackupKind.SCHEDULED and age < OUT_OF_TURN_KEPT


def _newest_of_each(
    newest_first: Sequence[tuple[datetime, UUID]], slot: Callable[[datetime], tuple[int, ...]], most: int
) -> list[UUID]:
    newest: dict[tuple[int, ...], UUID] = {}
    for at, backup in newest_first:
        newest.setdefault(slot(at.astimezone(UTC)), backup)
    return list(newest.values())[:most]
