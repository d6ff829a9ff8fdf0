"""Single sign-on: a tenant's OpenID providers, the sign-ins that are under way with them, and whom they vouch for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, CheckConstraint, ForeignKeyConstraint, Index, LargeBinary, SmallInteger, Text, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped
from sqlalchemy.types import Uuid

from tenants.access import Role, Sensitivity
from tenants.documents import Document, Mask, personal
from tenants.owned import Backup, TenantOwned, clear, sealed
from tenants.unit import Unit


class ClientSecret(Document):
    """What we prove ourselves to the provider by; never shown."""

    is_of_people = False

    secret: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)


class FlowSecret(Document):
    """What one sign-in is held together by, and where it goes on to; never shown."""

    is_of_people = False

    verifier: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)
    nonce: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)
    redirect_uri: str | None = personal(Sensitivity.FREE_TEXT, Mask.NOTHING)


class LinkedIdentity(Document):
    """Who the member is to a provider."""

    issuer: str | None = personal(Sensitivity.IDENTITY, Mask.TEXT)
    subject: str | None = personal(Sensitivity.IDENTITY, Mask.TEXT)


class SignOnProvider(TenantOwned, backup=Backup.SETTINGS, rights="SELECT INSERT UPDATE DELETE"):
    """`role_map` is a list of {"value", "roles", "ownRoles"}; the defaults are for whom none of it fits."""

    __tablename__ = "sign_on_providers"
    __table_args__ = (CheckConstraint("access_tokens IN ('NONE', 'AT_JWT', 'JWT')", name="access_tokens"),)

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    name: Mapped[str] = clear("says which provider it is, shown before sign-in", Text)
    issuer: Mapped[str] = clear("a public address", Text)
    client_id: Mapped[str] = clear("a public name, which stands in addresses", Text)
    secret: Mapped[Any] = sealed(ClientSecret, place="sign_on_providers.secret", subject="tenant_id")
    audience: Mapped[str | None] = clear("of services' tokens; None takes none of them", Text, nullable=True)
    access_tokens: Mapped[str] = clear("the type of services' tokens", Text)
    scopes: Mapped[list[str]] = clear("codes of the provider", ARRAY(Text))
    role_claim: Mapped[str | None] = clear("a claim's name", Text, nullable=True)
    role_map: Mapped[list[Mapping[str, Any]]] = clear("names of groups and roles", JSONB)
    default_roles: Mapped[list[str]] = clear("names of roles", ARRAY(Text))
    default_own_roles: Mapped[list[UUID]] = clear("random ids", ARRAY(Uuid))
    is_enabled: Mapped[bool] = clear("decides whether it is used", Boolean)
    created_at: Mapped[datetime] = clear("when it came", TIMESTAMP(timezone=True))
    updated_at: Mapped[datetime] = clear("when it was changed last", TIMESTAMP(timezone=True))


class SignOnRequest(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """A sign-in under way: from the moment a browser was sent to the provider until it is back, once."""

    __tablename__ = "sign_on_requests"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "provider_id"],
            ["sign_on_providers.tenant_id", "sign_on_providers.id"],
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["tenant_id", "session_id"], ["member_sessions.tenant_id", "member_sessions.id"], ondelete="CASCADE"
        ),
        Index("ix_sign_on_requests_state", "tenant_id", "state", unique=True),
        Index("ix_sign_on_requests_expiry", "tenant_id", "expires_at"),
        Index("ix_sign_on_requests_address", "tenant_id", "address", "expires_at"),
        CheckConstraint("octet_length(state) = 32", name="state"),
        CheckConstraint("octet_length(handle) = 32", name="handle"),
    )

    id: Mapped[UUID] = clear("made at random", primary_key=True)
    state: Mapped[bytes] = clear("SHA-256 of what the provider gives back", LargeBinary)
    handle: Mapped[bytes] = clear("SHA-256 of what the browser that began keeps to itself", LargeBinary)
    secret: Mapped[Any] = sealed(FlowSecret, place="sign_on_requests.secret", subject="tenant_id")
    provider_id: Mapped[UUID] = clear("where the member signs in")
    member_id: Mapped[UUID | None] = clear("who asked to be linked, if so", Uuid, nullable=True)
    session_id: Mapped[UUID | None] = clear("by which session, which must stand at the end too", Uuid, nullable=True)
    address: Mapped[bytes] = clear("hash of where it came from, by a salt that no other process has", LargeBinary)
    is_fresh: Mapped[bool] = clear("whether the provider must ask for a proof anew", Boolean)
    created_at: Mapped[datetime] = clear("when it began", TIMESTAMP(timezone=True))
    expires_at: Mapped[datetime] = clear("it is not taken up from then on", TIMESTAMP(timezone=True))


class MemberLink(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT UPDATE DELETE"):
    """Whom (issuer, subject) stands for by that provider's word, and by no other's that names the same issuer.

    Unique: one identity means one member; never the e-mail, which can change hands.
    """

    __tablename__ = "member_links"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["tenant_id", "provider_id"],
            ["sign_on_providers.tenant_id", "sign_on_providers.id"],
            ondelete="CASCADE",
        ),
        Index("ix_member_links_member", "tenant_id", "member_id"),
        CheckConstraint("octet_length(token) = 16", name="token"),
    )

    provider_id: Mapped[UUID] = clear("who vouches", primary_key=True)
    token: Mapped[bytes] = clear("keyed hash of issuer and subject", LargeBinary, primary_key=True)
    bik_version: Mapped[int] = clear("which index key made it", SmallInteger, primary_key=True)
    id: Mapped[UUID] = clear("made at random")
    member_id: Mapped[UUID] = clear("whom the provider vouches for")
    identity: Mapped[Any] = sealed(LinkedIdentity, place="member_links.identity", subject="member_id")
    created_at: Mapped[datetime] = clear("when they were linked", TIMESTAMP(timezone=True))


class SignOnSession(TenantOwned, backup=Backup.NEVER, rights="SELECT INSERT DELETE"):
    """Which sessions a provider vouched for, so that they end with it. That of a service is shared by its tokens."""

    __tablename__ = "sign_on_sessions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "session_id"], ["member_sessions.tenant_id", "member_sessions.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["tenant_id", "provider_id"],
            ["sign_on_providers.tenant_id", "sign_on_providers.id"],
            ondelete="CASCADE",
        ),
        Index("ix_sign_on_sessions_provider", "tenant_id", "provider_id", "member_id"),
    )

    session_id: Mapped[UUID] = clear("which session", primary_key=True)
    provider_id: Mapped[UUID] = clear("which provider vouched")
    member_id: Mapped[UUID] = clear("for whom")
    is_of_service: Mapped[bool] = clear("whether bearer tokens stand on it", Boolean)


@dataclass(frozen=True, slots=True)
class Roles:
    """Built-in ones, and ids of the tenant's own."""

    built_in: frozenset[Role] = frozenset()
    own: frozenset[UUID] = frozenset()

    def __or__(self, other: "Roles") -> "Roles":
        return Roles(self.built_in | other.built_in, self.own | other.own)

    def __bool__(self) -> bool:
        return bool(self.built_in or self.own)


