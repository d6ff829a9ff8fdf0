"""A database that came back as it was is brought forward: keys, backups, erasures, generation; as often as asked."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from crypto.cache import KeyringCache
from crypto.errors import KeyRefused
from crypto.keys import Purpose
from jobs.backups.errors import StoreAway
from jobs.key_files.errors import KeyFileRefused, KeyFileUnknown, Refusal
from jobs.key_files.files import KeyFiles
from jobs.key_files.recovering import Recovered, Recovering
from tenants.errors import LedgerBroken, RecoveryRefused, TenantSuspended
from tenants.keys import rotating
from tenants.keys.rotations import Cause, KeyPurpose
from tenants.units import Units
from tests.jobs.key_files.cabinets import Cabinet, keys_of, only
from tests.jobs.turnovers import replace_keys, replace_wrapping

COPIED = ("data_keys", "key_files", "backups", "erasures", "subjects", "rotations")
KEYS = "SELECT id, purpose, version, state, wrapped FROM data_keys WHERE tenant_id = $1 AND purpose <> 'AUD'"


class Copy:
    """What Postgres had of the tenant at a moment, and will have again."""

    def __init__(self, cabinet: Cabinet, tables: dict[str, list[asyncpg.Record]]) -> None:
        self._cabinet = cabinet
        self._tables = tables

    @classmethod
    async def taken(cls, cabinet: Cabinet) -> "Copy":
        of_tenant = "SELECT * FROM {} WHERE tenant_id = $1"
        return cls(
            cabinet,
            {table: await cabinet.superuser.fetch(of_tenant.format(table), cabinet.tenant) for table in COPIED},
        )

    async def bring_back(self) -> None:
        connection, tenant = self._cabinet.superuser, self._cabinet.tenant
        async with connection.transaction():
            for table, found in self._tables.items():
                await connection.execute(f"DELETE FROM {table} WHERE tenant_id = $1", tenant)
                await connection.execute(
                    f"INSERT INTO {table} SELECT r.* FROM unnest($1::{table}[]) r", [tuple(row) for row in found]
                )


def afresh(cabinet: Cabinet, admits: Sequence[str] = ("ACTIVE",)) -> tuple[Units, KeyFiles]:
    """As another process, that has no keys open."""
    api = cabinet.house.api
    units = Units(api.database, api.keys, KeyringCache(ttl=60), admits=admits)
    return units, KeyFiles(units, api.keys, cabinet.backup_keys, cabinet.stores)


async def recover(cabinet: Cabinet, *, admits: Sequence[str] = ("ACTIVE",), **wishes: bool) -> Recovered:
    units, key_files = afresh(cabinet, admits)
    recovering = Recovering(units, cabinet.house.api.database, cabinet.house.api.keys, key_files)
    return await recovering.recover(cabinet.tenant, **wishes)


async def turn_wrapping(cabinet: Cabinet) -> None:
    rotator = keys_of(cabinet.house, cabinet.house.api.settings.rotator_role)
    await replace_wrapping(cabinet.house, cabinet.tenant, cabinet.superuser, cabinet.key_files, rotator)
    await rotator.close()


async def keys_in(cabinet: Cabinet) -> set[tuple[object, ...]]:
    """Id, purpose, version and state, and whether there is something to open."""
    rows = await cabinet.superuser.fetch(KEYS, cabinet.tenant)
    return {(row["id"], row["purpose"], row["version"], row["state"], row["wrapped"] != "") for row in rows}


async def test_who_was_erased_since_is_forgotten_again_and_only_once(cabinet: Cabinet) -> None:
    early, late, kept = await cabinet.add_subjects(3)
    await cabinet.erase(early)
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await cabinet.erase(late)
    await cabinet.publish()
    await copy.bring_back()

    done = await recover(cabinet)

    assert (done.found, done.generation, done.erased) == (2, 3, 1)
    assert {early, late} & set(await cabinet.secrets()) == set()
    assert kept in await cabinet.secrets()
    assert cabinet.names() == only(3)
    again = await recover(cabinet)
    assert (again.found, again.generation, again.erased, again.data_keys) == (3, 4, 0, 0)


async def test_keys_that_are_wrapped_below_the_floor_open_again(cabinet: Cabinet) -> None:
    """The copy of the database is from before a rotation of the tenant's key, the key store from after it."""
    backup, key = await cabinet.add_backup(1)
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await turn_wrapping(cabinet)
    await copy.bring_back()
    units, _ = afresh(cabinet)
    with pytest.raises(KeyRefused):
        async with units.enter(cabinet.tenant, None, write=False):
            pass

    done = await recover(cabinet)

    assert (done.data_keys, done.found, done.generation) == (3, 2, 3)
    units, key_files = afresh(cabinet)
    file = await key_files.read(cabinet.tenant)
    assert file.statement.kek_versions == {2}
    assert await file.backup_key(backup) == key


