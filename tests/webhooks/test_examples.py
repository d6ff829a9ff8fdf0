"""The receivers of examples/webhooks take what the product sends, each message once, and refuse all else."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from crypto.webhooks import SigningSecret, headers
from tests.clients import node_packages
from tests.house import House
from tests.webhooks.post import post_office

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "webhooks"
BODY = '{"type":"customer.updated","data":{"name":"Žofie"}}'.encode()


@dataclass
class Running:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).decode().strip()

    async def post(self, sent: dict[str, str], body: bytes) -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.post(f"http://{self.place}/", headers=sent, content=body)).status_code


def _python() -> Sequence[str]:
    return [sys.executable, str(EXAMPLES / "receiver.py"), "0"]


def _node() -> Sequence[str]:
    node_packages.install()
    shutil.copy(EXAMPLES / "receiver.mjs", node_packages._FOLDER)  # beside the packages
    return [str(node_packages._NODE), str(node_packages._FOLDER / "receiver.mjs"), "0"]


@asynccontextmanager
async def running(command: Sequence[str], secret: SigningSecret) -> AsyncIterator[Running]:
    environment = {**os.environ, "WEBHOOK_SECRET": secret.secret, "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:  # noqa: ASYNC220  # starts at once
        try:
            started = Running(0, process)
            started.port = int((await started.line()).rpartition(" ")[2])
            yield started
        finally:
            process.kill()


@pytest.fixture(params=["python", "node"])
async def command(request: pytest.FixtureRequest) -> Sequence[str]:
    return await asyncio.to_thread(_python if request.param == "python" else _node)


async def test_a_message_is_verified_and_done_once(command: Sequence[str]) -> None:
    secret, other = SigningSecret.fresh(), SigningSecret.fresh()
    now = int(time.time())
    async with running(command, secret) as receiver:
        good = headers("msg_1", now, BODY, [other, secret])
        assert [await receiver.post(good, BODY) for _ in range(3)] == [204] * 3
        assert await receiver.post(headers("msg_2", now, BODY, [secret]), BODY) == 204
        for bad, body in (
            (good, BODY + b" "),
            (good | {"webhook-id": "msg_3"}, BODY),
            (headers("msg_4", now, BODY, [other]), BODY),
            (headers("msg_5", now - 301, BODY, [secret]), BODY),
            (headers("msg_6", now + 400, BODY, [secret]), BODY),
            ({}, BODY),
        ):
            assert await receiver.post(bad, body) == 400
        assert await receiver.post(headers("msg_7", now, b"{}", [secret]), b"{}") == 204
        lines = [json.loads(await receiver.line()) for _ in range(3)]
    assert lines == [json.loads(BODY), json.loads(BODY), {}]


async def test_it_takes_what_the_product_sends(house: House, command: Sequence[str]) -> None:
    async with post_office(house) as post:
        # The receiver needs the secret before it runs, and the endpoint the receiver's address: so it is moved there.
        view, secret = await post.add("https://hooks.example.com/")
        async with running(command, secret) as receiver:
            await post.move(view.id, f"http://{receiver.place}/")
            await post.customer(givenName="Žofie")
            await post.settle()
            rows = await post.rows("SELECT state FROM webhook_deliveries WHERE tenant_id = $1")
            assert [row["state"] for row in rows] == ["DELIVERED"]
            assert json.loads(await receiver.line())["type"] == "customer.created"
