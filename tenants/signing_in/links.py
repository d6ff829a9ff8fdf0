"""Rows by which a provider's word is found to mean a member: one under each index key that writers write."""

from datetime import datetime
from uuid import UUID

from crypto.values import Secret
from tenants.ids import new_id
from tenants.signing_in.sign_on import LinkedIdentity, MemberLink
from tenants.unit import Unit

_PLACE, _INDEX, _NORMALISER = "member_links.identity", "subject", 1


def token_of(unit: Unit, issuer: str, subject: str, version: int) -> bytes:
    """16 bytes. The length in front, so that no two pairs give one text."""
    return unit.keyring.token(_PLACE, _INDEX, _NORMALISER, f"{len(issuer)}:{issuer}{subject}", version)


def links_of(
    unit: Unit, provider: UUID, member: UUID, identity: LinkedIdentity, created_at: datetime
) -> list[MemberLink]:
    """New rows, unwritten; the member's subject is loaded. `identity` has both of its fields."""
    return [
        MemberLink(
            tenant_id=unit.tenant.id,
            provider_id=provider,
            token=token_of(unit, identity.issuer or "", identity.subject or "", version),
            bik_version=version,
            id=new_id(),
            member_id=member,
            identity=Secret(identity),
            created_at=created_at,
        )
        for version in unit.keyring.index_versions()
    ]
