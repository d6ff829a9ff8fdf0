"""How much each caller may ask for: requests and their cost, by token buckets of members, API keys, tenants, addresses.

There is no bucket that tenants share, so one tenant's flood is nobody else's. Requests are counted in this process
before anything is parsed; what an operation costs is known once it is prepared, and is taken before anything runs: from
buckets that all processes share where there are such, else from this process' own.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any
from uuid import UUID

from graphql import GraphQLError

from api.buckets import Buckets, Draw, Left, Quota
from api.documents import RequestRefused
from api.shared_buckets import SharedBuckets
from tenants.origins import home_of

# At once, and a second. A process answers some 200 pages of 50 customers a second, which cost 450 each: in the long run
# a tenant gets half of one.
REQUESTS = {"member": (1_000, 100.0), "key": (1_000, 100.0), "tenant": (2_000, 200.0), "address": (200, 20.0)}
COSTS = {
    "member": (200_000, 20_000.0),
    "key": (200_000, 20_000.0),
    "tenant": (400_000, 40_000.0),
    "address": (20_000, 2_000.0),
}
_SHUT_OUT = 60.0  # seconds; if it is let in again meanwhile, the address's limits are its own for that long
_MOST_GONE = 10_000
Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is counted as one: of `kind` member, key or address. A caller without a tenant is anonymous."""

    kind: str
    whose: str
    tenant: UUID | None = None


class RateLimited(RequestRefused):
    """Nothing ran. `headers` say when to come back."""

    def __init__(self, left: Sequence[Left]) -> None:
        wait = max(1, ceil(max(each.wait for each in left)))
        message = f"Too many or too costly requests; come back in {wait} s."
        super().__init__(
            GraphQLError(message, extensions={"code": "RATE_LIMITED", "retryable": True, "retryAfter": wait})
        )
        self.headers = {**headers_of(left), "retry-after": str(wait)}


class Rates:
    """`percent` scales every quota; 0 means no limits. `tell` counts: see `tenants.usage.Tally.count`."""

    def __init__(
        self,
        percent: int = 100,
        shared: SharedBuckets | None = None,
        tell: Tell = lambda _tenant, **_counts: None,
        buckets: Buckets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_off = percent == 0
        self._requests = {kind: Quota(kind, *quota).scaled(percent) for kind, quota in REQUESTS.items() if percent}
        self._costs = {kind: Quota(f"{kind}-cost", *quota).scaled(percent) for kind, quota in COSTS.items() if percent}
        self._shared, self._tell = shared, tell
        self.own = buckets or Buckets()
        self._clock = clock
        self._gone: OrderedDict[Any, float] = OrderedDict()  # until when
        self._salt = secrets.token_bytes(16)

    def caller(self, credential: Any, client: Sequence[Any] | None) -> Caller:
        """`client` is host and port as ASGI tells them; they count where there is no credential."""
        tenant = getattr(credential, "tenant", None)
        if tenant is None or self._gone.get(credential, 0.0) > self._clock():
            return Caller("address", self.address(client))
        if credential.key is not None:
            return Caller("key", hashlib.blake2b(credential.key, digest_size=16).hexdigest(), tenant)
        return Caller("member", credential.principal.hex, tenant)

    def address(self, client: Sequence[Any] | None) -> str:
        """A hash that means nothing outside of this process. Of IPv6 the /64, which is one home's or one machine's."""
        host = home_of(str(client[0]) if client else None)
        return hashlib.blake2b(host.encode(), key=self._salt, digest_size=16).hexdigest()

    def admit(self, caller: Caller) -> dict[str, str]:
        """Count one request. Returns headers for the answer; raises `RateLimited`."""
        self._told(caller, requests=1)
        if self._is_off:
            return {}
        # Costs are not known yet, but whoever is in debt gets nothing read.
        draws = [*self._draws(self._requests, caller, 1), *self._draws(self._costs, caller, 0)]
        return self._answer(caller, self.own.take(draws))

    async def charge(self, caller: Caller, cost: int) -> dict[str, str]:
        """Take what an admitted request costs. Returns headers for the answer; raises `RateLimited`."""
        if self._is_off:
            self._told(caller, cost=cost)
            return {}
        headers = self._answer(caller, await self._taken(caller, cost))
        self._told(caller, cost=cost)
        return headers

    def charge_read(self, caller: Caller, characters: int) -> None:
        """A document that is not known costs a tenth of its length, in debt if need be: the work is done.

        So it is whether or not it can run, and whatever of it does.
        """
        if not self._is_off:
            self.own.owe(self._draws(self._costs, caller, characters // 10))

    def shut_out(self, credential: Any) -> None:
        """A good token named who is gone: for a minute, what comes with it counts for its address.

        Else it would take from its tenant's buckets for as long as the token lasts.
        """
        if getattr(credential, "tenant", None) is None:
            return
        self._gone[credential] = self._clock() + _SHUT_OUT
        self._gone.move_to_end(credential)
        while len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)

    async def _taken(self, caller: Caller, cost: int) -> list[Left]:
        costs = self._draws(self._costs, caller, cost)
        if self._shared is not None and caller.tenant is not None:  # addresses are nowhere but in this process
            draws = [*self._draws(self._requests, caller, 1), *costs]
            left = await self._shared.take(draws, caller.tenant.hex)
            if left is not None:
                return left
        # What is left of the requests is looked at, not taken again.
        return self.own.take([*self._draws(self._requests, caller, 0), *costs])

    def _draws(self, quotas: dict[str, Quota], caller: Caller, amount: int) -> list[Draw]:
        draws = [Draw(quotas[caller.kind], caller.whose, amount)]
        if caller.tenant is not None:
            draws.append(Draw(quotas["tenant"], caller.tenant.hex, amount))
        return draws

    def _answer(self, caller: Caller, left: Sequence[Left]) -> dict[str, str]:
        if any(each.wait for each in left):
            self._told(caller, refused=1)
            raise RateLimited(left)
        return headers_of(left)

    def _told(self, caller: Caller, **counts: int) -> None:
        if caller.tenant is not None:
            self._tell(caller.tenant, **counts)


def headers_of(left: Sequence[Left]) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers-10 has them: what is the caller's own, and what made it wait.

    What others of the tenant left over is shown only where it is the reason.
    """
    shown = [each for each in left if not each.quota.name.startswith("tenant") or each.wait]
    return {
        "ratelimit-policy": ", ".join(f'"{q.name}";q={q.burst};w={q.window}' for q in (each.quota for each in shown)),
        "ratelimit": ", ".join(f'"{each.quota.name}";r={int(each.tokens)};t={_next(each)}' for each in shown),
    }


def _next(left: Left) -> int:
    return ceil(left.wait) or left.resets_in
