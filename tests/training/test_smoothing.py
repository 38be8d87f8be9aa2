"""Training for randomised smoothing: under noise, and against attacks on the mean answer."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from guard.networks import Network
from guard.training.dice import Dice
from guard.training.ladder import LADDER
from guard.training.lesson import Lesson
from guard.training.losses import shares
from guard.training.parallel import Team
from tests.training.toys import NATURAL, colours, taught

SIGMA = 0.5
GAUSSIAN = replace(NATURAL, sigma=SIGMA, epochs=5)
SMOOTH_ADV = replace(
    GAUSSIAN, attacks={"pgd": 1.0}, norm="l2", eps=0.5, steps=3, stride=0.5, noises=3, warm=0.0
)


def under_noise(network: nn.Module, sigma: float) -> float:
    """Accuracy on noisy pictures of the toy task."""
    pictures, generator = colours(200, 2), torch.Generator().manual_seed(0)
    images = pictures.pixels(torch.arange(200))
    noisy = images + sigma * torch.randn(images.shape, generator=generator)
    with torch.no_grad():
        return float((network(noisy).argmax(1) == pictures.labels).float().mean())


def lesson() -> Lesson:
    """SmoothAdv's lesson for a network of random weights."""
    return Lesson(SMOOTH_ADV, SMOOTH_ADV.network(3), dice=Dice(0), team=Team())


def batch() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Pixels (8, 3, 8, 8), labels (8,), three draws of noise."""
    pictures, generator = colours(8, 0), torch.Generator().manual_seed(3)
    draws = [SIGMA * torch.randn(8, 3, 8, 8, generator=generator) for _ in range(3)]
    return pictures.pixels(torch.arange(8)), pictures.labels, draws


def papers(network: Network, images: Tensor, labels: Tensor, noise: list[Tensor]) -> Tensor:
    """Salman et al., equation 6: the gradient of -log of the mean probability of the class."""
    images = images.clone().requires_grad_(True)
    chance = torch.stack([network(images + one).softmax(1) for one in noise]).mean(0)
    (-chance[torch.arange(len(labels)), labels].log().sum()).backward()
    assert images.grad is not None
    return images.grad


def test_smooth_adv_is_the_papers_attack() -> None:
    """Its examples are those of projected steps along the paper's gradient, the noise held."""
    here, (images, labels, noise) = lesson(), batch()
    found = here.attack(images, shares(labels, 3), 1.0, noise)
    network, dice = here.network.eval(), Dice(0)
    dice.pick([1.0])  # which attack
    moved = SMOOTH_ADV.craft(0.5)._start(images, dice)
    for _ in range(3):
        slope = papers(network, moved, labels, noise)
        moved = moved + 0.25 * slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        change = moved - images
        length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        moved = (images + change * (0.5 / length).clamp_max(1)).clamp(0, 1)
    assert torch.allclose(found, moved, atol=1e-4)


def test_every_noisy_copy_is_learned_from() -> None:
    """A step sees each picture under each of its draws, the draws its attack was made with."""
    here, (images, labels, _) = lesson(), batch()
    seen: list[Tensor] = []
    for module in (here.both, here.frozen):
        module.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    here(images, labels, classes=3, progress=1.0)
    assert [len(one) for one in seen] == [8] * 9 + [24]
    crafted, learned = seen[-4:-1], seen[-1].chunk(3)
    for earlier, later in zip(crafted, learned, strict=True):
        moved = (later - earlier).flatten(1).norm(dim=1)
        assert (moved <= 0.25 + 1e-4).all(), "one step of the attack apart, the noise the same"


def test_training_under_noise_raises_accuracy_under_noise() -> None:
    """Gaussian training (Cohen et al.) and SmoothAdv both beat natural training by far."""
    natural, gaussian, smooth = (
        under_noise(taught(one, count=96), SIGMA)
        for one in (replace(NATURAL, epochs=5), GAUSSIAN, replace(SMOOTH_ADV, noises=2))
    )
    assert gaussian > natural + 0.15
    assert smooth > natural + 0.15


def test_the_ladder_has_both() -> None:
    """`smooth` is noise alone; `smooth-adv` attacks the mean answer in L2."""
    plain, hard = LADDER["smooth"], LADDER["smooth-adv"]
    assert plain.sigma == hard.sigma > 0
    assert not plain.adversarial
    assert hard.norm == "l2"
    assert hard.noises > 1
