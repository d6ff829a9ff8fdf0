"""Roles of a tenant's own, teams, sessions and API keys; whoever enters is checked by them in the same round trip."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from migrations.operations import APP, belongs_to, sealed_column, tenant_table

revision = "0003"
down_revision = "0002"

_ENTER = """
CREATE FUNCTION coffer_enter(tenant uuid, principal uuid, writes boolean, session uuid DEFAULT NULL,
                             key_hash bytea DEFAULT NULL)
RETURNS TABLE (slug text, name text, status text, key_epoch bigint, access_epoch bigint,
               default_region text, default_language text, disclosure_budget integer, reveal_needs_step_up boolean,
               is_member boolean, is_service boolean, roles text[], own_roles uuid[], confirmed_at timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('coffer.tenant', tenant::text, true);
    IF writes THEN
        -- A key rotation takes this lock exclusively: nobody seals under a key that is being fenced.
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended(tenant::text, 0));
    END IF;
    RETURN QUERY
        SELECT t.slug, t.name, t.status, t.key_epoch, t.access_epoch, t.default_region, t.default_language,
            t.disclosure_budget, t.reveal_needs_step_up,
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
# Whatever rights are made of makes cached ones stale, however it was changed.
_TOUCH = """
CREATE FUNCTION coffer_touch_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.tenants SET access_epoch = access_epoch + 1 WHERE id = coalesce(NEW.tenant_id, OLD.tenant_id);
    RETURN NULL;
END
$$
"""
_RIGHTS_ARE_MADE_OF = ("member_roles", "member_own_roles", "roles", "team_members")


def upgrade() -> None:
    _tenants()
    _members()
    _roles()
    _teams()
    _sessions()
    _api_keys()
    op.drop_index("ix_customers_owner", "customers")
    op.create_index("ix_customers_owner", "customers", ["tenant_id", "owner_id", "created_at", "id"])
    op.create_index(
        "ix_audit_entries_revealed",
        "audit_entries",
        ["tenant_id", "actor", "at"],
        postgresql_where=sa.text("action = 'personal.revealed'"),
    )
    op.execute("DROP FUNCTION coffer_enter(uuid, uuid, boolean)")
    op.execute(_ENTER)
    op.execute(_TOUCH)
    for table in _RIGHTS_ARE_MADE_OF:
        op.execute(
            f"CREATE TRIGGER touch_access AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION coffer_touch_access()"
        )
    for function in ("coffer_enter", "coffer_touch_access"):
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION coffer_enter TO {APP}")


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _tenants() -> None:
    """The serving role counts up the epoch of its own tenant."""
    op.add_column("tenants", sa.Column("disclosure_budget", sa.Integer, nullable=True, server_default="100000"))
    op.add_column(
        "tenants", sa.Column("reveal_needs_step_up", sa.Boolean, nullable=False, server_default=sa.text("false"))
    )
    op.execute(f"GRANT UPDATE (access_epoch) ON tenants TO {APP}")


def _members() -> None:
    op.add_column("members", sa.Column("kind", sa.Text, nullable=False, server_default="PERSON"))
    op.create_check_constraint("kind", "members", "kind IN ('PERSON', 'SERVICE')")
    op.alter_column("members", "password_hash", nullable=True)


def _roles() -> None:
    tenant_table(
        "roles",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("spec", JSONB, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_roles"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_roles_tenant_id_name"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    tenant_table(
        "member_own_roles",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("role_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "member_id", "role_id", name="pk_member_own_roles"),
        belongs_to("member_own_roles", "member_id", "members"),
        belongs_to("member_own_roles", "role_id", "roles", on_delete=None),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_member_own_roles_role", "member_own_roles", ["tenant_id", "role_id"])


def _teams() -> None:
    tenant_table(
        "teams",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_teams"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_teams_tenant_id_name"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    tenant_table(
        "team_members",
        sa.Column("team_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "team_id", "member_id", name="pk_team_members"),
        belongs_to("team_members", "team_id", "teams"),
        belongs_to("team_members", "member_id", "members"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_team_members_member", "team_members", ["tenant_id", "member_id"])


def _sessions() -> None:
    tenant_table(
        "member_sessions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sealed_column("device"),
        _moment("created_at"),
        _moment("last_used_at"),
        _moment("confirmed_at"),
        _moment("expires_at"),
        _moment("ended_at", nullable=True),
        sa.Column("ended_why", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_member_sessions"),
        belongs_to("member_sessions", "member_id", "members"),
        sa.CheckConstraint("method IN ('PASSWORD', 'OIDC')", name="method"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    op.create_index("ix_member_sessions_member", "member_sessions", ["tenant_id", "member_id", "created_at"])


def _api_keys() -> None:
    """`member_id` is the service that the key signs in; two keys of one service overlap while it is rotated."""
    tenant_table(
        "api_keys",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        _moment("created_at"),
        _moment("expires_at", nullable=True),
        _moment("revoked_at", nullable=True),
        _moment("last_used_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_api_keys"),
        belongs_to("api_keys", "member_id", "members"),
        sa.CheckConstraint("octet_length(hash) = 32", name="hash"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    op.create_index("ix_api_keys_member", "api_keys", ["tenant_id", "member_id"])
