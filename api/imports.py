"""Imports over GraphQL: a file of customers goes in as a job; what became of each of its rows comes out."""

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.customers import Customer
from api.directives import Input, argument, input_, label, public, requires
from api.jobs import Job
from api.meanings import described
from api.operation import Operation, fingerprint, key_of
from api.paging import Connection, UserError, cursor, local_id, user_errors, window
from domain import customers, imports, jobs, outcomes
from domain.customers import CLEAR_WRITES, FIELDS, CustomerView
from domain.errors import Refused
from domain.imports import Column, Outcome
from tenants.access import Permission
from tenants.jobs import JobId

_SHAPE = "the shape of a payload"
_ROWS = "codes, counts and ids, for whoever may read the job"
_LIST = "import rows"
_RIGHT = "the right to write the field it names is checked when the import starts, and at each step of the job"
_IDS = {"owner_id": "Member", "tag_ids": "Tag"}

described(
    Outcome,
    "What became of a row.",
    name="ImportOutcome",
    CREATED="It is a customer now.",
    REFUSED="It is none; `errors` says why.",
)


def _meaning(target: str) -> str:
    if target in CLEAR_WRITES:
        return f"Clear; written with {CLEAR_WRITES[target]}."
    return f"Of the class {FIELDS[target].sensitivity}."


# Of the fields' own table, so that a new field can be imported as well.
_FIELDS = Enum("ImportField", {label(name).removeprefix("Customer."): name for name in imports.TARGETS})  # type: ignore[misc]  # made of a table
ImportField = described(
    cast("type[Enum]", _FIELDS),
    "A field of a customer, as its directives name it.",
    **{each.name: _meaning(each.value) for each in _FIELDS},
)


@strawberry.input(description="Which column of the file fills which field.")
class ImportColumn:
    column: str = input_("a column's name", description="As it stands in the file's first line.")
    field: ImportField = input_(_RIGHT, description="What its cells become.")  # type: ignore[valid-type]  # an enum made of the fields' table
    separator: str | None = input_(
        "a text", default=None, description="Splits the cells of a field that is a list; several columns may fill one."
    )


@strawberry.input(description="A file of customers. Columns that are not named are not kept.")
class ImportInput:
    csv: str = input_(
        "kept by column, and the fields of the columns have rights of their own",
        description="The text of a CSV file: comma, semicolon or tab; at most 10,000 rows below the header.",
    )
    columns: list[ImportColumn] = input_("the field of each has its own right", description="At most 100.")


@strawberry.type(description="A row of an imported file; `outcome` is null until it was tried.")
class ImportRow:
    row: int = public(_ROWS, description="Its place in the file below the header, from 1.")
    outcome: Outcome | None = public(_ROWS)

    @requires(Permission.CUSTOMERS_READ, description="What was made of it.")
    async def customer(self: Any, info: Info[Operation]) -> Customer | None:
        made = self.customer_id
        return None if made is None else cast(Customer | None, await _customers_of(info.context).load(made))

    @public("codes and names of fields; an error of a row never holds a value")
    def errors(self: Any) -> list[UserError]:
        return [UserError(**error) for error in self.errors or ()]


@strawberry.type
class ImportPayload:
    job: Job | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds a row's number and id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type
class ImportQueries:
    @public(
        "for whoever may read the job; to all others it is NOT_FOUND",
        description="The rows of an import, in the order of the file.",
    )
    async def import_rows(
        self,
        info: Info[Operation],
        job: Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The import's.")],
        refused_only: Annotated[
            bool, argument(Input(why="an outcome is a code"), "Leave out rows that became customers, or wait.")
        ] = False,
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[ImportRow] | None:
        unit = info.context.unit
        found = JobId((await jobs.get(unit, local_id("Job", job))).id)
        order = f"{_LIST} {found} {refused_only}"
        within = window(unit, order, first, after, last, before, is_counted=True)
        return Connection(
            page=await imports.outcomes(unit, found, within, is_refused=refused_only),
            cursor_of=lambda row: cursor(unit, order, (row.row, row.id)),
            count=lambda: imports.count(unit, found, is_refused=refused_only),
        )


@strawberry.type
class ImportMutations:
    @requires(
        Permission.CUSTOMERS_IMPORT,
        description="Make customers of the rows of a file. A row that is refused holds up no other: see `importRows`."
        " With an Idempotency-Key, asking again starts no second import.",
    )
    async def import_customers(
        self,
        info: Info[Operation],
        input: Annotated[
            ImportInput, argument(Input(why="the field of each column has its own right"), "The file, and its columns.")
        ],
    ) -> ImportPayload | None:
        columns = [_column(each) for each in input.columns]
        request = {"csv": input.csv, "columns": [[each.header, each.target, each.separator] for each in columns]}
        try:
            job = await _once(info, request, columns, input.csv)
        except Refused as refused:
            return ImportPayload(job=None, user_errors=user_errors(refused, ("input",)))
        return ImportPayload(job=cast(Job, await jobs.get(info.context.unit, job)), user_errors=[])


async def _once(info: Info[Operation], request: Mapping[str, Any], columns: list[Column], csv: str) -> UUID:
    unit, key, said = info.context.unit, key_of(info), fingerprint(info, request)
    kept = await outcomes.find(unit, key, said) if key else None
    if kept is not None:
        return UUID(kept["job"])
    job = await imports.start(unit, columns, csv)
    if key:
        await outcomes.keep(unit, key, said, {"job": str(job)})
    return job


def _column(given: ImportColumn) -> Column:
    target = cast(Enum, given.field).value
    if target not in _IDS:
        return Column(given.column.strip(), target, given.separator)
    return Column(given.column.strip(), target, given.separator, lambda text: str(local_id(_IDS[target], text.strip())))


def _customers_of(operation: Operation) -> DataLoader[UUID, CustomerView | None]:
    """Customers by id, of all rows of a page in one statement."""

    async def load(ids: list[UUID]) -> list[CustomerView | None]:
        return await customers.get_many(operation.unit, ids, operation.columns("Customer"))

    if "imported" not in operation.loaders:
        operation.loaders["imported"] = DataLoader(load_fn=load)
    return cast("DataLoader[UUID, CustomerView | None]", operation.loaders["imported"])
