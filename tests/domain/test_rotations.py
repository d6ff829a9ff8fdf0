"""Which key is due, by age or by use; and what `coffer keys verify` finds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from crypto.cache import KeyringCache
from domain import customers, key_checks, rotations
from domain.errors import CoverageTooLarge
from domain.rotations import AGES, find_due, turn_due
from tenants.audit.chains import AuditChains
from tenants.audit.store import CheckpointStore
from tenants.errors import RotationRefused, RotationUnknown
from tenants.ids import new_id
from tenants.keys import rotating
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import TenantId
from tests.house import House

KEK, DEK, BIK = KeyPurpose
DAY = timedelta(days=1)


@dataclass
class Scene:
    house: House
    superuser: asyncpg.Connection
    tenant: TenantId

    @asynccontextmanager
    async def unit(self, later: timedelta = timedelta(), *, write: bool = True) -> AsyncIterator[Unit]:
        api = self.house.api
        units = Units(api.database, api.keys, KeyringCache(ttl=60), now=lambda: datetime.now(UTC) + later)
        async with units.enter(self.tenant, None, write=write) as unit:
            yield unit

    async def due(self, later: timedelta) -> tuple[KeyPurpose, Cause] | None:
        async with self.unit(later, write=False) as unit:
            return await find_due(unit)

    async def turn(self, later: timedelta) -> UUID | None:
        async with self.unit(later) as unit:
            return await turn_due(unit)

    async def end(self, rotation: UUID, state: str) -> None:
        async with self.unit() as unit:
            await rotating.move(unit, rotation, state, ended=True)

    async def job_of(self, rotation: UUID) -> UUID | None:
        async with self.unit(write=False) as unit:
            return (await rotating.find(unit, rotation)).job_id

    async def faults(self) -> list[str]:
        public_keys = await self.house.api.keys.public_keys(rotating.SIGNED_BY)
        async with self.unit(write=False) as unit:
            return await key_checks.faults(unit, public_keys)

    async def execute(self, statement: str, *arguments: object) -> None:
        await self.superuser.execute(statement, self.tenant, *arguments)


@pytest.fixture
async def scene(house: House) -> AsyncIterator[Scene]:
    made = await house.provisioning.provision(f"due-{new_id().hex[:12]}", "Due")
    superuser = await asyncpg.connect(house.superuser_url)
    yield Scene(house, superuser, TenantId(made.id))
    await superuser.close()


async def test_the_first_key_is_due_at_90_days_and_none_before(scene: Scene) -> None:
    assert await scene.due(AGES[KEK] - DAY) is None
    assert await scene.due(AGES[KEK] + DAY) == (KEK, Cause.AGE)


async def test_one_key_is_turned_over_at_a_time(scene: Scene) -> None:
    first = await scene.turn(AGES[BIK] + DAY)
    assert first is not None
    assert await scene.turn(AGES[BIK] + DAY) is None

    async with scene.unit(write=False) as unit:
        (running,) = await rotations.every_open(unit)
    assert (running.id, running.purpose, running.cause) == (first, "KEK", "AGE")


async def test_a_key_that_was_turned_over_is_not_due_again_for_its_age(scene: Scene) -> None:
    rotation = await scene.turn(AGES[KEK] + DAY)
    assert rotation is not None
    await scene.end(rotation, "RAISED")

    assert await scene.due(2 * AGES[KEK]) is None
    assert await scene.due(2 * AGES[KEK] + 2 * DAY) == (KEK, Cause.AGE)


@pytest.mark.parametrize("state", ["PARKED", "CANCELLED"])
async def test_the_night_takes_up_what_stands_still(scene: Scene, state: str) -> None:
    rotation = await scene.turn(AGES[KEK] + DAY)
    assert rotation is not None
    job = await scene.job_of(rotation)
    await scene.execute("UPDATE jobs SET state = $2, ended_at = now() WHERE tenant_id = $1 AND id = $3", state, job)

    assert await scene.turn(timedelta()) == rotation

    assert await scene.job_of(rotation) not in (None, job)


async def test_a_data_key_that_saw_too_many_acts_is_due(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    api = scene.house.api
    for n in range(3):
        async with scene.unit() as unit:
            await customers.create_many(unit, [{"given_name": f"Person {n}"}])
    chains = AuditChains(api.units, api.keys, CheckpointStore(api.settings.audit_store))
    while (await chains.link(scene.tenant)).count:
        pass
    async with scene.unit(write=False) as unit:
        acts = await rotations.acts_since(unit, datetime(2020, 1, 1, tzinfo=UTC))
        assert await rotations.acts_since(unit, unit.now) == 0
    assert acts >= 3

    monkeypatch.setattr(rotations, "MOST_ACTS", acts + 1)
    assert await scene.due(timedelta()) is None
    monkeypatch.setattr(rotations, "MOST_ACTS", acts)
    assert await scene.due(timedelta()) == (DEK, Cause.USE)


async def test_versions_of_data_keys_are_counted_up(scene: Scene) -> None:
    async with scene.unit() as unit:
        begun = [await rotating.find(unit, await rotating.begin(unit, each, Cause.ASKED)) for each in (DEK, BIK)]
    assert [(each.from_version, each.to_version, each.state) for each in begun] == [(1, 2, "BEGUN")] * 2


async def test_another_tenants_rotation_is_not_there(scene: Scene) -> None:
    async with scene.house.api.units.enter(scene.house.tenants["acme"].id, None, write=True) as unit:
        other = await rotating.begin(unit, BIK, Cause.ASKED)
    async with scene.unit() as unit:
        with pytest.raises(RotationUnknown):
            await rotating.find(unit, other)
        with pytest.raises(RotationUnknown):
            await rotating.move(unit, other, "COMMITTED")


async def test_moving_to_the_same_state_is_entered_once(scene: Scene) -> None:
    async with scene.unit() as unit:
        rotation = await rotating.begin(unit, BIK, Cause.ASKED)
        for _ in range(2):
            await rotating.move(unit, rotation, "SWITCHED")
        assert (unit.pending("key.rotation.moved"), unit.pending("key.rotated")) == (1, 1)


async def test_coverage_of_too_many_customers_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene.unit() as unit:
        await customers.create_many(unit, [{"given_name": "Ada"}, {"given_name": "Eve"}])
    async with scene.unit(write=False) as unit:
        assert {each.version for each in await rotations.coverage(unit)} == {1}
        monkeypatch.setattr(rotations, "MOST_COVERED", 1)
        with pytest.raises(CoverageTooLarge):
            await rotations.coverage(unit)


async def test_a_tenant_as_it_was_made_has_no_fault(scene: Scene) -> None:
    assert await scene.faults() == []


async def test_a_proof_without_a_right_signature_is_a_fault(scene: Scene) -> None:
    rotation = await scene.turn(AGES[KEK] + DAY)
    assert rotation is not None
    await scene.end(rotation, "VERIFIED")
    assert await scene.faults() == [f"The proof of rotation {rotation} is not as it was signed."]

    async with scene.unit(write=False) as unit:
        proof = rotating.proof_head(await rotating.find(unit, rotation))
    message = rotating.proof_message(scene.tenant, proof)
    signed = await scene.house.api.keys.sign(rotating.SIGNED_BY, message)
    async with scene.unit() as unit:
        await rotating.move(unit, rotation, "VERIFIED", proof=proof, signed=signed)
    assert await scene.faults() == []

    await scene.execute("UPDATE rotations SET proof = '{\"rotation\": 1.5}' WHERE tenant_id = $1")
    assert len(await scene.faults()) == 1


async def test_a_key_wrapped_below_the_floor_is_a_fault(scene: Scene) -> None:
    rotation = await scene.turn(AGES[KEK] + DAY)
    await scene.execute("UPDATE rotations SET state = 'RAISED', to_version = 2 WHERE tenant_id = $1")

    assert rotation is not None
    (fault,) = await scene.faults()
    assert fault.startswith("data_keys.wrapped holds 3 keys wrapped by version 1")


async def test_a_value_under_a_key_that_is_gone_is_a_fault(scene: Scene) -> None:
    async with scene.unit() as unit:
        await customers.create_many(unit, [{"given_name": "Ada"}])
    await scene.execute("UPDATE data_keys SET version = 7 WHERE tenant_id = $1 AND purpose = 'DEK'")

    faults = await scene.faults()

    assert any(fault.startswith("customers.profile holds 1 values sealed under version 1,") for fault in faults)


async def signed(scene: Scene, proof: dict[str, object]) -> tuple[int, bytes]:
    return await scene.house.api.keys.sign(rotating.SIGNED_BY, rotating.proof_message(scene.tenant, proof))


@pytest.mark.parametrize("name", ["rotation", "purpose", "fromVersion", "toVersion"])
async def test_a_signed_proof_that_says_something_else_is_a_fault(scene: Scene, name: str) -> None:
    async with scene.unit() as unit:
        rotation = await rotating.begin(unit, DEK, Cause.ASKED)
        proof = rotating.proof_head(await rotating.find(unit, rotation))
        await rotating.move(unit, rotation, "RETIRED", proof=proof, signed=await signed(scene, proof), ended=True)
    assert await scene.faults() == []
    other = {"rotation": str(new_id()), "purpose": "BIK", "fromVersion": 7, "toVersion": 8}
    proof |= {name: other[name]}
    async with scene.unit() as unit:
        await rotating.move(unit, rotation, "RETIRED", proof=proof, signed=await signed(scene, proof))
    assert await scene.faults() == [f"The proof of rotation {rotation} is not as it was signed."]


async def test_two_proofs_that_were_swapped_are_faults(scene: Scene) -> None:
    made = []
    for purpose in (DEK, BIK):
        async with scene.unit() as unit:
            rotation = await rotating.begin(unit, purpose, Cause.ASKED)
            proof = rotating.proof_head(await rotating.find(unit, rotation))
            await rotating.move(unit, rotation, "DONE", proof=proof, signed=await signed(scene, proof), ended=True)
            made.append(rotation)
    swapped = (
        "UPDATE rotations r SET proof = o.proof, key_version = o.key_version, signature = o.signature FROM rotations o"
        " WHERE r.tenant_id = $1 AND o.tenant_id = $1 AND o.id <> r.id"
    )
    assert await scene.faults() == []
    await scene.execute(swapped)
    assert len(await scene.faults()) == 2


async def test_what_stands_still_keeps_no_other_key_from_being_turned_over(scene: Scene) -> None:
    first = await scene.turn(AGES[BIK] + DAY)
    await scene.execute("UPDATE jobs SET state = 'PARKED', ended_at = now() WHERE tenant_id = $1")
    second = await scene.turn(AGES[BIK] + DAY)
    async with scene.unit(write=False) as unit:
        assert {each.id: each.purpose for each in await rotations.every_open(unit)} == {first: "KEK", second: "DEK"}


async def test_what_waits_for_days_keeps_no_other_key_from_being_turned_over(scene: Scene) -> None:
    first = await scene.turn(AGES[BIK] + DAY)
    assert await scene.turn(AGES[BIK] + DAY) is None
    assert await scene.turn(AGES[BIK] + DAY + rotations.STUCK_AFTER) not in (None, first)


async def test_a_rotation_that_is_begun_and_has_no_job_can_be_abandoned(scene: Scene) -> None:
    async with scene.unit() as unit:
        rotation = await rotating.begin(unit, DEK, Cause.ASKED)
    async with scene.unit() as unit:
        with pytest.raises(RotationRefused):  # its job waits
            await rotating.abandon(unit, DEK)
        with pytest.raises(RotationUnknown):
            await rotating.abandon(unit, BIK)
    await scene.execute("UPDATE jobs SET state = 'PARKED', ended_at = now() WHERE tenant_id = $1")
    async with scene.unit() as unit:
        assert await rotating.abandon(unit, DEK) == rotation
    async with scene.unit() as unit:
        assert (await rotating.find(unit, rotation)).state == rotating.ABANDONED
        assert await rotating.begin(unit, DEK, Cause.ASKED) != rotation
    assert await scene.faults() == []


async def test_a_rotation_that_is_further_on_can_not_be_abandoned(scene: Scene) -> None:
    async with scene.unit() as unit:
        rotation = await rotating.begin(unit, DEK, Cause.ASKED)
        await rotating.move(unit, rotation, "COMMITTED")
    await scene.execute("UPDATE jobs SET state = 'PARKED', ended_at = now() WHERE tenant_id = $1")
    async with scene.unit() as unit:
        with pytest.raises(RotationRefused):
            await rotating.abandon(unit, DEK)
