"""What all tables of tokens have in common, so that index keys can turn over: written anew, compared, and cleared."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import InstrumentedAttribute

from tenants.owned import TenantOwned
from tenants.unit import Unit

Rewrite = Callable[[Unit, Sequence[UUID], Collection[int]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """`tokens` has a row per token, of the `owner` whose id that column holds, and of one `kind` of token.

    `rewrite(unit, owners, versions)` locks these owners until the unit ends, so that nobody changes a value meanwhile,
    and makes their tokens by these index keys what their values say; it leaves those of other index keys alone.
    """

    name: str
    owners: type[TenantOwned]
    tokens: type[TenantOwned]
    owner: InstrumentedAttribute[Any]
    kind: InstrumentedAttribute[Any]
    rewrite: Rewrite

    @property
    def version(self) -> Any:
        return self.tokens.__table__.c.bik_version


async def page(unit: Unit, table: TokenTable, after: UUID, most: int) -> Sequence[UUID]:
    """The next owners in the order of their ids, whether or not they have tokens."""
    ids: Any = table.owners.__table__.c.id
    mine = select(ids).where(table.owners.tenant_id == unit.tenant.id, ids > after)
    return await unit.scalars(mine.order_by(ids).limit(most))


async def count_owners(unit: Unit, table: TokenTable) -> int:
    counted = select(func.count()).select_from(table.owners).where(table.owners.tenant_id == unit.tenant.id)
    return int((await unit.scalars(counted))[0])


async def count(unit: Unit, table: TokenTable, owners: Sequence[UUID], version: int) -> int:
    """How many tokens of that index key the owners of a page have."""
    mine = (*_theirs(unit, table, owners), table.version == version)
    return int((await unit.scalars(select(func.count()).select_from(table.tokens).where(*mine)))[0])


async def count_versions(unit: Unit, table: TokenTable) -> list[tuple[int, int]]:
    """How many tokens there are by each version of the index key."""
    version: Any = table.version
    counted = select(version, func.count()).where(table.tokens.tenant_id == unit.tenant.id).group_by(version)
    rows: Sequence[Any] = await unit.rows(counted.order_by(version))
    return [(row[0], row[1]) for row in rows]


async def disagreeing(unit: Unit, table: TokenTable, owners: Sequence[UUID], versions: tuple[int, int]) -> list[UUID]:
    """Those owners of a page that have not as many tokens of each kind by one index key as by the other."""
    one, other = (func.count().filter(table.version == version) for version in versions)
    mine = (*_theirs(unit, table, owners), table.version.in_(versions))
    found = select(table.owner).where(*mine).group_by(table.owner, table.kind).having(one != other)
    return sorted(set(await unit.scalars(found)))


async def clear(unit: Unit, table: TokenTable, owners: Sequence[UUID]) -> int:
    """Delete what the owners of a page have of index keys that no writer writes; how many tokens that were."""
    mine = (*_theirs(unit, table, owners), table.version.not_in(unit.keyring.index_versions()))
    gone = delete(table.tokens).where(*mine).returning(table.owner)
    return len(await unit.rows(gone.execution_options(synchronize_session=False)))


async def is_clear(unit: Unit, table: TokenTable) -> bool:
    """Whether no token of an index key that no writer writes is left."""
    left = select(table.owner).where(
        table.tokens.tenant_id == unit.tenant.id, table.version.not_in(unit.keyring.index_versions())
    )
    return not await unit.scalars(left.limit(1))


def _theirs(unit: Unit, table: TokenTable, owners: Sequence[UUID]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """By the ends of the page: its owners are all there are in between, but for those that came meanwhile."""
    return table.tokens.tenant_id == unit.tenant.id, table.owner.between(owners[0], owners[-1])
