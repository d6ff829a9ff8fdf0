"""Names that nobody answers for: they hold up whoever asks for them, and nobody else."""

import asyncio
import socket
import threading
from collections.abc import Sequence

import pytest

from egress import Egress, NotReached, Reason
from egress.names import Lookups, resolve_by_system


class Silent:
    """Answers for no name until told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        await self.answers.wait()
        return ["192.0.2.1"]


async def test_names_wait_for_no_other_work_on_threads() -> None:
    held = threading.Event()
    others = [asyncio.create_task(asyncio.to_thread(held.wait)) for _ in range(64)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            assert "127.0.0.1" in await resolve_by_system("localhost", 443)
        assert not any(task.done() for task in others)
    finally:
        held.set()
        await asyncio.gather(*others)


async def test_of_one_silent_name_one_look_up_is_busy_however_many_ask_and_give_up() -> None:
    silent = Silent()
    names = Lookups(silent)
    for _ in range(3):
        asking = [asyncio.create_task(names.find("me", "hooks.example.com", 443)) for _ in range(8)]
        await asyncio.sleep(0.01)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert silent.asked == ["hooks.example.com"]
    silent.answers.set()
    assert await names.find("me", "hooks.example.com", 443) == ["192.0.2.1"]
    await names.find("me", "hooks.example.com", 443)
    assert len(silent.asked) == 2


async def test_an_asker_with_many_silent_names_holds_up_no_other() -> None:
    silent = Silent()
    names = Lookups(silent, of_one=2)
    mine = [asyncio.create_task(names.find("me", f"{number}.example.com", 443)) for number in range(5)]
    await asyncio.sleep(0.01)
    theirs = asyncio.create_task(names.find("they", "example.org", 443))
    await asyncio.sleep(0.01)
    assert silent.asked == ["0.example.com", "1.example.com", "example.org"]
    silent.answers.set()
    await asyncio.gather(*mine, theirs)
    assert len(silent.asked) == 6


async def test_a_name_that_fails_after_everybody_left_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gone = asyncio.Event()

    async def unknown(_host: str, _port: int) -> Sequence[str]:
        await gone.wait()
        raise socket.gaierror("canary.example.com")

    house = Egress(resolve=unknown, total_seconds=0.01)
    with pytest.raises(NotReached) as failed:
        await house.check("https://canary.example.com/", asker="me")
    gone.set()
    await asyncio.sleep(0.01)
    assert failed.value.reason is Reason.TOTAL_TIME
    assert (house._names._busy, caplog.text) == ({}, "")
