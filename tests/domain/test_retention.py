"""What is kept of many backups: the newest of each of the last days, weeks and months; never nothing."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from domain.retention import Retention, kept
from tenants.backups import Generation

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)  # a Sunday
MOMENTS = st.lists(st.datetimes(datetime(2024, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)), max_size=60)
COUNTS = st.builds(Retention, st.integers(1, 9), st.integers(0, 9), st.integers(0, 15))


def nightly(days: int) -> list[tuple[datetime, UUID]]:
    return [(NOON - timedelta(days=day), uuid4()) for day in range(days)]


def test_a_year_of_nights_leaves_days_weeks_and_months() -> None:
    made = nightly(400)
    found = kept(made, Retention(7, 5, 12))
    of = {generation: sum(generation in each for each in found.values()) for generation in Generation}

    assert of == {Generation.DAILY: 7, Generation.WEEKLY: 5, Generation.MONTHLY: 12}
    assert [day for day, (_, id) in enumerate(made) if Generation.WEEKLY in found.get(id, [])] == [0, 7, 14, 21, 28]


def test_of_two_on_one_day_the_newer_one_stays() -> None:
    older, newer = (NOON, uuid4()), (NOON + timedelta(hours=1), uuid4())

    assert set(kept([older, newer], Retention(7, 5, 12))) == {newer[1]}


def test_gaps_keep_older_days() -> None:
    made = [(NOON - timedelta(days=day), uuid4()) for day in (0, 50, 100, 150)]

    assert set(kept(made, Retention(3, 0, 0))) == {id for _, id in made[:3]}


@given(MOMENTS, COUNTS)
def test_the_newest_always_stays_and_no_more_than_asked(moments: list[datetime], retention: Retention) -> None:
    made = [(moment, uuid4()) for moment in moments]
    found = kept(made, retention)

    assert len(found) <= retention.daily + retention.weekly + retention.monthly
    assert not made or max(made)[1] in found


@given(MOMENTS, COUNTS)
def test_what_was_let_go_is_not_missed_later(moments: list[datetime], retention: Retention) -> None:
    made = [(moment, uuid4()) for moment in moments]
    left = kept(made, retention)

    assert kept([each for each in made if each[1] in left], retention) == left
