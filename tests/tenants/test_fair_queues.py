"""A fair queue: who asks for much waits for itself, and whoever leaves takes nobody's place along."""

import asyncio

import pytest

from tenants.jobs.fair_queues import Asking, FairQueue, QueueFull


class Desk:
    """One is served at a time, until `serve` is called; `served` is in the order in which they came in."""

    def __init__(self, most: int = 64, of_one: int = 8) -> None:
        self.queue = FairQueue(1, most=most, of_one=of_one)
        self.served: list[str] = []
        self._first = self.queue.turn(Asking("first", "first"))

    async def __aenter__(self) -> "Desk":
        await self._first.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def come(self, *names: str) -> list[asyncio.Task[None]]:
        """Each is a tenant, and behind a slash who of it."""
        tasks = []
        for name in names:
            tasks.append(asyncio.create_task(self._come(name)))
            await asyncio.sleep(0)
        return tasks

    async def serve(self, tasks: list[asyncio.Task[None]]) -> list[bool]:
        """Whether each was sent away."""
        await self._first.__aexit__(None, None, None)
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        return [isinstance(end, QueueFull) for end in ends]

    async def _come(self, name: str) -> None:
        tenant, _, one = name.partition("/")
        async with self.queue.turn(Asking(tenant, one or tenant)):
            self.served.append(name)
            await asyncio.sleep(0)


async def test_tenants_have_turns() -> None:
    async with Desk() as desk:
        tasks = await desk.come(*["acme"] * 5, "globex", "initech")
        await desk.serve(tasks)

    assert desk.served == ["acme", "globex", "initech", *["acme"] * 4]


async def test_so_have_those_of_one_tenant() -> None:
    async with Desk() as desk:
        tasks = await desk.come("acme/1", "acme/1", "acme/1", "acme/2", "globex/1")
        await desk.serve(tasks)

    assert desk.served == ["acme/1", "globex/1", "acme/2", "acme/1", "acme/1"]


async def test_one_address_waits_for_few_at_whatever_tenants() -> None:
    async with Desk(of_one=3) as desk:
        tasks = await desk.come(*(f"tenant-{number}/flood" for number in range(5)), "acme/else")
        sent_away = await desk.serve(tasks)

    assert sent_away == [False, False, False, True, True, False]


async def test_where_all_places_are_taken_whoever_waits_for_most_makes_room() -> None:
    async with Desk(most=4) as desk:
        tasks = await desk.come("acme/1", "acme/1", "acme/1", "acme/2", "globex/3", "acme/1", "acme/4")
        sent_away = await desk.serve(tasks)

    assert sent_away == [False, True, True, False, False, True, False]
    assert desk.served == ["acme/1", "globex/3", "acme/2", "acme/4"]


async def test_where_all_wait_for_as_little_the_last_is_sent_away() -> None:
    async with Desk(most=2) as desk:
        tasks = await desk.come("acme", "globex", "initech")
        sent_away = await desk.serve(tasks)

    assert sent_away == [False, False, True]


async def test_who_leaves_keeps_nobody_waiting_and_no_place() -> None:
    async with Desk(of_one=1) as desk:
        gone = await desk.come("acme")
        gone[0].cancel()
        await asyncio.sleep(0)
        tasks = await desk.come("acme", "globex")
        await desk.serve(tasks)

    assert desk.served == ["acme", "globex"]


async def test_a_turn_that_comes_as_its_owner_goes_is_the_next_ones() -> None:
    async with Desk() as desk:
        tasks = await desk.come("acme", "globex")
        serving = asyncio.create_task(desk.serve(tasks[1:]))
        await asyncio.sleep(0)  # the turn is acme's now, which has not run since
        tasks[0].cancel()
        assert await serving == [False]

    assert desk.served == ["globex"]


async def test_whoever_would_be_sent_away_is_told_before() -> None:
    async with Desk(of_one=1) as desk:
        tasks = await desk.come("acme")
        with pytest.raises(QueueFull):
            desk.queue.refuse_full(Asking("acme", "acme"))
        desk.queue.refuse_full(Asking("acme", "else"))
        await desk.serve(tasks)

    desk.queue.refuse_full(Asking("acme", "acme"))
