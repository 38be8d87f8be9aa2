"""One ONNX file as a model server: what stands behind the gateway where there is no Triton."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guard.client import CallError, Client
from guard.errors import ConfigError, PackError
from guard.gateway.standalone import main, serving
from guard.testing import classifier_onnx, clean_images


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file that names the strongest colour."""
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier_onnx())
    return path


def ask(address: str) -> None:
    """A client's view: ready, described, right answers, named mistakes."""
    images = clean_images([2, 0])
    with Client(address) as client:
        assert client.live()
        assert client.ready()
        assert client.ready("signs")
        assert not client.ready("other")
        about = client.model_metadata("signs")
        assert [(one.name, one.datatype) for one in about.inputs] == [("images", "FP32")]
        assert [one.name for one in about.outputs] == ["logits"]
        answer = client.infer("signs", images)
        assert answer.outputs["logits"].argmax(1).tolist() == [2, 0]
        for name, given, code in (
            ("other", images, "NOT_FOUND"),
            ("signs", images.astype(np.float64), "INVALID_ARGUMENT"),
            ("signs", images[:, :, :4], "INVALID_ARGUMENT"),
        ):
            with pytest.raises(CallError) as failure:
                client.infer(name, given)
            assert failure.value.code == code


async def test_it_serves_the_file(model: Path) -> None:
    """Any client of the inference protocol gets the model's own answers, or the right status."""
    async with serving(model, name="signs", listen="127.0.0.1:0") as address:
        await asyncio.to_thread(ask, address)


async def test_a_port_in_use_is_a_clear_error(model: Path) -> None:
    """Two servers never share a port."""
    async with serving(model, name="signs", listen="127.0.0.1:0") as address:
        with pytest.raises(ConfigError, match="cannot listen"):
            async with serving(model, name="signs", listen=address):
                pass


async def test_a_file_that_is_no_model_is_a_clear_error(tmp_path: Path) -> None:
    """PackError, as everywhere."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(PackError):
        async with serving(path, name="signs", listen="127.0.0.1:0"):
            pass


def test_it_runs_as_a_program_until_it_is_told_to_stop(model: Path) -> None:
    """`python -m guard.gateway.standalone` says where it listens and ends with status 0."""
    command = [sys.executable, "-m", "guard.gateway.standalone", str(model)]
    with subprocess.Popen(
        [*command, "--name", "signs", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        with Client(line.split(" on ")[1].strip()) as client:
            assert client.ready("signs")
        process.terminate()
        assert process.wait(10) == 0


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file ends the program with status 1 and one line."""
    assert main([str(tmp_path / "none.onnx"), "--name", "signs", "--listen", "127.0.0.1:0"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
