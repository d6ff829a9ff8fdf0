"""Where backups lie: folders and object stores, by URL (``file:///…``, ``s3://…``, ``gs://…``, ``az://…``).

Through obstore: https://developmentseed.org/obstore/latest/api/store/. Endpoint, region and credentials come from the
usual variables (AWS_…, GOOGLE_…, AZURE_…), a CA of one's own from SSL_CERT_FILE. Stores are reached over TLS alone:
`client_options` say nothing of `allow_http`, and outweigh AWS_ALLOW_HTTP.

No name is ever seen before its object is whole: a file is renamed (`jobs.backups.folders`), an upload in parts is
completed at its end. What a killed upload leaves is invisible, but paid for: give the bucket a rule that aborts
incomplete uploads after some days.
"""

import asyncio
import errno
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from jobs.backups import folders
from jobs.backups.errors import StoreAway, StoreFull
from jobs.backups.folders import PART, Write

_SCHEMES = frozenset({"file", "s3", "gs", "az"})
_PART_BYTES = 5 << 20  # the least that S3 takes; some shards are written at once
_CLIENT: dict[str, Any] = {
    "client_options": {"connect_timeout": "5s", "timeout": "60s"},
    "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
}
_SOON = 1.0  # seconds, for who asks only whether it is there
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL = (" 507 ", "InsufficientStorage", "StorageFull", "QuotaExceeded")  # how S3-compatible stores say it


class Store:
    """Every act raises `StoreAway` while the store does not answer; those that write also `StoreFull`."""

    def __init__(self, url: str) -> None:
        """Raises `ValueError` for another scheme, and for credentials or a query: manifests tell the URL."""
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("a store is file:///…, s3://…, gs://… or az://…, without credentials and query")
        self.url = url.rstrip("/")
        self._root = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._opened: Any = None

    @asynccontextmanager
    async def writing(self, name: str) -> AsyncIterator[Write]:
        """Takes the bytes of an object, which is there when the block ends well, and else as it was."""
        opened = self._writer(name)
        with _translated():
            write = await opened.__aenter__()

        async def written(content: bytes) -> None:
            with _translated():
                await write(content)

        try:
            yield written
        except BaseException:  # also what befell the block by itself, which is not this store's
            await opened.__aexit__(*sys.exc_info())
            raise
        with _translated():
            await opened.__aexit__(None, None, None)

    async def put(self, name: str, content: bytes) -> None:
        async with self.writing(name) as write:
            await write(content)

    async def get(self, name: str, start: int, length: int) -> bytes | None:
        """Fewer bytes where the object ends before; None where there is none, or it ends before `start`."""
        if length == 0:
            return b""  # no range at all for most stores
        with _translated():
            store = self._store()
            try:
                found = await obstore.get_range_async(store, name, start=start, length=length)
            except FileNotFoundError:
                return None
            except BaseError:
                if await self._ends_before(name, start):
                    return None
                raise
            return bytes(found)

    async def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of each object in the folder and those below it, by name."""
        return {name: size for name, size in (await self._listed(folder)).items() if not name.endswith(PART)}

    async def answers(self) -> bool:
        """Whether it does, and soon."""
        try:
            async with asyncio.timeout(_SOON):
                await self.sizes(str(UUID(int=0)))  # a tenant that nobody is
        except (StoreAway, StoreFull, TimeoutError):
            return False
        return True

    async def delete(self, name: str) -> None:
        """Also when it is gone already."""
        with _translated():
            store = self._store()
            with suppress(FileNotFoundError):
                await obstore.delete_async(store, name)

    async def sweep(self, folder: str) -> None:
        """Delete what killed processes left half-written in a folder where nobody writes now."""
        for name in await self._listed(folder):
            if name.endswith(PART):
                await self.delete(name)

    @asynccontextmanager
    async def _writer(self, name: str) -> AsyncIterator[Write]:
        if self._root is not None:
            async with folders.writing(self._root, name) as write:
                yield write
        else:
            opened = obstore.open_writer_async(self._store(), name, buffer_size=_PART_BYTES, max_concurrency=1)
            async with opened as writer:
                yield writer.write

    async def _ends_before(self, name: str, start: int) -> bool:
        return bool((await obstore.head_async(self._store(), name))["size"] <= start)

    async def _listed(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        with _translated():
            async for some in obstore.list(self._store(), folder or None, chunk_size=500):
                found.update((str(each["path"]), int(each["size"])) for each in some)
        return found

    def _store(self) -> Any:
        """Opened on first use, so that a store that is away stops nothing else; a folder must be there each time."""
        if self._root is not None and not self._root.is_dir():
            raise OSError(errno.ENODEV, "the folder is not there")
        if self._opened is None:
            is_folder = self._root is not None
            self._opened = from_url(self.url, automatic_cleanup=True) if is_folder else from_url(self.url, **_CLIENT)
        return self._opened


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:  # obstore's writers raise either
        if _is_full(error):
            raise StoreFull from error
        raise StoreAway from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    return any(said in str(error) for said in _FULL)
