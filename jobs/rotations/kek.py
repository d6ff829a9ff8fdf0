"""The job that turns over a tenant's key in the key store: a new version, all keys rewrapped under it, the old refused.

No secret changes and none is seen: the rotator can't decrypt, and readers go on with the keys they have open.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from crypto.errors import KeyRefused
from crypto.keys import WrappedKey, wrapping_context
from crypto.transit import TransitKeys, wrapped_version
from jobs.handling import Handler, Run
from jobs.throttle import throttle_of
from tenants import rewrapping, rotating
from tenants.errors import RewrapRefused, RotationUnavailable, RotationWaits
from tenants.rewrapping import Counts
from tenants.rotating import RotationArguments
from tenants.rotations import Rotation
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
        rotation = await turn.look()
        while not run.is_finished:
            rotation = await acts[rotation.state](rotation)

    return rotate_kek


@dataclass(frozen=True, slots=True)
class _Turn:
    """Each act takes the rotation as it stands, and gives it as it stands behind it."""

    run: Run[RotationArguments]
    keys: TransitKeys
    rotator: TransitKeys
    outside: WrappedOutside | None
    grace: timedelta

    async def look(self) -> Rotation:
        async with self.run.step() as step:
            rotation = await rotating.find(step.unit, self.run.arguments.rotation)
            if rotation.ended_at is None:
                step.move(cursor=None)
            else:
                step.finish()
            return rotation

    async def rotate(self, rotation: Rotation) -> Rotation:
        """What it was before is written down before, so that asking again makes no second version."""
        latest = (await self.rotator.versions(self.run.tenant)).latest
        if rotation.from_version == rotating.UNKNOWN:
            rotation = await self._moved(rotating.BEGUN, versions=(latest, latest + 1))
        if latest < rotation.from_version:
            raise KeyRefused("The key store is older than the database: it has forgotten a version of the key.")
        if latest == rotation.from_version:
            latest = await self.rotator.rotate(self.run.tenant)
        return await self._moved("ROTATED", versions=(rotation.from_version, latest))

    async def start_rewrapping(self, _rotation: Rotation) -> Rotation:
        return await self._moved("REWRAPPING")

    async def verify(self, rotation: Rotation) -> Rotation:
        await self._rewrap_all(rotation.to_version)
        counts, now = await self._counted(rotation.to_version)
        proof = _proof(rotation, counts, now)
        signed = await self.keys.sign(rotating.SIGNED_BY, rotating.proof_message(self.run.tenant, proof))
        async with self.run.step() as step:
            if await rewrapping.counts(step.unit) == counts:
                await rotating.move(step.unit, rotation.id, "VERIFIED", proof=proof, signed=signed)
            step.move(cursor=None)
            return await rotating.find(step.unit, rotation.id)

    async def raise_floor(self, rotation: Rotation) -> Rotation:
        """Never while anything inside or outside needs an older version: it could not be opened any more."""
        version = rotation.to_version
        await self._rewrap_all(version)
        counts, now = await self._counted(version)
        if now - rotation.moved_at < self.grace:
            raise RotationWaits
        await self.rotator.raise_floor(self.run.tenant, version)
        async with self.run.step() as step:
            await rotating.move(step.unit, rotation.id, "RAISED", ended=True)
            step.finish(result={"keys": sum(sum(each.values()) for each in counts.values())})
        return rotation

    async def _moved(self, state: str, *, versions: tuple[int, int] | None = None) -> Rotation:
        async with self.run.step() as step:
            await rotating.move(step.unit, self.run.arguments.rotation, state, versions=versions)
            step.move(cursor=None)
            return await rotating.find(step.unit, self.run.arguments.rotation)

    async def _rewrap_all(self, version: int) -> None:
        """What was made under an older version while this goes on is met again: see `_counted`."""
        await self._rewrap_data_keys(version)
        if self.outside is not None and await self._is_older_outside(self.outside, version):
            await self.outside.rewrap(self.run.tenant, self.rotator)
            if await self._is_older_outside(self.outside, version):
                raise RotationWaits

    async def _counted(self, version: int) -> tuple[Counts, datetime]:
        """As of now. Raises `RotationWaits` where something is older: the job then begins anew with that."""
        async with self.run.step() as step:
            step.move(cursor=None)
            counts = await rewrapping.counts(step.unit)
            now = step.unit.now
        if rewrapping.is_older(counts, version):
            raise RotationWaits
        return counts, now

    async def _rewrap_data_keys(self, version: int) -> None:
        """Those that are refused hold up no other; then raises `RewrapRefused`, and the audit log names them."""
        throttle, refused, page = throttle_of(self.run), list[WrappedKey](), await self._outdated(version)
        while page:
            with throttle.measured():
                refused += await self._rewrap(page, version)
            await throttle.rest()
            page = [] if len(page) < rewrapping.PAGE else await self._outdated(version, page[-1])
        if refused:
            async with self.run.step() as step:
                ids, named = [key.id for key in refused], {"table": "data_keys", "toVersion": version}
                code = RewrapRefused.code
                step.unit.audit("key.rewrap.refused", subject_type="DataKey", subjects=ids, outcome=code, details=named)
                step.move(cursor=None)
            raise RewrapRefused

    async def _rewrap(self, page: list[WrappedKey], version: int) -> list[WrappedKey]:
        """Those that could not be."""
        asked = [(key.wrapped, wrapping_context(key.tenant, key.id, key.purpose)) for key in page]
        rewrapped = await self.rotator.rewrap(self.run.tenant, asked)
        done = [
            (key, new)
            for key, new in zip(page, rewrapped, strict=True)
            if new is not None and wrapped_version(new) >= version
        ]
        async with self.run.step() as step:
            for key, new in done:
                await rewrapping.replace(step.unit, key, new)
            step.move(cursor=None, done=self.run.done + len(done))
        kept = {key.id for key, _ in done}
        return [key for key in page if key.id not in kept]

    async def _outdated(self, version: int, after: WrappedKey | None = None) -> list[WrappedKey]:
        async with self.run.step() as step:
            step.move(cursor=None)
            return await rewrapping.find_outdated(step.unit, version, None if after is None else after.id)

    async def _is_older_outside(self, outside: WrappedOutside, version: int) -> bool:
        """Backups' keys stand in the database, and in the key files: they are rewrapped with these."""
        oldest = await outside.oldest_kek_version(self.run.tenant)
        if oldest is not None and oldest < version:
            return True
        async with self.run.step() as step:
            step.move(cursor=None)
            return rewrapping.is_older(await rewrapping.counts(step.unit), version)


def _proof(rotation: Rotation, counts: Counts, now: datetime) -> dict[str, Any]:
    return {
        "rotation": str(rotation.id),
        "purpose": rotation.purpose,
        "fromVersion": rotation.from_version,
        "toVersion": rotation.to_version,
        "at": now.isoformat(),
        "wrapped": {place: dict(by_version) for place, by_version in counts.items()},
    }
