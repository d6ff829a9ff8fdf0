"""What Coffer asks of OpenBao's Transit engine: tenant keys, wrapped data keys and signatures.

https://openbao.org/api-docs/secret/transit/
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

from crypto.errors import KeyRefused
from crypto.vault import Vault

MAX_BATCH = 100
_WRAPPED = re.compile(r"vault:v([1-9][0-9]{0,8}):")
_TENANT_KEY = {"type": "aes256-gcm96", "derived": True, "exportable": False, "allow_plaintext_backup": False}


@dataclass(frozen=True, slots=True)
class KeyVersions:
    """Of a tenant's Transit key: the newest, and the oldest that still opens."""

    latest: int
    floor: int


class TransitKeys:
    """Raises `KeyUnavailable` while OpenBao is away, and is whole again by itself; `KeyRefused` where it says no."""

    def __init__(
        self, address: str, role_id: str, secret_id: str, *, ca_file: str | None = None, mount: str = "transit"
    ) -> None:
        """Raises `ValueError` for an http:// address beyond loopback. `ca_file` is a PEM bundle."""
        self._vault = Vault(address, role_id, secret_id, ca_file=ca_file)
        self._mount = mount

    async def create_tenant_key(self, tenant: UUID) -> None:
        """Make the tenant's key, or find it made: a key of that name with other properties is refused."""
        made = await self._vault.write(f"{self._mount}/keys/{_tenant_key(tenant)}", _TENANT_KEY)
        if any(made.get(name, wanted) != wanted for name, wanted in _TENANT_KEY.items()):
            raise KeyRefused("The tenant's key exists with other properties.")

    async def make_data_key(self, tenant: UUID, context: bytes) -> str:
        """A fresh 256-bit key nobody has seen, as ``vault:vN:...``; it opens with this `context` only."""
        body = {"bits": 256, "context": _text(context)}
        made = await self._vault.write(f"{self._mount}/datakey/wrapped/{_tenant_key(tenant)}", body)
        return str(made["ciphertext"])

    async def unwrap(self, tenant: UUID, wrapped: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """The keys in the order of the pairs (``vault:vN:...``, context); one bad pair refuses them all."""
        pairs = iter(wrapped)
        opened: list[bytes] = []
        while batch := list(islice(pairs, MAX_BATCH)):
            opened += await self._unwrap_batch(tenant, batch)
        return opened

    async def versions(self, tenant: UUID) -> KeyVersions:
        return _versions(await self._vault.read(f"{self._mount}/keys/{_tenant_key(tenant)}"))

    async def rotate(self, tenant: UUID) -> int:
        """Make a new version of the tenant's key: its number. Each call makes one."""
        made = await self._vault.write(f"{self._mount}/keys/{_tenant_key(tenant)}/rotate", {})
        return (_versions(made) if made else await self.versions(tenant)).latest

    async def rewrap(self, tenant: UUID, wrapped: Sequence[tuple[str, bytes]]) -> list[str | None]:
        """The same keys under the newest version, in order; None for each that did not open. No key is seen by it."""
        pairs = iter(wrapped)
        rewrapped: list[str | None] = []
        while batch := list(islice(pairs, MAX_BATCH)):
            rewrapped += await self._rewrap_batch(tenant, batch)
        return rewrapped

    async def raise_floor(self, tenant: UUID, version: int) -> None:
        """From now on no version below `version` opens or wraps anything; a floor that is as high stays as it is.

        Raises `KeyRefused` for a version that there is not.
        """
        now = await self.versions(tenant)
        if version > now.latest:
            raise KeyRefused("A floor is not raised above the newest version.")
        if version > now.floor:
            body = {"min_decryption_version": version, "min_encryption_version": version}
            await self._vault.write(f"{self._mount}/keys/{_tenant_key(tenant)}/config", body)

    async def sign(self, key: str, message: bytes) -> tuple[int, bytes]:
        """The version of `key` that signed, and the raw 64 bytes of Ed25519 (RFC 8032)."""
        made = await self._vault.write(f"{self._mount}/sign/{key}", {"input": _text(message)})
        _, version, signature = str(made["signature"]).split(":")
        return int(version.removeprefix("v")), b64decode(signature)

    async def public_keys(self, key: str) -> dict[int, bytes]:
        """The 32 raw bytes of each version of an Ed25519 key."""
        read = await self._vault.read(f"{self._mount}/keys/{key}")
        return {int(version): b64decode(half["public_key"]) for version, half in read["keys"].items()}

    async def may(self, act: str) -> bool:
        """Whether our policy allows `act` (a path below the mount, as ``datakey/wrapped``) on the keys of tenants.

        Nothing is made or changed by asking: no key can have a name that ends in a hyphen, but a policy matches it.
        """
        return await self._vault.may_write(f"{self._mount}/{act}/{_tenant_key(UUID(int=0))}-", _TENANT_KEY)

    async def health(self) -> None:
        """Returns if OpenBao is unsealed, active and lets us in."""
        await self._vault.check()

    async def close(self) -> None:
        self._vault.close()

    async def _rewrap_batch(self, tenant: UUID, batch: list[tuple[str, bytes]]) -> list[str | None]:
        answer = await self._vault.write(f"{self._mount}/rewrap/{_tenant_key(tenant)}", _batch(batch))
        results: list[dict[str, Any]] = answer["batch_results"]
        if len(results) != len(batch):
            raise KeyRefused
        return [None if result.get("error") else str(result["ciphertext"]) for result in results]

    async def _unwrap_batch(self, tenant: UUID, batch: list[tuple[str, bytes]]) -> Iterator[bytes]:
        answer = await self._vault.write(f"{self._mount}/decrypt/{_tenant_key(tenant)}", _batch(batch))
        results: list[dict[str, Any]] = answer["batch_results"]
        if len(results) != len(batch) or any(result.get("error") for result in results):
            raise KeyRefused
        return (b64decode(result["plaintext"]) for result in results)


def _batch(pairs: list[tuple[str, bytes]]) -> dict[str, Any]:
    items = [{"ciphertext": wrapped, "context": _text(context)} for wrapped, context in pairs]
    # 200 with an error per item, where otherwise the status tells of all of them
    return {"batch_input": items, "partial_failure_response_code": 200}


def _versions(read: dict[str, Any]) -> KeyVersions:
    return KeyVersions(int(read["latest_version"]), int(read["min_decryption_version"]))


def wrapped_version(wrapped: str) -> int:
    """N of ``vault:vN:...``. Raises `KeyRefused` for anything else."""
    found = _WRAPPED.match(wrapped)
    if found is None:
        raise KeyRefused("A wrapped key has another form.")
    return int(found[1])


def _tenant_key(tenant: UUID) -> str:
    return f"t_{tenant.hex}"


def _text(content: bytes) -> str:
    return b64encode(content).decode()
