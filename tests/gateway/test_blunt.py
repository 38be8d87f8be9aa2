"""Answers that say less: the label stays, the rest is as coarse as the settings say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from msgspec import structs

from guard.config import Output
from guard.config.harden import Harden
from guard.gateway import answers, blunt, codec
from guard.gateway.answers import OutputSpec
from guard.gateway.identity import ANONYMOUS, Identity
from guard.gateway.protocol import ModelInferResponse
from guard.testing import FakeUpstream, clean_images
from tests.gateway.setting import Settings

ROW = np.array([[0.046, 0.614, 0.34]])
SOME = {
    "label": Harden(label_only=True),
    "first": Harden(top_k=1),
    "two": Harden(top_k=2),
    "rounded": Harden(decimals=1),
    "clipped": Harden(most=0.6),
    "all": Harden(top_k=2, decimals=2, most=0.5),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("label", [0, 1, 0]),
        ("first", [0, 0.614, 0]),
        ("two", [0, 0.614, 0.34]),
        ("rounded", [0, 0.6, 0.3]),
        ("clipped", [0.046, 0.6, 0.34]),
        ("all", [0, 0.5, 0.34]),
    ],
)
def test_each_setting_takes_away_what_it_says(name: str, expected: list[float]) -> None:
    """One row, put through each."""
    assert blunt.blunt(SOME[name], ROW)[0].tolist() == pytest.approx(expected)


@limits(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1), min_size=2, max_size=8),
    st.booleans(),
    st.integers(0, 9),
    st.none() | st.integers(1, 6),
    st.floats(0.5, 1),
)
def test_the_label_never_changes(
    numbers: list[float], label_only: bool, top_k: int, decimals: int | None, most: float
) -> None:
    """Whatever is rounded to the same number: the class that was first is first."""
    values = np.array([numbers]) / sum(numbers)
    settings = Harden(label_only=label_only, top_k=top_k, decimals=decimals, most=most)
    found = blunt.blunt(settings, values)
    assert found.argmax() == values.argmax()
    assert np.isfinite(found).all()


def test_rows_that_are_masked_stay_masked() -> None:
    """NaN is no probability that could be rounded."""
    rows = np.concatenate([ROW, np.full((1, 3), np.nan), ROW])
    found = blunt.blunt(SOME["label"], rows)
    assert np.isnan(found[1]).all()
    assert found[[0, 2]].tolist() == [[0, 1, 0]] * 2


def test_logits_are_said_less_about_as_logits() -> None:
    """A client that takes the softmax gets what was rounded; what is zero is very small."""
    response = ModelInferResponse(model_name="up")
    codec.add_output(response, "logits", np.log(ROW).astype(np.float32) + 7, raw=True)
    blunt.blunt_response(SOME["rounded"], response, OutputSpec("logits", "logits", 3))
    found = np.exp(answers.read_output(response, "logits").astype(np.float64))
    assert found[0] == pytest.approx([0, 0.6, 0.3], abs=1e-6)


@pytest.mark.parametrize("raw", [True, False])
def test_outputs_that_would_tell_the_same_are_left_out(raw: bool) -> None:
    """An embedding and a second set of scores go, an integer label for each image stays."""
    response = ModelInferResponse(model_name="up")
    outputs: dict[str, Any] = {
        "embedding": np.ones((2, 5), np.float32),
        "p": np.concatenate([ROW, ROW]).astype(np.float32),
        "label": np.array([1, 1]),
        "votes": np.array([[1, 2, 3], [4, 5, 6]]),
        "margin": np.array([0.2, 0.3], np.float32),
    }
    for name, array in outputs.items():
        codec.add_output(response, name, array, raw=raw)
    blunt.blunt_response(SOME["first"], response, OutputSpec("p", "probabilities", 3))
    assert [output.name for output in response.outputs] == ["p", "label"]
    assert answers.read_output(response, "p")[1] == pytest.approx([0, 0.614, 0])
    assert answers.read_output(response, "label").tolist() == [1, 1]


def test_a_role_may_be_exempt_and_nobody_who_is_unknown() -> None:
    """An analyst is told all; where no identity is configured everybody is hardened."""
    settings = Harden(label_only=True, exempt=["analyst"])
    analyst = Identity("jwt:a", frozenset({"client", "analyst"}), "a", "token")
    client = Identity("jwt:b", frozenset({"client"}), "b", "token")
    assert blunt.applying(settings, analyst) is None
    assert blunt.applying(settings, client) is settings
    assert blunt.applying(settings, ANONYMOUS) is settings


def test_without_the_settings_nothing_is_touched() -> None:
    """The defaults harden nobody."""
    assert blunt.applying(Harden(), ANONYMOUS) is None
    assert blunt.applying(structs.replace(Harden(), exempt=["client"]), ANONYMOUS) is None


def sure(inputs: Any) -> Any:
    """A classifier that says what it thinks in two outputs."""
    rows = np.repeat(ROW.astype(np.float32), len(inputs["images"]), 0)
    return {"probabilities": rows, "embedding": rows * 3}


async def test_through_a_gateway_only_the_label_is_told(tiny_pack: Path) -> None:
    """What the upstream said stays behind; the verdict is still made from all of it."""
    output = Output(tensor="probabilities", harden=Harden(label_only=True))
    async with Settings() as settings:
        here = await settings.start(tiny_pack, FakeUpstream(sure), output=output)
        answer = await here.caller.infer(clean_images([1, 1]))
        assert answer.outputs["probabilities"].tolist() == [[0, 1, 0]] * 2
        assert "embedding" not in answer.outputs


async def test_the_ensemble_says_less_too(tiny_pack: Path) -> None:
    """Where the pack's own models answer, the same settings hold."""
    output = Output(harden=Harden(decimals=1, top_k=1))
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True, answer="ensemble", output=output)
        answer = await here.caller.infer(clean_images([0, 1, 2]))
        told = answer.outputs["probabilities"]
        assert (told.argmax(1) == [0, 1, 2]).all()
        assert ((told > 0).sum(1) == 1).all()
        assert told * 10 == pytest.approx((told * 10).round(), abs=1e-5)
