"""Limits that several gateways count together in Redis, and what they do without it."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard.config import load_config
from guard.config.limits import Limits
from guard.errors import ConfigError
from guard.gateway.limits import Allowance, LocalCounts, Refused, Use
from guard.gateway.redis_counts import PREFIX, SCRIPT, SharedCounts, connect
from guard.gateway.server import running
from guard.testing import clean_images, gateway_config
from tests.gateway.setting import counted, until
from tests.gateway.wire import Caller

KEY = b"\0somebody"
FAST = Allowance(10.0, 10, 0)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A Redis of our own, which can be taken away and brought back."""

    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Up, and answering."""
        command = ["redis-server", "--port", str(self.port), "--save", "", "--daemonize", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        """Gone at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def _server() -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here: deploy/ci/install services")
    server = Server(free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(_server: Server) -> Server:
    """An empty Redis that is up."""
    if _server.process is None:
        _server.start()
    with socket.create_connection(("127.0.0.1", _server.port)) as line:
        line.sendall(b"FLUSHALL\r\nSCRIPT FLUSH\r\n")
        line.recv(100)
    return _server


@contextlib.asynccontextmanager
async def shared(url: str, **more: Any) -> AsyncIterator[SharedCounts]:
    """One gateway's counts in it."""
    limits = Limits(**{"redis": url, "redis_timeout": 0.5, **more})
    counts = SharedCounts(limits, LocalCounts(limits.max_callers))
    await counts.start()
    yield counts
    await counts.close()


def up() -> float:
    """The metric that says whether limits are counted together."""
    return counted("guard_shared_limits_up", store="redis")


async def test_two_gateways_count_together(redis: Server) -> None:
    """What one has given the other has not to give any more; keys hold no names."""
    async with shared(redis.url) as one, shared(redis.url) as other:
        assert await one.take(KEY, Allowance(0.001, 10, 0), 6) is None
        refused = await other.take(KEY, Allowance(0.001, 10, 0), 6)
        assert refused is not None
        assert refused.limit == "rate"
        assert refused.seconds == pytest.approx(2000, rel=0.01)
        assert await other.take(KEY, Allowance(0.001, 10, 0), 4) is None
        assert await one.take(b"\0else", Allowance(0.0, 0, 5), 5) is None
        again = await other.take(b"\0else", Allowance(0.0, 0, 5), 1)
        assert again is not None
        assert again.limit == "budget"
        assert 86_000 < again.seconds <= 86_400
        assert up() == 1


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.integers(1, 200),
    st.lists(st.tuples(st.integers(-500, 3000), st.integers(1, 25)), min_size=1, max_size=25),
)
def test_the_script_decides_as_the_local_counts_do(
    redis: Server, rate: int, burst: int, daily: int, arrivals: list[tuple[int, int]]
) -> None:
    """The same answers to the same arrivals, by a clock that stands still, runs and goes back."""
    from redis import Redis as Plain

    client = Plain.from_url(redis.url)
    client.flushall()
    script = client.register_script(SCRIPT.replace("redis.call('TIME')", "{ARGV[5], ARGV[6]}"))
    use, now, micro = Use(last=1.0, start=1.0), 1.0, 1_000_000
    for wait, images in arrivals:
        micro = max(1_000_000, micro + wait * 1000)
        now = micro / 1_000_000
        seconds = [1_700_000_000 + micro // 1_000_000, micro % 1_000_000]
        answer = script(keys=["k"], args=[rate, burst, daily, images, *seconds])
        expected = use.take(Allowance(float(rate), burst, daily), images, now)
        assert answer[0].decode() == (expected.limit if expected else "")
        if expected:
            assert float(answer[1]) == pytest.approx(expected.seconds, abs=1e-4)
    client.close()


async def test_what_no_longer_counts_is_not_kept(redis: Server) -> None:
    """Keys expire when they are as good as new: a flood of names does not stay in Redis."""
    async with shared(redis.url) as counts:
        for number in range(50):
            await counts.take(bytes([0, number]), Allowance(100.0, 10, 0), 10)
        client = connect(Limits(redis=redis.url))
        assert len(await client.keys(PREFIX + b"*")) >= 40
        await asyncio.sleep(0.3)
        assert await client.keys(PREFIX + b"*") == []
        await client.aclose()


async def test_without_redis_each_gives_its_share_and_nobody_waits(redis: Server) -> None:
    """A third of each limit here, at once; when Redis is back, so is the common count."""
    async with shared(redis.url, replicas=3) as counts:
        assert await counts.take(KEY, FAST, 1) is None
        before = counted("guard_shared_limits_failures_total", reason="connection")
        redis.stop()
        start = time.monotonic()
        outcomes = [await counts.take(KEY, Allowance(0.001, 9, 0), 1) for _ in range(6)]
        assert [outcome is None for outcome in outcomes] == [True] * 3 + [False] * 3
        assert time.monotonic() - start < 0.6
        assert up() == 0
        assert counted("guard_shared_limits_failures_total", reason="connection") > before
        redis.start()
        await until(lambda: up() == 1)
        assert [await counts.take(KEY, Allowance(0.001, 9, 0), 1) for _ in range(9)] == [None] * 9


class Strange:
    """Something that listens where Redis should, and says what it was told to."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self.server: asyncio.Server | None = None

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                if self._answer is not None:
                    writer.write(self._answer)
        writer.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "timeout"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10, "answer"),
        (b"+OK\r\n" * 10, "answer"),
        (b"*2\r\n$6\r\nnobody\r\n$3\r\n0.0\r\n" * 10, "answer"),
        (b"*2\r\n$4\r\nrate\r\n$3\r\nabc\r\n" * 10, "answer"),
        (b"\xff\x00\r\n" * 10, "answer"),
    ],
)
async def test_a_redis_that_hangs_or_talks_nonsense(answer: bytes | None, reason: str) -> None:
    """Is a Redis that failed: one timeout for those who asked, then nobody waits; counted."""
    before = counted("guard_shared_limits_failures_total", reason=reason)
    async with Strange(answer) as url, shared(url, redis_timeout=0.2, replicas=2) as counts:
        assert up() == 0
        assert counted("guard_shared_limits_failures_total", reason=reason) == before + 1
        start = time.monotonic()
        outcomes = [await counts.take(KEY, Allowance(0.001, 4, 0), 1) for _ in range(3)]
        assert time.monotonic() - start < 0.1
        assert [type(outcome) for outcome in outcomes] == [type(None)] * 2 + [Refused]


async def test_gateways_share_a_callers_limit(redis: Server, tiny_pack: Path) -> None:
    """Two gateways, one caller, one budget; it survives the loss of both."""
    limits = Limits(images_per_day=3, redis=redis.url, redis_timeout=1.0, replicas=2)
    config = gateway_config(tiny_pack, gateway={"limits": limits})
    async with (
        running(config) as one,
        running(config) as other,
        Caller(one.address) as here,
        Caller(other.address) as there,
    ):
        await here.infer(clean_images([0, 1]))
        await there.infer(clean_images([0]))
        for caller in (here, there):
            assert (await caller.refused(clean_images([0])))[1] == "BUDGET_SPENT"
    async with running(config) as new, Caller(new.address) as again:
        assert (await again.refused(clean_images([0])))[1] == "BUDGET_SPENT"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('redis = "localhost:6379"', "gateway.limits.redis: must be redis://"),
        ('redis = "redis://:hunter2@localhost"', "gateway.limits.redis: no password here"),
        ('redis = "redis://localhost"\nredis_ca = "ca.pem"', "redis_ca: is only used with redis"),
        ("replicas = 3", "gateway.limits.redis: must be set"),
    ],
)
def test_settings_of_redis_that_cannot_work(tmp_path: Path, text: str, complaint: str) -> None:
    """Are refused, and no password is shown."""
    file = tmp_path / "guard.toml"
    models = '[[models]]\nname = "a"\npack = "a"\nanswer = "ensemble"\n'
    file.write_text(f"[gateway.limits]\n{text}\n{models}")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_password_comes_from_a_file(tmp_path: Path) -> None:
    """And a file that is not there is named."""
    text = "hunter2"
    (tmp_path / "secret").write_text(f"{text}\n")
    limits = Limits(redis="redis://x", redis_password_file=str(tmp_path / "secret"))
    assert connect(limits).connection_pool.connection_kwargs["password"] == text
    with pytest.raises(ConfigError, match="redis_password_file"):
        connect(Limits(redis="redis://x", redis_password_file=str(tmp_path / "none")))
