"""Files that appear under their names whole and on the disk, or not at all.

Written by ourselves and not through obstore: it does not fsync, and what a killed process leaves of its staged files
it neither lists nor deletes. Ours are named ``.<name>.<random>.part``.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

PART = ".part"
_SYNC_BYTES = 16 << 20  # written to the disk meanwhile, so that the end does not wait for all of it

Write = Callable[[bytes], Awaitable[object]]


@asynccontextmanager
async def writing(root: Path, name: str) -> AsyncIterator[Write]:
    """The file stands under `name` when the block ends well. Raises `OSError`; `root` must be there.

    A root that is made here would hide that its disk is not mounted.
    """
    part = await asyncio.to_thread(_Part, root, root / name)
    try:
        yield lambda content: asyncio.to_thread(part.write, content)
        await asyncio.to_thread(part.finish)
    except BaseException:
        await asyncio.to_thread(part.abandon)
        raise


class _Part:
    def __init__(self, root: Path, path: Path) -> None:
        if not root.is_dir():
            raise OSError(errno.ENODEV, "the folder is not there")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._final = path
        self._path = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")
        self._file = self._path.open("xb")
        self._unsynced = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._unsynced += len(content)
        if self._unsynced >= _SYNC_BYTES:
            self._sync()

    def finish(self) -> None:
        self._sync()
        self._file.close()
        self._path.replace(self._final)
        for folder in self._final.parents:  # a name is on the disk when its folder is
            _sync_folder(folder)
            if folder == self._root:
                return

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # what its buffer holds may fit no better now
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
