"""The spans of time in which an endpoint was active, by transactions: it gets the events that committed within them.

Each begins and ends by a snapshot, as a clock does not say what others knew of. Kept as text: ``begun;ended;begun``.
"""

from dataclasses import dataclass
from itertools import takewhile

from sqlalchemy import ColumnElement, Text, func, literal_column
from sqlalchemy.sql.expression import SQLColumnExpression

MOST = 8  # spans; then the two oldest become one, and what lay between them is sent as well
_SEPARATOR = ";"
# A snapshot and, behind it, the transaction that asks.
NOW: ColumnElement[str] = literal_column("pg_current_snapshot()::text || ':' || pg_current_xact_id()::text", Text)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What had committed by then; `own` is the transaction that asked."""

    oldest: int
    next: int
    running: frozenset[int]
    own: int

    @classmethod
    def of(cls, text: str) -> "_Moment":
        """``oldest:next:running,…:own``, as `NOW` makes it."""
        oldest, next_, running, own = text.split(":")
        return cls(int(oldest), int(next_), frozenset(int(xid) for xid in running.split(",") if xid), int(own))

    def knows(self, xid: int) -> bool:
        return xid < self.oldest or (xid < self.next and xid not in self.running)


@dataclass(frozen=True, slots=True)
class Spans:
    """`moments` are beginnings and ends by turns; the first is None for one that gets whatever there is."""

    moments: tuple[_Moment | None, ...]

    @classmethod
    def of(cls, text: str | None) -> "Spans":
        return cls(tuple(_Moment.of(part) if part else None for part in (text or "").split(_SEPARATOR)))

    @property
    def is_ended(self) -> bool:
        return len(self.moments) % 2 == 0

    def hold(self, xid: int) -> bool:
        """Whether that transaction committed within one of them; those that began or ended one lie outside."""
        if any(moment is not None and moment.own == xid for moment in self.moments):
            return False
        before = takewhile(lambda moment: moment is None or not moment.knows(xid), self.moments)
        return sum(1 for _ in before) % 2 == 1


def ended(begun: SQLColumnExpression[str | None]) -> ColumnElement[str]:
    """What the column becomes where an endpoint is disabled."""
    return func.concat(begun, _SEPARATOR, NOW)


def begun_again(text: str | None) -> ColumnElement[str]:
    """What the column becomes where an endpoint comes back; one that never ended is forgotten."""
    parts = (text or "").split(_SEPARATOR)
    if len(parts) % 2:
        return NOW
    if len(parts) == 2 * MOST:
        del parts[1:3]
    return func.concat(_SEPARATOR.join(parts), _SEPARATOR, NOW)