def roles_for(provider: SignOnProvider, claimed: Iterable[str]) -> Roles:
    """What the values of the role claim come to; the defaults where none of them is in the map."""
    values, found = frozenset(claimed), Roles()
    for entry in provider.role_map:
        if entry["value"] in values:
            found = found | _entry_roles(entry)
    return found or Roles(frozenset(map(Role, provider.default_roles)), frozenset(provider.default_own_roles))


def all_roles(provider: SignOnProvider) -> Roles:
    """Every role that the provider's word can give, and so take."""
    found = Roles(frozenset(map(Role, provider.default_roles)), frozenset(provider.default_own_roles))
    for entry in provider.role_map:
        found = found | _entry_roles(entry)
    return found


def _entry_roles(entry: Mapping[str, Any]) -> Roles:
    return Roles(frozenset(map(Role, entry["roles"])), frozenset(map(UUID, entry["ownRoles"])))


async def providers(unit: Unit) -> Sequence[SignOnProvider]:
    """Oldest first."""
    ordered = select(SignOnProvider).where(SignOnProvider.tenant_id == unit.tenant.id)
    found: Sequence[SignOnProvider] = await unit.scalars(ordered.order_by(SignOnProvider.created_at, SignOnProvider.id))
    return found


async def find_provider(unit: Unit, provider: UUID) -> SignOnProvider | None:
    where = (SignOnProvider.tenant_id == unit.tenant.id, SignOnProvider.id == provider)
    return next(iter(await unit.scalars(select(SignOnProvider).where(*where))), None)


async def client_secret(unit: Unit, provider: SignOnProvider) -> str | None:
    """None for a public client, which proves by PKCE alone that it began."""
    if provider.secret is None:
        return None
    await unit.load_subjects([unit.tenant.id])
    secret: ClientSecret = unit.open_row(provider, "secret", "to sign in with the provider")
    return secret.secret
