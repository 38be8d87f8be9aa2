"""How much a caller may ask: the counts by themselves, and through a gateway."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.config import load_config
from guard.config.limits import Limits, Rule
from guard.errors import ConfigError, OverloadedError
from guard.gateway import protocol, status
from guard.gateway.identity import ANONYMOUS, Identity
from guard.gateway.limits import (
    DAY,
    Allowance,
    Limiter,
    LocalCounts,
    Refused,
    address_of,
)
from guard.testing import clean_images, suspicious_images
from tests.gateway.setting import Settings, counted
from tests.gateway.wire import infer_request

KEY = b"\0somebody"


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Its time."""
        return self.now


@dataclass
class Scheduler:
    """GCRA again, in its other form (virtual scheduling: a theoretical arrival time), exactly."""

    rate: int
    burst: int
    daily: int
    arrival: Fraction = Fraction(0)
    since: Fraction | None = None
    taken: list[tuple[Fraction, int]] = field(default_factory=list)

    def take(self, now: Fraction, images: int) -> bool:
        """Whether so many may come now; counts them if so."""
        if self.since is None or now >= self.since + int(DAY):
            self.since, self.taken = None, []
        arrival = max(self.arrival, now) + Fraction(images, self.rate)
        if arrival - now > Fraction(self.burst, self.rate):
            return False
        if sum(count for _, count in self.taken) + images > self.daily:
            return False
        self.arrival = arrival
        self.since = now if self.since is None else self.since
        self.taken.append((now, images))
        return True


def caller(name: str = "cn:camera", **fields: Any) -> Identity:
    """Somebody known by name."""
    values = {"roles": frozenset({"client"}), "tenant": name, "kind": "certificate", **fields}
    return Identity(name, **values)


def limiter(**limits: Any) -> tuple[Limiter, LocalCounts, Clock]:
    """A limiter by these settings, what it counts in, and its clock."""
    clock = Clock()
    chosen = Limits(**limits)
    counts = LocalCounts(chosen.max_callers, clock=clock)
    return Limiter(chosen, counts), counts, clock


async def passes(limiter: Limiter, who: Identity, images: int = 1, peer: str = "") -> bool:
    """Whether so many images get through."""
    try:
        await limiter.charge(who, peer, images)
    except OverloadedError:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.integers(1, 200),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 25)), min_size=1, max_size=60),
)
def test_the_counts_are_gcra_and_a_daily_budget(
    rate: int, burst: int, daily: int, arrivals: list[tuple[int, int]]
) -> None:
    """Every decision is that of an exact implementation of the algorithm's other form."""
    clock, now = Clock(0.0), Fraction(0)
    counts, expected = LocalCounts(10, clock=clock), Scheduler(rate, burst, daily)
    for wait, images in arrivals:
        now += Fraction(wait, 1024)  # a float can say it exactly
        clock.now = float(now)
        allowance = Allowance(float(rate), burst, daily)
        took = counts.take_now(KEY, allowance, images) is None
        assert took == expected.take(now, images)


@given(st.floats(0.01, 1e4), st.integers(1, 1000), st.data())
@settings(max_examples=100, deadline=None)
def test_who_waits_as_told_gets_through(rate: float, burst: int, data: st.DataObject) -> None:
    """The time in a refusal is enough, and half of it is not."""
    clock = Clock()
    counts = LocalCounts(10, clock=clock)
    allowance = Allowance(rate, burst, 0)
    images = data.draw(st.integers(1, burst))
    assert counts.take_now(KEY, allowance, burst) is None
    refused = counts.take_now(KEY, allowance, images)
    assert refused is not None
    assert refused.limit == "rate"
    clock.now += refused.seconds / 2
    assert counts.take_now(KEY, allowance, images) is not None
    clock.now += refused.seconds / 2 * (1 + 1e-6)
    assert counts.take_now(KEY, allowance, images) is None


