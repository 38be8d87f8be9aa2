"""The door: what is refused before the defence, and how images come through."""

import threading
from typing import Any

import numpy as np
import pytest

from guard.config import Input, Model
from guard.errors import InputError
from guard.gateway import codec, intake
from guard.gateway.intake import Intake
from guard.gateway.status import NotExposedError
from guard.testing import SHAPE, clean_images
from guard.verdict import Policy
from tests.gateway.wire import infer_request


def door(*, expose: Any = "full", **settings: Any) -> Intake:
    """The door of a model with these settings."""
    model = Model(name="tiny", pack="p", **settings)
    return Intake(model, Policy(expose=expose), SHAPE)


def admit(into: Intake, images: Any, **options: Any) -> None:
    """Admit a request as it would arrive."""
    request = infer_request(images, **options)
    into.admit(request, request.SerializeToString())


def test_the_number_of_images_is_bounded_before_one_is_decoded() -> None:
    """Tensors count by their first dimension, pictures by their number."""
    admit(door(max_images=2), clean_images([0, 1]))
    with pytest.raises(InputError, match="3 images are too many, at most 2"):
        admit(door(max_images=2), clean_images([0, 1, 2]))
    pictures = np.array([b"a", b"b", b"c"], dtype=object)
    for shape in ((3,), (3, 1), (1, 3)):
        with pytest.raises(InputError, match="too many"):
            admit(door(max_images=2, input=Input(encoded=True)), pictures.reshape(shape))
    admit(door(max_images=1, input=Input(layout="CHW")), clean_images([0])[0])


def test_a_request_has_a_size_of_its_own() -> None:
    """The model's limit is tighter than the server's."""
    with pytest.raises(InputError, match="bytes are too many"):
        admit(door(max_request_bytes=100), clean_images([0]))


async def test_a_single_number_is_no_image() -> None:
    """A shape without dimensions is honest about its one element, and still no image."""
    scalar = np.array(0.5, np.float32)
    admit(door(), scalar)
    with pytest.raises(InputError, match="expected"):
        await door().pixels(infer_request(scalar))
    with pytest.raises(InputError, match="expected"):
        await door().convert(scalar)


@pytest.mark.parametrize("expose", ["none", "decision", "full"])
def test_only_what_is_shown_may_be_asked_for(expose: Any) -> None:
    """The refusal names the output."""
    for name in codec.GUARD_OUTPUTS:
        if name in intake.SHOWN[expose]:
            admit(door(expose=expose), clean_images([0]), outputs=(name,))
        else:
            with pytest.raises(NotExposedError, match=name):
                admit(door(expose=expose), clean_images([0]), outputs=(name,))


async def test_small_tensors_are_read_in_place_and_large_ones_off_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread costs more than a small tensor; a large one would hold up every caller."""
    threads: list[str] = []
    whole = intake.to_pixels

    def noted(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return whole(*arguments, **options)

    monkeypatch.setattr(intake, "to_pixels", noted)
    into = door(max_images=1000)
    small, large = clean_images([0, 1]), clean_images([0] * 600)
    assert np.array_equal(await into.pixels(infer_request(small)), small)
    assert np.array_equal(await into.pixels(infer_request(large)), large)
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("decode-tiny")
    into.close()


async def test_pixels_follow_the_models_input_settings() -> None:
    """NHWC bytes of another scale come out as NCHW in [0, 1]."""
    into = door(input=Input(layout="NHWC", scale=100.0))
    images = clean_images([2])
    wire = np.ascontiguousarray((images * 100).transpose(0, 2, 3, 1))
    assert np.allclose(await into.pixels(infer_request(wire)), images, atol=1e-6)
    assert np.allclose(await into.convert(wire), images, atol=1e-6)
