"""A backup's rows opened, sealed anew and indexed, a page at a time, and how they are put in place.

Nothing here knows a store: `jobs/restoring` reads backups and decides when; `tenants.backups.loading` writes the rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, delete, text

from crypto.envelopes import Cell
from crypto.errors import CannotOpen
from crypto.keyring import Keyring, SealedCell
from crypto.keys import Purpose
from crypto.values import Sealed
from domain.customers.fields import COLUMN_OF, FIELDS
from domain.customers.rows import Customer, CustomerToken
from domain.customers.tokens import tokens_of
from domain.restored_holds import Kept
from domain.tags import Tag
from tenants.backups import loading
from tenants.backups.loading import Loaded, Row, Target
from tenants.errors import Unrestorable
from tenants.owned import Backup, Place
from tenants.unit import Opening, Unit

WHY = "to restore a backup"
_VERSION = "version"
_TOKENS = """
    WITH made AS (
        INSERT INTO customer_tokens (tenant_id, index, token, customer_id, bik_version)
        SELECT :tenant, t.* FROM unnest(CAST(:indexes AS text[]), CAST(:tokens AS bytea[]),
            CAST(:customers AS uuid[]), CAST(:versions AS smallint[])) AS t RETURNING 1
    ) SELECT count(*) FROM made
    """
# The arrays have no type here: nothing needs to look at each of their values again.
_ADD_TOKENS = text(_TOKENS).bindparams(bindparam("tenant", type_=Uuid))
_INDEXED = [name for name, known in FIELDS.items() if known.index is not None]


@dataclass(frozen=True, slots=True)
class Source:
    """What opens a backup: the keys of the tenant that made it, its subjects' secrets, and whom it had erased.

    `secret_of` gives 32 bytes, or None for a subject that the key file does not have.
    """

    tenant: UUID
    ring: Keyring = field(repr=False)
    secret_of: Callable[[UUID], bytes | None] = field(repr=False)
    erased: frozenset[UUID]


@dataclass(slots=True)
class Opened:
    """A page of a backup: its rows, without those of erased subjects, and by sealed column what each row holds."""

    target: Target
    rows: list[Row]
    erased: int
    documents: dict[str, list[bytes | None]]
    secrets: dict[UUID, bytes]


@dataclass(slots=True)
class Page:
    """What is written of a page: rows, the secrets of their subjects, and tokens of customers."""

    target: Target
    rows: list[Row]
    erased: int = 0
    secrets: dict[UUID, bytes] = field(default_factory=dict)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    opened: int = 0


async def empty(unit: Unit, kept: Kept) -> dict[str, int]:
    """Delete all DATA of the tenant and its tokens, but what is kept. How many went, by table."""
    gone = {}
    others = loading.is_none_of(CustomerToken.customer_id, list(kept.customers))
    tokens = delete(CustomerToken).where(CustomerToken.tenant_id == unit.tenant.id, others)
    await unit.run(tokens.execution_options(synchronize_session=False))  # or every one of them comes back
    for table in reversed(loading.data_tables()):
        column, ids = kept.named(table)
        gone[table.name] = await loading.empty(unit, table, keep=ids, by=column)
    return gone


async def write(unit: Unit, page: Page) -> tuple[Loaded, int]:
    """Put a page in place, which has nothing of what is kept. What was written, and how many subjects had no secret.

    Raises `Unrestorable`, also where somebody has what only one may have.
    """
    secrets = await loading.add_secrets(unit, page.secrets) if page.secrets else 0
    loaded = await loading.load(unit, page.target, page.rows)
    note(unit, page.target, page.opened)
    if page.tokens:
        await _write_tokens(unit, page.tokens)
    return loaded, secrets


def open_page(target: Target, rows: Sequence[Row], source: Source) -> Opened:
    """Every sealed value of the page opens, or `Unrestorable` names its table and column."""
    kept, secrets = _of_the_living(target, rows, source)
    documents = {name: _opened(name, place, kept, source, secrets) for name, place in target.places.items()}
    return Opened(target, kept, len(rows) - len(kept), documents, secrets)


def page_of(opened: Opened, source: Source, unit: Unit) -> Page:
    """Back into the tenant it came from: sealed under the key that is active now, and with tokens of today's keys."""
    version = unit.keyring.active_version(Purpose.DEK)
    for name, place in opened.target.places.items():
        for row, document in zip(opened.rows, opened.documents[name], strict=True):
            if document is not None and _version(row[name]) != version:
                subject = _subject(row, place, source)
                cell = Cell(source.tenant, subject, place.label, UUID(row["id"]))
                row[name] = _hex(unit.keyring.seal(document, opened.secrets[subject], cell))
    tokens = tokens_of_page(opened, unit)
    return Page(opened.target, opened.rows, opened.erased, opened.secrets, tokens, count_of(opened))


def is_indexed(target: Target) -> bool:
    """Whether its rows are found by tokens."""
    return target.table is Customer.__table__


def tokens_of_page(opened: Opened, unit: Unit) -> list[dict[str, Any]]:
    """Of a page of customers; none of any other."""
    if not is_indexed(opened.target):
        return []
    return [token for id_, held in _customers(opened) for token in tokens_of(unit, id_, _INDEXED, held)]


def tags_of_page(opened: Opened) -> list[str | None]:
    """Names of a page of tags; none of any other."""
    if opened.target.table is not Tag.__table__:
        return []
    load = partial(_loaded, opened.target.places["name"])
    return [load(document).name for document in opened.documents["name"]]


