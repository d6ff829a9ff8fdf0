"""The blind index of customers: which tokens stand for their values, and how they are written anew by these."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from crypto.keyring import SealedCell
from domain.customers.changing import Documents
from domain.customers.fields import COLUMN_OF, DOCUMENTS, FIELDS
from domain.customers.rows import Customer, CustomerToken
from tenants.documents import BlindIndex, Document
from tenants.keys.token_tables import TokenTable
from tenants.owned import places
from tenants.subjects import Subject
from tenants.unit import Unit

_PLACES = places(Customer)
_COLUMNS = tuple(dict.fromkeys(COLUMN_OF[name] for name, field in FIELDS.items() if field.index is not None))
_WHY = "to index it anew"


def tokens_of(
    unit: Unit,
    customer: UUID,
    names: Iterable[str],
    documents: Documents,
    versions: Collection[int] | None = None,
) -> list[dict[str, Any]]:
    """Rows of `CustomerToken` for the indexed fields among `names`, `documents` being by column of `DOCUMENTS`.

    Under each index key that writers write, the active one first: whoever writes a value, writes all of its tokens.
    `versions` is for who writes those of some of these keys anew.
    """
    indexed = [(name, index) for name in names if name in FIELDS and (index := FIELDS[name].index) is not None]
    return [
        {
            "tenant_id": unit.tenant.id,
            "index": index.name,
            "token": token,
            "customer_id": customer,
            "bik_version": version,
        }
        for version in unit.keyring.index_versions()
        if versions is None or version in versions
        for name, index in indexed
        for token in _tokens(unit, name, index, documents[COLUMN_OF[name]], version)
    ]


async def _rewrite(unit: Unit, customers: Sequence[UUID], versions: Collection[int]) -> None:
    """A customer without a subject has no value that could be read, and keeps no token."""
    rows = await _locked(unit, customers)
    documents: dict[UUID, Documents] = {row.id: {name: DOCUMENTS[name]() for name in _COLUMNS} for row in rows}
    for column in _COLUMNS:
        filled = [row for row in rows if getattr(row, column) is not None]
        cells = [SealedCell(getattr(row, column), row.secret, row.id, row.id) for row in filled]
        for row, document in zip(filled, unit.open(_PLACES[column], cells, _WHY), strict=True):
            documents[row.id][column] = document
    mine = (CustomerToken.tenant_id == unit.tenant.id, CustomerToken.customer_id.in_(customers))
    gone = delete(CustomerToken).where(*mine, CustomerToken.bik_version.in_(versions))
    await unit.run(gone.execution_options(synchronize_session=False))
    tokens = [row for id_, opened in documents.items() for row in tokens_of(unit, id_, FIELDS, opened, versions)]
    if tokens:
        await unit.run(insert(CustomerToken).on_conflict_do_nothing(), tokens)


TOKENS = TokenTable("customers", Customer, CustomerToken, CustomerToken.customer_id, CustomerToken.index, _rewrite)


async def _locked(unit: Unit, customers: Sequence[UUID]) -> Sequence[Any]:
    """In the order of ids, as everybody locks them."""
    columns: list[Any] = [getattr(Customer, column) for column in _COLUMNS]
    statement = (
        select(Customer.id, Subject.secret, *columns)
        .join(Subject, (Subject.tenant_id == Customer.tenant_id) & (Subject.id == Customer.id))
        .where(Customer.tenant_id == unit.tenant.id, Customer.id.in_(customers))
        .order_by(Customer.id)
        .with_for_update(of=Customer)
    )
    return await unit.rows(statement)


def _tokens(unit: Unit, name: str, index: BlindIndex, document: Document, version: int) -> set[bytes]:
    label = _PLACES[COLUMN_OF[name]].label
    keys = {key for value in _values(document, name) for key in index.keys(value)}
    return {unit.keyring.token(label, index.name, index.normaliser, key, version) for key in keys}


def _values(document: Document, name: str) -> tuple[str, ...]:
    value = getattr(document, name)
    return value if isinstance(value, tuple) else (value,) if value is not None else ()
