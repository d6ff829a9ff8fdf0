"""An installation is lost and comes back from its copies: what was erased and ended since stays so, all else opens.

Rehearses deploy/recovery.md with servers of its own: a dump of Postgres, a snapshot of OpenBao, and the stores.
"""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from api.app import Api
from cli.parts import opened
from cli.recover import recover_all
from crypto.errors import KeyRefused, KeyUnavailable
from crypto.transit import TransitKeys
from jobs.backups import writing
from jobs.backups.manifests import SIGNER, About
from jobs.backups.stores import Store
from jobs.key_files.contexts import backup_key_context
from jobs.key_files.errors import KeyFileRefused, Refusal
from jobs.key_files.files import KeyFiles
from local import openbao as local_openbao
from local import postgres as local_postgres
from local.openbao import OpenBaoServer, configure
from local.postgres import Postgres, postgres
from local.processes import owned_folder
from tenants import erasures
from tenants.access import Role
from tenants.database import Database
from tenants.erasures import ErasureCause
from tenants.ids import any_local_id, new_id
from tenants.keys.rotations import KeyPurpose
from tenants.signing_in import sessions
from tenants.viewers import Credential, TenantId
from tests.conftest import Vault
from tests.house import House, house
from tests.jobs.desk import Desk, until
from tests.jobs.key_files.cabinets import keys_of
from tests.jobs.restorations import Restorations
from tests.jobs.turnovers import GONE, replace_wrapping
from tests.jobs.vaults import Vaults
from tests.soak import soak_only

DATABASE = "coffer_recovered"
FOUND = "query($e: String!) { findCustomers(by: { email: $e }) { nodes { id familyName } } }"
ONE = "query($id: ID!) { customer(id: $id) { familyName } }"


@dataclass
class Site:
    """An installation of its own, that a test may lose."""

    house: House
    root: Path
    backup_keys: TransitKeys

    @property
    def tenant(self) -> TenantId:
        return TenantId(self.house.tenants["acme"].id)

    @property
    def key_files(self) -> KeyFiles:
        api = self.house.api
        return KeyFiles(api.units, api.keys, self.backup_keys, self.stores)

    @property
    def stores(self) -> list[Store]:
        return [Store(url) for url in self.house.api.settings.backup_stores]

    def use_by(self, vaults: Vaults, at: House) -> None:
        """That tenant's backups lie on this site's stores, and are made and read at that house."""
        files = KeyFiles(at.api.units, at.api.keys, self.backup_keys, self.stores)
        dumps = Database(at.api.settings.database_url, pool_size=2)
        mine = replace(vaults.depot, keys=at.api.keys, maker=self.backup_keys, key_files=files)
        vaults.use(replace(mine, stores=self.stores, dumps=dumps))

    async def back_up(self, number: int) -> UUID:
        """One that holds nothing; what matters is that its key and its manifest are there."""
        backup, settings = new_id(), self.house.api.settings
        context = backup_key_context(self.tenant, backup)
        wrapped = await self.backup_keys.make_data_key(self.tenant, context)
        (key,) = await self.house.api.keys.unwrap(self.tenant, [(wrapped, context)])
        connection = await asyncpg.connect(self.house.superuser_url)
        await connection.execute(
            "INSERT INTO backups (tenant_id, id, number, kind, state, created_at, coding, dek_versions, wrapped_key)"
            " VALUES ($1, $2, $3, 'SCHEDULED', 'WRITING', now(), 'rs:4+2', '{1}', $4)",
            *(self.tenant, backup, number, wrapped),
        )
        generation = await self.key_files.publish(self.tenant)
        about = About(
            tenant=self.tenant,
            backup=backup,
            number=number,
            previous=None,
            created=await connection.fetchval("SELECT now()"),
            kind="SCHEDULED",
            key_file=generation,
        )
        await writing.write(
            _nothing(),
            about=about,
            key=key,
            stores=[Store(url) for url in settings.backup_stores],
            sign=lambda message: self.backup_keys.sign(SIGNER, message),
        )
        await connection.execute("UPDATE backups SET state = 'VERIFIED' WHERE id = $1", backup)
        await connection.close()
        return backup

    async def erase(self, customer: UUID) -> None:
        async with self.house.api.units.enter(self.tenant, None, write=True) as unit:
            await erasures.forget(unit, [customer])
            await erasures.enter(unit, customer, ErasureCause.REQUEST, None, {})
        await self.key_files.publish(self.tenant)

    async def begin_session(self) -> Credential:
        member = self.house.members["acme"][Role.OWNER].principal
        async with self.house.api.units.enter(self.tenant, None, write=True) as unit:
            return await sessions.begin(unit, member, sessions.Method.PASSWORD)


