"""How a rotation begins, and how it moves on: what the three kinds of keys have in common. Their work is in jobs/.

A state names what is done by then; ``BEGUN`` is nothing. KEK: ROTATED REWRAPPING VERIFIED RAISED. DEK: COMMITTED
FENCED RESEALING DRAINED PROVEN RETIRED. BIK: COMMITTED FILLING FILLED SWITCHED CLEANED.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from crypto.chain import is_signed
from crypto.encoding import join
from crypto.errors import KeyUnavailable
from crypto.keys import KeyState
from tenants.errors import RotationRefused, RotationUnknown
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.jobs import ENDED, Job, JobId, JobKind
from tenants.keys import DataKeyRow
from tenants.keys.rotations import Cause, KeyPurpose, Rotation
from tenants.unit import Unit

BEGUN = "BEGUN"
ABANDONED = "ABANDONED"  # it ended, and nothing came of it
UNKNOWN = 0  # as a version: Vault's, which is not known before the rotation's first step
SIGNED_BY = "coffer-audit"  # the Transit key that signs proofs
_SUBJECT = "KeyRotation"
_OLD = aliased(Rotation)  # as it stood before a change


@dataclass(frozen=True, slots=True)
class RotationArguments:
    rotation: UUID


ROTATE: Mapping[KeyPurpose, JobKind[RotationArguments]] = MappingProxyType(
    {
        KeyPurpose.KEK: JobKind("rotate_kek", RotationArguments, "Turn over the tenant's key in the key store."),
        KeyPurpose.DEK: JobKind("rotate_dek", RotationArguments, "Turn over the data key: seal every value anew."),
        KeyPurpose.BIK: JobKind("rotate_bik", RotationArguments, "Turn over the index key: index every value anew."),
    }
)
KEY_ROTATED = EventKind("key.rotated", _SUBJECT, "A new key of the tenant is in force; the old one is being left.")
IN_FORCE: Mapping[KeyPurpose, str] = MappingProxyType(
    {KeyPurpose.KEK: "VERIFIED", KeyPurpose.DEK: "FENCED", KeyPurpose.BIK: "SWITCHED"}
)


async def begin(
    unit: Unit, purpose: KeyPurpose, cause: Cause, *, versions: tuple[int, int] = (UNKNOWN, UNKNOWN)
) -> UUID:
    """The id of the rotation of that purpose that is open: the one there is, or a new one, with its job.

    One whose job was parked or cancelled gets a new job, and goes on where it stood. `versions` (from, to) are for a
    KEK alone; of the others they are counted here. Raises `KeyUnavailable` where there is no key to leave.
    """
    while not (made := await _made(unit, purpose, cause, versions)):
        if found := await find_open(unit, purpose):
            await _go_on(unit, found.id, purpose)
            return found.id
    job = await _go_on(unit, made, purpose)
    details = {"purpose": purpose.value, "cause": cause.value, "job": str(job)}
    unit.audit("key.rotation.begun", subject_type=_SUBJECT, subjects=[made], details=details)
    return made


async def find(unit: Unit, rotation: UUID) -> Rotation:
    """Raises `RotationUnknown`."""
    mine = (Rotation.tenant_id == unit.tenant.id, Rotation.id == rotation)
    found = await unit.scalars(select(Rotation).where(*mine).execution_options(populate_existing=True))
    if not found:
        raise RotationUnknown
    row: Rotation = found[0]
    return row


async def find_open(unit: Unit, purpose: KeyPurpose) -> Rotation | None:
    mine = (Rotation.tenant_id == unit.tenant.id, Rotation.purpose == purpose.value, Rotation.ended_at.is_(None))
    found = await unit.scalars(select(Rotation).where(*mine).execution_options(populate_existing=True))
    return next(iter(found), None)


async def move(
    unit: Unit,
    rotation: UUID,
    state: str,
    *,
    past: Sequence[str] = (),
    versions: tuple[int, int] | None = None,
    proof: Mapping[str, Any] | None = None,
    signed: tuple[int, bytes] | None = None,
    ended: bool = False,
) -> Rotation:
    """Say how far it is: the rotation as it stands then. The present state again enters nothing into the audit log.

    `past` are states that it passes on the way, with nothing to be done between them. `proof` is JSON of counts, codes
    and ids, `signed` the key's version and the 64 bytes over `proof_message` of it. Raises `RotationUnknown`.
    """
    values: dict[str, Any] = {"state": state, "moved_at": unit.now}
    if versions is not None:
        values |= {"from_version": versions[0], "to_version": versions[1]}
    if proof is not None:
        values["proof"] = dict(proof)
    if signed is not None:
        values |= {"key_version": signed[0], "signature": b64encode(signed[1]).decode()}
    if ended:
        values["ended_at"] = unit.now
    before, stands = await _changed(unit, rotation, values)
    for each in [*past, state]:
        if each != before or (ended and each == state):
            unit.audit("key.rotation.moved", subject_type=_SUBJECT, subjects=[rotation], details=_told(stands, each))
    if before != state == IN_FORCE[KeyPurpose(stands.purpose)]:
        unit.publish(KEY_ROTATED, [rotation], details=_told(stands, state))
    return stands


async def _changed(unit: Unit, rotation: UUID, values: Mapping[str, Any]) -> tuple[str, Rotation]:
    """Its state before, and the rotation as it stands then."""
    mine = (Rotation.tenant_id == unit.tenant.id, Rotation.id == rotation)
    same = (_OLD.tenant_id == Rotation.tenant_id, _OLD.id == Rotation.id)
    change = update(Rotation).where(*mine, *same).values(values).returning(Rotation, _OLD.state)
    options = {"synchronize_session": False, "populate_existing": True}
    changed: Sequence[Row[Any]] = await unit.rows(change.execution_options(**options))
    if not changed:
        raise RotationUnknown
    stands, before = tuple(changed[0])
    return before, stands


def _told(rotation: Rotation, state: str) -> dict[str, int | str]:
    versions = {"fromVersion": rotation.from_version, "toVersion": rotation.to_version}
    return {"purpose": KeyPurpose(rotation.purpose).value, "state": state, **versions}


async def abandon(unit: Unit, purpose: KeyPurpose) -> UUID:
    """End the open rotation of that purpose, which changed nothing in the database yet and whose job stands still.

    A version that the key store made meanwhile is harmless: the next rotation goes on from it. Raises
    `RotationUnknown` where none is open, and `RotationRefused` for one further on or with a job that is not at its end.
    """
    if (found := await find_open(unit, purpose)) is None:
        raise RotationUnknown
    if found.state != BEGUN or await is_led(unit, found):
        raise RotationRefused
    still = (Rotation.state == BEGUN, Rotation.ended_at.is_(None), Rotation.job_id.is_not_distinct_from(found.job_id))
    ended = update(Rotation).where(Rotation.tenant_id == unit.tenant.id, Rotation.id == found.id, *still)
    ended = ended.values(state=ABANDONED, moved_at=unit.now, ended_at=unit.now).returning(Rotation.id)
    if not await unit.scalars(ended.execution_options(synchronize_session=False)):
        raise RotationRefused
    details = {"purpose": purpose.value}
    unit.audit("key.rotation.abandoned", subject_type=_SUBJECT, subjects=[found.id], details=details)
    return found.id


async def is_led(unit: Unit, rotation: Rotation) -> bool:
    """Whether its job has not ended."""
    running = (Job.tenant_id == unit.tenant.id, Job.id == rotation.job_id, Job.state.not_in(ENDED))
    return bool(await unit.scalars(select(Job.id).where(*running)))


def proof_message(tenant: UUID, said: Mapping[str, Any]) -> bytes:
    """What `SIGNED_BY` signs: ``join("coffer.proof.v1", tenant 16, canonical JSON)``. Raises what `canonical` does."""
    return join(b"coffer.proof.v1", tenant.bytes, canonical(said))


def proof_head(rotation: Rotation) -> dict[str, Any]:
    """What each proof says of its rotation, so that none serves for another."""
    return {
        "rotation": str(rotation.id),
        "purpose": rotation.purpose,
        "fromVersion": rotation.from_version,
        "toVersion": rotation.to_version,
    }


def canonical(said: Mapping[str, Any]) -> bytes:
    """The one form of this JSON (RFC 8785). Raises ValueError for floats, and for what is not ASCII."""
    raw = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    if not raw.isascii() or _holds_float(said):
        raise ValueError("a proof holds ASCII and whole numbers")
    return raw


def is_proven(rotation: Rotation, public_keys: Mapping[int, bytes]) -> bool:
    """Whether its proof is one that was signed, and of this rotation; `public_keys` are all of `SIGNED_BY`."""
    key = public_keys.get(rotation.key_version or 0)
    if key is None or not rotation.signature or not isinstance(rotation.proof, Mapping):
        return False
    if any(rotation.proof.get(name) != said for name, said in proof_head(rotation).items()):
        return False
    try:
        message = proof_message(rotation.tenant_id, rotation.proof)
        return is_signed(key, b64decode(rotation.signature, validate=True), message)
    except (ValueError, TypeError):  # edited into something that no proof looks like
        return False


async def _made(unit: Unit, purpose: KeyPurpose, cause: Cause, versions: tuple[int, int]) -> UUID | None:
    """None where one is open."""
    if purpose is not KeyPurpose.KEK:
        versions = await _versions(unit, purpose)
    row = {
        "tenant_id": unit.tenant.id,
        "id": new_id(),
        "purpose": purpose.value,
        "state": BEGUN,
        "from_version": versions[0],
        "to_version": versions[1],
        "cause": cause.value,
        "started_at": unit.now,
        "moved_at": unit.now,
    }
    made = await unit.scalars(insert(Rotation).values(row).on_conflict_do_nothing().returning(Rotation.id))
    return made[0] if made else None


async def _versions(unit: Unit, purpose: KeyPurpose) -> tuple[int, int]:
    mine = (DataKeyRow.tenant_id == unit.tenant.id, DataKeyRow.purpose == purpose.value)
    active = func.max(DataKeyRow.version).filter(DataKeyRow.state == KeyState.ACTIVE)
    keys = select(active.label("active"), func.max(DataKeyRow.version).label("newest")).where(*mine)
    found = (await unit.rows(keys))[0]
    if found.active is None:
        raise KeyUnavailable
    return found.active, found.newest + 1


async def _go_on(unit: Unit, rotation: UUID, purpose: KeyPurpose) -> JobId:
    """The job that leads it; the house's own, so that nobody's leaving stops a rotation half way."""
    job = await unit.enqueue(ROTATE[purpose], RotationArguments(rotation), once=purpose.value, by_house=True)
    mine = (Rotation.tenant_id == unit.tenant.id, Rotation.id == rotation)
    await unit.run(update(Rotation).where(*mine).values(job_id=job).execution_options(synchronize_session=False))
    return job


def _holds_float(said: Any) -> bool:
    if isinstance(said, Mapping):
        return any(map(_holds_float, said.values()))
    return isinstance(said, float) or (isinstance(said, list | tuple) and any(map(_holds_float, said)))
