"""Relay: global ids, cursors under a MAC, connections; and the user errors that every mutation answers with."""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

import strawberry
from strawberry import Info

from api.directives import public
from domain.errors import BadInput, Refused
from domain.paging import Key, Page, Window
from tenants import ids
from tenants.ids import any_local_id, bytes_of, text_of
from tenants.unit import Unit

T = TypeVar("T")
_LARGEST = 100
_USUAL = 20
_MAC_BYTES = 16
_CURSOR = struct.Struct(">Hq16s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHAPE = "the shape of Relay, the same for all"


@strawberry.interface(description="An object with a global id.")
class Node:
    @public("an id opens nothing by itself")
    def id(self: Any, info: Info) -> strawberry.ID:
        return global_id(info._raw_info.parent_type.name, self.id)


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = public(_SHAPE)
    has_previous_page: bool = public(_SHAPE)
    start_cursor: str | None = public(_SHAPE)
    end_cursor: str | None = public(_SHAPE)


@strawberry.type
class Edge(Generic[T]):
    cursor_of: strawberry.Private[Callable[[Any], str]]
    node: T = public(_SHAPE)

    @public(_SHAPE)
    def cursor(self) -> str:
        return self.cursor_of(self.node)


@strawberry.type
class Connection(Generic[T]):
    """Built from a page; cursors are made only where they are asked for."""

    page: strawberry.Private[Page[Any]]
    cursor_of: strawberry.Private[Callable[[Any], str]]
    count: strawberry.Private[Callable[[], Any] | None]

    @public(_SHAPE)
    def edges(self) -> list[Edge[T]]:
        return [Edge(cursor_of=self.cursor_of, node=node) for node in self.page.nodes]

    @public(_SHAPE)
    def nodes(self) -> list[T]:
        return list(self.page.nodes)

    @public(_SHAPE)
    def page_info(self) -> PageInfo:
        nodes = self.page.nodes
        return PageInfo(
            has_next_page=self.page.has_next,
            has_previous_page=self.page.has_previous,
            start_cursor=self.cursor_of(nodes[0]) if nodes else None,
            end_cursor=self.cursor_of(nodes[-1]) if nodes else None,
        )

    @public(
        "a count of rows that the viewer may list, by clear fields only",
        description="How many there are in all; null for what was found by a personal value.",
    )
    async def total_count(self) -> int | None:
        return None if self.count is None else int(await self.count())


@strawberry.type(description="What a user can mend in the input of a mutation.")
class UserError:
    code: str = public(_SHAPE)
    path: list[str] = public(_SHAPE, description="Where in the mutation's arguments.")
    message: str = public(_SHAPE)
    retry_after: int | None = public(
        _SHAPE, default=None, description="Seconds until it may be tried again, where that is what is to be done."
    )


def user_errors(refused: Refused, above: tuple[str, ...] = ()) -> list[UserError]:
    """`above` leads to the input that the errors' paths start from; an argument beside it stands on its own."""
    return [
        UserError(
            code=e.code,
            path=[*(() if e.path[:1] in _BESIDE else above), *map(str, e.path)],
            message=e.message,
            retry_after=e.retry_after,
        )
        for e in refused.errors
    ]


_BESIDE = (("id",), ("version",))


def global_id(kind: str, local: UUID) -> strawberry.ID:
    return strawberry.ID(ids.global_id(kind, local))


def local_id(kind: str, text: str) -> UUID:
    """The id inside a global id of that type; of anything else the nil UUID, which nothing has.

    So a wrong id, an absent one and another tenant's take the same way and give the same answer.
    """
    found = any_local_id(text)
    return found[1] if found is not None and found[0] == kind else _NOTHING


_NOTHING = UUID(int=0)


def window(
    unit: Unit,
    order: str,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
    *,
    is_counted: bool = False,
) -> Window:
    """Raises `BadInput` unless one of first and last is 1..100 and cursors are of this very list.

    `is_counted`: the list is ordered by a number, not by a moment.
    """
    if first is not None and last is not None:
        raise BadInput("Give `first` or `last`, not both.")
    size = first if first is not None else last if last is not None else _USUAL
    if not 1 <= size <= _LARGEST:
        raise BadInput(f"`{'last' if last is not None else 'first'}` is 1 to {_LARGEST}.")
    ends = {name: key_of(unit, order, text, name) for name, text in (("after", after), ("before", before)) if text}
    if is_counted:
        ends = {name: (_number(key), key[1]) for name, key in ends.items()}
    return Window(size, ends.get("after"), ends.get("before"), is_last=last is not None)


def cursor(unit: Unit, order: str, key: Key) -> str:
    """Microseconds since 1970, or a number (int64), and the id (16 bytes) of a row, under a MAC of tenant and order.

    In front stands the version of the index key (16 bits) that made the MAC: a cursor outlives the key's turning over.
    """
    version = unit.keyring.index_key_versions()[0]
    body = _CURSOR.pack(version, _number(key), key[1].bytes)
    return text_of(body + _mac(unit, order, body, version))


def key_of(unit: Unit, order: str, text: str, argument: str) -> Key:
    raw = bytes_of(text) or b""
    body, mac = raw[: _CURSOR.size], raw[_CURSOR.size :]
    version, micros, local = _CURSOR.unpack(body) if len(body) == _CURSOR.size else (0, 0, b"")
    if version not in unit.keyring.index_key_versions() or mac != _mac(unit, order, body, version):
        raise BadInput(f"`{argument}` is not a cursor of this list in this order.")
    return _EPOCH + timedelta(microseconds=micros), UUID(bytes=local)


def _number(key: Key) -> int:
    return key[0] if isinstance(key[0], int) else (key[0] - _EPOCH) // timedelta(microseconds=1)


def _mac(unit: Unit, order: str, body: bytes, version: int) -> bytes:
    return unit.keyring.authenticate("cursor", order.encode() + b"\0" + body, version)[:_MAC_BYTES]
