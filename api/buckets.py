"""Token buckets in this process: what one may have at once, and how fast it comes back; imports nothing of ours."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

_MOST = 100_000  # buckets; those that go are the least recently used, which are full again as a rule


@dataclass(frozen=True, slots=True)
class Quota:
    """`burst` at once, `per_second` in the long run; `name` is what the headers call it."""

    name: str
    burst: int
    per_second: float

    @property
    def window(self) -> int:
        """Seconds in which an empty bucket is full again."""
        return ceil(self.burst / self.per_second)

    def scaled(self, percent: int) -> "Quota":
        return replace(self, burst=max(1, self.burst * percent // 100), per_second=self.per_second * percent / 100)


class Draw(NamedTuple):
    """So much from the bucket of `whose`. Nobody needs more than the burst: an amount beyond it takes all of it."""

    quota: Quota
    whose: str
    wanted: int

    @property
    def amount(self) -> int:
        return min(self.wanted, self.quota.burst)


@dataclass(frozen=True, slots=True)
class Left:
    """What a bucket holds after a draw; `wait` is in how many seconds the draw could be had, 0 where it was."""

    quota: Quota
    tokens: float
    wait: float = 0.0

    @property
    def resets_in(self) -> int:
        """Seconds until the bucket is full."""
        return ceil(max(0.0, self.quota.burst - self.tokens) / self.quota.per_second)


class Buckets:
    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._clock, self._most = clock, most
        self._known: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # tokens, and when

    def take(self, draws: Sequence[Draw]) -> list[Left]:
        """All of them or none, in their order."""
        now = self._clock()
        tokens = [self._tokens(draw, now) for draw in draws]
        found = settled(draws, tokens)
        for draw, left in zip(draws, found, strict=True):
            self._known[draw.quota.name, draw.whose] = (left.tokens, now)
            self._known.move_to_end((draw.quota.name, draw.whose))
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found

    def owe(self, draws: Sequence[Draw]) -> None:
        """Take all of it even where there is less: nobody gets anything of a bucket in debt."""
        now = self._clock()
        for draw in draws:
            self._known[draw.quota.name, draw.whose] = (self._tokens(draw, now) - draw.amount, now)

    def _tokens(self, draw: Draw, now: float) -> float:
        quota = draw.quota
        tokens, at = self._known.get((quota.name, draw.whose), (float(quota.burst), now))
        return min(float(quota.burst), tokens + (now - at) * quota.per_second)


def settled(draws: Sequence[Draw], tokens: Sequence[float]) -> list[Left]:
    """What is left of these tokens where all draws can be had, or how long to wait where one can't."""
    is_enough = all(held >= draw.amount for draw, held in zip(draws, tokens, strict=True))
    if is_enough:
        return [Left(draw.quota, held - draw.amount) for draw, held in zip(draws, tokens, strict=True)]
    return [
        Left(draw.quota, held, max(0.0, draw.amount - held) / draw.quota.per_second)
        for draw, held in zip(draws, tokens, strict=True)
    ]
