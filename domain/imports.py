"""Imports of customers: the rows of one file, sealed until the job has made them customers, and what became of each."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    JSON,
    ColumnElement,
    Integer,
    Row,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    select,
    update,
)
from sqlalchemy.orm import Mapped

from crypto.keyring import SealedCell
from crypto.values import Secret
from domain import csv_rows, customers
from domain.customers import CLEAR_WRITES, DOCUMENTS, FIELDS, CustomerView, texts
from domain.customers.inputs import input_path
from domain.errors import Forbidden, Path, Refused, UserError
from domain.paging import Page, Window, cut, windowed
from tenants.access import Permission, Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.jobs import Job, JobId, JobKind, JobState, NoArguments
from tenants.owned import Backup, TenantOwned, clear, places, sealed
from tenants.unit import Unit
from tenants.viewers import Viewer

TARGETS = (*FIELDS, *CLEAR_WRITES)  # what a column can be made into
LISTS = frozenset({"tag_ids"}).union(*(document.lists for document in DOCUMENTS.values()))
MOST_COLUMNS = 100
_AT_ONCE = 500  # rows that are sealed before others get their turn


IMPORT = JobKind("import_customers", NoArguments, "Make customers of the rows of a file; the job's id names them.")
STARTED = EventKind(
    "import.started",
    "Job",
    "An import was started; `fields` are those that the file fills.",
    frozenset(".".join(map(str, input_path(target))) for target in TARGETS),
)
FINISHED = EventKind("import.finished", "Job", "All rows of an import were tried.")


class Outcome(StrEnum):
    CREATED = "CREATED"
    REFUSED = "REFUSED"


class ImportCells(Document):
    """What the file says of one customer: JSON of field names and texts."""

    cells: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)


class ImportRow(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """`outcome` is NULL until the row was tried, then CREATED or REFUSED; by then its cells are gone."""

    __tablename__ = "import_rows"
    __table_args__ = (UniqueConstraint("tenant_id", "job_id", "row"),)

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    job_id: Mapped[UUID] = clear("which import it belongs to")
    row: Mapped[int] = clear("its place in the file, from 1", Integer)
    cells: Mapped[Any] = sealed(ImportCells, place="import_rows.cells", subject="tenant_id")
    outcome: Mapped[str | None] = clear("a code", Text, nullable=True)
    customer_id: Mapped[UUID | None] = clear("a random id", Uuid, nullable=True)
    errors: Mapped[Any] = clear("codes and names of fields, never values", JSON, nullable=True)


@dataclass(frozen=True, slots=True)
class Column:
    """Which column of the file becomes which of `TARGETS`.

    `separator` splits the cells of a list; `read` makes of a text what is kept: of a client's id the local one.
    """

    header: str
    target: str
    separator: str | None = None
    read: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Summary:
    created: int
    refused: int


async def start(unit: Unit, columns: Sequence[Column], text: str) -> JobId:
    """Keep the mapped columns of a CSV text, sealed, and enqueue the job that makes customers of its rows.

    Raises `Forbidden` for a column that the viewer may not write, `Refused` for a file that can't be read as meant.
    """
    refusal = _refusal(unit.viewer, {column.target for column in columns})
    if refusal:
        raise Forbidden(refusal.message)
    if len(columns) > MOST_COLUMNS:
        sentence = f"An import fills at most {MOST_COLUMNS} columns."
        raise Refused([UserError("TOO_MANY_COLUMNS", ("columns",), sentence)])
    header, rows = csv_rows.read(text, [column.header for column in columns])
    errors = [*_column_errors(columns, header), *_target_errors(columns)]
    if errors:
        raise Refused(errors)
    found = [(header.index(column.header), column) for column in columns]
    await forget_cancelled(unit)
    job = JobId(new_id())
    await unit.load_subjects([unit.tenant.id])
    for begin in range(0, len(rows), _AT_ONCE):
        unit.add(*(_sealed(unit, job, row, found) for row in rows[begin : begin + _AT_ONCE]))
        await unit.flush()
    named = sorted({_spelled(input_path(column.target)) for column in columns})
    unit.publish(STARTED, [job], named, details={"rows": len(rows)})
    return await unit.enqueue(IMPORT, NoArguments(), total=len(rows), job=job)


async def work(unit: Unit, job: JobId, after: int, most: int = 100) -> tuple[int, int]:
    """Try the next rows after that place in the file: the last one tried, and how many. None left: 0.

    Where the viewer has lost a right that the import needs, all rows left are refused at once.
    """
    pending: Sequence[ImportRow] = await unit.scalars(
        select(ImportRow)
        .where(*_of(unit, job), ImportRow.row > after, ImportRow.outcome.is_(None))
        .order_by(ImportRow.row)
        .limit(most)
    )
    if not pending:
        return after, 0
    cells = await _opened(unit, pending)
    refusal = _refusal(unit.viewer, cells[0])
    if refusal:
        return await _refuse_rest(unit, job, refusal)
    for row, outcome in zip(pending, await _tried(unit, cells), strict=True):
        _settle(row, outcome)
    await unit.flush()
    return pending[-1].row, len(pending)


async def outcomes(unit: Unit, job: JobId, window: Window, *, is_refused: bool = False) -> Page[Row[Any]]:
    """Rows with `row`, `outcome`, `customer_id` and `errors`, in the order of the file."""
    shown = (ImportRow.id, ImportRow.row, ImportRow.outcome, ImportRow.customer_id, ImportRow.errors)
    statement = windowed(
        select(*shown).where(*_shown(unit, job, is_refused)), (ImportRow.row, ImportRow.id), window, descending=False
    )
    return Page(*cut(await unit.rows(statement), window))


async def count(unit: Unit, job: JobId, *, is_refused: bool = False) -> int:
    return int((await unit.scalars(select(func.count()).where(*_shown(unit, job, is_refused))))[0])


async def summary(unit: Unit, job: JobId) -> Summary:
    number = func.count().label("number")
    statement = select(ImportRow.outcome, number).where(*_of(unit, job)).group_by(ImportRow.outcome)
    counts = {row.outcome: int(row.number) for row in await unit.rows(statement)}
    return Summary(counts.get(Outcome.CREATED, 0), counts.get(Outcome.REFUSED, 0))


async def finish(unit: Unit, job: JobId) -> Summary:
    """Tell that all rows were tried."""
    found = await summary(unit, job)
    unit.publish(FINISHED, [job], details={"created": found.created, "refused": found.refused})
    return found


async def forget_cancelled(unit: Unit) -> None:
    """Drop the cells of cancelled imports, which nobody will try any more; the rows go with their jobs."""
    cancelled = select(Job.id).where(
        Job.tenant_id == unit.tenant.id, Job.kind == IMPORT.name, Job.state == JobState.CANCELLED
    )
    statement = (
        update(ImportRow)
        .where(ImportRow.tenant_id == unit.tenant.id, ImportRow.cells.is_not(None), ImportRow.job_id.in_(cancelled))
        .values(cells=None)
    )
    await unit.run(statement.execution_options(synchronize_session=False))


def _refusal(viewer: Viewer, targets: Iterable[str]) -> UserError | None:
    if not viewer.may(Permission.CUSTOMERS_IMPORT):
        return UserError("FORBIDDEN", (), f"This needs the permission {Permission.CUSTOMERS_IMPORT}.")
    for target in sorted(targets):
        if not customers.may_write(viewer, target):
            path = input_path(target)
            return UserError("FORBIDDEN", path, f"You have no right to give `{_spelled(path)}`.")
    return None


def _spelled(path: Path) -> str:
    return ".".join(map(str, path))


def _column_errors(columns: Sequence[Column], header: Sequence[str]) -> Iterable[UserError]:
    times = Counter(header)
    if not columns:
        yield UserError("REQUIRED", ("columns",), "Say of at least one column which field it is.")
    for place, column in enumerate(columns):
        path: Path = ("columns", place, "column")
        if column.header not in times:
            yield UserError("UNKNOWN_COLUMN", path, f"The file's header has no column of the name in columns.{place}.")
        elif times[column.header] > 1:
            sentence = f"The file's header has more than one column of the name in columns.{place}."
            yield UserError("AMBIGUOUS_COLUMN", path, sentence)


def _target_errors(columns: Sequence[Column]) -> Iterable[UserError]:
    seen: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for place, column in enumerate(columns):
        if (column.target in seen and column.target not in LISTS) or (column.header, column.target) in pairs:
            sentence = f"columns.{place} names a field that another column fills already."
            yield UserError("FIELD_TWICE", ("columns", place, "field"), sentence)
        if column.separator is not None and (not column.separator or column.target not in LISTS):
            sentence = f"columns.{place}.separator splits the values of a list, and is not empty."
            yield UserError("INVALID", ("columns", place, "separator"), sentence)
        seen.add(column.target)
        pairs.add((column.header, column.target))


def _sealed(unit: Unit, job: JobId, row: csv_rows.Row, columns: Iterable[tuple[int, Column]]) -> ImportRow:
    """Every mapped field is named, empty ones too: the job checks the rights to all of them."""
    cells: dict[str, Any] = {}
    for place, column in columns:
        text = row.cells[place]
        parts = text.split(column.separator) if column.separator else [text]
        kept = [column.read(part) for part in parts if part.strip()]
        if column.target in LISTS:
            cells.setdefault(column.target, []).extend(kept)
        else:
            cells[column.target] = kept[0] if kept else None
    document = ImportCells(cells=orjson.dumps(cells).decode())
    return ImportRow(tenant_id=unit.tenant.id, id=new_id(), job_id=job, row=row.number, cells=Secret(document))


async def _opened(unit: Unit, rows: Sequence[ImportRow]) -> list[dict[str, Any]]:
    tenant = unit.tenant.id
    await unit.load_subjects([tenant])
    secret = unit.subject_secret(tenant)
    sealed_cells = [SealedCell(row.cells, secret, tenant, row.id) for row in rows]
    opened = unit.open(places(ImportRow)["cells"], sealed_cells, "to make customers of a file's rows")
    return [orjson.loads(document.cells or "{}") for document in opened]


async def _tried(unit: Unit, many: Sequence[Mapping[str, Any]]) -> list[CustomerView | Refused]:
    """In order: the customer that was made of a row, or why there is none."""
    read = [texts.read(unit, cells) for cells in many]
    made = iter(await customers.create_many(unit, [each for each in read if not isinstance(each, Refused)]))
    return [each if isinstance(each, Refused) else next(made) for each in read]


def _settle(row: ImportRow, outcome: CustomerView | Refused) -> None:
    row.cells = None
    if isinstance(outcome, Refused):
        row.outcome, row.errors = Outcome.REFUSED, _stored(outcome.errors)
    else:
        row.outcome, row.customer_id = Outcome.CREATED, outcome.id


async def _refuse_rest(unit: Unit, job: JobId, refusal: UserError) -> tuple[int, int]:
    statement = (
        update(ImportRow)
        .where(*_of(unit, job), ImportRow.outcome.is_(None))
        .values(outcome=Outcome.REFUSED, errors=_stored([refusal]), cells=None)
        .returning(ImportRow.row)
    )
    refused = await unit.scalars(statement.execution_options(synchronize_session=False))
    return max(refused), len(refused)


def _stored(errors: Collection[UserError]) -> list[dict[str, Any]]:
    return [{"code": e.code, "path": [str(step) for step in e.path], "message": e.message} for e in errors]


def _of(unit: Unit, job: JobId) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return ImportRow.tenant_id == unit.tenant.id, ImportRow.job_id == job


def _shown(unit: Unit, job: JobId, is_refused: bool) -> list[ColumnElement[bool]]:
    return [*_of(unit, job), *([ImportRow.outcome == Outcome.REFUSED] if is_refused else [])]
