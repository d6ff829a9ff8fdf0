"""Turning over a tenant's key in the key store: cut off anywhere it ends, nothing is lost, the old key goes last."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from crypto.cache import KeyringCache
from crypto.errors import KeyRefused, KeyUnavailable
from crypto.keys import Purpose, wrapping_context
from crypto.transit import KeyVersions, TransitKeys, wrapped_version
from domain import customers
from domain.customers.fields import Profile
from jobs.backups.stores import Store
from jobs.handling import Handler, Run, Step
from jobs.key_files.files import KeyFiles
from jobs.rotations.kek import rotate_kek_by
from settings import AppRole
from tenants.errors import RotationWaits
from tenants.ids import new_id
from tenants.jobs import JobState
from tenants.keys import rewrapping, rotating
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import Cause, KeyPurpose, Rotation
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import TenantId
from tests.jobs.desk import Desk, until

KEK = KeyPurpose.KEK
NO_GRACE = timedelta()


class Dying(TransitKeys):
    """The rotator of a worker that is cut off: before or after the call of that number."""

    calls = 0
    dies_at: int | None = None
    dies_after = False

    async def _cut(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls != self.dies_at:
            return await call()
        if self.dies_after:
            await call()
        raise asyncio.CancelledError

    async def rotate(self, tenant: UUID) -> int:
        return int(await self._cut(lambda: super(Dying, self).rotate(tenant)))

    async def rewrap(self, tenant: UUID, wrapped: Any) -> list[str | None]:
        return list(await self._cut(lambda: super(Dying, self).rewrap(tenant, wrapped)))

    async def raise_floor(self, tenant: UUID, version: int) -> None:
        await self._cut(lambda: super(Dying, self).raise_floor(tenant, version))


@dataclass
class Outside:
    """What stands on stores that a test writes by hand."""

    version: int | None
    is_away: bool = False
    asked: list[TenantId] = field(default_factory=list)

    async def rewrap(self, tenant: TenantId, rotator: TransitKeys) -> None:
        self.asked.append(tenant)
        if self.is_away:
            raise KeyUnavailable
        self.version = (await rotator.versions(tenant)).latest

    async def oldest_kek_version(self, _tenant: TenantId) -> int | None:
        return self.version


@dataclass
class Scene:
    desk: Desk
    tenant: TenantId
    rotator: Dying

    def handler(self, outside: Outside | None = None, grace: timedelta = NO_GRACE) -> Handler:
        return rotate_kek_by(self.desk.house.api.keys, self.rotator, outside, grace)

    async def begin(self) -> tuple[UUID, UUID]:
        """The rotation and its job."""
        async with self.desk.units.enter(self.tenant, None, write=True) as unit:
            rotation = await rotating.begin(unit, KEK, Cause.ASKED)
            return rotation, (await rotating.find(unit, rotation)).job_id or rotation

    async def lead(self, job: UUID, handler: Handler | None = None) -> str:
        """The job's state after one try."""
        await self.desk.set(job, "due_at = now()")
        handling = self.desk.handling()
        handling._handlers = {ROTATE[KEK].name: (ROTATE[KEK], handler or self.handler())}
        try:
            assert await handling.handle(self.tenant, job)  # type: ignore[arg-type]  # its id
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()  # type: ignore[union-attr]  # there is one
        return str((await self.desk.job(job))["state"])

    async def rotation(self, rotation: UUID) -> Rotation:
        async with self.desk.units.enter(self.tenant, None, write=False) as unit:
            return await rotating.find(unit, rotation)

    async def rotate(self) -> Rotation:
        rotation, job = await self.begin()
        assert await self.lead(job) == JobState.DONE
        return await self.rotation(rotation)

    async def wrapped(self) -> dict[UUID, int]:
        rows = await self.desk.superuser.fetch(
            "SELECT id, wrapped FROM data_keys WHERE tenant_id = $1 AND wrapped <> ''", self.tenant
        )
        return {row["id"]: wrapped_version(row["wrapped"]) for row in rows}

    async def is_readable(self, customer: UUID) -> bool:
        """By a process that has no key open yet."""
        units = Units(self.desk.house.api.database, self.desk.house.api.keys, KeyringCache(ttl=60))
        async with units.enter(self.tenant, None, write=False) as unit:
            (view,) = await customers.get_many(unit, [customer])
            assert view is not None
            profile = view.document("profile", "to see that it opens")
            return isinstance(profile, Profile) and profile.given_name == "Ada"

    async def customer(self) -> UUID:
        async with self.desk.units.enter(self.tenant, None, write=True) as unit:
            made = (await customers.create_many(unit, [{"given_name": "Ada"}]))[0]
            assert isinstance(made, customers.CustomerView)
            return made.id

    async def add_key(self, state: str, *, breaks: bool = False) -> UUID:
        """A data key that serves nobody; where it `breaks`, it is wrapped for another id."""
        key, house = new_id(), self.desk.house
        context = wrapping_context(self.tenant, new_id() if breaks else key, Purpose.DEK)
        wrapped = await house.provisioning._maker.make_data_key(self.tenant, context)
        await self.desk.superuser.execute(
            "INSERT INTO data_keys (tenant_id, id, purpose, version, wrapped, check_value, state, created_at)"
            " SELECT $1, $2, 'DEK', max(version) + 1, $3, '\\x0000000000000000', $4, now() FROM data_keys"
            " WHERE tenant_id = $1 AND purpose = 'DEK'",
            self.tenant,
            key,
            wrapped,
            state,
        )
        return key

    async def audited(self, action: str) -> list[Any]:
        query = "SELECT * FROM audit_entries WHERE tenant_id = $1 AND action = $2 ORDER BY id"
        return list(await self.desk.superuser.fetch(query, self.tenant, action))


