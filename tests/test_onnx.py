"""The one door to ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest

from guard import onnx
from guard.errors import PackError
from guard.onnx import CPU, CUDA, Session, default_providers
from guard.testing import SHAPE, classifier_onnx


@pytest.fixture(scope="module")
def model() -> bytes:
    """A small classifier: `images` in, `logits` out."""
    return classifier_onnx()


def test_named_arrays_in_named_arrays_out(model: bytes, tmp_path: Path) -> None:
    """From bytes or a path; all outputs or those that are asked for."""
    (tmp_path / "model.onnx").write_bytes(model)
    images = np.zeros((2, *SHAPE), np.float32)
    for source in (model, tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        session = Session(source, providers=[CPU], threads=1)
        assert session.provider == CPU
        assert session.outputs == ("logits",)
        assert session.inputs == {"images": ("tensor(float)", ("N", *SHAPE))}
        for wanted in (None, ["logits"]):
            answer = session.run({"images": images}, wanted)
            assert list(answer) == ["logits"]
            assert answer["logits"].shape == (2, SHAPE[0])


def test_what_is_no_model_is_one_short_line() -> None:
    """The runtime's own message is cut to its first line; the model is what is wrong."""
    with pytest.raises(PackError, match="ONNX Runtime cannot load the model: ") as caught:
        Session(b"garbage", providers=[CPU])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("  \n"), "ValueError"),
        (ValueError(""), "ValueError"),
        (ValueError("x" * 400), "x" * 300),
    ],
)
def test_first_line(error: Exception, said: str) -> None:
    """The first line of a message, at most 300 letters; the error's kind where there is none."""
    assert onnx._first_line(error) == said


@pytest.mark.parametrize(
    ("device", "built", "expected"),
    [
        (True, [CUDA, CPU], [CUDA, CPU]),
        (True, [CPU], [CPU]),
        (False, [CUDA, CPU], [CPU]),
    ],
)
def test_cuda_is_asked_for_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, device: bool, built: list[str], expected: list[str]
) -> None:
    """Only with a device and a runtime built for it; the CPU always stands behind."""
    monkeypatch.setattr(onnx.ort, "get_available_providers", lambda: built)
    monkeypatch.setattr(onnx.shutil, "which", lambda _name: "/bin/nvidia-smi" if device else None)
    monkeypatch.setattr(onnx, "Path", lambda _name: Path("/nonexistent"))
    assert default_providers() == expected
