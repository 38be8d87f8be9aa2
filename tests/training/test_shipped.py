"""The packs that ship: what is served is what was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from guard import Pipeline, load_evidence, load_member
from guard.data import signs
from guard.pack import Pack, shipped_digests
from guard.training.export import evidence_parity, probe_images

MODELS = Path(__file__).parents[2] / "models"
PACKS = sorted(shipped_digests())


@pytest.mark.parametrize("name", PACKS)
def test_the_served_graph_is_the_torch_graph(name: str) -> None:
    """Same images, same noise: continuous scores to 1e-5 of their span, labels and votes equal."""
    pack = Pack.load(MODELS / name)
    generator = torch.Generator().manual_seed(5)
    images = (probe_images(64, pack.input_shape, generator) * 255).round() / 255
    images[:32] = torch.from_numpy(signs.make(32, seed=77).pixels())
    noise = torch.randn((64, pack.noise_copies, *pack.input_shape), generator=generator)
    evidence_parity(load_evidence(pack), MODELS / name / "evidence.onnx", images, noise).require()


@pytest.mark.parametrize("name", PACKS)
def test_every_member_can_be_had_alone(name: str) -> None:
    """`load_member` gives each listed member; the robust ones' mean is what the graph answers."""
    pack = Pack.load(MODELS / name)
    images = torch.from_numpy(signs.make(16, seed=78).pixels())
    robust = [m.name for m in pack.members if m.role == "robust"]
    assert len(robust) >= 3
    assert [m.role for m in pack.members].count("sentinel") == 1
    with torch.no_grad():
        mean = sum(load_member(pack, one)(images).softmax(1) for one in robust) / len(robust)
    served = Pipeline.load(MODELS / name, secret=b"x").evidence(images.numpy()).probabilities
    assert np.abs(served - torch.as_tensor(mean).numpy()).max() < 1e-5


def test_the_signs_pack_knows_signs() -> None:
    """On fresh signs the ensemble is right, and few are flagged at a budget of 5%."""
    pipeline = Pipeline.load(MODELS / "signs", max_false_positive_rate=0.05, secret=b"x")
    images = signs.make(400, seed=79)
    verdicts = pipeline.inspect(images.pixels(), upstream=images.labels)
    labels = pipeline.evidence(images.pixels()).probabilities.argmax(1)
    assert (labels == images.labels).mean() > 0.97
    assert sum(verdict.decision != 0 for verdict in verdicts) < 400 * 0.10


def test_a_wrong_production_label_is_an_alarm() -> None:
    """When the production model gives another class for clear signs, nearly all are flagged."""
    pipeline = Pipeline.load(MODELS / "signs", max_false_positive_rate=0.05, secret=b"x")
    images = signs.make(200, seed=80)
    wrong = (images.labels + 1) % len(images.classes)
    verdicts = pipeline.inspect(images.pixels(), upstream=wrong)
    assert sum(verdict.decision != 0 for verdict in verdicts) > 190
