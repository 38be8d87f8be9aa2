"""How much each caller may ask: images a second with a burst, and images in 24 hours.

Images are counted, not requests: an attack's queries are images, and so is the work. A request
without any, or that makes no sense, counts as one. What is refused costs nothing.

The rate is the Generic Cell Rate Algorithm in its form as a leaky bucket (ITU-T I.371, annex A):
`level` falls by `rate` a second and rises by what is taken, never above `burst`.
"""

import hashlib
import ipaddress
import math
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from guard import metrics
from guard.config.access import Role
from guard.config.limits import Limits, Rule
from guard.gateway.identity import Identity
from guard.gateway.status import BudgetSpentError, RateLimitedError

DAY = 86_400.0  # seconds
SWEEP_SECONDS = 1.0  # between two searches of a full table for callers to forget
SLACK = 1e-9  # of a burst, for what adding fractions loses


class Allowance(NamedTuple):
    """What one caller may do; 0: without limit."""

    rate: float  # images a second
    burst: int  # images at once
    daily: int  # images in 24 hours

    def share(self, replicas: int) -> "Allowance":
        """One replica's part, rounded up so that it is never 0."""
        burst, daily = -(-self.burst // replicas), -(-self.daily // replicas)
        return Allowance(self.rate / replicas, burst, daily)


class Refused(NamedTuple):
    """Which limit is in the way, and the seconds until it no longer is."""

    limit: Literal["rate", "budget"]
    seconds: float


class Counts(Protocol):
    """Remembers what was taken."""

    async def take(self, key: bytes, allowance: Allowance, images: int) -> Refused | None:
        """Take so many images from a key's allowance, or nothing and say why."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(slots=True)
class Use:
    """What a caller has used; times are of a monotonic clock."""

    level: float = 0.0  # of the bucket, in images, at `last`
    last: float = 0.0
    start: float = 0.0  # of the 24 hours
    used: int = 0
    forget: float = 0.0  # from then on it is as if the caller had never come

    def take(self, allowance: Allowance, images: int, now: float) -> Refused | None:
        """Take so many images at once, or none. A clock that went back counts as standing still."""
        rate, burst, daily = allowance
        self.level = max(0.0, self.level - max(0.0, now - self.last) * rate)
        self.last, self.start = now, min(self.start, now)
        if not self.used or now >= self.start + DAY:
            self.start, self.used = now, 0
        if rate and self.level + images > burst * (1 + SLACK):
            return Refused("rate", (self.level + images - burst) / rate)
        if daily and self.used + images > daily:
            return Refused("budget", self.start + DAY - now)
        self.level, self.used = self.level + images, self.used + images
        self.forget = now + max(self.level / rate if rate else 0.0, DAY if daily else 0.0)
        return None


class LocalCounts:
    """Counts of this process, for at most `most` callers.

    Nobody is forgotten before it makes no difference: a flood of new names cannot wash out what
    somebody has used. While the table is full of such, newcomers share what one caller may.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._uses: dict[bytes, Use] = {}
        self._swept = -math.inf

    def __len__(self) -> int:
        return len(self._uses)

    async def take(self, key: bytes, allowance: Allowance, images: int) -> Refused | None:
        """As in `Counts`; never waits."""
        return self.take_now(key, allowance, images)

    def take_now(self, key: bytes, allowance: Allowance, images: int) -> Refused | None:
        """The same for who cannot wait."""
        now = self._clock()
        use = self._uses.get(key)
        if use is None:
            use = self._new(key, now)
        return use.take(allowance, images, now)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _new(self, key: bytes, now: float) -> Use:
        if len(self._uses) >= self._most and now >= self._swept + SWEEP_SECONDS:
            self._swept = now
            self._uses = {key: use for key, use in self._uses.items() if use.forget > now}
        if len(self._uses) >= self._most:
            key = key[:1]  # of the same rule
        use = self._uses.setdefault(key, Use(last=now))
        metrics.CALLERS.set(len(self._uses))
        return use


class Limiter:
    """Asks of `counts` what a caller wants to send, by the settings."""

    def __init__(self, limits: Limits, counts: Counts) -> None:
        self._limits, self._counts = limits, counts
        self._allowances = [allowance_of(limits, rule) for rule in (*limits.rules, Rule())]
        self._rule = lru_cache(maxsize=4096)(self._find_rule)

    async def charge(self, identity: Identity, peer: str, images: int) -> None:
        """Take images from a caller's allowance; RateLimitedError or BudgetSpentError if too many.

        peer: gRPC's name of the other end, which stands for a caller without a name.
        """
        rule = self._rule(identity.name, identity.roles)
        allowance = self._allowances[rule]
        if not (allowance.rate or allowance.daily):
            return
        images = max(1, images)
        _check_size(allowance, images)
        who = address_of(peer) if identity.kind == "anonymous" else identity.tenant
        refused = await self._counts.take(_key(rule, who), allowance, images)
        if refused is not None:
            raise _error(allowance, refused)

    async def close(self) -> None:
        """Let go of what the counts hold."""
        await self._counts.close()

    def _find_rule(self, name: str, roles: frozenset[Role]) -> int:
        rules = self._limits.rules
        return next((i for i, rule in enumerate(rules) if fits(rule, name, roles)), len(rules))


def allowance_of(limits: Limits, rule: Rule) -> Allowance:
    """What those may do whom this rule fits."""

    def chosen(name: str) -> float:
        own: float | None = getattr(rule, name)
        return float(getattr(limits, name) if own is None else own)

    rate = chosen("images_per_second")
    burst = int(chosen("burst")) or math.ceil(rate)
    return Allowance(rate, burst, int(chosen("images_per_day")))


def fits(rule: Rule, name: str, roles: frozenset[Role]) -> bool:
    """Whether a rule is for this caller."""
    if rule.role is not None and rule.role not in roles:
        return False
    if rule.match.endswith("*"):
        return name.startswith(rule.match[:-1])
    return rule.match in ("", name)


@lru_cache(maxsize=4096)
def address_of(peer: str) -> str:
    """The network address in gRPC's name of a peer; of IPv6 the /64, which is one household."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    if kind != "ipv6":
        return host if kind == "ipv4" else kind
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def _key(rule: int, who: str) -> bytes:
    """One byte that says by which rule (those beyond 255 share one), then who, in fixed length."""
    return bytes([min(rule, 255)]) + hashlib.blake2b(who.encode(), digest_size=16).digest()


def _check_size(allowance: Allowance, images: int) -> None:
    """Refuse for good what would not fit however long the caller waited."""
    if allowance.rate and images > allowance.burst:
        most = allowance.burst
        message = f"{images} images at once are more than this caller may send: {most}"
        raise RateLimitedError(message, retry_after=math.inf)
    if allowance.daily and images > allowance.daily:
        message = f"{images} images are more than this caller may send in 24 hours"
        raise BudgetSpentError(message, retry_after=math.inf)


def _error(allowance: Allowance, refused: Refused) -> RateLimitedError | BudgetSpentError:
    if refused.limit == "rate":
        message = f"more than {allowance.rate:g} images a second"
        return RateLimitedError(message, retry_after=refused.seconds)
    message = f"{allowance.daily} images in 24 hours are spent"
    return BudgetSpentError(message, retry_after=refused.seconds)