async def test_keys_that_were_destroyed_since_keep_nobody_out(cabinet: Cabinet) -> None:
    """Every key of the copy is wrapped below the floor, and the key file has others."""
    early, _ = await cabinet.add_backup(1)
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await replace_keys(cabinet.house, cabinet.tenant, cabinet.superuser)
    late, _ = await cabinet.add_backup(2, dek_versions=(2,))
    await cabinet.superuser.execute("UPDATE backups SET state = 'EXPIRED', wrapped_key = '' WHERE id = $1", early)
    await turn_wrapping(cabinet)
    before = await keys_in(cabinet)
    await copy.bring_back()

    done = await recover(cabinet)

    assert done.lost_keys == ["BIK 1", "DEK 1"]
    assert (done.lost, done.restore) == ([late], None)  # this one has no manifest
    assert await keys_in(cabinet) == before
    units, key_files = afresh(cabinet)
    async with units.enter(cabinet.tenant, None, write=True) as unit:
        assert unit.keyring.active_version(Purpose.DEK) == 2
    file = await key_files.read(cabinet.tenant)
    assert {(each.purpose.value, each.version) for each in file.data_keys} == {("AUD", 1), ("BIK", 2), ("DEK", 2)}
    again = await recover(cabinet)
    assert (again.data_keys, again.lost_keys) == (0, [])


async def test_a_key_store_that_is_older_than_the_copy_destroys_nothing(cabinet: Cabinet) -> None:
    """A newer snapshot of it may open the key."""
    await cabinet.publish()
    await replace_keys(cabinet.house, cabinet.tenant, cabinet.superuser)
    unheard = "UPDATE data_keys SET wrapped = 'vault:v7:' || substr(wrapped, 10) WHERE tenant_id = $1 AND version = 2"
    await cabinet.superuser.execute(unheard, cabinet.tenant)
    before = await keys_in(cabinet)

    with pytest.raises(KeyRefused, match="snapshot too old"):
        await recover(cabinet)

    assert await keys_in(cabinet) == before


async def test_stores_that_are_older_than_the_database_change_nothing(cabinet: Cabinet) -> None:
    """Neither a good backup's key nor a destroyed data key: the file is refused before anything is taken from it."""
    await cabinet.publish()
    old = cabinet.path(0, 1).read_bytes()
    backup, _ = await cabinet.add_backup(1)
    await replace_keys(cabinet.house, cabinet.tenant, cabinet.superuser)
    await cabinet.publish()
    for number in range(6):
        cabinet.path(number, 1).write_bytes(old)
        cabinet.path(number, 2).unlink()
    before = await keys_in(cabinet)

    with pytest.raises(KeyFileRefused) as refused:
        await recover(cabinet)

    assert refused.value.why is Refusal.OLD
    done = await recover(cabinet, needs_file=False)
    assert (done.found, done.generation) == (None, 3)
    assert await keys_in(cabinet) == before
    assert [each.id for each in (await cabinet.key_files.read(cabinet.tenant)).backups] == [backup]


