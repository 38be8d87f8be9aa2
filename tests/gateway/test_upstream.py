"""The upstream behind gRPC: what is forwarded, what comes back, how failure looks."""

import asyncio
import time

import grpc
import numpy as np
import pytest

from guard.config import Tls
from guard.errors import ConfigError, UpstreamError
from guard.gateway import protocol
from guard.gateway.upstream import GrpcUpstream, Question, forwardable
from guard.testing import FakeUpstream, clean_images
from tests.gateway.setting import until
from tests.gateway.wire import infer_request


def connect(address: str, **options: object) -> GrpcUpstream:
    """An upstream named "tiny" without certificates."""
    settings = {"model": "tiny", "tls": Tls(), "max_message_bytes": 1 << 20, **options}
    return GrpcUpstream(address, **settings)  # type: ignore[arg-type]


def question(timeout: float = 5.0, data: bytes | None = None) -> Question:
    """One clean image."""
    images = clean_images([0])
    return Question(infer_request(images), data, images, timeout)


def test_hop_by_hop_and_reserved_keys_stay_here() -> None:
    """Only what the caller itself said travels on; nothing at all is fine too."""
    given = (("x-a", "1"), ("user-agent", "x"), ("grpc-timeout", "1S"), ("te", "trailers"))
    assert forwardable((*given, ("x-b-bin", b"\0"))) == (("x-a", "1"), ("x-b-bin", b"\0"))
    assert forwardable(None) == ()


async def test_the_bytes_as_received_are_the_bytes_sent() -> None:
    """Where nothing changed nothing is serialised again, unknown fields and all."""
    async with FakeUpstream() as fake:
        upstream = connect(fake.address)
        data = infer_request(clean_images([1])).SerializeToString() + b"\x98\x06\x01"
        reply = await upstream.infer(question(data=data))
        assert fake.received == [data]
        assert reply.response.model_version == "7"
        assert ("x-upstream-leading", "yes") in reply.leading
        assert ("x-upstream-trailing", "yes") in reply.trailing
        await upstream.close()


async def test_unreachable_is_unavailable_at_once_and_heals_by_itself() -> None:
    """No hang while it is away, an answer within about a second of its return."""
    async with FakeUpstream() as fake:
        port = fake.port
    upstream = connect(f"grpc://127.0.0.1:{port}")
    start = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        await upstream.infer(question())
    assert time.monotonic() - start < 1
    assert (caught.value.code, caught.value.retryable) == ("UNAVAILABLE", True)
    assert not await upstream.ready()
    async with FakeUpstream(port=port):
        await until_ready(upstream)
        assert (await upstream.infer(question())).response.outputs
    await upstream.close()


async def test_ready_outlives_late_answers_but_not_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy upstream that answers late once or twice is not taken out; a hung one is."""
    monkeypatch.setattr("guard.gateway.upstream.READY_TIMEOUT", 0.1)

    class Hangs(FakeUpstream):
        pause = 0.0

        async def _ModelReady(self, request: object, context: object) -> protocol.Message:  # noqa: N802
            await asyncio.sleep(self.pause)
            return await super()._ModelReady(request, context)

    async with Hangs() as fake:
        upstream = connect(fake.address)
        await until_ready(upstream)
        fake.pause = 1.0
        assert [await upstream.ready() for _ in range(4)] == [True, True, False, False]
        fake.pause = 0.0
        assert await upstream.ready()
        fake.is_ready = False
        assert not await upstream.ready()
        await upstream.close()


async def until_ready(upstream: GrpcUpstream) -> None:
    """Wait for it, three seconds at most."""
    start = time.monotonic()
    while not await upstream.ready():
        assert time.monotonic() - start < 3
        await asyncio.sleep(0.02)


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    """No time left: the upstream is not bothered."""
    async with FakeUpstream() as fake:
        upstream = connect(fake.address)
        with pytest.raises(TimeoutError):
            await upstream.infer(question(timeout=0.0))
        assert not fake.received
        await upstream.close()


async def test_cancelling_reaches_the_upstream() -> None:
    """The call is torn down there, not only abandoned here."""
    async with FakeUpstream(delay=5) as fake:
        upstream = connect(fake.address)
        asking = asyncio.create_task(upstream.infer(question()))
        await until(lambda: len(fake.received) == 1)
        asking.cancel()
        await until(lambda: fake.cancelled == 1)
        await upstream.close()


async def test_an_answer_over_the_limit_is_refused() -> None:
    """A runaway upstream cannot fill our memory."""

    def flood(_inputs: object) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        return {"probabilities": np.zeros((1, 1 << 20), np.float32)}

    async with FakeUpstream(flood) as fake:
        upstream = connect(fake.address)
        with pytest.raises(UpstreamError) as caught:
            await upstream.infer(question())
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        await upstream.close()


async def test_bytes_that_are_no_answer() -> None:
    """What cannot be parsed is the upstream's fault, as an error of ours."""

    class Garbage(FakeUpstream):
        def respond(self, request: protocol.Message) -> protocol.Message:
            """Another message than the protocol's."""
            assert request.inputs
            response = protocol.ModelMetadataResponse()
            response.inputs.add(name="\u00e9", datatype="x")
            return response

    async with Garbage() as fake:
        upstream = connect(fake.address)
        with pytest.raises(UpstreamError):
            await upstream.infer(question())
        await upstream.close()


@pytest.mark.parametrize("address", ["grpc://nowhere", "grpc://:x", "grpcs://host"])
def test_an_address_without_port_is_refused(address: str) -> None:
    """The setting is named."""
    with pytest.raises(ConfigError) as caught:
        connect(address)
    assert caught.value.key == "upstream"


async def test_a_missing_certificate_is_named() -> None:
    """The file that is not there is in the message."""
    with pytest.raises(ConfigError, match="nowhere"):
        connect("grpcs://127.0.0.1:1", tls=Tls(ca="/nowhere.pem"))


async def test_its_own_error_code_is_kept() -> None:
    """FAILED_PRECONDITION of the upstream stays that, without its text."""
    error = (grpc.StatusCode.FAILED_PRECONDITION, "/models/private")
    async with FakeUpstream(error=error) as fake:
        upstream = connect(fake.address)
        with pytest.raises(UpstreamError) as caught:
            await upstream.infer(question())
        assert (caught.value.code, "private" in str(caught.value)) == ("FAILED_PRECONDITION", False)
        await upstream.close()
