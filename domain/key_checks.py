"""Looks whether a tenant's keys are as its rotations say: proofs as signed, and no key in need that was left."""

from collections.abc import Iterator, Mapping
from uuid import UUID

from sqlalchemy import func, select

from crypto.keys import SERVING, Purpose
from domain import rotations
from tenants.keys import proving, rewrapping, rotating
from tenants.keys.rotations import KeyPurpose, Rotation
from tenants.unit import Unit

_RAISED = "RAISED"


async def faults(unit: Unit, public_keys: Mapping[int, bytes]) -> list[str]:
    """What is wrong, a sentence each; reads every sealed value's header. `public_keys` are all of `SIGNED_BY`."""
    told = [f"The proof of rotation {each} is not as it was signed." for each in await _unproven(unit, public_keys)]
    return [*told, *await _wrapped_by_what_is_left(unit), *await _sealed_by_what_is_left(unit)]


async def _unproven(unit: Unit, public_keys: Mapping[int, bytes]) -> list[UUID]:
    """Of those that ended, or say that they are signed."""
    mine = select(Rotation).where(Rotation.tenant_id == unit.tenant.id).order_by(Rotation.id)
    ended = Rotation.ended_at.is_not(None) & (Rotation.state != rotating.ABANDONED)
    said = mine.where(ended | Rotation.signature.is_not(None))
    return [each.id for each in await unit.scalars(said) if not rotating.is_proven(each, public_keys)]


async def _wrapped_by_what_is_left(unit: Unit) -> list[str]:
    raised = (Rotation.purpose == KeyPurpose.KEK.value, Rotation.state == _RAISED)
    newest = select(func.max(Rotation.to_version)).where(Rotation.tenant_id == unit.tenant.id, *raised)
    floor = (await unit.scalars(newest))[0] or 1
    return [
        f"{place} holds {number} keys wrapped by version {version} of the tenant's key, which opens nothing any more."
        for place, by_version in (await rewrapping.counts(unit)).items()
        for version, number in by_version.items()
        if int(version) < floor
    ]


async def _sealed_by_what_is_left(unit: Unit) -> Iterator[str]:
    keys = await rotations.keys(unit)
    serving = {key.version for key in keys if key.purpose is Purpose.DEK and key.state in SERVING}
    found = await proving.count_versions(unit)
    return (
        f"{each.place} holds {each.rows} values sealed under version {each.version}, which none of its keys opens."
        for each in found
        if each.version not in serving
    )
