"""Long work rests while the database is slow, and at no other time."""

from types import SimpleNamespace

import pytest

from jobs.throttle import CEILING, Throttle


async def nothing() -> None:
    pass


def after(*seconds: float, step: float = 0.4) -> Throttle:
    """One whose probes took so long, and its last step."""
    made = Throttle(nothing)
    for each in seconds:
        made._note(each)
    made._step = step
    return made


def test_probes_as_quick_as_ever_hold_up_nobody() -> None:
    assert after(0.02, 0.02, 0.03, 0.039).owed == 0


def test_behind_a_slow_probe_one_rests_for_as_long_as_the_step_took() -> None:
    assert after(0.02, 0.02, 0.05).owed == 0.4


def test_once_it_is_quick_again_nobody_rests() -> None:
    assert after(0.02, 1.0, 0.02).owed == 0


def test_slowness_of_a_minute_does_not_become_usual() -> None:
    assert after(0.02, *[0.09] * 60).owed == 0.4


def test_slowness_of_hours_does() -> None:
    assert after(0.02, *[0.09] * 10_000).owed == 0


def test_slowness_beyond_the_ceiling_never_does_nor_where_it_was_so_from_the_start() -> None:
    assert after(0.02, *[2 * CEILING] * 10_000).owed == 0.4
    assert after(2 * CEILING).owed == 0.4


def test_what_is_quick_anyway_is_never_slow() -> None:
    assert after(0.0005, 0.019).owed == 0


def test_no_rest_is_longer_than_a_lease_bears() -> None:
    assert after(0.02, 1.0, step=600.0).owed == 5.0


async def test_a_short_first_step_makes_no_later_one_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a step does: it is the probe that counts, and each is measured for itself."""
    moments = iter([0.0, 0.001, 1.0, 1.01, 2.0, 4.0, 5.0, 5.01, 6.0, 8.0, 9.0, 9.5])
    slept = list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("jobs.throttle.time", SimpleNamespace(monotonic=lambda: next(moments)))
    monkeypatch.setattr("jobs.throttle.asyncio", SimpleNamespace(sleep=sleep))
    made = Throttle(nothing)
    for _ in range(3):
        with made.measured():
            pass
        await made.rest()

    assert slept == [2.0]  # behind the third, whose probe took half a second


async def test_probes_are_apart() -> None:
    probes = 0

    async def probe() -> None:
        nonlocal probes
        probes += 1

    made = Throttle(probe)
    for _ in range(50):
        with made.measured():
            pass
        await made.rest()

    assert probes == 1