def test_a_budget_comes_back_after_a_day() -> None:
    """24 hours after the first image, not before and not at midnight; the refusal says when."""
    clock = Clock()
    counts, allowance = LocalCounts(10, clock=clock), Allowance(0.0, 0, 5)
    assert counts.take_now(KEY, allowance, 3) is None
    clock.now += 100
    assert counts.take_now(KEY, allowance, 2) is None
    assert counts.take_now(KEY, allowance, 1) == Refused("budget", DAY - 100)
    clock.now += DAY - 101
    assert counts.take_now(KEY, allowance, 1) is not None
    clock.now += 1
    assert counts.take_now(KEY, allowance, 5) is None


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_clock_that_jumps_locks_nobody_out(jump: float) -> None:
    """Not even a broken clock refuses for longer than the limits do, or gives more than once."""
    clock = Clock()
    counts, allowance = LocalCounts(10, clock=clock), Allowance(10.0, 10, 15)
    assert counts.take_now(KEY, allowance, 10) is None
    clock.now += jump
    refused = counts.take_now(KEY, allowance, 10)
    assert refused is None or refused.seconds <= DAY
    clock.now += 1.0
    assert counts.take_now(KEY, allowance, 5) is None
    clock.now += DAY
    assert counts.take_now(KEY, allowance, 10) is None


async def test_limits_are_each_callers_own() -> None:
    """By name; members of a tenant share; strangers by network address."""
    limits, _, _ = limiter(images_per_second=1.0, burst=2)
    alice, bob = caller("cn:alice"), caller("cn:bob")
    assert await passes(limits, alice, 2)
    assert not await passes(limits, alice)
    assert await passes(limits, bob, 2)
    one, other = caller("cn:one", tenant="site"), caller("cn:other", tenant="site")
    assert await passes(limits, one, 2)
    assert not await passes(limits, other)
    assert await passes(limits, ANONYMOUS, 2, "ipv4:10.0.0.1:5000")
    assert not await passes(limits, ANONYMOUS, 1, "ipv4:10.0.0.1:5001")
    assert await passes(limits, ANONYMOUS, 1, "ipv4:10.0.0.2:5000")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:ffff::1]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64"),
        ("ipv6:[::ffff:10.0.0.1]:5000", "10.0.0.1"),
        ("unix:", "unix"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_address_is_the_network_a_stranger_cannot_leave(peer: str, address: str) -> None:
    """Ports do not count, and neither do the addresses inside one IPv6 subnet."""
    assert address_of(peer) == address


async def test_the_first_rule_that_fits_counts() -> None:
    """By name, by beginning of a name, by role; what a rule leaves out is as for everybody."""
    limits, _, _ = limiter(
        images_per_second=1.0,
        burst=4,
        images_per_day=5,
        rules=[
            Rule(match="cn:free", images_per_second=0.0, images_per_day=0),
            Rule(match="spiffe://prod/*", role="client", burst=8, images_per_day=8),
            Rule(role="analyst", images_per_day=2),
        ],
    )
    assert await passes(limits, caller("cn:free"), 10_000)
    assert await passes(limits, caller("spiffe://prod/a"), 8)
    assert not await passes(limits, caller("spiffe://prod/b", roles=frozenset({"auditor"})), 5)
    analyst = caller("cn:ana", roles=frozenset({"analyst", "client"}))
    assert await passes(limits, analyst, 2)
    assert not await passes(limits, analyst)
    assert await passes(limits, caller("cn:freedom"), 4)
    assert not await passes(limits, caller("cn:freedom"))


async def test_a_flood_of_names_neither_grows_the_memory_nor_washes_out_a_use() -> None:
    """A full table keeps what counts; newcomers share one limit until somebody can be forgotten."""
    limits, counts, clock = limiter(images_per_second=10.0, burst=10, max_callers=100)
    spent = caller("cn:spent")
    assert await passes(limits, spent, 10)
    outcomes = [await passes(limits, caller(f"cn:{n}"), 5) for n in range(1000)]
    assert outcomes[:99] == [True] * 99
    assert sum(outcomes[99:]) == 2  # the shared burst
    assert len(counts) <= 101
    assert not await passes(limits, spent)
    clock.now += 1.0  # all buckets are empty again
    assert all([await passes(limits, caller(f"cn:later-{n}"), 10) for n in range(90)])
    assert len(counts) <= 101


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (Limits(images_per_second=1.0, burst=10), status.RateLimitedError),
        (Limits(images_per_day=10), status.BudgetSpentError),
    ],
)
async def test_what_can_never_fit_is_told_not_to_come_back(
    limits: Limits, error: type[OverloadedError]
) -> None:
    """No RetryInfo, and a pushback that stops gRPC's own retries."""
    with pytest.raises(error) as caught:
        await Limiter(limits, LocalCounts(10)).charge(caller(), "", 11)
    assert math.isinf(caught.value.retry_after)
    trailing = dict(status.failure(caught.value).trailing)
    assert trailing[status.PUSHBACK] == "-1"
    assert protocol.retry_after(bytes(trailing[protocol.STATUS_DETAILS])) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("burst = 3", "gateway.limits.burst: needs images_per_second"),
        ("[[gateway.limits.rules]]\nburst = 3", "rules[0]: needs match or role"),
        ('[[gateway.limits.rules]]\nrole = "king"\nburst = 3', "rules[0].role: Invalid enum"),
        ('[[gateway.limits.rules]]\nmatch = "a*b"\nburst = 3', "rules[0].match: 'a*b': a *"),
        ('[[gateway.limits.rules]]\nmatch = "a*"', "rules[0]: says no limit"),
        ('[[gateway.limits.rules]]\nmatch = "a"\nburst = 1', "rules[0].burst: needs images_per_"),
        ("images_per_second = -1.0", "images_per_second: Expected"),
    ],
)
def test_settings_that_limit_nothing_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    """The message names the key."""
    file = tmp_path / "guard.toml"
    models = '[[models]]\nname = "a"\npack = "a"\nanswer = "ensemble"\n'
    file.write_text(f"[gateway.limits]\n{text}\n{models}")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert complaint in str(caught.value)


