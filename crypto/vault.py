"""The one connection to OpenBao: AppRole login, limits on time and threads, and its failures as ours.

hvac blocks, so every call runs in a small thread pool of its own and no call lasts longer than `DEADLINE_SECONDS`.
"""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from crypto.errors import KeyRefused, KeyUnavailable

DEADLINE_SECONDS = 2.8
_CONNECT_SECONDS, _READ_SECONDS = 0.5, 2.0
_THREADS = 8
_REFUSALS = (400, 401, 403, 404, 405, 413)  # anything else that is not 2xx passes: sealed, standby, too many, broken
_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Login:
    token: str = field(repr=False)
    stale_at: float


class Vault:
    """Requests to OpenBao under one AppRole; raises `KeyUnavailable` or `KeyRefused`, never a library's error."""

    def __init__(self, address: str, role_id: str, secret_id: str, *, ca_file: str | None) -> None:
        """Raises `ValueError` for an address in clear that leaves this machine. `ca_file` is a PEM bundle."""
        _refuse_clear_text(address)
        self._address = address
        self._identity = {"role_id": role_id, "secret_id": secret_id}
        self._session = _session(ca_file)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="vault")
        self._login: _Login | None = None
        self._login_lock = Lock()

    async def read(self, path: str) -> dict[str, Any]:
        return await self._in_thread(lambda: self._call("GET", path, None))

    async def write(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The `data` of the answer, empty where there is none."""
        return await self._in_thread(lambda: self._call("POST", path, body))

    async def delete(self, path: str) -> None:
        await self._in_thread(lambda: self._call("DELETE", path, None))

    async def is_there(self, path: str) -> bool:
        """Whether it can be read; a refusal is none of the two answers."""
        return await self._in_thread(lambda: self._is_there(path))

    async def may_write(self, path: str, body: dict[str, Any]) -> bool:
        """Whether our policy lets this request through to its engine, which gets it where it does."""
        return await self._in_thread(lambda: self._is_let_through("POST", path, body))

    async def check(self) -> None:
        """Raises unless the server is unsealed and active, and lets us in."""
        await self._in_thread(self._check)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """The deadline also covers the wait for a thread, so a silent server doesn't make a queue."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError as cause:
            raise KeyUnavailable from cause

    def _check(self) -> None:
        _raise_for(self._send("GET", "sys/health", None, None))
        self._current_login(None)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        answer = self._asked(method, path, body)
        _raise_for(answer)
        return _data(answer)

    def _is_there(self, path: str) -> bool:
        answer = self._asked("GET", path, None)
        if answer.status_code != requests.codes.not_found:
            _raise_for(answer)
        return answer.status_code != requests.codes.not_found

    def _is_let_through(self, method: str, path: str, body: dict[str, Any] | None) -> bool:
        answer = self._asked(method, path, body)
        if answer.status_code not in _REFUSALS:
            _raise_for(answer)
        return answer.status_code != requests.codes.forbidden

    def _asked(self, method: str, path: str, body: dict[str, Any] | None) -> requests.Response:
        login = self._current_login(None)
        answer = self._send(method, path, body, login.token)
        if answer.status_code == requests.codes.forbidden:  # the token may be gone before its time: once more, anew
            login = self._current_login(login)
            answer = self._send(method, path, body, login.token)
        return answer

    def _current_login(self, refused: _Login | None) -> _Login:
        """The login all threads share, made anew after 2/3 of its life, or where it is `refused`."""
        with self._login_lock:
            login = self._login
            if login is None or login is refused or time.monotonic() >= login.stale_at:
                login = self._login = self._log_in()
            return login

    def _log_in(self) -> _Login:
        asked_at = time.monotonic()
        answer = self._send("POST", "auth/approle/login", self._identity, None)
        _raise_for(answer)
        auth = _json(answer)["auth"]
        return _Login(auth["client_token"], asked_at + auth["lease_duration"] * 2 / 3)

    def _send(self, method: str, path: str, body: dict[str, Any] | None, token: str | None) -> requests.Response:
        try:
            return self._send_once(method, path, body, token)
        except requests.Timeout as cause:
            raise KeyUnavailable from cause
        except _BROKEN:
            # most often a pooled connection that died with the server's last restart; a second refusal comes at once
            return self._send_again(method, path, body, token)

    def _send_again(self, method: str, path: str, body: dict[str, Any] | None, token: str | None) -> requests.Response:
        try:
            return self._send_once(method, path, body, token)
        except _BROKEN as cause:
            raise KeyUnavailable from cause

    def _send_once(self, method: str, path: str, body: dict[str, Any] | None, token: str | None) -> requests.Response:
        # an adapter holds its token as state, so each request of each thread has its own; the session is shared
        adapter = RawAdapter(self._address, token=token, session=self._session, allow_redirects=False)
        seconds = (_CONNECT_SECONDS, _READ_SECONDS)
        return adapter.request(method, f"/v1/{path}", raise_exception=False, json=body, timeout=seconds)


class TokenVault(Vault):
    """Comes with an operator's token instead of logging in."""

    def __init__(self, address: str, token: str, *, ca_file: str | None) -> None:
        super().__init__(address, "", "", ca_file=ca_file)
        self._given = _Login(token, math.inf)

    def _log_in(self) -> _Login:
        return self._given


def _session(ca_file: str | None) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy, no .netrc and no CA bundle from the environment
    session.verify = ca_file if ca_file is not None else True
    session.mount("https://", HTTPAdapter(pool_maxsize=_THREADS))
    session.mount("http://", HTTPAdapter(pool_maxsize=_THREADS))
    return session


def _refuse_clear_text(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not _is_loopback(parts.hostname or ""):
        raise ValueError("The address of OpenBao must be https://, or http:// on this machine's loopback.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _raise_for(answer: requests.Response) -> None:
    if answer.status_code in _REFUSALS:
        raise KeyRefused
    if not 200 <= answer.status_code < 300:
        raise KeyUnavailable


def _data(answer: requests.Response) -> dict[str, Any]:
    if answer.status_code == requests.codes.no_content:
        return {}
    data: dict[str, Any] = _json(answer)["data"] or {}
    return data


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        content: dict[str, Any] = answer.json()
    except requests.JSONDecodeError:
        raise KeyUnavailable from None  # its cause would carry the body, and a body may carry a key
    return content
