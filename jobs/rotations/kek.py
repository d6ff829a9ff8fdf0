"""The job that turns over a tenant's key in the key store: a new version, all keys rewrapped under it, the old refused.

No secret changes and none is seen: the rotator can't decrypt, and readers go on with the keys they have open.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from crypto.errors import KeyRefused
from crypto.keys import WrappedKey, wrapping_context
from crypto.transit import TransitKeys, wrapped_version
from jobs.handling import Handler, Run
from jobs.throttle import throttle_of
from tenants.errors import RewrapRefused, RotationUnavailable, RotationWaits
from tenants.keys import rewrapping, rotating
from tenants.keys.rewrapping import Counts
from tenants.keys.rotating import RotationArguments
from tenants.keys.rotations import Rotation
from tenants.viewers import TenantId

# Between VERIFIED and RAISED: whatever had a key under the old version in its hands by then, has used or stored it.
GRACE = timedelta(minutes=5)


class WrappedOutside(Protocol):
    """What is wrapped by the tenant's key and lies on stores, and the backups' keys."""

    async def rewrap(self, tenant: TenantId, rotator: TransitKeys) -> None:
        """Bring all of it to the newest version, on every store. Raises a retryable error while one is away."""

    async def oldest_kek_version(self, tenant: TenantId) -> int | None:
        """None where nothing lies there."""


def rotate_kek_by(
    keys: TransitKeys | None,
    rotator: TransitKeys | None,
    outside: WrappedOutside | None = None,
    grace: timedelta = GRACE,
) -> Handler:
    """`keys` signs proofs. None: this worker has no right to rotate keys, and takes no such job.

    Without `outside` there are no stores.
    """

    async def rotate_kek(run: Run[RotationArguments]) -> None:
        """Each state's work may be repeated; where something must be waited for, the job comes back by itself."""
        if keys is None or rotator is None:
            raise RotationUnavailable
        turn = _Turn(run, keys, rotator, outside, grace)
        acts = {
            rotating.BEGUN: turn.rotate,
            "ROTATED": turn.start_rewrapping,
            "REWRAPPING": turn.verify,
            "VERIFIED": turn.raise_floor,
        }
        standing = await turn.look()
        while not run.is_finished:
            standing = await acts[standing.rotation.state](standing)

    return rotate_kek


@dataclass(frozen=True, slots=True)
class _Standing:
    """The rotation, and the moment at which it stood so.

    `page` is the first of what is to be rewrapped, `counts` what is wrapped by which version: where they were read.
    """

    rotation: Rotation
    at: datetime
    page: list[WrappedKey] | None = None
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class _Counted:
    counts: Counts
    at: datetime


