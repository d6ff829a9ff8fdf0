"""`tenant_table()`: row-level security, grants and sealed checks; no revision makes a tenant table otherwise."""

from typing import Any

import sqlalchemy as sa
from alembic import op

APP, PLATFORM, RECORDER = "coffer_app", "coffer_platform", "coffer_recorder"
_OWN_TENANT = "tenant_id = current_setting('coffer.tenant')::uuid"


def sealed_column(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, nullable=True, info={"sealed": True})


def tenant_column() -> sa.Column[Any]:
    return sa.Column("tenant_id", sa.Uuid, nullable=False)


def tenant_table(name: str, *elements: Any, rights: str) -> None:
    """Create a table of tenants' rows. `rights` is what the serving role may do, as in "SELECT, INSERT"."""
    op.create_table(name, tenant_column(), *elements)
    secure(name, _OWN_TENANT, rights)
    for column in elements:
        if isinstance(column, sa.Column) and column.info.get("sealed"):
            check_sealed(name, column.name)


def check_sealed(table: str, column: str) -> None:
    """Magic, suite and length of `crypto.envelopes`: raw SQL can't store plaintext either."""
    op.create_check_constraint(
        f"ck_{table}_{column}_sealed",
        table,
        f"octet_length({column}) >= 82 AND (octet_length({column}) - 50) % 32 = 0"
        f" AND substring({column} FROM 1 FOR 2) = '\\xc101'::bytea",
    )


def secure(table: str, own: str, rights: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY own_tenant ON {table} TO {APP} USING ({own}) WITH CHECK ({own})")
    op.execute(f"GRANT {rights} ON {table} TO {APP}")


def show_fleet(table: str, columns: str) -> None:
    """The platform's role reads these columns of all tenants' rows, and no other."""
    op.execute(f"CREATE POLICY fleet_reads ON {table} FOR SELECT TO {PLATFORM} USING (true)")
    op.execute(f"GRANT SELECT ({columns}) ON {table} TO {PLATFORM}")


def let_fleet_insert(table: str, columns: str) -> None:
    op.execute(f"CREATE POLICY fleet_inserts ON {table} FOR INSERT TO {PLATFORM} WITH CHECK (true)")
    op.execute(f"GRANT INSERT ({columns}) ON {table} TO {PLATFORM}")


def let_recorder_insert(table: str) -> None:
    """The recorder's role adds rows of all tenants and reads none."""
    op.execute(f"CREATE POLICY recorder ON {table} FOR INSERT TO {RECORDER} WITH CHECK (true)")
    op.execute(f"GRANT INSERT ON {table} TO {RECORDER}")


def belongs_to(table: str, column: str, parent: str, *, on_delete: str | None = "CASCADE") -> sa.ForeignKeyConstraint:
    """Composite, so that no row can belong to another tenant's."""
    return sa.ForeignKeyConstraint(
        ["tenant_id", column],
        [f"{parent}.tenant_id", f"{parent}.id"],
        name=f"fk_{table}_tenant_id_{column}",
        ondelete=on_delete,
    )
