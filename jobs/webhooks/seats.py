"""Seats for requests on their way: a process has so many, and no tenant takes those that others may need.

A tenant holds at most half as many as are free, one apart. So however many tenants have slow receivers, some seats stay
free for the next: a tenant alone gets a third of them, two a quarter each, ten a twelfth each.
"""

from collections import Counter

from tenants.viewers import TenantId


class Seats:
    """For one event loop."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._held: Counter[TenantId] = Counter()

    @property
    def taken(self) -> int:
        return self._held.total()

    def take(self, tenant: TenantId, wanted: int) -> int:
        """Up to `wanted`; how many were got."""
        got = 0
        while got < wanted and self._free and (not self._held[tenant] or self._held[tenant] < self._free // 2):
            self._free, got = self._free - 1, got + 1
            self._held[tenant] += 1
        return got

    def give_back(self, tenant: TenantId, number: int = 1) -> None:
        self._free += number
        self._held[tenant] -= number
        if not self._held[tenant]:
            del self._held[tenant]
