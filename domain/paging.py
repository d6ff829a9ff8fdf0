"""Keyset paging: a window over rows ordered by a clear sort key, a moment or a number, and the id; and its page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select, Uuid, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute

T = TypeVar("T")
Key = tuple[datetime | int, UUID]


@dataclass(frozen=True, slots=True)
class Window:
    """The first or the last `size` rows strictly between two keys. `is_last` counts from the end."""

    size: int
    after: Key | None = None
    before: Key | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    nodes: Sequence[T]
    has_next: bool
    has_previous: bool


def windowed(
    statement: Select[Any],
    columns: tuple[InstrumentedAttribute[Any], InstrumentedAttribute[Any]],
    window: Window,
    *,
    descending: bool,
) -> Select[Any]:
    """The statement in the order that fills the window, with one row more than it holds."""
    keys = tuple_(*columns)
    for key, is_after in ((window.after, True), (window.before, False)):
        if key is not None:
            bound = tuple_(bindparam(None, key[0], columns[0].type), bindparam(None, key[1], Uuid))
            statement = statement.where(keys < bound if descending == is_after else keys > bound)
    backwards = descending != window.is_last
    order = [column.desc() if backwards else column.asc() for column in columns]
    return statement.order_by(*order).limit(window.size + 1)


def cut(rows: Sequence[Any], window: Window) -> tuple[Sequence[Any], bool, bool]:
    """The rows of the page in its order, whether more follow, whether more come before."""
    has_more = len(rows) > window.size
    kept = rows[: window.size]
    if window.is_last:
        return kept[::-1], window.before is not None, has_more
    return kept, has_more, window.after is not None
