"""The evidence graph as torch module and in ONNX Runtime."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from guard.defenses.evidence import EvidenceGraph, Member, cost, default_defenses
from guard.defenses.noise import NoiseConsistency
from guard.defenses.squeezing import Squeezing
from guard.onnx import Session

SHAPE = (3, 16, 16)


def inputs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *SHAPE, generator=generator)
    return images, torch.randn(count, 3, *SHAPE, generator=generator)


def run_both(
    graph: EvidenceGraph, session: Session, images: Tensor, noise: Tensor
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(evidence, probabilities) of torch and of ONNX Runtime."""
    with torch.no_grad():
        ours = graph(images, noise)
    theirs = session.run({"images": images.numpy(), "noise": noise.numpy()})
    return [
        (ours[0].numpy(), ours[1].numpy()),
        (np.asarray(theirs["evidence"]), np.asarray(theirs["probabilities"])),
    ]


def test_columns_name_the_evidence(graph: EvidenceGraph) -> None:
    """The documented columns come out, one per column of the result."""
    images, noise = inputs(2)
    evidence, probabilities = graph(images, noise)
    assert graph.columns == (
        *("squeeze_bits", "squeeze_median2", "squeeze_median3", "squeeze_dct"),
        *("noise_flips", "noise_drop"),
        *("ensemble_divergence", "robust_confidence", "robust_margin"),
        *("sentinel_odds", "sentinel_confidence"),
    )
    assert evidence.shape == (2, len(graph.columns))
    assert probabilities.sum(1).tolist() == pytest.approx([1, 1])


def test_answers_are_those_of_the_members(graph: EvidenceGraph) -> None:
    """Squeezing asks the sentinel, noise the lead, as told; probabilities are the robust mean."""
    images, noise = inputs(4)
    evidence, probabilities = graph(images, noise)
    names, members = graph.columns, graph.members
    answer = {name: torch.softmax(members[name](images), -1) for name in members}
    mean = torch.stack([answer[name] for name in "abc"]).mean(0)
    assert (probabilities - mean).abs().max() < 1e-6
    view = Squeezing([{"name": "median3"}]).views(images, noise)[0]
    distance = (torch.softmax(members["s"](view), -1) - answer["s"]).abs().sum(-1)
    assert (evidence[:, names.index("squeeze_median3")] - distance).abs().max() < 1e-6
    copies = NoiseConsistency().views(images, noise)
    labels = answer["a"].argmax(-1)
    flips = torch.stack([members["a"](c).argmax(-1) != labels for c in copies]).float().mean(0)
    assert torch.equal(evidence[:, names.index("noise_flips")], flips)


def test_each_member_runs_once(graph: EvidenceGraph) -> None:
    """One call per member, on as many images as `cost` says."""
    seen: list[int] = []
    hooks = [
        m.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
        for m in graph.members.values()
    ]
    graph(*inputs(2))
    for hook in hooks:
        hook.remove()
    assert seen == [2 * 4, 2, 2, 2 * 5]
    assert sum(seen) == 2 * graph.cost() == 2 * cost(graph.spec())


def test_spec_round_trip(graph: EvidenceGraph) -> None:
    """A graph rebuilt from its JSON and its weights gives the same numbers, exactly."""
    twin = EvidenceGraph.from_spec(json.loads(json.dumps(graph.spec())))
    twin.load_state_dict(graph.state_dict())
    for ours, theirs in zip(graph(*inputs(3)), twin(*inputs(3)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("engine", [0, 1], ids=["torch", "onnxruntime"])
def test_score_does_not_depend_on_neighbours(
    graph: EvidenceGraph, evidence_session: Session, engine: int
) -> None:
    """An image's evidence is the same alone, in a batch, and beside a broken image."""
    images, noise = inputs(9)
    whole = run_both(graph, evidence_session, images, noise)[engine]
    for n in (0, 4, 8):
        alone = run_both(graph, evidence_session, images[n : n + 1], noise[n : n + 1])[engine]
        for one, all_ in zip(alone, whole, strict=True):
            assert np.abs(one[0] - all_[n]).max() < 5e-6
    images[3, 0, 0, 0] = float("nan")
    beside = run_both(graph, evidence_session, images, noise)[engine]
    for row, all_ in zip(beside, whole, strict=True):
        assert np.isnan(row[3]).all()
        assert np.array_equal(np.delete(row, 3, 0), np.delete(all_, 3, 0))


@pytest.mark.parametrize("engine", [0, 1], ids=["torch", "onnxruntime"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["images", "noise"])
def test_non_finite_input_shows(
    graph: EvidenceGraph, evidence_session: Session, engine: int, value: float, where: str
) -> None:
    """One non-finite number among the inputs of an image makes its whole row NaN."""
    feeds = dict(zip(("images", "noise"), inputs(2), strict=True))
    feeds[where][1].view(-1)[17] = value
    evidence, probabilities = run_both(graph, evidence_session, **feeds)[engine]
    assert np.isnan(evidence[1]).all()
    assert np.isnan(probabilities[1]).all()
    assert np.isfinite(evidence[0]).all()


def test_every_column_has_a_gradient(graph: EvidenceGraph) -> None:
    """An adaptive attack finds a finite, non-zero gradient behind every column."""
    images, noise = inputs(4)
    images.requires_grad_()
    evidence, _ = graph(images, noise)
    for column, name in enumerate(graph.columns):
        (gradient,) = torch.autograd.grad(evidence[:, column].sum(), images, retain_graph=True)
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().sum() > 0, name


def test_parts_that_do_not_fit_are_refused(graph: EvidenceGraph) -> None:
    """Missing sentinel, doubled columns, wrong lead, no noise copies: said at construction."""
    robust = [Member("a", "robust", torch.nn.Identity())]
    with pytest.raises(ValueError, match="must exist"):
        EvidenceGraph(robust, default_defenses())
    with pytest.raises(ValueError, match="different names"):
        EvidenceGraph(robust, [Squeezing(ask="lead"), Squeezing(ask="lead")])
    with pytest.raises(ValueError, match="lead"):
        EvidenceGraph(robust, [], lead="b")
    with pytest.raises(ValueError, match="copy"):
        EvidenceGraph(robust, [NoiseConsistency(ask="lead")], copies=0)
    with pytest.raises(ValueError, match="role"):
        EvidenceGraph([Member("a", "boss", torch.nn.Identity())], [])
