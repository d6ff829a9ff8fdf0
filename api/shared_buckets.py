"""Token buckets that all processes share in Redis; where it is away or slow, the caller has its own to fall back on."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from api.buckets import Draw, Left, settled

_PATIENCE = 0.05  # seconds that a request may wait for Redis
_REACH = 2.0  # seconds that connecting may take, while nobody waits for it
_REST = 1.0  # seconds between two attempts
_CONNECTIONS = 8  # each is busy for less than a millisecond
# One script, so that parallel draws can't both have the last token; by Redis' clock, as those of machines differ.
_TAKE = """
local moment = redis.call('TIME')
local now = tonumber(moment[1]) + tonumber(moment[2]) / 1000000
local held, enough = {}, true
for i, key in ipairs(KEYS) do
    local burst, rate, amount = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local kept = redis.call('HMGET', key, 'tokens', 'at')
    held[i] = burst
    if kept[1] then
        held[i] = math.min(burst, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * rate)
    end
    enough = enough and held[i] >= amount
end
local told = {}
for i, key in ipairs(KEYS) do
    local burst, rate, amount = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    told[i] = string.format('%.6f', math.floor(held[i] * 1000000) / 1000000)
    if enough then
        redis.call('HSET', key, 'tokens', string.format('%.6f', held[i] - amount), 'at', string.format('%.6f', now))
        redis.call('PEXPIRE', key, math.ceil(burst / rate * 1000) + 1000)
    end
end
return told
"""
_log = structlog.get_logger(__name__)


class SharedBuckets:
    """`url` is ``rediss://`` or, on loopback, ``redis://``. Nothing personal is stored: ids, counts and moments."""

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        tls = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_PATIENCE,
            socket_timeout=_REACH,
            socket_connect_timeout=_REACH,
            retry=Retry(NoBackoff(), 0),
            **(tls if url.startswith("rediss:") else {}),
        )
        self._client = redis.Redis.from_pool(pool)
        self._script = self._client.register_script(_TAKE)
        self._reaching: asyncio.Task[None] | None = None
        self.is_up = False

    async def take(self, draws: Sequence[Draw], tenant: str) -> list[Left] | None:
        """As `Buckets.take`, in one round trip; None where Redis did not tell in 50 ms. All draws are of `tenant`."""
        if not self.is_up:
            self.reach()
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                told = await self._script(
                    [f"coffer:rate:{{{tenant}}}:{draw.quota.name}:{draw.whose}" for draw in draws],
                    [part for draw in draws for part in (draw.quota.burst, draw.quota.per_second, draw.amount)],
                )
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            return None
        return settled(draws, [float(held) for held in told])

    def reach(self) -> "asyncio.Task[None]":
        """Connect in the background, so that no request pays for it; ends once Redis answers."""
        if self._reaching is None or self._reaching.done():
            # In a context of its own: it is part of nobody's visit.
            self._reaching = asyncio.create_task(self._reach(), context=Context())
        return self._reaching

    def told(self) -> float:
        return float(self.is_up)

    async def close(self) -> None:
        if self._reaching is not None:
            self._reaching.cancel()
            with suppress(asyncio.CancelledError):
                await self._reaching
        await self._client.aclose()

    def _lose(self, error: Exception) -> None:
        if self.is_up:
            self.is_up = False
            _log.warning("shared limits are away; each process keeps its own", error=type(error).__name__)

    async def _reach(self) -> None:
        while not self.is_up:
            try:
                async with asyncio.timeout(_REACH):
                    await asyncio.gather(*(self._client.ping() for _ in range(_CONNECTIONS)))
                self.is_up = True
                _log.info("limits are shared")
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(_REST)
