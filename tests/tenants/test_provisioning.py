"""A tenant is made once with one key of each purpose, however many ask and wherever the making is cut off."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, NoReturn
from uuid import UUID, uuid4

import asyncpg
import pytest

from crypto.errors import KeyUnavailable
from crypto.keys import Purpose
from crypto.transit import TransitKeys
from tenants import tenants
from tenants.errors import SlugRefused, TenantNotReady
from tenants.provisioning import Provisioning
from tenants.viewers import TenantId
from tests.house import House
from tests.tenants.create_at_once import order

PROCESSES, EACH = 2, 25


@pytest.fixture
def slug() -> str:
    return f"made-{uuid4().hex[:12]}"


@pytest.fixture
async def maker(house: House) -> AsyncIterator[TransitKeys]:
    role = house.api.settings.provisioner_role
    assert role is not None
    made = TransitKeys(house.api.settings.vault_address, role.role_id, role.secret_id)
    yield made
    await made.close()


@pytest.fixture
async def opener(house: House) -> AsyncIterator[TransitKeys]:
    role = house.api.settings.api_role
    made = TransitKeys(house.api.settings.vault_address, role.role_id, role.secret_id)
    yield made
    await made.close()


async def keys_of(house: House, tenant: UUID) -> list[tuple[str, int, str]]:
    """Purpose, version and state of all data keys of the tenant."""
    connection = await asyncpg.connect(house.superuser_url)
    rows = await connection.fetch("SELECT purpose, version, state FROM data_keys WHERE tenant_id = $1", tenant)
    await connection.close()
    return sorted((row["purpose"], row["version"], row["state"]) for row in rows)


ONE_OF_EACH = sorted((purpose.value, 1, "ACTIVE") for purpose in Purpose)


async def test_fifty_who_create_a_tenant_at_once_get_one(house: House, slug: str) -> None:
    argument = order(house.api.settings, slug, EACH).dump()
    command = (sys.executable, "-m", "tests.tenants.create_at_once", argument)
    pipe = asyncio.subprocess.PIPE
    running = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(PROCESSES)]
    for process in running:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in running))
    made = [tuple(each) for out, _ in answers for each in json.loads(out)]
    assert len(made) == PROCESSES * EACH
    assert len(set(made)) == 1
    tenant = UUID(made[0][0])
    assert made[0][1] == "ACTIVE"
    assert await keys_of(house, tenant) == ONE_OF_EACH
    async with house.api.units.enter(TenantId(tenant), None, write=True) as unit:
        assert {unit.keyring.active_version(purpose) for purpose in (Purpose.DEK, Purpose.BIK)} == {1}


async def _cut(*_: Any, **__: Any) -> NoReturn:
    raise KeyUnavailable


@pytest.mark.parametrize("step", ["create_tenant_key", "make_data_key", "unwrap", "_check_in", "activate"])
async def test_a_provisioning_that_was_cut_off_is_finished_by_asking_again(
    house: House, maker: TransitKeys, opener: TransitKeys, slug: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioning = Provisioning(house.api.platform, house.api.database, maker, opener)
    doers = {"unwrap": opener, "_check_in": provisioning, "activate": tenants}
    with monkeypatch.context() as cutting:
        cutting.setattr(doers.get(step, maker), step, _cut)
        with pytest.raises(KeyUnavailable):
            await provisioning.provision(slug, "Cut off")
    pending = await tenants.get(house.api.platform, slug)
    assert pending.status == "PENDING"
    with pytest.raises(TenantNotReady):
        async with house.api.units.enter(pending.id, None, write=False):
            pass
    made = await provisioning.provision(slug, "Cut off")
    assert (made.id, made.status) == (pending.id, "ACTIVE")
    assert await keys_of(house, made.id) == ONE_OF_EACH
    async with house.api.units.enter(made.id, None, write=True) as unit:
        await unit.load_subjects([made.id])
        assert len(unit.subject_secret(made.id)) == 32


async def test_asking_for_a_tenant_that_is_there_makes_no_key(house: House, slug: str) -> None:
    first = await house.provisioning.provision(slug, "First")
    again = await house.provisioning.provision(slug, "Second")
    assert again == first
    assert await keys_of(house, first.id) == ONE_OF_EACH


@pytest.mark.parametrize("refused", ["", "a", "-ab", "ab-", "Ab", "a b", "a" * 41, "ä-ö", "a\n"])
async def test_a_slug_of_another_form_is_refused_and_makes_nothing(house: House, refused: str) -> None:
    with pytest.raises(SlugRefused):
        await house.provisioning.provision(refused, "Refused")
    assert await tenants.find(house.api.platform, refused) is None
