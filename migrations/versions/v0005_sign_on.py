"""Single sign-on: providers and whose their tokens are, sign-ins under way, links of members, and their sessions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from migrations.operations import PLATFORM, belongs_to, sealed_column, secure, tenant_table

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    _issuers()
    _providers()
    _requests()
    _links()
    _sessions()


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=False)


def _issuers() -> None:
    """Unique on the whole platform, so it is no tenant's table; a tenant still reads and writes its own rows only."""
    op.create_table(
        "issuers",
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("audience", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("is_for_services", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "audience", name="pk_issuers"),
    )
    op.create_index("ix_issuers_tenant", "issuers", ["tenant_id", "provider_id"])
    secure("issuers", "tenant_id = current_setting('coffer.tenant')::uuid", "SELECT, INSERT, DELETE")
    op.execute(f"CREATE POLICY all_issuers ON issuers FOR SELECT TO {PLATFORM} USING (true)")
    op.execute(f"GRANT SELECT ON issuers TO {PLATFORM}")


def _providers() -> None:
    tenant_table(
        "sign_on_providers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("client_id", sa.Text, nullable=False),
        sealed_column("secret"),
        sa.Column("audience", sa.Text, nullable=True),
        sa.Column("access_tokens", sa.Text, nullable=False),
        sa.Column("scopes", ARRAY(sa.Text), nullable=False),
        sa.Column("role_claim", sa.Text, nullable=True),
        sa.Column("role_map", JSONB, nullable=False),
        sa.Column("default_roles", ARRAY(sa.Text), nullable=False),
        sa.Column("default_own_roles", ARRAY(sa.Uuid), nullable=False),
        sa.Column("is_enabled", sa.Boolean, nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_sign_on_providers"),
        sa.CheckConstraint("access_tokens IN ('NONE', 'AT_JWT', 'JWT')", name="access_tokens"),
        rights="SELECT, INSERT, UPDATE, DELETE",
    )


def _requests() -> None:
    tenant_table(
        "sign_on_requests",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("handle", sa.LargeBinary, nullable=False),
        sealed_column("secret"),
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=True),
        sa.Column("session_id", sa.Uuid, nullable=True),
        sa.Column("address", sa.LargeBinary, nullable=False),
        sa.Column("is_fresh", sa.Boolean, nullable=False),
        _moment("created_at"),
        _moment("expires_at"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_sign_on_requests"),
        belongs_to("sign_on_requests", "provider_id", "sign_on_providers"),
        belongs_to("sign_on_requests", "member_id", "members"),
        belongs_to("sign_on_requests", "session_id", "member_sessions"),
        sa.CheckConstraint("octet_length(state) = 32", name="state"),
        sa.CheckConstraint("octet_length(handle) = 32", name="handle"),
        rights="SELECT, INSERT, UPDATE, DELETE",  # UPDATE: to lock what is forgotten
    )
    op.create_index("ix_sign_on_requests_state", "sign_on_requests", ["tenant_id", "state"], unique=True)
    op.create_index("ix_sign_on_requests_expiry", "sign_on_requests", ["tenant_id", "expires_at"])
    op.create_index("ix_sign_on_requests_address", "sign_on_requests", ["tenant_id", "address", "expires_at"])


def _links() -> None:
    tenant_table(
        "member_links",
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("token", sa.LargeBinary, nullable=False),
        sa.Column("bik_version", sa.SmallInteger, nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sealed_column("identity"),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "provider_id", "token", "bik_version", name="pk_member_links"),
        belongs_to("member_links", "provider_id", "sign_on_providers"),
        belongs_to("member_links", "member_id", "members"),
        sa.CheckConstraint("octet_length(token) = 16", name="token"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_member_links_member", "member_links", ["tenant_id", "member_id"])


def _sessions() -> None:
    tenant_table(
        "sign_on_sessions",
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("is_of_service", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", name="pk_sign_on_sessions"),
        belongs_to("sign_on_sessions", "session_id", "member_sessions"),
        belongs_to("sign_on_sessions", "provider_id", "sign_on_providers"),
        rights="SELECT, INSERT, DELETE",
    )
    op.create_index("ix_sign_on_sessions_provider", "sign_on_sessions", ["tenant_id", "provider_id", "member_id"])
