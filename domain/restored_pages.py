"""A backup's rows opened, sealed anew and indexed, a page at a time, and how they are put in place.

Nothing here knows a store: `jobs/restoring` reads backups and decides when; `tenants.loading` writes the rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, and_, bindparam, delete, select, text

from crypto.envelopes import Cell
from crypto.errors import CannotOpen
from crypto.keyring import Keyring, SealedCell
from crypto.keys import Purpose
from crypto.values import Sealed
from domain.customers.fields import COLUMN_OF, FIELDS
from domain.customers.rows import Customer, CustomerToken
from domain.customers.tokens import tokens_of
from domain.holds import LegalHold
from domain.tags import CustomerTag, Tag
from tenants import loading
from tenants.errors import Unrestorable
from tenants.loading import Loaded, Row, Target
from tenants.owned import Backup, Place
from tenants.unit import Opening, Unit

WHY = "to restore a backup"
_TOKENS = """
    WITH made AS (
        INSERT INTO customer_tokens (tenant_id, index, token, customer_id, bik_version)
        SELECT :tenant, t.* FROM unnest(CAST(:indexes AS text[]), CAST(:tokens AS bytea[]),
            CAST(:customers AS uuid[]), CAST(:versions AS smallint[])) AS t {clash} RETURNING 1
    ) SELECT count(*) FROM made
    """
# The arrays have no type here: nothing needs to look at each of their values again.
_TENANT = bindparam("tenant", type_=Uuid)
_ADD_TOKENS = text(_TOKENS.format(clash="")).bindparams(_TENANT)
_ADD_FREE_TOKENS = text(_TOKENS.format(clash="ON CONFLICT DO NOTHING")).bindparams(_TENANT)  # half as dear again
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


@dataclass(frozen=True, slots=True)
class Kept:
    """What a restore leaves exactly as it is: customers under a legal hold, their tags, and so many of those links."""

    customers: frozenset[UUID] = frozenset()
    tags: frozenset[UUID] = frozenset()
    links: int = 0

    def named(self, target: Target) -> tuple[str, frozenset[UUID]]:
        """The column by which rows of that table are kept, and what it holds in them."""
        found = {
            Customer.__tablename__: ("id", self.customers),
            Tag.__tablename__: ("id", self.tags),
            CustomerTag.__tablename__: ("customer_id", self.customers),
        }
        return found.get(target.name, ("id", frozenset()))

    def others(self, target: Target, rows: list[Row]) -> list[Row]:
        """Those rows of a backup that do not speak of what is kept."""
        column, ids = self.named(target)
        return [row for row in rows if UUID(row[column]) not in ids] if ids else rows

    def count(self, target: Target) -> int:
        return self.links if target.table is CustomerTag.__table__ else len(self.named(target)[1])


async def held(unit: Unit) -> Kept:
    """Customers under a legal hold that there are, and all they bear."""
    of_them = (LegalHold.tenant_id == Customer.tenant_id, LegalHold.customer_id == Customer.id)
    mine = (LegalHold.tenant_id == unit.tenant.id, LegalHold.lifted_at.is_(None))
    customers = select(LegalHold.customer_id).join(Customer, and_(*of_them)).where(*mine).distinct()
    borne = (CustomerTag.tenant_id == unit.tenant.id, CustomerTag.customer_id.in_(customers))
    tags = await unit.scalars(select(CustomerTag.tag_id).where(*borne))
    return Kept(frozenset(await unit.scalars(customers)), frozenset(tags), len(tags))


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


async def write(unit: Unit, page: Page, kept: Kept) -> tuple[Loaded, int, int]:
    """Put a page in place, which has nothing of what is kept.

    What was written; how many tokens were not, because somebody who was kept has them; how many subjects had no secret.
    """
    secrets = await loading.add_secrets(unit, page.secrets) if page.secrets else 0
    loaded = await loading.load(unit, page.target, page.rows)
    note(unit, page.target, page.opened)
    clash = bool(kept.customers)
    return loaded, await _write_tokens(unit, page.tokens, clash=clash) if page.tokens else 0, secrets


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


def count_of(opened: Opened) -> int:
    return sum(document is not None for documents in opened.documents.values() for document in documents)


def differs(unit: Unit, opened: Opened, number: int, now: Row, source: Source) -> bool:
    """Whether what stands under the key of that row of a page says something else; ciphertexts by what they hold.

    What stands and does not open differs.
    """
    target, row = opened.target, opened.rows[number]
    if any(row[name] != now[name] for name in target.columns if name not in target.places):
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


async def _write_tokens(unit: Unit, tokens: Sequence[Mapping[str, Any]], *, clash: bool) -> int:
    """How many stand already, with somebody else: some may where customers were left as they are."""
    named = {"indexes": "index", "tokens": "token", "customers": "customer_id", "versions": "bik_version"}
    columns = {parameter: [token[name] for token in tokens] for parameter, name in named.items()}
    statement = _ADD_FREE_TOKENS if clash else _ADD_TOKENS
    (made,) = await unit.scalars(statement.bindparams(tenant=unit.tenant.id, **columns))
    return len(tokens) - int(made)
