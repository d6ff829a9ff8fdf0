"""Destroys a tenant's key in OpenBao, under an operator's short token; nothing else of ours may.

https://openbao.org/api-docs/secret/transit/#delete-key
"""

from uuid import UUID

from crypto.errors import KeyRefused
from crypto.vault import TokenVault


class Shredder:
    """Raises `KeyUnavailable` while OpenBao is away, and `KeyRefused` where the token may not, or is over."""

    def __init__(self, address: str, token: str, *, ca_file: str | None = None, mount: str = "transit") -> None:
        """Raises `ValueError` for an http:// address beyond loopback. `ca_file` is a PEM bundle."""
        self._vault = TokenVault(address, token, ca_file=ca_file)
        self._mount = mount

    async def check(self, tenant: UUID) -> None:
        """Raises where the token would not let us: asked before anything is begun."""
        await self._vault.is_there(self._path(tenant))

    async def destroy(self, tenant: UUID) -> None:
        """Returns only once the key store has no key of that tenant; where it has none already, too."""
        path = self._path(tenant)
        if await self._vault.is_there(path):
            await self._vault.write(f"{path}/config", {"deletion_allowed": True})
            await self._vault.delete(path)
        if await self._vault.is_there(path):
            raise KeyRefused("The tenant's key is still in the key store.")

    async def close(self) -> None:
        self._vault.close()

    def _path(self, tenant: UUID) -> str:
        return f"{self._mount}/keys/t_{tenant.hex}"
