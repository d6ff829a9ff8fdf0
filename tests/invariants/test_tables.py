"""A table, column or document that says too little is refused where it is declared, and so is a plain value in it."""

import types
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    insert,
    select,
    update,
)
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column, registry
from sqlalchemy.pool import NullPool

from crypto.values import Secret
from domain.customers.fields import Note, Profile
from domain.customers.rows import Customer
from local.postgres import Postgres
from tenants import owned
from tenants.access import Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.owned import Backup, TenantOwned, clear, sealed

ALL = "SELECT INSERT UPDATE DELETE"


class Aside:
    """Keeps a test's tables out of the metadata and registry that start-up and drift look at."""

    metadata = MetaData()
    _sa_registry = registry(metadata=metadata)


@pytest.fixture(autouse=True)
def _labels_of_their_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(owned, "_places", dict(owned._places))
    known = set(TenantOwned.metadata.tables)
    yield
    Aside.metadata.clear()
    assert set(TenantOwned.metadata.tables) == known


def table(name: str, arguments: tuple[object, ...] = (), **columns: Any) -> type[TenantOwned]:
    """Declare a table as a module would, with an id and these columns: a type alone, or a type and its column."""
    given = {"id": (UUID, clear("made at random", primary_key=True)), **columns}
    body: dict[str, Any] = {
        "__tablename__": name,
        "__table_args__": arguments,
        "__annotations__": {key: Mapped[kind] for key, (kind, *_) in given.items()},  # type: ignore[valid-type]  # made at run time
        **{key: rest[0] for key, (_, *rest) in given.items() if rest},
    }
    bases = (Aside, TenantOwned)
    options = {"backup": Backup.DATA, "rights": ALL}
    return types.new_class(name.title(), bases, options, lambda namespace: namespace.update(body))


def word(**options: Any) -> tuple[type[str], Any]:
    return str, clear("only a test", Text, **options)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a bare column": (lambda: table("t1", word_=(str,)), "word_ is neither sealed"),
    "a column of SQLAlchemy's own": (lambda: table("t2", a=(str, mapped_column(Text))), "a is neither sealed"),
    "bytes of SQLAlchemy's own": (lambda: table("t3", a=(bytes, mapped_column(LargeBinary))), "a is neither sealed"),
    "clear without a reason": (lambda: table("t4", a=(str, clear("", Text))), "reason why"),
    "a reason of one word": (lambda: table("t5", a=(str, clear("harmless", Text))), "reason why"),
    "a label used before": (lambda: sealed(Profile, place="customers.profile"), "is taken"),
    "a label of one word": (lambda: sealed(Profile, place="profile"), "table.column"),
    "a primary key led by another column": (
        lambda: table("t6", (PrimaryKeyConstraint("id", "tenant_id"),)),
        "primary key must lead with tenant_id",
    ),
    "a unique column": (lambda: table("t7", a=word(unique=True)), "must lead with tenant_id"),
    "a unique constraint led by another column": (
        lambda: table("t8", (UniqueConstraint("a", "tenant_id"),), a=word()),
        "UniqueConstraint must lead with tenant_id",
    ),
    "an indexed column": (lambda: table("t9", a=word(index=True)), "must lead with tenant_id"),
    "an index led by another column": (
        lambda: table("t10", (Index("ix", "a", "tenant_id"),), a=word()),
        "index ix must lead with tenant_id",
    ),
    "a foreign key of one column": (
        lambda: table("t11", a=(UUID, clear("whose it is", ForeignKey("members.id")))),
        "ForeignKeyConstraint must lead with tenant_id",
    ),
}