@pytest.fixture
async def scene(desk: Desk) -> AsyncIterator[Scene]:
    """A tenant of its own, whose keys may be changed."""
    made = await desk.house.provisioning.provision(f"turning-{new_id().hex[:12]}", "Turning")
    settings = desk.house.api.settings
    role = settings.rotator_role
    assert isinstance(role, AppRole)
    rotator = Dying(settings.vault_address, role.role_id, role.secret_id)
    yield Scene(desk, TenantId(made.id), rotator)
    await rotator.close()


async def test_all_keys_are_rewrapped_and_the_old_version_opens_nothing_any_more(scene: Scene) -> None:
    customer, retired = await scene.customer(), await scene.add_key("RETIRED")

    done = await scene.rotate()

    assert (done.state, done.from_version, done.to_version) == ("RAISED", 1, 2)
    assert done.ended_at is not None
    assert set((await scene.wrapped()).values()) == {2}
    assert retired in await scene.wrapped()
    assert await scene.rotator.versions(scene.tenant) == KeyVersions(latest=2, floor=2)
    assert await scene.is_readable(customer)


@pytest.mark.parametrize("page", [1, 2, 4])
async def test_keys_of_many_pages_are_all_rewrapped(scene: Scene, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrapping, "PAGE", page)
    await scene.add_key("RETIRED")

    done = await scene.rotate()

    assert list((await scene.wrapped()).values()) == [2] * 4
    assert done.proof["wrapped"]["data_keys.wrapped"] == {"2": 4}


async def test_readers_go_on_with_the_keys_they_have(scene: Scene) -> None:
    customer = await scene.customer()
    async with scene.desk.units.enter(scene.tenant, None, write=False) as unit:
        before = unit.tenant.key_epoch

    await scene.rotate()

    async with scene.desk.units.enter(scene.tenant, None, write=False) as unit:
        assert unit.tenant.key_epoch == before
        assert (await customers.get_many(unit, [customer]))[0] is not None


async def test_the_proof_is_signed_and_counts_every_wrapped_key(scene: Scene) -> None:
    done = await scene.rotate()

    keys = await scene.desk.house.api.keys.public_keys(rotating.SIGNED_BY)
    assert done.proof["wrapped"] == {"data_keys.wrapped": {"2": 3}, "backups.wrapped_key": {}}
    assert rotating.is_proven(done, keys)
    done.proof = done.proof | {"toVersion": 3}
    assert not rotating.is_proven(done, keys)


