"""Imports of customers: the rows of one file, sealed until the job has made them customers, and what became of each."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Integer, Text, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped

from tenants.access import Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.jobs import JobKind
from tenants.owned import Backup, TenantOwned, clear, sealed


@dataclass(frozen=True, slots=True)
class NoArguments:
    """The job's id names its rows."""


IMPORT = JobKind("import_customers", NoArguments, "Make customers of the rows of a file.")


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