def outrun(target: Target, rows: Sequence[Row], standing: Mapping[tuple[str, ...], Row]) -> None:
    """Who read a row before it was replaced must not take the restored one for it: where they differ, the restored one
    gets a version that neither had. Each change of a row shows in its clear columns, so its values need not be opened.
    """
    if _VERSION in target.columns:
        for row in rows:
            if there := standing.get(loading.key_of(target, row)):
                row[_VERSION] = max(row[_VERSION], there[_VERSION]) + _is_unlike(target, row, there)


def count_of(opened: Opened) -> int:
    return sum(document is not None for documents in opened.documents.values() for document in documents)


def differs(unit: Unit, opened: Opened, number: int, now: Row, source: Source) -> bool:
    """Whether what stands under the key of that row of a page says something else; ciphertexts by what they hold.

    What stands and does not open differs.
    """
    target, row = opened.target, opened.rows[number]
    if _is_unlike(target, row, now):
        return True
    unlike = {name: place for name, place in target.places.items() if row[name] != now[name]}
    if not unlike or any(row[name] is None or now[name] is None for name in unlike):
        return bool(unlike)
    try:
        standing = open_page(replace(target, columns=tuple(unlike)), [now], replace(source, ring=unit.keyring))
    except Unrestorable:
        return True
    documents = {name: (opened.documents[name][number], standing.documents[name][0]) for name in unlike}
    return any(_loaded(unlike[name], then) != _loaded(unlike[name], today) for name, (then, today) in documents.items())


def _is_unlike(target: Target, row: Row, now: Row) -> bool:
    """By clear columns. A version alone says nothing: a restore raises it."""
    return any(row[name] != now[name] for name in target.columns if name not in target.places and name != _VERSION)


def note(unit: Unit, target: Target, count: int) -> None:
    """Keep in the audit log, with the unit, that so many values of a table were opened."""
    for place in target.places.values():
        if place.document.is_of_people and count:
            unit.openings.append(Opening(place.label, count, WHY))


def _customers(opened: Opened) -> Iterator[tuple[UUID, dict[str, Any]]]:
    wanted = {COLUMN_OF[name] for name in _INDEXED}
    loads = {name: partial(_loaded, place) for name, place in opened.target.places.items() if name in wanted}
    for number, row in enumerate(opened.rows):
        yield UUID(row["id"]), {name: load(opened.documents[name][number]) for name, load in loads.items()}


def _loaded(place: Place[Any], raw: bytes | None) -> Any:
    return place.document() if raw is None else place.document.load(raw)


def _of_the_living(target: Target, rows: Sequence[Row], source: Source) -> tuple[list[Row], dict[UUID, bytes]]:
    """Rows whose subjects were not erased, and those subjects' secrets.

    A member whose secret is nowhere, such as one whose invitation was called off, is as good as erased.
    """
    secrets: dict[UUID, bytes] = {}
    subjects = {place.subject for place in target.places.values()}
    kept = []
    for row in rows:
        mine = {source.tenant if name == "tenant_id" else UUID(row[name]) for name in subjects}
        if mine & source.erased:
            continue
        for subject in mine:
            if subject in secrets:  # not `mine - secrets.keys()`, which looks at each of a page's
                continue
            secret = source.secret_of(subject)
            if secret is not None:
                secrets[subject] = secret
            elif subject == source.tenant or target.policy is Backup.DATA:
                raise Unrestorable(f"The key file lacks the secret of a subject of {target.name}.")
        if mine <= secrets.keys():
            kept.append(row)
    return kept, secrets


def _opened(
    name: str, place: Place[Any], rows: Sequence[Row], source: Source, secrets: Mapping[UUID, bytes]
) -> list[bytes | None]:
    documents: list[bytes | None] = [None] * len(rows)
    places, cells = [], []
    try:
        for number, row in enumerate(rows):
            if row[name] is not None:
                id_ = UUID(row["id"])
                subject = id_ if place.subject == "id" else _subject(row, place, source)
                sealed = Sealed(bytes.fromhex(row[name][2:]))
                cells.append(SealedCell(sealed, secrets[subject], subject, id_))
                places.append(number)
        for number, document in zip(places, source.ring.open_many(place.label, cells), strict=True):
            documents[number] = document
    except (CannotOpen, ValueError):
        raise Unrestorable(f"A value of {place.label} in the backup does not open.") from None
    return documents


def _subject(row: Row, place: Place[Any], source: Source) -> UUID:
    return source.tenant if place.subject == "tenant_id" else UUID(row[place.subject])


def _version(hexed: str) -> int:
    """Of the data key, in the header of `crypto.envelopes`, behind Postgres' own two characters."""
    return int(hexed[6:14], 16)


def _hex(raw: bytes) -> str:
    return "\\x" + raw.hex()


async def _write_tokens(unit: Unit, tokens: Sequence[Mapping[str, Any]]) -> None:
    named = {"indexes": "index", "tokens": "token", "customers": "customer_id", "versions": "bik_version"}
    columns = {parameter: [token[name] for token in tokens] for parameter, name in named.items()}
    with loading.fitting(CustomerToken.__tablename__):
        await unit.scalars(_ADD_TOKENS.bindparams(tenant=unit.tenant.id, **columns))