async def test_a_rotation_that_was_open_in_the_copy_ends_and_another_can_begin(cabinet: Cabinet) -> None:
    """Its versions may have been taken since: neither purpose is stuck for ever."""
    units, _ = afresh(cabinet)
    begun = []
    for purpose in (KeyPurpose.DEK, KeyPurpose.BIK):
        async with units.enter(cabinet.tenant, None, write=True) as unit:
            begun.append(await rotating.begin(unit, purpose, Cause.ASKED))
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await replace_keys(cabinet.house, cabinet.tenant, cabinet.superuser)
    await cabinet.publish()
    await copy.bring_back()

    done = await recover(cabinet)

    assert done.ended.rotations == 2
    states = {key[1:3]: key[3] for key in await keys_in(cabinet)}
    assert states[("DEK", 2)] == "RETIRED"  # it opens backups
    assert states[("BIK", 2)] == "DESTROYED"  # nothing has its tokens
    jobs = "SELECT DISTINCT state FROM jobs WHERE tenant_id = $1 AND kind LIKE 'rotate_%'"
    assert [row["state"] for row in await cabinet.superuser.fetch(jobs, cabinet.tenant)] == ["CANCELLED"]
    units, _ = afresh(cabinet)
    for purpose in (KeyPurpose.DEK, KeyPurpose.BIK):
        async with units.enter(cabinet.tenant, None, write=True) as unit:
            anew = await rotating.find(unit, await rotating.begin(unit, purpose, Cause.ASKED))
            assert anew.id not in begun
            assert (anew.from_version, anew.to_version) == (1, 3)


async def test_a_key_that_waited_in_the_copy_is_no_next_one_any_more(cabinet: Cabinet) -> None:
    await cabinet.publish()
    mine = await cabinet.superuser.fetch(KEYS, cabinet.tenant)
    await replace_keys(cabinet.house, cabinet.tenant, cabinet.superuser)
    waits = "UPDATE data_keys SET state = 'NEXT' WHERE tenant_id = $1 AND version = 2"
    await cabinet.superuser.execute(waits, cabinet.tenant)
    serves = "UPDATE data_keys SET state = 'ACTIVE', wrapped = $1 WHERE id = $2"
    for row in mine:
        await cabinet.superuser.execute(serves, row["wrapped"], row["id"])

    await recover(cabinet)

    states = {key[1:3]: key[3] for key in await keys_in(cabinet)}
    assert (states[("DEK", 2)], states[("BIK", 2)]) == ("RETIRED", "DESTROYED")
    assert (states[("DEK", 1)], states[("BIK", 1)]) == ("ACTIVE", "ACTIVE")


async def test_another_data_key_of_the_same_version_is_told_and_nothing_is_changed(cabinet: Cabinet) -> None:
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await replace_keys(cabinet.house, cabinet.tenant, cabinet.superuser)
    await cabinet.publish()
    await copy.bring_back()
    await replace_keys(cabinet.house, cabinet.tenant, cabinet.superuser)  # made anew by who went on without recovering
    before = await keys_in(cabinet)

    with pytest.raises(RecoveryRefused, match="another DEK of version 2"):
        await recover(cabinet)

    assert await keys_in(cabinet) == before


async def test_a_tenant_that_is_suspended_is_brought_forward_and_stays_so(cabinet: Cabinet) -> None:
    (erased,) = await cabinet.add_subjects(1)
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await cabinet.erase(erased)
    await cabinet.publish()
    await copy.bring_back()
    await cabinet.superuser.execute("UPDATE tenants SET status = 'SUSPENDED' WHERE id = $1", cabinet.tenant)
    with pytest.raises(TenantSuspended):
        await recover(cabinet)

    assert (await recover(cabinet, admits=("ACTIVE", "SUSPENDED"))).erased == 1

    status = await cabinet.superuser.fetchval("SELECT status FROM tenants WHERE id = $1", cabinet.tenant)
    assert status == "SUSPENDED"


async def test_backups_that_have_expired_since_have_no_key_again(cabinet: Cabinet) -> None:
    backup, _ = await cabinet.add_backup(1)
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await cabinet.superuser.execute("UPDATE backups SET state = 'EXPIRED', wrapped_key = '' WHERE id = $1", backup)
    await cabinet.publish()
    await copy.bring_back()

    await recover(cabinet)

    row = await cabinet.superuser.fetchrow("SELECT state, wrapped_key FROM backups WHERE id = $1", backup)
    assert row is not None
    assert tuple(row) == ("EXPIRED", "")
    assert (await cabinet.key_files.read(cabinet.tenant)).backups == ()


async def test_a_backup_that_no_store_has_a_manifest_of_is_told(cabinet: Cabinet) -> None:
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    backup, _ = await cabinet.add_backup(1)
    await cabinet.publish()
    await copy.bring_back()

    done = await recover(cabinet)

    assert (done.lost, done.backups) == ([backup], [])


