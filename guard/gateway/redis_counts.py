"""What callers have used, kept in a Redis that gateways share, and in shares here while it fails.

One script in Redis decides, by Redis's own clock, so that gateways need not agree on the time. An
answer that does not come within the timeout, or makes no sense, is a failure: from then on every
gateway gives its share of each limit by itself, nobody waits for Redis any more, and a probe goes
on asking until it answers again. Keys are hashes of callers' names.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from guard import metrics
from guard.config.limits import Limits
from guard.errors import ConfigError
from guard.gateway.limits import DAY, SLACK, Allowance, LocalCounts, Refused

PREFIX = b"guard:limit:"
PROBE_SECONDS = 0.5  # between two questions to a Redis that failed
PROBE = Allowance(1.0, 1, 0)
EPOCH = 1_700_000_000  # subtracted from Redis's time, so that a double holds microseconds of it
log = logging.getLogger(__name__)

# `Use.take` again, in Redis. Times in seconds. KEYS: one. ARGV: rate, burst, daily, images.
SCRIPT = f"""
local time = redis.call('TIME')
local now = time[1] - {EPOCH} + time[2] / 1000000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local daily, images = tonumber(ARGV[3]), tonumber(ARGV[4])
local old = redis.call('HMGET', KEYS[1], 'level', 'last', 'start', 'used')
local level, last = tonumber(old[1]) or 0, tonumber(old[2]) or now
local start, used = tonumber(old[3]) or now, tonumber(old[4]) or 0
level = math.max(0, level - math.max(0, now - last) * rate)
start = math.min(start, now)
if used == 0 or now >= start + {DAY:.0f} then
  start, used = now, 0
end
local refused, wait = '', 0
if rate > 0 and level + images > burst * (1 + {SLACK}) then
  refused, wait = 'rate', (level + images - burst) / rate
elseif daily > 0 and used + images > daily then
  refused, wait = 'budget', start + {DAY:.0f} - now
else
  level, used = level + images, used + images
end
local function exact(number)
  return string.format('%.17g', number)
end
redis.call('HSET', KEYS[1], 'level', exact(level), 'last', exact(now),
  'start', exact(start), 'used', exact(used))
local keep = 0
if rate > 0 then keep = level / rate end
if daily > 0 then keep = math.max(keep, start + {DAY:.0f} - now) end
redis.call('PEXPIRE', KEYS[1], math.ceil(keep * 1000) + 1)
return {{refused, exact(wait)}}
"""


class SharedCounts:
    """Counts in Redis, as in `Counts`; `start` first."""

    def __init__(self, limits: Limits, local: LocalCounts) -> None:
        self._limits, self._local = limits, local
        self._redis: Any = connect(limits)
        self._script = self._redis.register_script(SCRIPT)
        self._up = True
        self._probing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look whether Redis is there; if it is not, go on without."""
        try:
            await self._ask(PREFIX + b"probe", PROBE, 0)
        except Exception as error:
            self._fail(error)
        else:
            self._set(up=True)

    async def take(self, key: bytes, allowance: Allowance, images: int) -> Refused | None:
        """Waits for Redis at most as long as the settings say, and not while it fails."""
        if self._up:
            try:
                return await self._ask(PREFIX + key.hex().encode(), allowance, images)
            except Exception as error:  # whatever it says instead of an answer
                self._fail(error)
        share = allowance.share(self._limits.replicas)
        return self._local.take_now(key, share, images)

    async def close(self) -> None:
        """Stop asking, hang up."""
        if self._probing is not None:
            self._probing.cancel()
        await self._redis.aclose()

    async def _ask(self, key: bytes, allowance: Allowance, images: int) -> Refused | None:
        async with asyncio.timeout(self._limits.redis_timeout):
            answer = await self._script(keys=[key], args=[*allowance, images])
        limit, seconds = answer[0].decode(), float(answer[1])
        if limit == "rate" or limit == "budget":
            return Refused(limit, min(max(seconds, 0.0), DAY))
        if limit:
            raise ValueError("an answer that the script does not give")
        return None

    def _fail(self, error: Exception) -> None:
        reason: metrics.SharedFailure = "answer"
        if isinstance(error, TimeoutError):
            reason = "timeout"
        elif isinstance(error, OSError) or type(error).__name__ == "ConnectionError":
            reason = "connection"
        metrics.SHARED_FAILURES.labels(reason).inc()
        if self._up:
            log.warning("limits: Redis fails (%s), counting here: %s", reason, type(error).__name__)
        self._set(up=False)
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while not self._up:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._ask(PREFIX + b"probe", PROBE, 0)
            except Exception:
                log.debug("limits: Redis still fails", exc_info=True)
            else:
                log.warning("limits: Redis answers again")
                self._set(up=True)

    def _set(self, *, up: bool) -> None:
        self._up = up
        metrics.SHARED_UP.labels("redis").set(up)


def connect(limits: Limits) -> Any:
    """A client of the Redis in the settings; nothing is asked yet. ConfigError for bad ones."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        message = "gateway.limits.redis: needs the package `redis`: pip install 'guard[redis]'"
        raise ConfigError(message, key="gateway.limits.redis") from None
    options: dict[str, Any] = {"ssl_ca_certs": limits.redis_ca} if limits.redis_ca else {}
    if limits.redis_password_file:
        options["password"] = _password(limits.redis_password_file)
    try:
        return Redis.from_url(
            limits.redis,
            socket_timeout=None,  # ours is around the whole question
            socket_connect_timeout=limits.redis_timeout,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
    except (ValueError, TypeError, OSError) as error:
        message = "gateway.limits.redis: not a redis://HOST:PORT or rediss://HOST:PORT"
        raise ConfigError(message, key="gateway.limits.redis") from error


def _password(path: str) -> str:
    key = "gateway.limits.redis_password_file"
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"{key}: {path}: {reason}", key=key) from error