@dataclass(frozen=True, slots=True)
class _Turn:
    """Each act takes the rotation as it stands, and gives it as it stands behind it."""

    run: Run[RotationArguments]
    keys: TransitKeys
    rotator: TransitKeys
    outside: WrappedOutside | None
    grace: timedelta

    async def look(self) -> _Standing:
        async with self.run.step() as step:
            rotation, counts = await rotating.find(step.unit, self.run.arguments.rotation), None
            if rotation.state == "VERIFIED":
                counts = await rewrapping.counts(step.unit)
            if rotation.ended_at is None:
                step.move(cursor=None)
            else:
                step.finish()
            return _Standing(rotation, step.unit.now, counts=counts)

    async def rotate(self, standing: _Standing) -> _Standing:
        """What it was before is written down before, so that asking again makes no second version."""
        from_version = standing.rotation.from_version
        latest = (await self.rotator.versions(self.run.tenant)).latest
        if from_version == rotating.UNKNOWN:
            from_version = latest
            await self._moved(rotating.BEGUN, versions=(latest, latest + 1))
        if latest < from_version:
            raise KeyRefused("The key store is older than the database: it has forgotten a version of the key.")
        if latest == from_version:
            latest = await self.rotator.rotate(self.run.tenant)
        return await self._moved("REWRAPPING", past=("ROTATED",), versions=(from_version, latest))

    async def start_rewrapping(self, _standing: _Standing) -> _Standing:
        return await self._moved("REWRAPPING")

    async def verify(self, standing: _Standing) -> _Standing:
        rotation = standing.rotation
        counted = await self._rewrap_all(rotation.to_version, standing.page)
        _refuse_older(counted.counts, rotation.to_version)
        proof = _proof(rotation, counted)
        signed = await self.keys.sign(rotating.SIGNED_BY, rotating.proof_message(self.run.tenant, proof))
        async with self.run.step() as step:
            step.move(cursor=None)
            if await rewrapping.counts(step.unit) == counted.counts:
                rotation = await rotating.move(step.unit, rotation.id, "VERIFIED", proof=proof, signed=signed)
            return _Standing(rotation, step.unit.now)

    async def raise_floor(self, standing: _Standing) -> _Standing:
        """Never while anything inside or outside needs an older version: it could not be opened any more."""
        version, left = standing.rotation.to_version, self.grace - (standing.at - standing.rotation.moved_at)
        if left > timedelta():
            raise RotationWaits(math.ceil(left.total_seconds()))
        counts = standing.counts
        if self.outside is not None or counts is None:
            counts = None if await self._is_older_outside(version) else await self._counted()
        if counts is None or rewrapping.is_older(counts, version):
            await self._rewrap_all(version)
            counts = await self._counted()
            _refuse_older(counts, version)
        await self.rotator.raise_floor(self.run.tenant, version)
        async with self.run.step() as step:
            rotation = await rotating.move(step.unit, standing.rotation.id, "RAISED", ended=True)
            step.finish(result={"keys": sum(sum(each.values()) for each in counts.values())})
            return _Standing(rotation, step.unit.now)

    async def _moved(
        self, state: str, *, past: Sequence[str] = (), versions: tuple[int, int] | None = None
    ) -> _Standing:
        async with self.run.step() as step:
            step.move(cursor=None)
            asked = self.run.arguments.rotation
            rotation = await rotating.move(step.unit, asked, state, past=past, versions=versions)
            if state == rotating.BEGUN:
                return _Standing(rotation, step.unit.now)
            page = await rewrapping.find_outdated(step.unit, rotation.to_version)
            return _Standing(rotation, step.unit.now, page)

    async def _rewrap_all(self, version: int, page: list[WrappedKey] | None = None) -> _Counted:
        """What was made under an older version while this goes on stands among what is counted."""
        counted = await self._rewrap_data_keys(version, page)
        if self.outside is None:
            return counted or await self._seen()
        if await self._is_older_outside(version):
            await self.outside.rewrap(self.run.tenant, self.rotator)
            if await self._is_older_outside(version):
                raise RotationWaits
        return await self._seen()

    async def _seen(self) -> _Counted:
        async with self.run.looking() as unit:
            return _Counted(await rewrapping.counts(unit), unit.now)

    async def _counted(self) -> Counts:
        """As of now, and only by who still holds the job."""
        async with self.run.step() as step:
            step.move(cursor=None)
            return await rewrapping.counts(step.unit)

    async def _rewrap_data_keys(self, version: int, page: list[WrappedKey] | None) -> _Counted | None:
        """What is counted behind the last page, if there was one.

        Keys that are refused hold up no other; then raises `RewrapRefused`, and the audit log names them.
        """
        throttle, refused, counted = throttle_of(self.run), list[WrappedKey](), None
        page = await self._outdated(version) if page is None else page
        while page:
            with throttle.measured():
                left, counted = await self._rewrap(page, version)
                refused += left
            if len(page) < rewrapping.PAGE:
                break
            await throttle.rest()
            page = await self._outdated(version, page[-1])
        if refused:
            async with self.run.step() as step:
                ids, named = [key.id for key in refused], {"table": "data_keys", "toVersion": version}
                code = RewrapRefused.code
                step.unit.audit("key.rewrap.refused", subject_type="DataKey", subjects=ids, outcome=code, details=named)
                step.move(cursor=None)
            raise RewrapRefused
        return counted

    async def _rewrap(self, page: list[WrappedKey], version: int) -> tuple[list[WrappedKey], _Counted]:
        """Those that could not be, and what stands there then."""
        asked = [(key.wrapped, wrapping_context(key.tenant, key.id, key.purpose)) for key in page]
        rewrapped = await self.rotator.rewrap(self.run.tenant, asked)
        done = [
            (key, new)
            for key, new in zip(page, rewrapped, strict=True)
            if new is not None and wrapped_version(new) >= version
        ]
        async with self.run.step() as step:
            await rewrapping.replace(step.unit, done)
            step.move(cursor=None, done=self.run.done + len(done))
            counted = _Counted(await rewrapping.counts(step.unit), step.unit.now)
        kept = {key.id for key, _ in done}
        return [key for key in page if key.id not in kept], counted

    async def _outdated(self, version: int, after: WrappedKey | None = None) -> list[WrappedKey]:
        async with self.run.looking() as unit:
            return await rewrapping.find_outdated(unit, version, None if after is None else after.id)

    async def _is_older_outside(self, version: int) -> bool:
        """Backups' keys stand in the database, and in the key files: they are rewrapped with these."""
        if self.outside is None:
            return False
        oldest = await self.outside.oldest_kek_version(self.run.tenant)
        if oldest is not None and oldest < version:
            return True
        return rewrapping.is_older((await self._seen()).counts, version)


def _refuse_older(counts: Counts, version: int) -> None:
    """The job then begins anew with what is older. Raises `RotationWaits`."""
    if rewrapping.is_older(counts, version):
        raise RotationWaits


def _proof(rotation: Rotation, counted: _Counted) -> dict[str, Any]:
    return {
        "rotation": str(rotation.id),
        "purpose": rotation.purpose,
        "fromVersion": rotation.from_version,
        "toVersion": rotation.to_version,
        "at": counted.at.isoformat(),
        "wrapped": {place: dict(by_version) for place, by_version in counted.counts.items()},
    }