async def test_a_refusal_says_why_and_when_to_come_back(tiny_pack: Path) -> None:
    """RESOURCE_EXHAUSTED with ErrorInfo, RetryInfo and pushback, counted; then it works again."""
    async with Settings() as running:
        here = await running.start(
            tiny_pack, gateway={"limits": Limits(images_per_second=20.0, burst=4)}
        )
        before = counted("guard_errors_total", reason="rate_limited")
        await here.caller.infer(clean_images([0] * 4))
        code, reason, message = await here.caller.refused(clean_images([0] * 4))
        assert (code, reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert message == "more than 20 images a second"
        wait = protocol.retry_after(here.caller.trailing[protocol.STATUS_DETAILS])
        assert wait is not None
        assert 0.0 < wait <= 0.2
        assert 0 < int(here.caller.trailing[status.PUSHBACK]) <= 200
        assert counted("guard_errors_total", reason="rate_limited") == before + 1
        assert len(here.upstream.requests) == 1
        code, reason, message = await here.caller.refused(clean_images([0] * 5))
        assert (code, here.caller.trailing[status.PUSHBACK]) == ("RESOURCE_EXHAUSTED", "-1")


async def test_a_budget_through_a_gateway(tiny_pack: Path) -> None:
    """Verdicts count like answers do, blocked images too, and so does what makes no sense."""
    async with Settings() as running:
        here = await running.start(
            tiny_pack,
            mode="enforce",
            on_flag="block",
            gateway={"limits": Limits(images_per_day=8)},
        )
        inspect = protocol.InspectRequest(model_name="tiny")
        inspect.images.CopyFrom(_tensor())
        path = protocol.GUARD_METHODS["Inspect"].path
        await here.caller.channel.unary_unary(path)(inspect.SerializeToString())  # 2 images
        await here.caller.infer(clean_images([0, 1]))
        assert (await here.caller.refused(suspicious_images([0, 1])))[1] == "ADVERSARIAL_INPUT"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await here.caller.send("ModelInfer", b"\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await here.caller.refused(clean_images([0] * 2)))[1] == "BUDGET_SPENT"
        assert (await here.caller.refused(clean_images([0]), model="no"))[1] == "UNKNOWN_MODEL"
        for data in (b"\xff\xff", infer_request(clean_images([0])).SerializeToString()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await here.caller.send("ModelInfer", data)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await here.caller.call("ServerLive")


def _tensor() -> protocol.Message:
    from guard.gateway import codec

    return codec.pack_tensor(clean_images([0, 1]))
