"""The base of every tenant table: refuses at import a column that is neither `sealed()` nor `clear(why)`.

It also refuses keys that do not lead with `tenant_id` and tables that do not say what a restore does with them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, LargeBinary, MetaData, Table, UniqueConstraint, Uuid, event
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column
from sqlalchemy.types import TypeDecorator

from crypto.values import Sealed, Secret
from tenants.documents import Document

D = TypeVar("D", bound=Document)
_PLACE = re.compile(r"[a-z_]+\.[a-z_]+")


class Backup(StrEnum):
    """What a restore does with a table: bring back its rows, bring back settings only into a new tenant, or neither."""

    DATA = "DATA"
    SETTINGS = "SETTINGS"
    NEVER = "NEVER"


@dataclass(frozen=True, slots=True)
class Place(Generic[D]):
    """A sealed column: its frozen label enters the associated data of all its ciphertexts, so it is never renamed."""

    label: str
    document: type[D]
    subject: str


class SealedColumn(TypeDecorator[Any]):
    """bytea that takes only what sealing made. Plain bytes, text and unsealed secrets are refused in ORM and Core."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> bytes | None:
        if value is None or isinstance(value, Sealed):
            return value
        raise TypeError(
            f"a sealed column takes a Secret through the unit, not {type(value).__name__}; "
            "set the attribute to Secret(document) and let the flush seal it"
        )

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Sealed | None:
        return None if value is None else Sealed(value)


_places: dict[str, Place[Any]] = {}


def sealed(document: type[D], *, place: str, subject: str = "id") -> "MappedColumn[Any]":
    """A column that holds one sealed document.

    `place` is "table.column" as it stood when the column was made. `subject` names the column whose uuid says whose
    key seals it: a customer's or member's id, or `tenant_id` for what belongs to the tenant itself.
    """
    if not _PLACE.fullmatch(place):
        raise TypeError(f"a place label reads table.column, not {place!r}")
    if place in _places:
        raise TypeError(f"the place label {place!r} is taken; a label is used once and for ever")
    _places[place] = Place(place, document, subject)
    return mapped_column(SealedColumn, nullable=True, info={"place": _places[place]})


def clear(why: str, *args: Any, **options: Any) -> "MappedColumn[Any]":
    """A column in clear; `why` says what makes it harmless or needed in clear. Takes what `mapped_column` takes."""
    if len(why.split()) < 2:
        raise TypeError("clear() wants the reason why this column may lie in clear")
    return mapped_column(*args, info={"clear": why}, **options)


class TenantOwned(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    backup: ClassVar[Backup]
    rights: ClassVar[frozenset[str]]
    fleet: ClassVar[frozenset[str]]
    fleet_inserts: ClassVar[frozenset[str]]
    is_recorded: ClassVar[bool]

    tenant_id: Mapped[UUID] = mapped_column(
        Uuid, primary_key=True, sort_order=-100, info={"clear": "whose row it is; row-level security stands on it"}
    )

    def __init_subclass__(
        cls,
        *,
        backup: Backup | None = None,
        rights: str = "",
        fleet: str = "",
        fleet_inserts: str = "",
        is_recorded: bool = False,
        **options: Any,
    ) -> None:
        """`rights` is what the serving role may do with the table, as SQL keywords: "SELECT INSERT UPDATE DELETE".

        `fleet` names the columns that the platform's role may read of all tenants, `fleet_inserts` those it may insert;
        `is_recorded` lets the recorder's role insert rows of all tenants, and read none.
        """
        if backup is None or not rights:
            raise TypeError(f"{cls.__name__} must say `backup=` and `rights=` in its class line")
        cls.backup, cls.rights = backup, frozenset(rights.split())
        cls.fleet, cls.fleet_inserts = frozenset(fleet.split()), frozenset(fleet_inserts.split())
        cls.is_recorded = is_recorded
        super().__init_subclass__(**options)
        table = cls.__table__
        assert isinstance(table, Table)  # noqa: S101  # narrows for the type checker; mapped classes have tables
        for problem in problems(table):
            raise TypeError(f"{cls.__name__}: {problem}")
        if places(cls) and ("UPDATE" not in cls.rights or "id" not in table.columns):
            raise TypeError(f"{cls.__name__} holds sealed values: it needs an id, and UPDATE to be sealed anew")
        _refuse_plain_values(cls)


def problems(table: Table) -> Iterator[str]:
    """What makes a tenant table unsafe, a sentence each."""
    for column in table.columns:
        if not {"place", "clear"} & column.info.keys():
            yield f"column {column.name} is neither sealed(document, place=…) nor clear(why)"
        if isinstance(column.type, LargeBinary) and "place" in column.info:
            yield f"column {column.name} is sealed but not of the sealed type"
    if list(table.primary_key.columns.keys())[:1] != ["tenant_id"]:
        yield "the primary key must lead with tenant_id"
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint | ForeignKeyConstraint) and not _leads(list(constraint.columns)):
            yield f"{type(constraint).__name__} must lead with tenant_id, or it tells of other tenants' rows"
    for index in table.indexes:
        if isinstance(index, Index) and not _leads(list(index.columns)) and (index.unique or "fleet" not in index.info):
            yield f"index {index.name} must lead with tenant_id"


def _leads(columns: "list[Column[Any]]") -> bool:
    return bool(columns) and columns[0].name == "tenant_id"


def places(owner: type[TenantOwned]) -> dict[str, Place[Any]]:
    """The sealed columns of a table by attribute name."""
    return {c.key: c.info["place"] for c in owner.__table__.columns if "place" in c.info}


def _refuse_plain_values(owner: type[TenantOwned]) -> None:
    for name, place in places(owner).items():
        event.listen(getattr(owner, name), "set", _secret_only(f"{owner.__name__}.{name}", place.document), retval=True)


def _secret_only(name: str, document: type[Document]) -> Any:
    def check(target: object, value: object, _old: object, _initiator: object) -> object:
        if value is None or (isinstance(value, Secret) and isinstance(value.reveal(), document)):
            return value
        raise TypeError(f"{name} takes Secret({document.__name__}(…)) or None, not {type(value).__name__}")

    return check
