"""Keys turn over: what state a data key is in, how far each rotation is, and how all writers are fenced off."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from migrations.operations import APP, tenant_table

revision = "0008"
down_revision = "0007"

_ENTER = """
CREATE FUNCTION coffer_enter(tenant uuid, principal uuid, writes boolean, session uuid DEFAULT NULL,
                             key_hash bytea DEFAULT NULL, fences boolean DEFAULT false)
RETURNS TABLE (slug text, name text, status text, key_epoch bigint, access_epoch bigint,
               default_region text, default_language text, disclosure_budget integer, reveal_needs_step_up boolean,
               frozen text, is_member boolean, is_service boolean, roles text[], own_roles uuid[],
               confirmed_at timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    was_frozen text;
BEGIN
    PERFORM pg_catalog.set_config('coffer.tenant', tenant::text, true);
    SELECT t.frozen INTO was_frozen FROM public.tenants t WHERE t.id = tenant;
    IF fences OR pg_catalog.current_setting('transaction_read_only') = 'on' THEN
        -- Restores, drills and backups wait for stores meanwhile; readers hold up nobody's events.
        PERFORM pg_catalog.set_config('idle_in_transaction_session_timeout', '0', true);
    END IF;
    IF fences THEN
        -- Behind one that waits for its fence all new writers wait as well: so it waits often, and never for long.
        FOR tried IN 1 .. 12 LOOP
            BEGIN
                PERFORM pg_catalog.set_config('lock_timeout', '80ms', true);
                PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(tenant::text, 0));
                EXIT;
            EXCEPTION WHEN lock_not_available THEN
                IF tried = 12 THEN
                    RAISE;
                END IF;
            END;
            PERFORM pg_catalog.pg_sleep(0.04 + 0.08 * pg_catalog.random());
        END LOOP;
        PERFORM pg_catalog.set_config('lock_timeout', '0', true);
    ELSIF writes AND was_frozen IS NULL THEN
        -- Nobody seals under a key that is being fenced. A fence may stand for long; better told than kept waiting.
        PERFORM pg_catalog.set_config('lock_timeout', '5s', true);
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended(tenant::text, 0));
        PERFORM pg_catalog.set_config('lock_timeout', '0', true);
    END IF;
    RETURN QUERY
        SELECT t.slug, t.name, t.status, t.key_epoch, t.access_epoch, t.default_region, t.default_language,
            t.disclosure_budget, t.reveal_needs_step_up, coalesce(t.frozen, CASE WHEN NOT fences THEN was_frozen END),
            m.id IS NOT NULL
                AND (session IS NULL OR s.id IS NOT NULL)
                AND (key_hash IS NULL OR EXISTS (SELECT FROM public.api_keys k
                    WHERE k.tenant_id = tenant AND k.member_id = principal AND k.hash = key_hash
                    AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > pg_catalog.now()))),
            coalesce(m.kind = 'SERVICE', false),
            ARRAY(SELECT r.role FROM public.member_roles r WHERE r.tenant_id = tenant AND r.member_id = principal),
            ARRAY(SELECT r.role_id FROM public.member_own_roles r
                WHERE r.tenant_id = tenant AND r.member_id = principal),
            s.confirmed_at
        FROM public.tenants t
        LEFT JOIN public.members m ON m.tenant_id = tenant AND m.id = principal AND m.status = 'ACTIVE'
        LEFT JOIN public.member_sessions s ON s.tenant_id = tenant AND s.id = session AND s.member_id = principal
            AND s.ended_at IS NULL AND s.expires_at > pg_catalog.now()
        WHERE t.id = tenant;
END
$$
"""


def upgrade() -> None:
    _tenants()
    _data_keys()
    _rotations()
    op.execute("DROP FUNCTION coffer_enter(uuid, uuid, boolean, uuid, bytea)")
    op.execute(_ENTER)
    op.execute("REVOKE ALL ON FUNCTION coffer_enter FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION coffer_enter TO {APP}")


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _tenants() -> None:
    op.add_column("tenants", sa.Column("frozen", sa.Text, nullable=True))
    op.create_check_constraint("frozen", "tenants", "frozen IN ('RESTORE', 'OFFBOARDING')")
    op.execute(f"GRANT UPDATE (key_epoch, frozen) ON tenants TO {APP}")


def _data_keys() -> None:
    op.drop_constraint("state", "data_keys")
    op.drop_constraint("wrapped", "data_keys")
    op.create_check_constraint(
        "state", "data_keys", "state IN ('NEXT', 'ACTIVE', 'DECRYPT_ONLY', 'RETIRED', 'DESTROYED')"
    )
    op.create_check_constraint(
        "wrapped", "data_keys", "wrapped LIKE 'vault:v%' OR (state = 'DESTROYED' AND wrapped = '')"
    )
    op.create_index(
        "uq_data_keys_next",
        "data_keys",
        ["tenant_id", "purpose"],
        unique=True,
        postgresql_where=sa.text("state = 'NEXT'"),
    )
    op.add_column("data_keys", _moment("changed_at", nullable=True))
    op.execute(f"GRANT UPDATE ON data_keys TO {APP}")
    op.execute(f"GRANT UPDATE ON member_links TO {APP}")  # whose sealed values are sealed anew


def _rotations() -> None:
    tenant_table(
        "rotations",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("from_version", sa.Integer, nullable=False),
        sa.Column("to_version", sa.Integer, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=True),
        _moment("started_at"),
        _moment("moved_at"),
        _moment("ended_at", nullable=True),
        sa.Column("proof", JSONB, nullable=True),
        sa.Column("key_version", sa.SmallInteger, nullable=True),
        sa.Column("signature", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_rotations"),
        sa.CheckConstraint("purpose IN ('KEK', 'DEK', 'BIK')", name="purpose"),
        rights="SELECT, INSERT, UPDATE",
    )
    op.create_index(
        "uq_rotations_open",
        "rotations",
        ["tenant_id", "purpose"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("ix_rotations_started", "rotations", ["tenant_id", "started_at", "id"])
