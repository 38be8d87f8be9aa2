"""No single request costs more than 100 times its bytes in memory, or 32 MB where that is more.

Measured from outside on a gateway in a process of its own: the peak of its resident memory while a
request is worked on, over what it was before, freed memory given back in between.
"""

import zlib
from collections.abc import Iterator

import pytest

from guard.gateway import protocol
from tests.abuse.costly import AIM, MEGABYTE, NAMED, PICTURES, picture, pictures
from tests.abuse.weighed import Weighed
from tests.fuzz.target import kept
from tests.gateway.malformed import CASES, valid

FACTOR, FREE = 100, 32_000_000  # times its bytes; bytes that any request may cost
TOGETHER = 16  # requests that are weighed at once first
REFUSED = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weighed]:
    """A gateway that has seen ordinary requests."""
    there = Weighed(tmp_path_factory.mktemp("weighed"))
    try:
        for data in (valid(AIM, 2).SerializeToString(), pictures(picture(64, 64))):
            for _ in range(3):
                assert there.send(data) == "OK"
        yield there
    finally:
        there.close()


@pytest.mark.parametrize("name", NAMED)
def test_named(gateway: Weighed, name: str) -> None:
    """A request that is made to be costly stays within the bound, and is answered or refused."""
    data = NAMED[name]()
    limit = max(FREE, FACTOR * len(data))
    cost, status = gateway.least(data, limit)
    assert cost <= limit, f"{len(data)} bytes cost {cost:,}: {status}"
    assert status in ("OK", *REFUSED), status


def test_a_gzip_bomb(gateway: Weighed) -> None:
    """A compressed message that unpacks to megabytes is bounded by what came over the wire."""
    request = valid(AIM)
    request.raw_input_contents[0] = bytes(48 << 20)
    data = bytes(request.SerializeToString())
    sent = len(zlib.compress(data))
    cost, status = gateway.least(data, FREE, gzip=True)
    assert cost <= max(FREE, FACTOR * sent), f"{sent} bytes cost {cost:,}: {status}"


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "BF16", "BYTES", "FP64"])
def test_inspect(gateway: Weighed, datatype: str) -> None:
    """The operators' call is bounded like the others."""
    tensor = protocol.Tensor(datatype=datatype, shape=[MEGABYTE], data=bytes(MEGABYTE))
    data = protocol.InspectRequest(model_name="resized", images=tensor).SerializeToString()
    cost, status = gateway.least(data, FACTOR * len(data), rpc="Inspect")
    assert cost <= FACTOR * len(data), f"{len(data)} bytes cost {cost:,}: {status}"
    assert status in REFUSED


def test_the_fuzz_corpus(gateway: Weighed) -> None:
    """Every kept input and every malformed request stays within the bound."""
    inputs = [path.read_bytes() for path in kept("wire")]
    inputs += [path.read_bytes()[1:] for path in kept("tensors")]
    inputs += [pictures(path.read_bytes()) for path in kept("pictures")]
    inputs += [case.build(PICTURES if case.model == "encoded" else AIM) for case in CASES]
    assert len(inputs) > 60
    for start in range(0, len(inputs), TOGETHER):
        group = inputs[start : start + TOGETHER]
        if gateway.cost(*group)[0] <= FREE:  # all together, so each of them
            continue
        for data in group:
            limit = max(FREE, FACTOR * len(data))
            cost, status = gateway.least(data, limit)
            assert cost <= limit, f"{data[:60]!r}: {len(data)} bytes cost {cost:,}: {status}"


def test_what_costs_more_is_seen(gateway: Weighed) -> None:
    """The scales work: a request of 20 MB costs at least its own bytes."""
    cost, _ = gateway.cost(valid(AIM, 27_000).SerializeToString())
    assert cost > 20_000_000
