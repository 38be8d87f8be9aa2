"""The detector as torch module and in ONNX Runtime."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph
from guard.defenses.squeezing import Squeezing
from guard.onnx import Session

NAMES = ("squeezing", "noise", "ensemble", "sentinel")
BAD = [math.nan, math.inf, -math.inf]


def inputs(detector: Detector, count: int = 3) -> dict[str, Tensor]:
    """Evidence and two sets of probabilities over five classes."""
    generator = torch.Generator().manual_seed(0)
    answers = torch.softmax(torch.randn(2, count, 5, generator=generator) * 3, -1)
    evidence = torch.randn(count, len(detector.columns), generator=generator)
    return {"evidence": evidence, "probabilities": answers[0], "upstream": answers[1]}


def run_both(
    detector: Detector, session: Session, feeds: dict[str, Tensor]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(scores_alone, scores_upstream) of torch and of ONNX Runtime."""
    with torch.no_grad():
        ours = detector(**feeds)
    theirs = session.run({name: value.numpy() for name, value in feeds.items()})
    return [
        (ours[0].numpy(), ours[1].numpy()),
        (np.asarray(theirs["scores_alone"]), np.asarray(theirs["scores_upstream"])),
    ]


def test_names_fit_the_scores(detector: Detector) -> None:
    """One name per column, the detector's last, the upstream's only with an upstream."""
    alone, both = detector(**inputs(detector))
    assert detector.score_names(False) == (*NAMES, "detector")
    assert detector.score_names(True) == (*NAMES, "upstream", "detector")
    assert (alone.shape[1], both.shape[1]) == (5, 6)


def test_defence_scores_are_those_of_the_defences(detector: Detector, graph: EvidenceGraph) -> None:
    """The squeezing score is its largest column, the sentinel's its odds, and so on."""
    feeds = inputs(detector)
    rows = dict(zip(graph.columns, feeds["evidence"].T, strict=True))
    alone, both = detector(**feeds)
    assert torch.equal(alone[:, 0], feeds["evidence"][:, :4].amax(1))
    assert torch.equal(alone[:, 2], rows["ensemble_divergence"])
    assert torch.equal(alone[:, 3], rows["sentinel_odds"])
    assert torch.equal(alone[:, :4], both[:, :4])


def test_engines_agree(detector: Detector, detector_session: Session) -> None:
    """ONNX Runtime gives torch's scores."""
    ours, theirs = run_both(detector, detector_session, inputs(detector, 64))
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a - b).max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_non_finite_shows(
    detector: Detector, detector_session: Session, data: st.DataObject
) -> None:
    """A non-finite number anywhere in a row makes every score it touches NaN, and no other."""
    feeds = inputs(detector)
    name = data.draw(st.sampled_from(sorted(feeds)))
    row = data.draw(st.integers(0, 2))
    place = data.draw(st.integers(0, feeds[name].shape[1] - 1))
    feeds[name][row, place] = data.draw(st.sampled_from(BAD))
    others = [n for n in range(3) if n != row]
    for alone, both in run_both(detector, detector_session, feeds):
        assert np.isnan(both[row]).all()
        assert np.isnan(alone[row]).all() == (name != "upstream")
        assert np.isfinite(alone[others]).all()
        assert np.isfinite(both[others]).all()


@pytest.mark.parametrize("where", ["mean", "scale", "first.weight", "first.bias", "last.weight"])
def test_non_finite_weight_shows(graph: EvidenceGraph, where: str) -> None:
    """A broken weight of the detector ends in NaN, never in a quiet score."""
    detector = Detector(graph.defenses).eval()
    detector.alone.state_dict()[where].view(-1)[0] = math.nan
    alone, _ = detector(**inputs(detector))
    assert torch.isnan(alone[:, -1]).all()


def test_a_defence_named_twice_scores_once(graph: EvidenceGraph) -> None:
    """Two squeezing defences that ask different members share one score, the larger."""
    twice = [Squeezing([{"name": "bits"}]), Squeezing([{"name": "median2"}], ask="lead")]
    detector = Detector(twice)
    evidence = torch.tensor([[0.1, 0.7], [0.6, 0.2]])
    assert detector.score_names(False) == ("squeezing", "detector")
    assert detector.defense_scores(evidence)[:, 0].tolist() == pytest.approx([0.7, 0.6])


def test_spec_round_trip(detector: Detector, graph: EvidenceGraph) -> None:
    """A detector rebuilt from the manifest's JSON and its weights gives the same scores."""
    manifest = json.loads(json.dumps(graph.spec() | detector.spec()))
    twin = Detector.from_spec(manifest)
    twin.load_state_dict(detector.state_dict())
    for a, b in zip(detector(**inputs(detector)), twin(**inputs(detector)), strict=True):
        assert torch.equal(a, b)


def test_standardize(graph: EvidenceGraph) -> None:
    """Training features come out with mean 0 and deviation 1; a constant does not explode."""
    detector = Detector(graph.defenses)
    features = torch.randn(500, len(graph.columns) + 1) * 3 + 2
    features[:, 0] = 1.0
    detector.standardize(features)
    scaled = (features - detector.upstream.mean) / detector.upstream.scale
    assert scaled.mean(0).abs().max() < 1e-4
    assert scaled.std(0)[1:].tolist() == pytest.approx([1.0] * len(graph.columns), rel=1e-4)
    assert torch.equal(detector.alone.mean, detector.upstream.mean[:-1])
