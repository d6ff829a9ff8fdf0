"""Sign-in tells nothing but yes or no, and slows down after failures, for people who do not exist too."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from crypto.cache import KeyringCache
from crypto.errors import CofferError
from tenants import tenants
from tenants.access import Role
from tenants.errors import SignInBusy, SignInRefused, TooManyAttempts
from tenants.jobs.fair_queues import FairQueue
from tenants.signing_in.attempts import FREE_ATTEMPTS, LONGEST_WAIT
from tenants.signing_in.sessions import Device
from tenants.signing_in.sign_in import SignIns
from tenants.units import Units
from tenants.viewers import Credential
from tests.house import PASSWORD, House

SIGN_IN = (
    "mutation($t: String!, $e: String!, $p: String!) { signIn(tenant: $t, email: $e, password: $p)"
    " { accessToken userErrors { code path message } } }"
)
KNOWN, UNKNOWN = "agent@{}.example.org", "nobody@{}.example.org"


class Door:
    """A tenant of its own and a clock that stands until it is moved."""

    def __init__(self, house: House, slug: str) -> None:
        self.house, self.slug, self.now = house, slug, datetime.now(UTC)
        units = Units(house.api.database, house.api.keys, KeyringCache(), now=lambda: self.now)
        self.sign_ins = SignIns(units, house.api.platform, house.api.passwords, house.api.recorder)

    async def knock(self, email: str, said: str = "not the password") -> Credential | CofferError:
        try:
            credential, _ = await self.sign_ins.sign_in(self.slug, email.format(self.slug), said)
        except (SignInRefused, SignInBusy, TooManyAttempts) as refused:
            return refused
        assert credential.session is not None
        return replace(credential, session=None)

    async def flood(self, number: int) -> str:
        """One of many attempts from one home, for somebody made up."""
        here = Device(user_agent=None, address=f"2001:db8:1::{number:x}")
        try:
            await self.sign_ins.sign_in(self.slug, f"made-up-{number}@example.org", "not the password", device=here)
        except CofferError as refused:
            return refused.code
        return "IN"

    async def codes(self, email: str, times: int, said: str = "not the password") -> list[str]:
        answers = [await self.knock(email, said) for _ in range(times)]
        return [answer.code if isinstance(answer, CofferError) else "IN" for answer in answers]


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    slug = f"door-{uuid4().hex[:12]}"
    await house.add_tenant(slug)
    yield Door(house, slug)
    del house.tenants[slug], house.members[slug]


async def test_the_right_password_gives_the_members_credential(door: Door) -> None:
    assert await door.knock(KNOWN, PASSWORD) == door.house.members[door.slug][Role.AGENT]


async def test_an_e_mail_is_known_in_any_case_and_between_blanks(door: Door) -> None:
    assert (
        await door.knock(f"  {KNOWN.format(door.slug).upper()} ", PASSWORD)
        == (door.house.members[door.slug][Role.AGENT])
    )


async def test_another_tenants_member_does_not_get_in(door: Door) -> None:
    assert await door.codes("agent@acme.example.org", 1, PASSWORD) == ["SIGN_IN_REFUSED"]


WRONG: list[Callable[[str], dict[str, str]]] = [
    lambda slug: {"t": slug, "e": KNOWN.format(slug), "p": "not the password"},
    lambda slug: {"t": slug, "e": KNOWN.format(slug), "p": ""},
    lambda slug: {"t": slug, "e": UNKNOWN.format(slug), "p": PASSWORD},
    lambda slug: {"t": slug, "e": "no address at all", "p": PASSWORD},
    lambda slug: {"t": f"{slug}-not", "e": KNOWN.format(slug), "p": PASSWORD},
    lambda slug: {"t": "", "e": KNOWN.format(slug), "p": PASSWORD},
]


async def test_all_that_may_be_wrong_answers_alike_and_costs_one_password(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    verify = door.house.api.passwords._verify

    def spy(stored: str, said: str) -> bool:
        looked.append(stored)
        return verify(stored, said)

    monkeypatch.setattr(door.house.api.passwords, "_verify", spy)
    await tenants.suspend(door.house.api.platform, door.slug)
    suspended = await door.house.ask(SIGN_IN, WRONG[0](door.slug), role=None)
    await tenants.resume(door.house.api.platform, door.slug)
    answers = [suspended, *[await door.house.ask(SIGN_IN, wrong(door.slug), role=None) for wrong in WRONG]]
    assert answers[0]["data"]["signIn"]["userErrors"][0]["code"] == "SIGN_IN_REFUSED"
    assert all(answer == answers[0] for answer in answers)
    assert len(looked) == len(answers)


@pytest.mark.parametrize("email", [KNOWN, UNKNOWN], ids=["known", "unknown"])
async def test_failures_are_counted_and_slowed_whether_or_not_there_is_such_a_member(door: Door, email: str) -> None:
    assert (
        await door.codes(email, FREE_ATTEMPTS + 3)
        == ["SIGN_IN_REFUSED"] * (FREE_ATTEMPTS + 1) + ["TOO_MANY_ATTEMPTS"] * 2
    )
    door.now += timedelta(seconds=1)
    assert await door.codes(email, 2) == ["SIGN_IN_REFUSED", "TOO_MANY_ATTEMPTS"]
    door.now += timedelta(seconds=1)
    assert await door.codes(email, 1) == ["TOO_MANY_ATTEMPTS"]
    door.now += timedelta(seconds=1)
    assert await door.codes(email, 1) == ["SIGN_IN_REFUSED"]


async def test_the_right_password_must_wait_too_and_then_forgets_the_failures(door: Door) -> None:
    await door.codes(KNOWN, FREE_ATTEMPTS + 1)
    assert await door.codes(KNOWN, 1, PASSWORD) == ["TOO_MANY_ATTEMPTS"]
    door.now += timedelta(seconds=1)
    assert await door.codes(KNOWN, 1, PASSWORD) == ["IN"]
    assert await door.codes(KNOWN, FREE_ATTEMPTS + 1) == ["SIGN_IN_REFUSED"] * (FREE_ATTEMPTS + 1)


async def test_one_members_failures_slow_nobody_else(door: Door) -> None:
    await door.codes(KNOWN, FREE_ATTEMPTS + 2)
    assert await door.codes("owner@{}.example.org", 1, PASSWORD) == ["IN"]


async def test_nobody_waits_longer_than_five_minutes(door: Door) -> None:
    for _ in range(FREE_ATTEMPTS + 14):
        await door.knock(UNKNOWN)
        door.now += LONGEST_WAIT
    assert await door.codes(UNKNOWN, 1) == ["SIGN_IN_REFUSED"]


async def test_a_sign_in_gives_a_token_that_works(door: Door) -> None:
    sent = {"t": door.slug, "e": KNOWN.format(door.slug), "p": PASSWORD}
    token = (await door.house.data(SIGN_IN, sent, role=None))["signIn"]["accessToken"]
    me = await door.house.data("{ me { roles } }", role=None, headers={"authorization": f"Bearer {token}"})
    assert me["me"]["roles"] == ["AGENT"]


async def test_a_flood_from_one_address_stops_no_other_tenant(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the flood are in and eight wait; then two of it are looked at, at most, before the owner of globex is."""
    passwords, looked, go = door.house.api.passwords, list[str](), threading.Event()
    verify = passwords._verify

    def spy(stored: str, said: str) -> bool:
        go.wait(20)
        looked.append(said)
        return verify(stored, said)

    monkeypatch.setattr(passwords, "_verify", spy)
    flood = [asyncio.create_task(door.flood(number)) for number in range(30)]
    away: set[asyncio.Task[str]] = set()
    while len(away) < 20:
        done, _ = await asyncio.wait(set(flood) - away, return_when=asyncio.FIRST_COMPLETED)
        away |= done
    device = Device(user_agent=None, address="2001:db8::1")
    owner = asyncio.create_task(door.sign_ins.sign_in("globex", "owner@globex.example.org", PASSWORD, device=device))
    while not passwords._queue._tenants["globex"]:  # noqa: ASYNC110  # it has no event, and nobody else needs one
        await asyncio.sleep(0.01)
    go.set()

    assert (await owner)[0].tenant == door.house.tenants["globex"].id
    assert {task.result() for task in away} == {"SIGN_IN_BUSY"}
    assert (await asyncio.gather(*flood)).count("SIGN_IN_REFUSED") == 10
    assert looked.index(PASSWORD) <= 3


async def test_an_attempt_that_finds_no_place_is_not_counted(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.house.api.passwords, "_queue", FairQueue(0, most=0, of_one=0))
    assert await door.codes(KNOWN, FREE_ATTEMPTS + 3, PASSWORD) == ["SIGN_IN_BUSY"] * (FREE_ATTEMPTS + 3)
    monkeypatch.undo()
    assert await door.codes(KNOWN, 1, PASSWORD) == ["IN"]


async def test_a_busy_process_says_when_to_come_back(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.house.api.passwords, "_queue", FairQueue(0, most=0, of_one=0))
    sent = {"t": door.slug, "e": KNOWN.format(door.slug), "p": PASSWORD}
    (error,) = (await door.house.ask(SIGN_IN, sent, role=None))["errors"]
    told = {name: error["extensions"][name] for name in ("code", "retryable", "retryAfter")}
    assert told == {"code": "SIGN_IN_BUSY", "retryable": True, "retryAfter": 2}
