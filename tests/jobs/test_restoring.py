"""A restore brings back exactly what was backed up, all at once or not at all, and nothing that must stay gone."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from domain import customers, restored_pages
from domain.errors import Refused
from domain.restored_holds import Kept
from tenants import erasures
from tenants.access import Role
from tenants.backups import loading
from tenants.erasures import ErasureCause
from tenants.ids import new_id
from tenants.keys.rotations import KeyPurpose
from tenants.owned import TenantOwned
from tests.jobs.desk import Desk
from tests.jobs.restorations import Restorations, result
from tests.jobs.vaults import Vaults


@pytest.fixture
async def restorations(desk: Desk, tmp_path: Path) -> AsyncIterator[Restorations]:
    async with Vaults.opened(desk, tmp_path, f"r-{new_id().hex[-12:]}") as opened:
        yield Restorations(opened)


async def test_what_was_backed_up_comes_back_row_for_row(restorations: Restorations) -> None:
    ids = await restorations.fill(25)
    before = await restorations.picture(versions=False)
    backup = await restorations.vaults.back_up()
    await restorations.change(ids[:5], note="changed since", given_name="Grace")
    await restorations.fill(4)
    assert await restorations.picture(versions=False) != before

    job = await restorations.restore(backup["id"])

    assert (job["state"], job["reason"]) == ("DONE", None)
    assert await restorations.picture(versions=False) == before
    assert await restorations.frozen() is None
    assert result(job)["customers.written"] == 25
    assert (await restorations.vaults.events())[-1] == "backup.restored"


async def test_after_all_keys_were_rotated_twice_it_is_the_same(restorations: Restorations) -> None:
    await restorations.fill(25)
    before = await restorations.picture()
    backup = await restorations.vaults.back_up()
    for _ in range(2):
        await restorations.rotate(KeyPurpose.DEK)
        await restorations.rotate(KeyPurpose.BIK)
    await restorations.superuser.execute("DELETE FROM customers WHERE tenant_id = $1", restorations.vaults.tenant)

    job = await restorations.restore(backup["id"])

    assert (job["state"], job["reason"]) == ("DONE", None)
    assert await restorations.picture() == before
    query = "SELECT DISTINCT encode(substring(profile FROM 3 FOR 4), 'hex') FROM customers WHERE tenant_id = $1"
    assert await restorations.superuser.fetchval(query, restorations.vaults.tenant) == "00000003"


async def test_a_dry_run_counts_what_would_change_and_changes_nothing(restorations: Restorations) -> None:
    ids = await restorations.fill(10)
    backup = await restorations.vaults.back_up()
    await restorations.rotate(KeyPurpose.DEK)
    await restorations.change(ids[:3], note="changed since")
    await restorations.fill(2)
    await restorations.superuser.execute("DELETE FROM customers WHERE id = ANY($1)", ids[8:])
    before = await restorations.picture()

    job = await restorations.restore(backup["id"], dry_run=True)

    assert (job["state"], job["reason"]) == ("DONE", None)
    counts = {name: count for name, count in result(job).items() if name.startswith("customers.")}
    assert counts == {"customers.added": 2, "customers.changed": 3, "customers.same": 5, "customers.removed": 2}
    assert await restorations.picture() == before


async def test_an_erased_customer_does_not_come_back(restorations: Restorations) -> None:
    ids = await restorations.fill(6)
    backup = await restorations.vaults.back_up()
    await _erase(restorations, ids[1])
    await restorations.vaults.depot.key_files.publish(restorations.vaults.tenant)

    job = await restorations.restore(backup["id"])

    assert (job["state"], job["reason"]) == ("DONE", None)
    assert (result(job)["customers.written"], result(job)["customers.erased"]) == (5, 1)
    assert str(ids[1]) not in (await restorations.picture())["customers"]
    for table, column in {"subjects": "id", "customer_tokens": "customer_id", "customer_tags": "customer_id"}.items():
        query = f"SELECT count(*) FROM {table} WHERE {column} = $1"  # names of ours
        assert await restorations.superuser.fetchval(query, ids[1]) == 0


async def test_the_restored_backup_of_before_brings_all_back(restorations: Restorations) -> None:
    await restorations.fill(5)
    backup = await restorations.vaults.back_up()
    await restorations.fill(5)
    before = await restorations.picture()

    job = await restorations.restore(backup["id"])
    again = await restorations.restore(UUID(result(job)["safety"]), without_safety=True)

    assert (again["state"], again["reason"]) == ("DONE", None)
    assert await restorations.picture() == before


async def test_subjects_whose_secrets_were_lost_get_them_from_the_key_file(restorations: Restorations) -> None:
    ids = await restorations.fill(4)
    before = await restorations.picture()
    backup = await restorations.vaults.back_up()
    await restorations.superuser.execute("DELETE FROM customers WHERE id = ANY($1)", ids)
    await restorations.superuser.execute("DELETE FROM subjects WHERE id = ANY($1)", ids)

    job = await restorations.restore(backup["id"], without_safety=True)

    assert (job["state"], job["reason"], result(job)["subjects.written"]) == ("DONE", None, 4)
    assert await restorations.picture() == before


async def test_an_owner_who_is_gone_leaves_the_customer_to_nobody(restorations: Restorations) -> None:
    ids = await restorations.fill(3)
    vaults = restorations.vaults
    member = vaults.desk.house.members[vaults.slug][Role.AGENT].principal
    await restorations.superuser.execute("UPDATE customers SET owner_id = $1 WHERE id = $2", member, ids[0])
    backup = await vaults.back_up()
    await restorations.superuser.execute("UPDATE customers SET owner_id = NULL WHERE id = $1", ids[0])
    await restorations.superuser.execute("DELETE FROM members WHERE id = $1", member)

    job = await restorations.restore(backup["id"])

    assert (job["state"], result(job)["customers.cleared"]) == ("DONE", 1)
    assert await restorations.superuser.fetchval("SELECT owner_id FROM customers WHERE id = $1", ids[0]) is None


async def test_a_held_customer_that_the_backup_lacks_stays(restorations: Restorations) -> None:
    await restorations.fill(3)
    backup = await restorations.vaults.back_up()
    kept, gone = await restorations.fill(2)
    await restorations.hold(kept)

    job = await restorations.restore(backup["id"])

    assert job["state"] == "DONE", job["reason"]
    people = (await restorations.picture())["customers"]
    assert len(people) == 4
    assert (str(kept) in people, str(gone) in people) == (True, False)


async def test_a_held_customer_stays_exactly_as_it_is(restorations: Restorations) -> None:
    """Also where the backup has an older version of it, and with tags that the backup lacks."""
    ids = await restorations.fill(4)
    backup = await restorations.vaults.back_up()
    await restorations.change([ids[1]], note="evidence")
    _, late = await restorations.fill(2)
    for held in (ids[1], late):
        await restorations.hold(held)
    before = await restorations.picture()

    dry = await restorations.restore(backup["id"], dry_run=True)
    job = await restorations.restore(backup["id"], without_safety=True)

    assert (job["state"], job["reason"]) == ("DONE", None)
    after = await restorations.picture()
    assert set(after["customers"]) == {str(each) for each in (*ids, late)}
    for held in (ids[1], late):
        mine = [[row for row in seen["tagged"] + seen["clear"] if str(held) in row] for seen in (before, after)]
        assert (after["customers"][str(held)], mine[1]) == (before["customers"][str(held)], mine[0])
        assert len(mine[1]) == 2
    tried, done = result(dry), result(job)
    assert (tried["customers.held"], tried["customers.removed"], tried["customers.same"]) == (2, 1, 3)
    assert {name: done[name] for name in done if name.startswith("customers.")} == {
        "customers.held": 2,
        "customers.removed": 1,
        "customers.written": 3,
    }
    assert "tags.removed" not in tried and tried["tags.held"] == 2


async def test_what_was_not_changed_since_is_the_same_with_its_versions(restorations: Restorations) -> None:
    ids = await restorations.fill(6)
    await restorations.change(ids[:2], note="before the backup")
    before = await restorations.picture()
    backup = await restorations.vaults.back_up()
    await restorations.rotate(KeyPurpose.DEK)

    job = await restorations.restore(backup["id"])

    assert (job["state"], job["reason"]) == ("DONE", None)
    assert await restorations.picture() == before
    assert [name for name in result(job) if name.endswith(".removed")] == []


async def test_who_read_a_customer_before_it_was_replaced_can_not_change_the_restored_one(
    restorations: Restorations,
) -> None:
    ids = await restorations.fill(3)
    backup = await restorations.vaults.back_up()
    await restorations.change(ids[:2], note="read by somebody, whose version is 2")
    await restorations.change(ids[:1], note="version 3")

    await restorations.restore(backup["id"])

    assert [await restorations.version(each) for each in ids] == [4, 3, 1]
    async with restorations.units.enter(restorations.vaults.tenant, None, write=True) as unit:
        with pytest.raises(Refused) as refused:
            await customers.update(unit, ids[1], 2, {"note": "over what was restored"})
    assert refused.value.errors[0].code == "STALE_VERSION"
    again = await restorations.restore(backup["id"])
    assert [await restorations.version(each) for each in ids] == [4, 3, 1]
    dry = result(await restorations.restore(backup["id"], dry_run=True))
    assert (again["state"], dry["customers.same"]) == ("DONE", 3)


async def test_a_dry_run_and_the_restore_say_the_same_of_what_is_removed(restorations: Restorations) -> None:
    await restorations.fill(5)
    backup = await restorations.vaults.back_up()
    await restorations.fill(4)

    dry, job = [result(await restorations.restore(backup["id"], dry_run=each)) for each in (True, False)]

    removed = {"customers.removed": 4, "tags.removed": 1, "customer_tags.removed": 2}
    for said in (dry, job):
        assert {name: count for name, count in said.items() if name.endswith(".removed")} == removed


async def test_there_may_be_more_holds_than_a_statement_has_parameters(restorations: Restorations) -> None:
    many = Kept(frozenset(uuid4() for _ in range(40_000)))
    vaults = restorations.vaults
    async with restorations.units.enter(vaults.tenant, None, write=True, fences=True, thaws=True) as unit:
        assert set((await restored_pages.empty(unit, many)).values()) == {0}


async def _erase(restorations: Restorations, customer: UUID) -> None:
    async with restorations.units.enter(restorations.vaults.tenant, None, write=True) as unit:
        counts = await erasures.forget(unit, [customer])
        await erasures.enter(unit, customer, ErasureCause.REQUEST, None, counts)


async def test_nothing_but_data_comes_back(restorations: Restorations) -> None:
    """What was revoked, ended or taken away since stays so: those tables are as they were before the restore."""
    vaults = restorations.vaults
    await restorations.fill(3)
    member = vaults.desk.house.members[vaults.slug][Role.AGENT].principal
    backup = await vaults.back_up()
    await restorations.superuser.execute("DELETE FROM member_roles WHERE member_id = $1", member)
    await restorations.superuser.execute("UPDATE members SET status = 'DISABLED' WHERE id = $1", member)
    before = await _settings(restorations)

    assert (await restorations.restore(backup["id"]))["state"] == "DONE"

    assert await _settings(restorations) == before


async def _settings(restorations: Restorations) -> dict[str, list[str]]:
    """Whole, but what the restore's own backup adds to."""
    data = {target.name for target in loading.data_tables()}
    changing = {"audit_entries", "audit_links", "audit_heads", "events", "jobs", "backups", "key_files"}
    owned = {mapper.local_table.name for mapper in TenantOwned.registry.mappers}  # type: ignore[attr-defined]  # a Table
    kept = sorted(owned - data - changing - {"customer_tokens", "subjects", "audit_checkpoints"})
    assert {"members", "member_roles", "api_keys", "member_sessions", "refresh_tokens", "data_keys", "roles"} <= {*kept}
    rows = {}
    for table in kept:
        query = f"SELECT to_jsonb(t)::text FROM {table} t WHERE tenant_id = $1 ORDER BY 1"  # names of ours
        rows[table] = [row[0] for row in await restorations.superuser.fetch(query, restorations.vaults.tenant)]
    return rows
