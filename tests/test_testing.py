"""The test doubles that ship with the package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import guard
from guard.client import Client
from guard.gateway.server import running
from guard.testing import (
    SHAPE,
    FakeUpstream,
    answer_colour,
    clean_images,
    gateway_config,
    make_pack,
    suspicious_images,
)


def test_the_tiny_pack_loads_like_any_other_and_is_suspicious_of_stripes(tmp_path: Path) -> None:
    """Verified, golden vectors and all; what its pictures promise holds."""
    pipeline = guard.Pipeline.load(make_pack(tmp_path / "tiny"))
    clean = pipeline.inspect(clean_images([0, 1, 2]))
    assert [row.label for row in clean] == [0, 1, 2]
    assert {row.decision for row in clean} == {guard.Decision.ALLOW}
    suspicious = pipeline.inspect(suspicious_images([2, 1]))
    assert {row.decision for row in suspicious} == {guard.Decision.FLAG}


def test_the_tiny_pack_comes_in_other_sizes(tmp_path: Path) -> None:
    """For models of other inputs."""
    pipeline = guard.Pipeline.load(make_pack(tmp_path / "wide", shape=(3, 32, 48)))
    assert pipeline.input_shape == (3, 32, 48)
    assert pipeline.inspect(clean_images([1], (3, 32, 48)))[0].label == 1


def test_pictures_are_pixels() -> None:
    """All of them lie in [0, 1], as the defence demands."""
    for make in (clean_images, suspicious_images):
        images = make([0, 1, 2])
        assert images.shape == (3, *SHAPE)
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1


async def test_the_example_of_the_docstring_works(tmp_path: Path) -> None:
    """A fake upstream, a gateway before it, a client: what a user's own test looks like."""
    import asyncio

    async with FakeUpstream() as upstream:
        config = gateway_config(make_pack(tmp_path / "tiny"), upstream=upstream.address)
        async with running(config) as gateway:

            def ask() -> list[int]:
                with Client(gateway.address) as client:
                    answer = client.infer("tiny", clean_images([2, 0]))
                    return [int(label) for label in answer.outputs["label"]]

            assert await asyncio.to_thread(ask) == [2, 0]
            assert answer_colour({"images": clean_images([2, 0])})["label"].tolist() == [2, 0]


@pytest.mark.parametrize("module", ["guard.testing", "guard.gateway.server"])
def test_neither_torch_nor_onnx_is_needed_to_import_it(module: str) -> None:
    """The serving side and its doubles stay light; `onnx` is only for building the pack."""
    program = (
        f"import {module}, sys; "
        "assert not {'torch', 'onnx', 'matplotlib'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