async def _nothing() -> AsyncIterator[bytes]:
    for record in list[bytes]():
        yield record


def _run(command: list[str], **environment: str) -> None:
    done = subprocess.run(command, env={"PATH": os.defpath, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def dump(server: Postgres, file: Path) -> None:
    binaries = local_postgres._binaries()
    _run([str(binaries / "pg_dump"), "-Fc", "-f", str(file), "-d", server.url("postgres", DATABASE)])


def bring_back(server: Postgres, file: Path) -> None:
    """With --create: rights on the database itself are restored by nothing else."""
    psql, pg_restore = (str(local_postgres._binaries() / name) for name in ("psql", "pg_restore"))
    _run([psql, "-c", f"DROP DATABASE {DATABASE} WITH (FORCE)", server.superuser_url])
    _run([pg_restore, "--exit-on-error", "--create", "-d", server.superuser_url, str(file)])


def snapshot(vault: Vault, act: str, file: Path, *options: str) -> None:
    bao = str(local_openbao._binary())
    environment = {"BAO_ADDR": vault.bao.address, "BAO_TOKEN": vault.bao.root_token}
    _run([bao, "operator", "raft", "snapshot", act, *options, str(file)], **environment)


@asynccontextmanager
async def lost_and_back(site: Site, copies: Path, server: Postgres, root: Path) -> AsyncIterator[House]:
    """Another key store and another database, both from the copies; the stores are the same."""
    vault = site.house.vault
    vault.server.stop()
    folder = root / "another-openbao"
    with owned_folder(folder, "OpenBao") as owned:
        shutil.copy(root / "openbao" / "seal.key", owned / "seal.key")  # the unseal key is the operator's
        other = OpenBaoServer(owned, int(vault.server.address.rpartition(":")[2]))
        try:
            fresh = Vault(other, other.start(), vault.credentials)
            snapshot(fresh, "restore", copies / "openbao.snap", "-force")
            bring_back(server, copies / "postgres.dump")
            api = Api(site.house.api.settings)
            try:
                await _until_keys_answer(api)
                await api.check()
                transport = httpx.ASGITransport(app=api.app, raise_app_exceptions=True)
                async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                    maker = site.house.provisioning
                    yield House(api, server, DATABASE, fresh, maker, client, site.house.tenants, site.house.members)
            finally:
                await api.close()
        finally:
            other.stop()
            vault.server.start()


async def _until_keys_answer(api: Api) -> None:
    async def do_they() -> bool:
        with suppress(KeyUnavailable, KeyRefused):
            await api.keys.health()
            return True
        return False

    await until(do_they)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    with postgres(tmp_path / "postgres", durable=False) as server, owned_folder(tmp_path / "openbao", "OpenBao") as own:
        bao = OpenBaoServer(own)
        vault = Vault(bao, bao.start(), configure(bao.start()))
        try:
            async with house(server, vault, DATABASE, slugs=("acme", "globex")) as built:
                role = built.api.settings.backup_role
                assert role is not None
                keys = TransitKeys(built.api.settings.vault_address, role.role_id, role.secret_id)
                yield Site(built, tmp_path, keys)
                await keys.close()
        finally:
            bao.stop()


async def recover(api: Api, capsys: pytest.CaptureFixture[str]) -> str:
    async with opened(api.settings) as parts:
        assert await recover_all(parts, None) == 0
    return capsys.readouterr().out


def local(made: dict[str, Any]) -> UUID:
    found = any_local_id(made["id"])
    assert found is not None
    return found[1]


async def test_an_installation_comes_back_from_its_copies(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    built = site.house
    gone = await built.create(familyName="Gone", emails=["gone@example.org"])
    kept = await built.create(familyName="Kept", emails=["kept@example.org"])
    await site.back_up(1)
    ended, unheard = await site.begin_session(), await site.begin_session()
    copies = site.root / "copies"
    copies.mkdir()
    dump(built.server, copies / "postgres.dump")
    snapshot(built.vault, "save", copies / "openbao.snap")
    await site.erase(local(gone))
    async with built.api.units.enter(site.tenant, None, write=True) as unit:
        await sessions.end(unit, sessions.Why.SIGNED_OUT, of=ended.principal, besides=unheard.session)
    newer = await site.back_up(2)
    known = await site.key_files.read(site.tenant)

    async with lost_and_back(site, copies, built.server, site.root) as back:
        late = KeyFiles(back.api.units, back.api.keys, site.backup_keys, site.stores)
        assert (await back.data(FOUND, {"e": "gone@example.org"}))["findCustomers"]["nodes"]  # a copy of the past
        with pytest.raises(KeyFileRefused) as refused:
            await late.publish(site.tenant)
        assert refused.value.why is Refusal.AHEAD

        said = await recover(back.api, capsys)

        assert f"key file {known.generation} found, key file {known.generation + 1} published" in said
        assert "1 erasures replayed" in said
        assert "1 backups taken over" in said
        assert (await back.data(FOUND, {"e": "gone@example.org"}))["findCustomers"]["nodes"] == []
        absent = await back.ask(ONE, {"id": gone["id"]})
        assert [error["extensions"]["code"] for error in absent["errors"]] == ["NOT_FOUND"]
        found = (await back.data(FOUND, {"e": "kept@example.org"}))["findCustomers"]["nodes"]
        assert found == [{"id": kept["id"], "familyName": "Kept"}]
        for session in (ended, unheard):
            answer = await back.ask("{ me { id } }", member=session)
            assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        file = await late.read(site.tenant, at_least=known.generation)
        assert [row.subject for row in file.ledger] == [local(gone)]
        assert await file.secrets([local(gone)]) == {}
        assert await file.backup_key(newer) == await known.backup_key(newer)
        again = await recover(back.api, capsys)
        assert "0 erasures replayed; 0 data keys and 0 backups taken over; 0 sessions" in again


@soak_only
async def test_keys_that_turned_over_since_keep_nobody_out_and_a_backup_brings_all_back(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that the copy of Postgres has opens: its keys were destroyed, and are wrapped below the floor."""
    built, copies = site.house, site.root / "copies"
    copies.mkdir()
    (site.root / "unused").mkdir()
    async with Desk.opened(built) as desk, Vaults.opened(desk, site.root / "unused", "turned") as vaults:
        site.use_by(vaults, built)
        scene = Restorations(vaults)
        await scene.fill(4)
        dump(built.server, copies / "postgres.dump")
        for purpose in (KeyPurpose.DEK, KeyPurpose.BIK):
            await scene.rotate(purpose)
        await scene.superuser.execute(GONE, vaults.tenant)
        rotator = keys_of(built, built.api.settings.rotator_role)
        await replace_wrapping(built, vaults.tenant, scene.superuser, vaults.depot.key_files, rotator)
        await rotator.close()
        await scene.fill(2)
        backup, before = await vaults.back_up(), await scene.picture()
        snapshot(built.vault, "save", copies / "openbao.snap")

    async with lost_and_back(site, copies, built.server, site.root) as back, Desk.opened(back) as desk:
        with pytest.raises(KeyRefused):
            async with desk.units.enter(vaults.tenant, None, write=False):
                pass

        said = await recover(back.api, capsys)

        advice = f"gone for good: BIK 1, DEK 1; what they sealed does not open: restore backup 1 ({backup['id']})"
        assert advice in said
        site.use_by(vaults, back)
        vaults.desk = desk
        assert (await vaults.verify(backup["id"]))["state"] == "VERIFIED"
        job = await Restorations(vaults).restore(backup["id"])
        assert (job["state"], job["reason"]) == ("DONE", None)
        assert await Restorations(vaults).picture() == before
        await vaults.depot.dumps.close()
