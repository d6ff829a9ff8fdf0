"""What Coffer asks of OpenBao's Transit engine: tenant keys, wrapped data keys and signatures.

https://openbao.org/api-docs/secret/transit/
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from crypto.errors import KeyRefused
from crypto.vault import Vault

MAX_BATCH = 100
_TENANT_KEY = {"type": "aes256-gcm96", "derived": True, "exportable": False, "allow_plaintext_backup": False}


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

    async def _unwrap_batch(self, tenant: UUID, batch: list[tuple[str, bytes]]) -> Iterator[bytes]:
        items = [{"ciphertext": wrapped, "context": _text(context)} for wrapped, context in batch]
        # 200 with an error per item, where otherwise the status tells of all of them
        body = {"batch_input": items, "partial_failure_response_code": 200}
        answer = await self._vault.write(f"{self._mount}/decrypt/{_tenant_key(tenant)}", body)
        results: list[dict[str, Any]] = answer["batch_results"]
        if len(results) != len(batch) or any(result.get("error") for result in results):
            raise KeyRefused
        return (b64decode(result["plaintext"]) for result in results)


def _tenant_key(tenant: UUID) -> str:
    return f"t_{tenant.hex}"


def _text(content: bytes) -> str:
    return b64encode(content).decode()