@pytest.mark.parametrize(("declare", "said"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_says_too_little_is_refused_at_import(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        declare()


def test_sealed_values_that_no_rotation_could_seal_anew_are_refused_at_import() -> None:
    with pytest.raises(TypeError, match="UPDATE to be sealed anew"):

        class Fixed(Aside, TenantOwned, backup=Backup.DATA, rights="SELECT INSERT"):
            __tablename__ = "fixed"
            id: Mapped[UUID] = clear("made at random", primary_key=True)
            b: Mapped[Any] = sealed(Note, place="fixed.b")


def test_a_table_that_says_everything_is_accepted() -> None:
    made = table("t12", a=word(), b=(Any, sealed(Note, place="t.b")))
    assert set(owned.places(made)) == {"b"}


@pytest.mark.parametrize("said", [{}, {"backup": Backup.DATA}, {"rights": ALL}], ids=["neither", "backup", "rights"])
def test_a_table_without_backup_or_rights_is_refused_at_import(said: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must say `backup=` and `rights=`"):

        class Forgetful(Aside, TenantOwned, **said):
            __tablename__ = "forgetful"


def test_a_document_field_without_class_and_mask_is_refused_at_import() -> None:
    with pytest.raises(TypeError, match=r"Careless\.nickname has no class and mask"):

        class Careless(Document):
            nickname: str | None = None


@pytest.mark.parametrize("kind", [str, int | None, list[str], date, bytes | None])
def test_a_document_field_of_another_type_is_refused_at_import(kind: Any) -> None:
    with pytest.raises(TypeError, match="a document holds"):
        type(
            "Odd",
            (Document,),
            {"__annotations__": {"it": kind}, "it": personal(Sensitivity.IDENTITY, Mask.NAME), "__module__": __name__},
        )


PLAIN = {
    "text": "Ada",
    "bytes": b"Ada",
    "bytes like an envelope": b"\xc1\x01" + bytes(80),
    "a document": Profile.load(b'{"given_name":"Ada"}'),
}
SECRET = {"a secret of another document": Secret(Note(note="n")), "a secret text": Secret("Ada")}


@pytest.mark.parametrize("value", [*PLAIN.values(), *SECRET.values()], ids=[*PLAIN, *SECRET])
def test_a_sealed_attribute_takes_nothing_but_a_secret_of_its_document(value: object) -> None:
    with pytest.raises(TypeError, match="takes Secret"):
        Customer(profile=value)
    customer = Customer()
    with pytest.raises(TypeError, match="takes Secret"):
        customer.profile = value
    assert customer.profile is None


def test_a_sealed_attribute_takes_a_secret_of_its_document() -> None:
    secret = Secret(Profile.load(b'{"given_name":"Ada"}'))
    assert Customer(profile=secret).profile is secret


@pytest.fixture
async def connection(postgres_server: Postgres) -> AsyncIterator[AsyncConnection]:
    superuser = urlsplit(postgres_server.superuser_url).username or "postgres"
    engine = create_async_engine(
        postgres_server.url(superuser, "postgres", scheme="postgresql+asyncpg"), poolclass=NullPool
    )
    async with engine.connect() as made:
        yield made
    await engine.dispose()


def _table_insert(value: object) -> Any:
    customers: Any = Customer.__table__
    return insert(customers).values(tenant_id=uuid4(), id=uuid4(), profile=value)


STATEMENTS: dict[str, Callable[[Any], Any]] = {
    "insert": lambda value: insert(Customer).values(tenant_id=uuid4(), id=uuid4(), profile=value),
    "insert into the table": _table_insert,
    "update": lambda value: update(Customer).values(profile=value),
    "a comparison": lambda value: select(Customer.id).where(Customer.profile == value),
}


@pytest.mark.database
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
@pytest.mark.parametrize("value", [*PLAIN.values(), *SECRET.values()], ids=[*PLAIN, *SECRET])
async def test_a_statement_with_a_plain_value_for_a_sealed_column_is_never_sent(
    connection: AsyncConnection, statement: Callable[[Any], Any], value: object
) -> None:
    with pytest.raises(StatementError, match="a sealed column takes a Secret") as refused:
        await connection.execute(statement(value))
    assert isinstance(refused.value.orig, TypeError)
