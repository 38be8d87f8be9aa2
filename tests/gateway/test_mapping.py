"""How settings become readings: pixels in, class probabilities out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.config import Input, Model, Output
from guard.errors import ConfigError, UpstreamError
from guard.gateway import codec, protocol
from guard.gateway.mapping import AnswerReader, class_order, pixel_datatypes, pixel_spec
from guard.pack import Pack
from guard.testing import make_pack

LOGITS = np.array([[0.0, 4.0, 1.0], [9.0, 0.0, 0.0]], np.float32)
SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def response(**outputs: Any) -> protocol.Message:
    """An upstream's answer with these outputs."""
    return codec.build_response(protocol.ModelInferRequest(), outputs)


def reader(pack: Path, **settings: Any) -> AnswerReader:
    """A reader for these `[models.output]` settings."""
    return AnswerReader(Output(**settings), Pack.load(pack))


def test_pixels_follow_the_settings() -> None:
    """Every input setting reaches the decoder."""
    given = Input(layout="NHWC", scale=255.0, mean=[0.5], std=[0.25], resize=True)
    spec = pixel_spec(Model(name="m", pack="p", input=given, max_pixels=100), (3, 8, 8))
    assert (spec.layout, spec.scale, spec.mean, spec.std) == ("NHWC", 255.0, (0.5,), (0.25,))
    assert (spec.resize, spec.max_pixels, spec.max_total_pixels) == (True, 100, 400)
    assert "FP64" in pixel_datatypes(given)
    assert pixel_datatypes(Input()) == ("FP32", "UINT8", "FP16", "BF16")
    assert pixel_datatypes(Input(encoded=True)) == ("BYTES",)


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        ("logits", LOGITS),
        ("output__0", LOGITS),
        ("probabilities", SHARES),
        ("softmax_2", SHARES),
        ("output__0", SHARES),
        ("output__0", SHARES.astype(np.float16)),
    ],
)
def test_the_kind_is_told_by_name_or_by_the_rows_themselves(
    tiny_pack: Path, tensor: str, values: Any
) -> None:
    """Rows that sum to one are probabilities; anything else of floats is logits."""
    read, _ = reader(tiny_pack, tensor=tensor).read(response(**{tensor: values}), 2)
    assert np.allclose(read, SHARES, atol=2e-3)


@pytest.mark.parametrize("labels", [np.array([1, 0]), np.array([[1], [0]], np.int32)])
def test_whole_numbers_are_labels(tiny_pack: Path, labels: Any) -> None:
    """A label becomes a row with a single one."""
    read, spec = reader(tiny_pack, tensor="class").read(response(**{"class": labels}), 2)
    assert read.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert spec.kind == "label"


def test_a_label_that_is_no_class_is_no_number(tiny_pack: Path) -> None:
    """An impossible label can only end in ERROR."""
    read, _ = reader(tiny_pack, tensor="y").read(response(y=np.array([7, 1])), 2)
    assert np.isnan(read[0]).all()
    assert read[1].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "classes",
    [
        ["blue", "red", "green"],
        {"0": "blue", "1": "red", "2": "green"},
    ],
)
def test_another_order_of_classes(tiny_pack: Path, classes: Any) -> None:
    """The upstream's class 0 lands where the pack has it."""
    read, spec = reader(tiny_pack, tensor="probabilities", classes=classes).read(
        response(probabilities=SHARES), 2
    )
    assert spec.classes == (2, 0, 1)
    assert np.allclose(read, SHARES[:, [1, 2, 0]])


def test_several_upstream_classes_may_mean_one_of_the_packs(tiny_pack: Path) -> None:
    """Their probabilities add up."""
    classes = ["red", "red", "green", "blue"]
    values = np.array([[0.3, 0.3, 0.2, 0.2]], np.float32)
    read, _ = reader(tiny_pack, tensor="p", classes=classes).read(response(p=values), 1)
    assert read[0].tolist() == pytest.approx([0.6, 0.2, 0.2])


def test_a_pack_names_the_order(tiny_pack: Path, tmp_path: Path) -> None:
    """The guarding pack itself, and another of the same classes, mean: the same order."""
    pack = Pack.load(tiny_pack)
    other = make_pack(tmp_path / "other")
    for classes in ("", str(tiny_pack), str(other), list(pack.classes)):
        assert class_order(Output(classes=classes), pack) is None


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (["red", "green", "violet"], "'violet' is not a class"),
        (["red", "green"], "means 'blue'"),
        ({"0": "red", "2": "green", "3": "blue"}, "keys must be 0 to 2"),
    ],
)
def test_classes_that_do_not_fit_are_refused(tiny_pack: Path, classes: Any, problem: str) -> None:
    """A pack guards one task; a pair that does not fit never serves."""
    with pytest.raises(ConfigError, match=problem):
        class_order(Output(classes=classes), Pack.load(tiny_pack))


def test_a_number_that_is_not_finite_in_any_output_breaks_its_row(tiny_pack: Path) -> None:
    """Embeddings count too; an output without rows breaks them all."""
    bad = np.array([[1.0], [np.inf]], np.float32)
    read, _ = reader(tiny_pack, tensor="logits").read(response(logits=LOGITS, embedding=bad), 2)
    assert np.isnan(read).all(axis=1).tolist() == [False, True]
    whole = np.array([np.nan, 1, 1], np.float32)
    read, _ = reader(tiny_pack, tensor="logits").read(response(logits=LOGITS, summary=whole), 2)
    assert np.isnan(read).all()


def test_an_answer_of_another_shape_is_the_upstreams_fault(tiny_pack: Path) -> None:
    """Too few rows or classes are never guessed at."""
    for values in (LOGITS[:1], LOGITS[:, :2]):
        with pytest.raises(UpstreamError, match="shape"):
            reader(tiny_pack, tensor="logits").read(response(logits=values), 2)
