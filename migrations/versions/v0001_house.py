"""The house: roles' rights, tenants, keys, subjects, members, customers, and the function that enters a tenant."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

from migrations.operations import APP, PLATFORM, belongs_to, sealed_column, secure, tenant_table

revision = "0001"
down_revision = None

_ENTER = """
CREATE FUNCTION coffer_enter(tenant uuid, principal uuid, writes boolean)
RETURNS TABLE (slug text, name text, status text, key_epoch bigint, access_epoch bigint,
               default_region text, default_language text, is_member boolean, roles text[])
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('coffer.tenant', tenant::text, true);
    IF writes THEN
        -- A key rotation takes this lock exclusively: nobody seals under a key that is being fenced.
        PERFORM pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended(tenant::text, 0));
    END IF;
    RETURN QUERY
        SELECT t.slug, t.name, t.status, t.key_epoch, t.access_epoch, t.default_region, t.default_language,
            EXISTS (SELECT FROM public.members m
                WHERE m.tenant_id = tenant AND m.id = principal AND m.status = 'ACTIVE'),
            ARRAY(SELECT r.role FROM public.member_roles r WHERE r.tenant_id = tenant AND r.member_id = principal)
        FROM public.tenants t WHERE t.id = tenant;
END
$$
"""


def upgrade() -> None:
    op.execute(
        "DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());"
        f" EXECUTE format('GRANT CONNECT ON DATABASE %I TO {APP}, {PLATFORM}', current_database()); END $$"
    )
    op.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    op.execute(f"GRANT USAGE ON SCHEMA public TO {APP}, {PLATFORM}")
    _tenants()
    _keys()
    _members()
    _customers()
    _outcomes()
    op.execute(_ENTER)
    op.execute("REVOKE ALL ON FUNCTION coffer_enter FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION coffer_enter TO {APP}")


def _tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("key_epoch", sa.BigInteger, nullable=False),
        sa.Column("access_epoch", sa.BigInteger, nullable=False),
        sa.Column("default_region", sa.Text, nullable=False),
        sa.Column("default_language", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.UniqueConstraint("slug", name="uq_tenants_slug"),
        sa.CheckConstraint("status IN ('PENDING', 'ACTIVE', 'SUSPENDED')", name="status"),
    )
    secure("tenants", "id = current_setting('coffer.tenant')::uuid", "SELECT")
    op.execute(f"CREATE POLICY all_tenants ON tenants TO {PLATFORM} USING (true) WITH CHECK (true)")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON tenants TO {PLATFORM}")


def _keys() -> None:
    tenant_table(
        "data_keys",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("wrapped", sa.Text, nullable=False),
        sa.Column("check_value", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_data_keys"),
        sa.UniqueConstraint("tenant_id", "purpose", "version", name="uq_data_keys_tenant_id_purpose_version"),
        sa.CheckConstraint("purpose IN ('DEK', 'BIK', 'AUD')", name="purpose"),
        sa.CheckConstraint("state IN ('ACTIVE', 'DECRYPT_ONLY')", name="state"),
        sa.CheckConstraint("wrapped LIKE 'vault:v%'", name="wrapped"),
        rights="SELECT, INSERT",
    )
    op.create_index(
        "uq_data_keys_active",
        "data_keys",
        ["tenant_id", "purpose"],
        unique=True,
        postgresql_where=sa.text("state = 'ACTIVE'"),
    )
    tenant_table(
        "subjects",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_subjects"),
        sa.CheckConstraint("octet_length(secret) = 32", name="secret"),
        rights="SELECT, INSERT, DELETE",
    )


def _members() -> None:
    tenant_table(
        "members",
        sa.Column("id", sa.Uuid, nullable=False),
        sealed_column("identity"),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_members"),
        sa.CheckConstraint("status IN ('ACTIVE', 'DISABLED')", name="status"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    tenant_table(
        "member_roles",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "member_id", "role", name="pk_member_roles"),
        belongs_to("member_roles", "member_id", "members"),
        rights="SELECT, INSERT, DELETE",
    )
    tenant_table(
        "member_tokens",
        sa.Column("index", sa.Text, nullable=False),
        sa.Column("token", sa.LargeBinary, nullable=False),
        sa.Column("bik_version", sa.SmallInteger, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "index", "token", "bik_version", name="pk_member_tokens"),
        belongs_to("member_tokens", "member_id", "members"),
        sa.CheckConstraint("octet_length(token) = 16", name="token"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_member_tokens_member", "member_tokens", ["tenant_id", "member_id"])
    tenant_table(
        "sign_in_attempts",
        sa.Column("token", sa.LargeBinary, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("until", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "token", name="pk_sign_in_attempts"),
        sa.CheckConstraint("octet_length(token) = 16", name="token"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )


def _customers() -> None:
    tenant_table(
        "customers",
        sa.Column("id", sa.Uuid, nullable=False),
        sealed_column("profile"),
        sealed_column("guarded"),
        sealed_column("note"),
        sealed_column("external_id"),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=True),
        sa.Column("language", sa.Text, nullable=True),
        sa.Column("source", sa.Text, nullable=True),
        sa.Column("region", sa.Text, nullable=True),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("updated_at", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("archived_at", TIMESTAMP(timezone=True), nullable=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_customers"),
        belongs_to("customers", "owner_id", "members", on_delete=None),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    for name, column in {"created": "created_at", "updated": "updated_at"}.items():
        op.create_index(f"ix_customers_{name}", "customers", ["tenant_id", column, "id"])
    op.create_index("ix_customers_owner", "customers", ["tenant_id", "owner_id"])
    tenant_table(
        "customer_tokens",
        sa.Column("index", sa.Text, nullable=False),
        sa.Column("token", sa.LargeBinary, nullable=False),
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("bik_version", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "index", "token", "customer_id", "bik_version", name="pk_customer_tokens"),
        belongs_to("customer_tokens", "customer_id", "customers"),
        sa.CheckConstraint("octet_length(token) = 16", name="token"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_customer_tokens_customer", "customer_tokens", ["tenant_id", "customer_id"])
    op.create_index(
        "uq_customer_tokens_external_id",
        "customer_tokens",
        ["tenant_id", "token", "bik_version"],
        unique=True,
        postgresql_where=sa.text("index = 'external_id'"),
    )
    tenant_table(
        "tags",
        sa.Column("id", sa.Uuid, nullable=False),
        sealed_column("name"),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tags"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )
    tenant_table(
        "customer_tags",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("tag_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "tag_id", name="pk_customer_tags"),
        belongs_to("customer_tags", "customer_id", "customers"),
        belongs_to("customer_tags", "tag_id", "tags"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_customer_tags_tag", "customer_tags", ["tenant_id", "tag_id", "customer_id"])


def _outcomes() -> None:
    tenant_table(
        "outcomes",
        sa.Column("principal", sa.Uuid, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("created_at", TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "principal", "key", name="pk_outcomes"),
        rights="SELECT, INSERT, DELETE",
    )
