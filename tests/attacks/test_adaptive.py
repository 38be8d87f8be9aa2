"""The adaptive attack: it sees through the served defence and slips under the detector."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from guard.attacks import round8
from guard.attacks.adaptive import Target, adaptive
from guard.attacks.goal import Goal
from guard.attacks.pgd import pgd
from guard.data import signs
from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph, Member, default_defenses

from .conftest import Victim, train

EPS = 6 / 255


@dataclass(frozen=True)
class Scene:
    """A defended victim, the detector's threshold at 5% false alarms, and pictures."""

    target: Target
    threshold: float
    images: Tensor
    labels: Tensor


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _scores(target: Target, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean detector scores (N,) under fresh noise, and whether the answer is wrong."""
    goal = Goal(labels, None, "margin")
    assert target.victim is not None
    with torch.no_grad():
        answer = target.victim(images).argmax(1)
        scores = []
        for seed in range(4):
            shape = (len(images), target.graph.copies, *images.shape[1:])
            noise = torch.empty(shape).normal_(generator=_generator(seed))
            evidence, probabilities = target.graph(images, noise)
            upstream = one_hot(answer, len(signs.CLASSES)).float()
            scores.append(target.detector(evidence, probabilities, upstream)[1][:, -1])
        return torch.stack(scores).mean(0), goal.reached(target.victim(images))


def _fit(detector: Detector, features: Tensor, bad: Tensor) -> None:
    detector.standardize(features)
    adam = torch.optim.Adam(detector.upstream.parameters(), 0.02)
    for _ in range(150):
        adam.zero_grad()
        binary_cross_entropy_with_logits(detector.upstream(features), bad).backward()
        adam.step()


@pytest.fixture(scope="module")
def scene(victim: Victim) -> Scene:
    """A detector taught PGD on the victim; the graph's members are a copy of it and another."""
    defenses = default_defenses()
    networks = [train(seed, count=3000, epochs=5) for seed in (2, 3)]
    members = [Member("r", "robust", networks[0]), Member("s", "sentinel", networks[1])]
    graph = EvidenceGraph(members, defenses, copies=2).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = Detector(defenses, hidden=8).eval()
    data = signs.make(180, seed=77)
    images, labels = torch.from_numpy(data.pixels()), torch.from_numpy(data.labels)
    attacked = pgd(victim.model, images, labels, eps=EPS, steps=10, generator=_generator())
    both = torch.cat([images, round8(attacked)])
    noise = torch.empty((len(both), 2, 3, 32, 32)).normal_(generator=_generator())
    with torch.no_grad():
        evidence, probabilities = graph(both, noise)
        features = detector.features(evidence, probabilities, victim.model(both).softmax(1))
    _fit(detector, features, (torch.arange(len(both)) >= len(images)).float())
    target = Target(graph, detector, victim.model)
    clean, _ = _scores(target, images, labels)
    return Scene(target, float(clean.quantile(0.95)), victim.images[:24], victim.labels[:24])


def _undetected(scene: Scene, found: Tensor) -> float:
    score, fooled = _scores(scene.target, found, scene.labels)
    return float((fooled & (score <= scene.threshold)).float().mean())


def test_slips_under_the_detector(scene: Scene, victim: Victim) -> None:
    """It goes undetected far more often than PGD that knows nothing of the detector."""
    static = pgd(
        victim.model, scene.images, scene.labels, eps=EPS, steps=20, generator=_generator()
    )
    found = adaptive(
        scene.target, scene.images, scene.labels,
        eps=EPS, threshold=scene.threshold, steps=25, weights=(0.3, 2.0), generator=_generator(),
    )  # fmt: skip
    assert _undetected(scene, found) >= _undetected(scene, round8(static)) + 0.3


def test_contract(scene: Scene) -> None:
    """8-bit pictures in the ball, reproducible, and the defence is left as it was."""
    images, labels = scene.images[:4], scene.labels[:4]
    images = round8(images)

    def run() -> Tensor:
        return adaptive(
            scene.target, images, labels,
            eps=EPS, threshold=scene.threshold, steps=4, weights=(1.0,), generator=_generator(),
        )  # fmt: skip

    found = run()
    assert found.shape == images.shape
    assert (found - images).abs().max() <= EPS + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.allclose(found, round8(found), atol=1e-6)
    assert torch.equal(found, run())
    assert not found.requires_grad
    assert all(p.grad is None for p in scene.target.graph.parameters())


def test_ensemble_as_victim(scene: Scene) -> None:
    """Without a production model the robust ensemble's own answer is attacked."""
    target = Target(scene.target.graph, scene.target.detector)
    found = adaptive(
        target, scene.images, scene.labels,
        eps=EPS, threshold=100.0, steps=10, weights=(1.0,), generator=_generator(),
    )  # fmt: skip
    with torch.no_grad():
        noise = torch.empty((len(found), 2, 3, 32, 32)).normal_(generator=_generator())
        before, after = (
            (target.graph(x, noise)[1].argmax(1) != scene.labels).float().mean()
            for x in (scene.images, found)
        )
    assert after >= before + 0.5


def test_targeted(scene: Scene) -> None:
    """With targets the victim gives the wanted class."""
    targets = (scene.labels + 1) % len(signs.CLASSES)
    found = adaptive(
        scene.target, scene.images, scene.labels,
        eps=16 / 255, threshold=100.0, steps=20, weights=(0.3,), targets=targets,
        generator=_generator(),
    )  # fmt: skip
    assert scene.target.victim is not None
    with torch.no_grad():
        reached = scene.target.victim(found).argmax(1) == targets
    assert reached.float().mean() >= 0.5


def test_gradient_reaches_the_pixels_through_every_defence(scene: Scene) -> None:
    """Nothing in the graph hides the detector's score from the pixels (no masked gradients)."""
    images = scene.images.clone().requires_grad_(True)
    goal = Goal(scene.labels, None, "margin")
    noise = torch.empty((len(images), 2, 3, 32, 32)).normal_(generator=_generator())
    evidence, _ = scene.target.graph(images, noise)
    for column, name in zip(evidence.T, scene.target.graph.columns, strict=True):
        (slope,) = torch.autograd.grad(column.sum(), images, retain_graph=True)
        if name != "ensemble_divergence":  # one robust member never disagrees with itself
            assert slope.abs().sum() > 0 or column.abs().max() == 0, name
        assert slope.isfinite().all(), name
    _, score = scene.target.look(images, goal, _generator())
    assert torch.autograd.grad(score.sum(), images)[0].abs().amax((1, 2, 3)).gt(0).all()
