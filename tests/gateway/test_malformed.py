"""The table of malformed requests, at codec level: every one is an InputError that says why."""

import pytest

from guard.errors import InputError
from guard.gateway import codec
from guard.gateway.protocol import ModelInferRequest
from guard.images import PixelSpec, to_pixels
from tests.gateway.malformed import CASES, Case, Target, encoded, picture, valid

TARGET = Target()
HERE = [case for case in CASES if case.model != "server"]


def _receive(data: bytes, *, pictures: bool) -> tuple[int, ...]:
    """What a servicer does with a request before the defence sees it."""
    request = codec.parse(ModelInferRequest, data)
    codec.check_request(request)
    codec.wanted_outputs(request, ("probabilities", "label"))
    datatypes = ("BYTES",) if pictures else ("FP32", "UINT8", "FP16", "BF16")
    array = codec.read_input(request, TARGET.tensor, datatypes=datatypes)
    spec = PixelSpec(TARGET.shape, encoded=pictures)
    return to_pixels(array, spec, tensor=TARGET.tensor).shape


@pytest.mark.parametrize("case", HERE, ids=[case.name for case in HERE])
def test_refused(case: Case) -> None:
    """The request raises InputError, and the message names the problem in one short line."""
    with pytest.raises(InputError) as caught:
        _receive(case.build(TARGET), pictures=case.model == "encoded")
    assert case.problem in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_the_unspoilt_requests_pass() -> None:
    """What the cases spoil is itself accepted, so each fails for the reason it names."""
    for request in (
        valid(TARGET, 2),
        valid(TARGET, 2, typed=True),
        valid(TARGET, 2, datatype="UINT8"),
    ):
        assert _receive(request.SerializeToString(), pictures=False) == (2, 3, 32, 32)
    files = [picture(TARGET, form) for form in ("PNG", "JPEG", "WEBP")]
    data = encoded(TARGET, *files).SerializeToString()
    assert _receive(data, pictures=True) == (3, 3, 32, 32)


def test_the_table_is_large_enough() -> None:
    """At least sixty cases, all with names of their own."""
    assert len({case.name for case in CASES}) == len(CASES) >= 60
