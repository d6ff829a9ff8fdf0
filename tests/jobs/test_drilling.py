"""A drill restores into nothing, and says of a backup whether it could be restored."""

import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from domain import invitations
from jobs.key_files.reading import KeyFile
from jobs.restoring.moving import move
from jobs.restoring.secrets import Secrets
from jobs.restoring.seen import Known, Seen
from tenants.access import Role
from tenants.backups import loading
from tenants.backups.loading import Reference
from tenants.errors import Unrestorable
from tenants.ids import any_local_id, new_id
from tests.jobs.desk import Desk
from tests.jobs.restorations import Restorations, result
from tests.jobs.vaults import Vaults


@pytest.fixture
async def restorations(desk: Desk, tmp_path: Path) -> AsyncIterator[Restorations]:
    async with Vaults.opened(desk, tmp_path, f"d-{new_id().hex[-12:]}") as opened:
        yield Restorations(opened)


async def test_the_newest_backup_is_drilled_and_nothing_changes(restorations: Restorations) -> None:
    await restorations.fill(8)
    first, second = [await restorations.vaults.back_up() for _ in range(2)]
    before = await restorations.picture()

    job = await restorations.drill()

    assert (job["state"], job["reason"]) == ("DONE", None)
    assert (result(job)["customers.read"], result(job)["customers.opened"]) == (8, 32)
    assert result(job)["customers.tokens"] >= 8 * 6
    outcomes = [(row["id"], row["drill_outcome"]) for row in await restorations.vaults.rows()]
    assert outcomes == [(first["id"], None), (second["id"], "OK")]
    assert await restorations.picture() == before


async def test_a_backup_that_could_not_be_restored_is_told_of(restorations: Restorations) -> None:
    await restorations.fill(8)
    backup = await restorations.vaults.back_up()
    for number in range(3):
        restorations.vaults.lose(number)

    job = await restorations.drill(backup["id"])

    assert (job["state"], job["reason"]) == ("PARKED", "BACKUP_BROKEN")
    assert (await restorations.vaults.row(backup["id"]))["drill_outcome"] == "BACKUP_BROKEN"
    assert (await restorations.vaults.events())[-1] == "backup.drill_failed"


async def test_a_key_file_that_is_replaced_while_it_is_read_is_no_fault(
    restorations: Restorations, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restorations.fill(2)
    await restorations.vaults.back_up()
    read, published = Secrets.of, list[int]()

    async def published_meanwhile(key_file: KeyFile) -> Secrets:
        if not published:
            published.append(await restorations.vaults.depot.key_files.publish(restorations.vaults.tenant))
        return await read(key_file)

    monkeypatch.setattr(Secrets, "of", published_meanwhile)
    job = await restorations.drill()

    assert (job["state"], job["reason"], len(published)) == ("DONE", None, 1)
    assert result(job)["customers.opened"] == 8


async def test_a_tenant_without_backups_has_nothing_to_drill(restorations: Restorations) -> None:
    job = await restorations.drill()
    assert (job["state"], result(job)) == ("DONE", {"backups": 0})


def test_a_row_that_refers_to_what_the_backup_lacks_is_found() -> None:
    targets = {target.name: target for target in loading.data_tables()}
    known = Known(list(targets.values()))
    customer, tag = str(uuid4()), str(uuid4())
    known.take(targets["customers"], [{"id": customer, "owner_id": None}])
    known.take(targets["tags"], [{"id": tag}])
    known.take(targets["customer_tags"], [{"customer_id": customer, "tag_id": tag}])
    with pytest.raises(Unrestorable):
        known.take(targets["customer_tags"], [{"customer_id": str(uuid4()), "tag_id": tag}])


def test_a_row_may_refer_to_another_of_its_own_table() -> None:
    tags = next(target for target in loading.data_tables() if target.name == "tags")
    chained = replace(tags)
    chained.__dict__["references"] = (Reference("tags", ("above",), ("id",), False),)
    known = Known([chained])
    ids = [str(uuid4()) for _ in range(300)]
    for page in (ids[:100], ids[100:200], ids[200:]):
        known.take(chained, [{"id": each, "above": None} for each in page])
    known.take(chained, [{"id": str(uuid4()), "above": each} for each in ids])
    with pytest.raises(Unrestorable):
        known.take(chained, [{"id": str(uuid4()), "above": str(uuid4())}])


def test_what_is_known_of_many_rows_takes_eight_bytes_of_each() -> None:
    count = 200_000
    seen = Seen()
    tracemalloc.start()
    for number in range(count):
        seen.add((number * 0x9E3779B97F4A7C15) % 2**64)
    found = sum(((number * 0x9E3779B97F4A7C15) % 2**64) in seen for number in range(0, count, 97))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found == len(range(0, count, 97))
    assert most < 14 * count


async def test_a_member_to_be_whose_invitation_was_called_off_keeps_nobody_from_restoring(
    restorations: Restorations,
) -> None:
    vaults = restorations.vaults
    house = vaults.desk.house
    await restorations.fill(2)
    asked = 'mutation { inviteMember(email: "gone@example.org", name: "G", roles: [AGENT]) { member { id } } }'
    invited = any_local_id((await house.data(asked, tenant=vaults.slug))["inviteMember"]["member"]["id"])
    assert invited is not None
    backup = await vaults.back_up()
    owner = house.members[vaults.slug][Role.OWNER].principal
    async with restorations.units.enter(vaults.tenant, owner, write=True) as unit:
        await invitations.cancel(unit, invited[1])
    await vaults.depot.key_files.publish(vaults.tenant)

    job = await restorations.drill(backup["id"])

    assert (job["state"], job["reason"], result(job)["members.erased"]) == ("DONE", None, 1)
    new = await house.provisioning.provision(f"n-{new_id().hex[-12:]}", "New")
    counts = (await move(vaults.depot, restorations.units, vaults.tenant, backup["id"], new.id)).said
    assert (counts["members.erased"], counts["customers.written"]) == (1, 2)