async def test_a_data_key_that_only_backups_need_comes_back_retired(cabinet: Cabinet) -> None:
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await cabinet.superuser.execute(
        "INSERT INTO data_keys SELECT tenant_id, gen_random_uuid(), purpose, 2, wrapped, check_value,"
        " 'DECRYPT_ONLY', now() FROM data_keys WHERE tenant_id = $1 AND purpose = 'DEK'",
        cabinet.tenant,
    )
    await cabinet.publish()
    await copy.bring_back()

    assert (await recover(cabinet)).data_keys == 1

    states = await cabinet.superuser.fetch(
        "SELECT version, state FROM data_keys WHERE tenant_id = $1 AND purpose = 'DEK' ORDER BY version", cabinet.tenant
    )
    assert [tuple(row) for row in states] == [(1, "ACTIVE"), (2, "RETIRED")]


async def test_two_ledgers_that_parted_are_not_made_one(cabinet: Cabinet) -> None:
    one, other = await cabinet.add_subjects(2)
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await cabinet.erase(one)
    await cabinet.publish()
    await copy.bring_back()
    await cabinet.erase(other)

    with pytest.raises(LedgerBroken):
        await recover(cabinet)

    assert cabinet.names() == only(2)


async def test_while_a_store_is_away_nothing_is_brought_forward(cabinet: Cabinet) -> None:
    (erased,) = await cabinet.add_subjects(1)
    await cabinet.publish()
    copy = await Copy.taken(cabinet)
    await cabinet.erase(erased)
    await cabinet.publish()
    await copy.bring_back()
    cabinet.unmount(3)

    with pytest.raises(StoreAway):
        await recover(cabinet)

    cabinet.mount(3)
    with pytest.raises(KeyFileRefused):
        await cabinet.key_files.read(cabinet.tenant)
    assert (await recover(cabinet)).erased == 1


async def test_a_tenant_whose_stores_have_nothing_is_not_brought_back_unasked(cabinet: Cabinet) -> None:
    """It may have left: its key files were deleted then."""
    await cabinet.publish()
    for number in range(6):
        cabinet.path(number, 1).unlink()

    with pytest.raises(KeyFileUnknown):
        await recover(cabinet)

    assert cabinet.names() == [set()] * 6
    done = await recover(cabinet, needs_file=False)
    assert (done.found, done.generation) == (None, 2)


@pytest.mark.parametrize("kept", [False, True])
async def test_api_keys_and_links_of_letters_end_unless_they_may_be_kept(cabinet: Cabinet, kept: bool) -> None:
    member: UUID = await cabinet.superuser.fetchval(
        "INSERT INTO members (tenant_id, id, status, created_at) VALUES ($1, gen_random_uuid(), 'ACTIVE', now())"
        " RETURNING id",
        cabinet.tenant,
    )
    await cabinet.superuser.execute(
        "INSERT INTO api_keys (tenant_id, id, member_id, hash, prefix, created_at)"
        " VALUES ($1, gen_random_uuid(), $2, sha256('x'), 'cof_…', now())",
        *(cabinet.tenant, member),
    )
    await cabinet.superuser.execute(
        "INSERT INTO one_time_tokens (tenant_id, member_id, use, hash, expires_at)"
        " VALUES ($1, $2, 'RESET', sha256('x'), now() + interval '1 hour')",
        *(cabinet.tenant, member),
    )
    epochs = "SELECT key_epoch, access_epoch FROM tenants WHERE id = $1"
    before = await cabinet.superuser.fetchrow(epochs, cabinet.tenant)

    ended = (await recover(cabinet, api_keys=not kept)).ended

    live = "SELECT count(*) FROM api_keys WHERE tenant_id = $1 AND revoked_at IS NULL"
    assert (ended.api_keys, ended.letters) == (0 if kept else 1, 1)
    assert await cabinet.superuser.fetchval(live, cabinet.tenant) == (1 if kept else 0)
    after = await cabinet.superuser.fetchrow(epochs, cabinet.tenant)
    assert before is not None
    assert after is not None
    assert all(new > old for new, old in zip(after, before, strict=True))