async def test_each_state_stands_in_the_audit_log_and_the_change_is_told(scene: Scene) -> None:
    done = await scene.rotate()

    moved = [entry["details"] for entry in await scene.audited("key.rotation.moved")]
    assert [state in each for state, each in zip(("ROTATED", "REWRAPPING", "VERIFIED", "RAISED"), moved, strict=True)]
    (begun,) = await scene.audited("key.rotation.begun")
    assert begun["subjects"] == [done.id]
    told = "SELECT count(*) FROM events WHERE tenant_id = $1 AND type = 'key.rotated' AND subject = $2"
    assert await scene.desk.superuser.fetchval(told, scene.tenant, done.id) == 1


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3])
async def test_cut_off_at_any_call_of_the_key_store_it_ends_and_makes_one_version(
    scene: Scene, call: int, is_after: bool
) -> None:
    customer = await scene.customer()
    rotation, job = await scene.begin()
    scene.rotator.dies_at, scene.rotator.dies_after = call, is_after
    assert await scene.lead(job) == JobState.READY

    assert await scene.lead(job) == JobState.DONE

    done = await scene.rotation(rotation)
    assert (done.state, done.to_version) == ("RAISED", 2)
    assert await scene.rotator.versions(scene.tenant) == KeyVersions(latest=2, floor=2)
    assert set((await scene.wrapped()).values()) == {2}
    assert await scene.is_readable(customer)


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 7))
async def test_cut_off_in_any_step_it_ends(
    scene: Scene, number: int, is_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after that step commits."""
    rotation, job = await scene.begin()
    seen, step = 0, Run.step

    @asynccontextmanager
    async def cut(run: Run[Any], **asked: bool) -> AsyncIterator[Step]:
        nonlocal seen
        seen += 1
        async with step(run, **asked) as taken:
            yield taken
            if seen == number and not is_after:
                raise asyncio.CancelledError
        if seen == number:
            raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(Run, "step", cut)
        first = await scene.lead(job)

    assert seen == number
    assert first == JobState.DONE or await scene.lead(job) == JobState.DONE
    assert (await scene.rotation(rotation)).state == "RAISED"
    assert await scene.rotator.versions(scene.tenant) == KeyVersions(latest=2, floor=2)
    assert set((await scene.wrapped()).values()) == {2}
    moved = [orjson.loads(entry["details"])["state"] for entry in await scene.audited("key.rotation.moved")]
    assert moved == ["ROTATED", "REWRAPPING", "VERIFIED", "RAISED"]


async def test_one_that_stands_at_rotated_goes_on_from_there(scene: Scene) -> None:
    rotation, job = await scene.begin()
    latest = await scene.rotator.rotate(scene.tenant)
    async with scene.desk.units.enter(scene.tenant, None, write=True) as unit:
        await rotating.move(unit, rotation, "ROTATED", versions=(latest - 1, latest))

    assert await scene.lead(job) == JobState.DONE

    assert (await scene.rotation(rotation)).state == "RAISED"
    assert await scene.rotator.versions(scene.tenant) == KeyVersions(latest=2, floor=2)


async def test_two_who_begin_at_once_begin_one(scene: Scene) -> None:
    begun = await asyncio.gather(*(scene.begin() for _ in range(5)))

    assert len(set(begun)) == 1
    assert len(await scene.audited("key.rotation.begun")) == 1


async def test_one_after_the_other_they_count_up(scene: Scene) -> None:
    customer = await scene.customer()
    versions = [(await scene.rotate()).to_version for _ in range(3)]

    assert versions == [2, 3, 4]
    assert await scene.is_readable(customer)


@pytest.mark.parametrize("page", [1, 2, 100])
async def test_a_key_that_is_refused_holds_up_no_other_and_is_named(
    scene: Scene, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "PAGE", page)
    broken = await scene.add_key("RETIRED", breaks=True)
    rotation, job = await scene.begin()

    assert await scene.lead(job) == JobState.PARKED

    assert (await scene.desk.job(job))["reason"] == "REWRAP_REFUSED"
    found = await scene.wrapped()
    assert found.pop(broken) == 1
    assert set(found.values()) == {2}
    assert (await scene.rotation(rotation)).state == "REWRAPPING"
    (entry,) = await scene.audited("key.rewrap.refused")
    assert (entry["subjects"], entry["outcome"]) == ([broken], "REWRAP_REFUSED")
    assert (await scene.rotator.versions(scene.tenant)).floor == 1


async def test_beginning_again_takes_up_one_that_was_parked(scene: Scene) -> None:
    broken = await scene.add_key("RETIRED", breaks=True)
    rotation, job = await scene.begin()
    await scene.lead(job)
    await scene.desk.superuser.execute("DELETE FROM data_keys WHERE id = $1", broken)

    again, next_job = await scene.begin()

    assert again == rotation
    assert next_job != job
    assert await scene.lead(next_job) == JobState.DONE
    assert (await scene.rotation(rotation)).state == "RAISED"


async def test_a_key_wrapped_by_the_old_version_while_it_goes_on_is_met_again(scene: Scene) -> None:
    """As by a worker that had asked the key store before, and was slow to write down what it got."""
    rotation, job = await scene.begin()
    late = await scene.add_key("RETIRED")
    await scene.desk.superuser.execute("CREATE TABLE late AS SELECT * FROM data_keys WHERE id = $1", late)
    await scene.desk.superuser.execute("DELETE FROM data_keys WHERE id = $1", late)
    assert await scene.lead(job, scene.handler(grace=timedelta(hours=1))) == JobState.READY
    assert (await scene.rotation(rotation)).state == "VERIFIED"
    await scene.desk.superuser.execute("INSERT INTO data_keys SELECT * FROM late; DROP TABLE late")

    assert await scene.lead(job) == JobState.DONE

    assert (await scene.wrapped())[late] == 2


async def test_the_floor_stays_until_the_time_of_grace_is_over(scene: Scene) -> None:
    rotation, job = await scene.begin()

    assert await scene.lead(job, scene.handler(grace=timedelta(minutes=5))) == JobState.READY

    assert (await scene.desk.job(job))["reason"] == RotationWaits.code
    assert (await scene.rotation(rotation)).state == "VERIFIED"
    assert (await scene.rotator.versions(scene.tenant)).floor == 1


async def test_it_comes_back_once_when_the_time_of_grace_is_over(scene: Scene) -> None:
    rotation, job = await scene.begin()

    await scene.lead(job, scene.handler(grace=timedelta(minutes=5)))

    moved, due = (await scene.rotation(rotation)).moved_at, (await scene.desk.job(job))["due_at"]
    assert timedelta(minutes=5) <= due - moved < timedelta(minutes=6)
    await scene.desk.superuser.execute(
        "UPDATE rotations SET moved_at = moved_at - interval '2 minutes' WHERE id = $1", rotation
    )
    await scene.lead(job, scene.handler(grace=timedelta(minutes=5)))
    due = (await scene.desk.job(job))["due_at"]
    assert timedelta(minutes=3) <= due - moved < timedelta(minutes=4)


async def test_who_has_lost_the_job_raises_no_floor(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    rotation, job = await scene.begin()
    assert await scene.lead(job, scene.handler(grace=timedelta(hours=1))) == JobState.READY
    counts = rewrapping.counts

    async def taken_by_another(unit: Unit) -> rewrapping.Counts:
        await scene.desk.set(job, "fence = fence + 1")
        return await counts(unit)

    monkeypatch.setattr(rewrapping, "counts", taken_by_another)
    assert await scene.lead(job) == JobState.RUNNING

    assert (await scene.rotation(rotation)).state == "VERIFIED"
    assert (await scene.rotator.versions(scene.tenant)).floor == 1


async def test_the_floor_stays_while_a_store_holds_an_older_key_file(scene: Scene) -> None:
    rotation, job = await scene.begin()
    outside = Outside(version=1, is_away=True)
    for _ in range(2):
        assert await scene.lead(job, scene.handler(outside)) == JobState.READY
        assert (await scene.rotation(rotation)).state == "REWRAPPING"
    assert (await scene.rotator.versions(scene.tenant)).floor == 1

    outside.is_away = False
    assert await scene.lead(job, scene.handler(outside)) == JobState.DONE

    assert (outside.version, outside.asked) == (2, [scene.tenant] * 3)
    assert (await scene.rotator.versions(scene.tenant)).floor == 2


async def test_key_files_on_every_store_are_written_anew_before_the_floor_is_raised(scene: Scene) -> None:
    settings, api = scene.desk.house.api.settings, scene.desk.house.api
    assert settings.backup_role is not None
    signer = TransitKeys(settings.vault_address, settings.backup_role.role_id, settings.backup_role.secret_id)
    files = KeyFiles(scene.desk.units, api.keys, signer, [Store(url) for url in settings.backup_stores])
    await files.publish(scene.tenant)
    assert await files.oldest_kek_version(scene.tenant) == 1
    rotation, job = await scene.begin()

    state = await scene.lead(job, rotate_kek_by(api.keys, scene.rotator, files, NO_GRACE))

    assert (state, (await scene.rotation(rotation)).state) == (JobState.DONE, "RAISED")
    assert await files.oldest_kek_version(scene.tenant) == 2
    assert (await scene.rotator.versions(scene.tenant)).floor == 2
    await signer.close()


async def test_the_floor_stays_when_an_older_key_file_comes_back_late(scene: Scene) -> None:
    rotation, job = await scene.begin()
    outside = Outside(version=None)
    assert await scene.lead(job, scene.handler(outside, timedelta(hours=1))) == JobState.READY
    outside.version, outside.is_away = 1, True

    assert await scene.lead(job, scene.handler(outside)) == JobState.READY

    assert (await scene.rotation(rotation)).state == "VERIFIED"
    assert (await scene.rotator.versions(scene.tenant)).floor == 1


async def test_a_key_that_was_destroyed_meanwhile_stays_destroyed(scene: Scene) -> None:
    key = await scene.add_key("RETIRED")
    _, job = await scene.begin()
    rewrap = scene.rotator.rewrap

    async def destroyed_meanwhile(tenant: UUID, wrapped: Any) -> list[str | None]:
        answer = await rewrap(tenant, wrapped)
        await scene.desk.superuser.execute("UPDATE data_keys SET wrapped = '', state = 'DESTROYED' WHERE id = $1", key)
        return answer

    scene.rotator.rewrap = destroyed_meanwhile  # type: ignore[method-assign]  # the moment in between
    assert await scene.lead(job) == JobState.DONE

    kept = "SELECT wrapped FROM data_keys WHERE id = $1"
    assert await scene.desk.superuser.fetchval(kept, key) == ""


async def test_a_key_store_that_forgot_a_version_parks_the_job(scene: Scene) -> None:
    rotation, job = await scene.begin()
    await scene.desk.superuser.execute(
        "UPDATE rotations SET from_version = 5, to_version = 6 WHERE tenant_id = $1", scene.tenant
    )

    assert await scene.lead(job) == JobState.PARKED

    assert (await scene.desk.job(job))["reason"] == KeyRefused.code
    assert (await scene.rotation(rotation)).state == rotating.BEGUN


async def test_whoever_asked_may_leave_while_it_goes_on(scene: Scene) -> None:
    _, job = await scene.begin()
    assert (await scene.desk.job(job))["principal"] is None


async def test_live_reads_and_writes_see_nothing_of_it(scene: Scene) -> None:
    made, is_over = list[UUID](), asyncio.Event()

    async def write() -> None:
        while not is_over.is_set():
            made.append(await scene.customer())
            assert await scene.is_readable(made[-1])

    async def has_begun() -> bool:
        return len(made) > 1

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        await until(has_begun)
        await scene.rotate()
        await scene.rotate()
        is_over.set()
    assert all([await scene.is_readable(customer) for customer in made])


def test_a_proof_has_one_form() -> None:
    tenant = UUID(int=1)
    assert rotating.proof_message(tenant, {"b": 1, "a": "x"}) == rotating.proof_message(tenant, {"a": "x", "b": 1})
    assert rotating.proof_message(tenant, {"a": 1}).endswith(b'{"a":1}')
    for odd in ({"a": 1.5}, {"a": ["ü"]}, {"a": [{"b": 0.0}]}):
        with pytest.raises(ValueError, match="ASCII"):
            rotating.proof_message(tenant, odd)
