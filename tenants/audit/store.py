"""The second place of checkpoints: an object store apart from the database, where nothing is ever overwritten.

By URL through obstore, which speaks to disks and to S3-compatible stores alike:
https://developmentseed.org/obstore/latest/api/store/. Endpoint, region and credentials of S3 come from the usual AWS_…
variables, a CA of one's own from SSL_CERT_FILE. It is reached over TLS alone: `client_options` say nothing of
`allow_http`, and outweigh AWS_ALLOW_HTTP.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from tenants.errors import StoreUnavailable

_AT_ONCE = 16
_PROBE = "doctor.txt"
_CLIENT: dict[str, Any] = {
    "client_options": {"connect_timeout": "2s", "timeout": "5s"},
    "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
}


class CheckpointStore:
    """``audit/<tenant>/<seq, 20 digits>.json`` below `url`, ``file:///…`` or ``s3://bucket/…``.

    Every act raises `StoreUnavailable` while the store is away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: Any = None

    async def put(self, tenant: UUID, seq: int, content: bytes) -> bool:
        """False where an object of that name is there already; it stays as it is."""
        return await self._create(_name(tenant, seq), content)

    async def keeps(self) -> bool:
        """Whether it refuses to overwrite; it has been written to, read and listed then.

        Leaves one object there for good, `doctor.txt`, since who writes here need not have the right to delete.
        """
        await self._create(_PROBE, b"first\n")
        is_kept = not await self._create(_PROBE, b"second\n")
        with _translated():
            found = await obstore.get_async(self._store(), _PROBE)
            async for _ in obstore.list(self._store(), "audit", chunk_size=1):
                break
            return is_kept and bytes(await found.bytes_async()) == b"first\n"

    async def _create(self, name: str, content: bytes) -> bool:
        with _translated():
            try:
                await obstore.put_async(self._store(), name, content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    async def read(self, tenant: UUID) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Names and contents of all the tenant's objects, some at a time and in no order."""
        with _translated():
            async for listed in obstore.list(self._store(), f"audit/{tenant}", chunk_size=500):
                names = [str(each["path"]) for each in listed]
                for start in range(0, len(names), _AT_ONCE):
                    yield await self._contents(names[start : start + _AT_ONCE])

    async def _contents(self, names: Sequence[str]) -> list[tuple[str, bytes]]:
        found = await asyncio.gather(*(obstore.get_async(self._store(), name) for name in names))
        return [(name, bytes(await each.bytes_async())) for name, each in zip(names, found, strict=True)]

    def _store(self) -> Any:
        """Opened on first use, so that a store that is away stops nothing else from starting."""
        if self._opened is None:
            is_local = self._url.startswith("file:")
            self._opened = from_url(self._url, mkdir=True) if is_local else from_url(self._url, **_CLIENT)
        return self._opened


def _name(tenant: UUID, seq: int) -> str:
    return f"audit/{tenant}/{seq:020}.json"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise StoreUnavailable from error
