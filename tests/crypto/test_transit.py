"""Transit through real OpenBao: what works, what each role is refused, and how it fails and recovers."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from crypto.errors import KeyRefused, KeyUnavailable
from crypto.transit import KeyVersions, TransitKeys, wrapped_version
from crypto.vault import DEADLINE_SECONDS
from local.openbao import AppRole, app_role
from tests.conftest import Vault

PINNED = {"type": "aes256-gcm96", "derived": True, "exportable": False, "allow_plaintext_backup": False}


@pytest.fixture
async def api(vault: Vault) -> AsyncIterator[TransitKeys]:
    keys = connect(vault, vault.credentials.api)
    yield keys
    await keys.close()


@pytest.fixture
async def provisioner(vault: Vault) -> AsyncIterator[TransitKeys]:
    keys = connect(vault, vault.credentials.provisioner)
    yield keys
    await keys.close()


@pytest.fixture
async def rotator(vault: Vault) -> AsyncIterator[TransitKeys]:
    keys = connect(vault, vault.credentials.rotator)
    yield keys
    await keys.close()


@pytest.fixture
async def tenant(provisioner: TransitKeys) -> UUID:
    tenant = uuid4()
    await provisioner.create_tenant_key(tenant)
    return tenant


@pytest.fixture
def restarted(vault: Vault) -> Iterator[Vault]:
    """For tests that stop OpenBao: it runs again afterwards, whatever happened."""
    yield vault
    vault.server.start()


def connect(vault: Vault, role: AppRole) -> TransitKeys:
    return TransitKeys(vault.bao.address, role.role_id, role.secret_id)


def ask(vault: Vault, token: str, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
    url, headers = f"{vault.bao.address}/v1/{path}", {"X-Vault-Token": token}
    return requests.request(method, url, json=body, headers=headers, timeout=5)


def token_of(vault: Vault, role: str) -> str:
    login = app_role(vault.bao, f"coffer-{role}")
    body = {"role_id": login.role_id, "secret_id": login.secret_id}
    return str(ask(vault, "", "POST", "auth/approle/login", body).json()["auth"]["client_token"])


async def seconds_until_unavailable(call: Awaitable[object]) -> float:
    began = time.monotonic()
    with pytest.raises(KeyUnavailable):
        await call
    return time.monotonic() - began


async def test_a_wrapped_key_opens_to_the_same_32_bytes(
    api: TransitKeys, provisioner: TransitKeys, tenant: UUID
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")

    first, second = await api.unwrap(tenant, [(wrapped, b"DEK 1"), (wrapped, b"DEK 1")])

    assert wrapped.startswith("vault:v1:")
    assert len(first) == 32
    assert first == second


async def test_keys_beyond_one_batch_open_in_order(api: TransitKeys, provisioner: TransitKeys, tenant: UUID) -> None:
    pairs = [(await provisioner.make_data_key(tenant, context), context) for context in (b"a", b"b", b"c")]

    opened = await api.unwrap(tenant, pairs * 67)

    assert opened == opened[:3] * 67
    assert len(set(opened)) == 3


async def test_no_keys_open_to_no_keys(api: TransitKeys, tenant: UUID) -> None:
    assert await api.unwrap(tenant, []) == []


@pytest.mark.parametrize("right_ones", [0, 3])
async def test_a_wrong_context_refuses_all(
    api: TransitKeys, provisioner: TransitKeys, tenant: UUID, right_ones: int
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")

    with pytest.raises(KeyRefused):
        await api.unwrap(tenant, [*[(wrapped, b"DEK 1")] * right_ones, (wrapped, b"DEK 2")])


async def test_another_tenants_key_is_refused(api: TransitKeys, provisioner: TransitKeys, tenant: UUID) -> None:
    other = uuid4()
    await provisioner.create_tenant_key(other)
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")

    with pytest.raises(KeyRefused):
        await api.unwrap(other, [(wrapped, b"DEK 1")])


async def test_a_tenant_without_a_key_is_refused(api: TransitKeys, provisioner: TransitKeys) -> None:
    with pytest.raises(KeyRefused):
        await provisioner.make_data_key(uuid4(), b"DEK 1")
    with pytest.raises(KeyRefused):
        await api.unwrap(uuid4(), [("vault:v1:AAAA", b"DEK 1")])


@pytest.mark.parametrize("key", ["coffer-access", "coffer-audit"])
async def test_a_signature_verifies_under_the_public_key_of_its_version(api: TransitKeys, key: str) -> None:
    version, signature = await api.sign(key, b"message")

    public = (await api.public_keys(key))[version]
    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"message")
    assert len(signature) == 64


async def test_fifty_first_uses_from_two_processes_make_one_key(vault: Vault, provisioner: TransitKeys) -> None:
    other, tenant = connect(vault, vault.credentials.provisioner), uuid4()

    await asyncio.gather(*(keys.create_tenant_key(tenant) for keys in (provisioner, other) for _ in range(25)))
    await other.close()

    made = ask(vault, vault.bao.root_token, "GET", f"transit/keys/t_{tenant.hex}").json()["data"]
    assert list(made["keys"]) == ["1"]
    assert {name: made[name] for name in PINNED} == PINNED


async def test_a_weaker_key_of_the_same_name_is_refused(vault: Vault, provisioner: TransitKeys) -> None:
    tenant = uuid4()
    ask(vault, vault.bao.root_token, "POST", f"transit/keys/t_{tenant.hex}", {**PINNED, "exportable": True})

    with pytest.raises(KeyRefused):
        await provisioner.create_tenant_key(tenant)


REFUSED = [
    ("api", "POST", "keys/{new}", PINNED),
    ("api", "GET", "export/encryption-key/{key}", None),
    ("api", "GET", "backup/{key}", None),
    ("api", "DELETE", "keys/{key}", None),
    ("api", "DELETE", "keys/{key}/soft-delete", None),
    ("api", "POST", "keys/{key}/trim", {"min_available_version": 1}),
    ("api", "POST", "keys/{key}/config", {"deletion_allowed": True}),
    ("api", "POST", "keys/{key}/rotate", {}),
    ("api", "POST", "encrypt/{key}", {"plaintext": "AAAA", "context": "AAAA"}),
    ("api", "POST", "encrypt/{new}", {"plaintext": "AAAA", "context": "AAAA"}),
    ("api", "POST", "rewrap/{key}", {"ciphertext": "{wrapped}", "context": "AAAA"}),
    ("api", "POST", "datakey/wrapped/{key}", {"context": "AAAA"}),
    ("api", "POST", "datakey/plaintext/{key}", {"context": "AAAA"}),
    ("api", "GET", "keys/{key}", None),
    ("api", "LIST", "keys", None),
    ("api", "POST", "keys/coffer-access/rotate", {}),
    ("api", "POST", "keys/coffer-audit/rotate", {}),
    ("provisioner", "POST", "sign/coffer-audit", {"input": "AAAA"}),
    ("api", "GET", "export/signing-key/coffer-access", None),
    ("provisioner", "POST", "decrypt/{key}", {"ciphertext": "{wrapped}", "context": "AAAA"}),
    ("provisioner", "POST", "datakey/plaintext/{key}", {"context": "AAAA"}),
    ("provisioner", "POST", "encrypt/{key}", {"plaintext": "AAAA", "context": "AAAA"}),
    ("provisioner", "POST", "keys/{new}", {}),
    ("provisioner", "POST", "keys/{new}", {**PINNED, "exportable": True}),
    ("provisioner", "POST", "keys/{new}", {**PINNED, "derived": False}),
    ("provisioner", "POST", "keys/{new}", {**PINNED, "type": "ed25519"}),
    ("provisioner", "POST", "keys/{key}/rotate", PINNED),
    ("provisioner", "POST", "keys/{key}/config", PINNED),
    ("provisioner", "POST", "keys/{key}/trim", PINNED),
    ("provisioner", "DELETE", "keys/{key}", None),
    ("provisioner", "POST", "keys/coffer-other", PINNED),
    ("provisioner", "GET", "export/encryption-key/{key}", None),
    ("rotator", "POST", "decrypt/{key}", {"ciphertext": "{wrapped}", "context": "AAAA"}),
    ("rotator", "POST", "keys/{new}", PINNED),
    ("rotator", "POST", "keys/{key}/config", {"deletion_allowed": True}),
    ("rotator", "POST", "keys/{key}/config", {"exportable": True}),
    ("rotator", "POST", "keys/{key}/trim", {"min_available_version": 1}),
    ("rotator", "POST", "keys/coffer-access/rotate", {}),
    ("rotator", "POST", "keys/coffer-audit/config", {"min_decryption_version": 1}),
    ("rotator", "POST", "encrypt/{key}", {"plaintext": "AAAA", "context": "AAAA"}),
    ("rotator", "POST", "datakey/plaintext/{key}", {"context": "AAAA"}),
    ("rotator", "POST", "sign/coffer-audit", {"input": "AAAA"}),
    ("rotator", "GET", "export/encryption-key/{key}", None),
    ("rotator", "DELETE", "keys/{key}", None),
    ("backup", "POST", "decrypt/{key}", {"ciphertext": "{wrapped}", "context": "AAAA"}),
    ("backup", "POST", "datakey/plaintext/{key}", {"context": "AAAA"}),
    ("backup", "GET", "backup/{key}", None),
]


@pytest.mark.parametrize(("role", "method", "path", "body"), REFUSED)
async def test_what_a_role_does_not_need_is_refused(
    vault: Vault, tenant: UUID, role: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    names = {"key": f"t_{tenant.hex}", "new": f"t_{uuid4().hex}"}
    key_before = ask(vault, vault.bao.root_token, "GET", f"transit/keys/{names['key']}").json()["data"]

    answer = ask(vault, token_of(vault, role), method, f"transit/{path.format(**names)}", body)

    assert answer.status_code == 403
    assert ask(vault, vault.bao.root_token, "GET", f"transit/keys/{names['key']}").json()["data"] == key_before
    assert ask(vault, vault.bao.root_token, "GET", f"transit/keys/{names['new']}").status_code == 404


async def test_the_rotator_rotates_rewraps_and_raises(
    vault: Vault, api: TransitKeys, provisioner: TransitKeys, tenant: UUID
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"\0\0\0")
    before = await api.unwrap(tenant, [(wrapped, b"\0\0\0")])
    token, key = token_of(vault, "rotator"), f"t_{tenant.hex}"

    assert ask(vault, token, "POST", f"transit/keys/{key}/rotate").ok
    body = {"ciphertext": wrapped, "context": "AAAA"}
    rewrapped = ask(vault, token, "POST", f"transit/rewrap/{key}", body).json()["data"]["ciphertext"]
    assert ask(vault, token, "POST", f"transit/keys/{key}/config", {"min_decryption_version": 2}).ok

    assert await api.unwrap(tenant, [(rewrapped, b"\0\0\0")]) == before
    with pytest.raises(KeyRefused):
        await api.unwrap(tenant, [(wrapped, b"\0\0\0")])


async def test_a_rewrapped_key_is_the_same_key_under_the_newest_version(
    api: TransitKeys, provisioner: TransitKeys, rotator: TransitKeys, tenant: UUID
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")
    before = await api.unwrap(tenant, [(wrapped, b"DEK 1")])

    assert await rotator.rotate(tenant) == 2
    (rewrapped,) = await rotator.rewrap(tenant, [(wrapped, b"DEK 1")])

    assert rewrapped is not None
    assert (wrapped_version(wrapped), wrapped_version(rewrapped)) == (1, 2)
    assert await api.unwrap(tenant, [(rewrapped, b"DEK 1"), (wrapped, b"DEK 1")]) == before * 2
    assert await rotator.versions(tenant) == KeyVersions(latest=2, floor=1)


async def test_one_bad_key_in_a_hundred_is_told_and_the_others_are_rewrapped(
    api: TransitKeys, provisioner: TransitKeys, rotator: TransitKeys, tenant: UUID
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")
    pairs = [(wrapped, b"DEK 1")] * 130
    pairs[41] = (wrapped, b"another context")
    await rotator.rotate(tenant)

    rewrapped = await rotator.rewrap(tenant, pairs)

    assert [place for place, one in enumerate(rewrapped) if one is None] == [41]
    good = [(one, b"DEK 1") for one in rewrapped if one is not None]
    assert {wrapped_version(one) for one, _ in good} == {2}
    assert len(set(await api.unwrap(tenant, good))) == 1


async def test_where_every_key_is_bad_each_is_told(
    provisioner: TransitKeys, rotator: TransitKeys, tenant: UUID
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")
    assert await rotator.rewrap(tenant, [(wrapped, b"other"), ("vault:v7:AAAA", b"DEK 1")]) == [None, None]
    with pytest.raises(KeyRefused):
        await rotator.rewrap(uuid4(), [(wrapped, b"DEK 1")])


async def test_below_the_floor_nothing_opens_and_it_is_never_lowered(
    api: TransitKeys, provisioner: TransitKeys, rotator: TransitKeys, tenant: UUID
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")
    await rotator.rotate(tenant)
    (rewrapped,) = await rotator.rewrap(tenant, [(wrapped, b"DEK 1")])
    assert rewrapped is not None
    with pytest.raises(KeyRefused):
        await rotator.raise_floor(tenant, 3)

    for version in (2, 2, 1):
        await rotator.raise_floor(tenant, version)

    assert await rotator.versions(tenant) == KeyVersions(latest=2, floor=2)
    assert await api.unwrap(tenant, [(rewrapped, b"DEK 1")])
    with pytest.raises(KeyRefused):
        await api.unwrap(tenant, [(wrapped, b"DEK 1")])


@pytest.mark.parametrize("wrapped", ["", "vault:v0:AAAA", "vault:v-1:AAAA", "vault:v1", "xvault:v1:AAAA", "vault:vx:"])
def test_what_is_no_wrapped_key_has_no_version(wrapped: str) -> None:
    with pytest.raises(KeyRefused):
        wrapped_version(wrapped)


async def test_the_shredder_destroys_a_tenants_key_and_no_signing_key(
    vault: Vault, provisioner: TransitKeys, tenant: UUID
) -> None:
    wish = {"policies": ["coffer-shredder"], "no_default_policy": True, "ttl": "1m"}
    made = ask(vault, vault.bao.root_token, "POST", "auth/token/create", wish).json()
    token, allowed = made["auth"]["client_token"], {"deletion_allowed": True}

    assert ask(vault, token, "POST", "transit/keys/coffer-access/config", allowed).status_code == 403
    assert ask(vault, token, "POST", f"transit/keys/t_{tenant.hex}/config", allowed).ok
    assert ask(vault, token, "DELETE", f"transit/keys/t_{tenant.hex}").ok

    with pytest.raises(KeyRefused):
        await provisioner.make_data_key(tenant, b"DEK 1")


async def test_a_wrong_secret_id_is_refused_without_showing_it(vault: Vault) -> None:
    keys = TransitKeys(vault.bao.address, vault.credentials.api.role_id, "wrong-secret")

    with pytest.raises(KeyRefused) as refused:
        await keys.health()

    assert "wrong-secret" not in repr(refused.value)
    await keys.close()


async def test_what_is_too_large_for_it_is_refused_and_not_tried_for_ever(api: TransitKeys) -> None:
    with pytest.raises(KeyRefused):
        await api.sign("coffer-access", bytes(25 << 20))


async def test_a_token_that_was_taken_away_is_replaced(vault: Vault, api: TransitKeys) -> None:
    await api.sign("coffer-access", b"before")
    ask(vault, vault.bao.root_token, "POST", "sys/leases/revoke-prefix/auth/approle/login")

    assert await api.sign("coffer-access", b"after")


async def test_it_fails_fast_while_openbao_is_away_and_recovers_by_itself(
    restarted: Vault, api: TransitKeys, provisioner: TransitKeys, tenant: UUID
) -> None:
    wrapped = await provisioner.make_data_key(tenant, b"DEK 1")
    before = await api.unwrap(tenant, [(wrapped, b"DEK 1")])

    restarted.server.stop()
    calls = [api.unwrap(tenant, [(wrapped, b"DEK 1")]), provisioner.create_tenant_key(tenant), api.health()]
    assert max([await seconds_until_unavailable(call) for call in calls]) < 1
    began = time.monotonic()
    await asyncio.to_thread(restarted.server.start)

    assert await api.unwrap(tenant, [(wrapped, b"DEK 1")]) == before
    await api.health()
    assert time.monotonic() - began < 10


async def test_a_silent_openbao_holds_nobody_longer_than_the_deadline(
    vault: Vault, api: TransitKeys, tenant: UUID
) -> None:
    await api.health()
    os.kill(vault.server.pid, signal.SIGSTOP)
    try:
        waits = await asyncio.gather(*(seconds_until_unavailable(api.public_keys("coffer-access")) for _ in range(40)))
    finally:
        os.kill(vault.server.pid, signal.SIGCONT)

    assert max(waits) < DEADLINE_SECONDS + 0.2
    assert await api.public_keys("coffer-access")


@pytest.mark.parametrize("address", ["http://vault.example:8200", "http://10.0.0.1:8200", "vault:8200", "ftp://[::1]"])
def test_an_address_in_clear_beyond_loopback_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        TransitKeys(address, "role", "secret")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost", "https://vault"])
async def test_loopback_in_clear_and_tls_anywhere_are_accepted(address: str) -> None:
    await TransitKeys(address, "role", "secret").close()
