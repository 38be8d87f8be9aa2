"""Who stands when another is attacked."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard.attacks import round8
from guard.attacks.pgd import pgd
from guard.errors import InputError
from guard.evaluation.robustness import Averaged
from guard.evaluation.transfer import Transfer, transfer
from tests.training.toys import NATURAL, colours


def attack(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """PGD that draws nothing."""
    return pgd(model, images, labels, eps=24 / 255, steps=5, random_start=False)


class Sees(nn.Module):
    """Tells two classes by the mean of one channel alone."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 2)."""
        level = 20 * (images[:, self.channel].mean((1, 2)) - 0.5)
        return torch.stack([-level, level], 1)


def halves(count: int = 24) -> tuple[Tensor, Tensor]:
    """Dark and bright pictures, not far from grey."""
    labels = torch.arange(count) % 2
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return 0.45 + 0.06 * labels.view(-1, 1, 1, 1) + 0.02 * noise, labels


def test_members_that_look_elsewhere_do_not_fall_together() -> None:
    """Examples against one channel leave the reader of another right, and fool a twin."""
    images, labels = halves()
    members = {"red": Sees(0), "twin": Sees(0), "blue": Sees(2)}
    found = transfer(members, images, labels, attack)
    assert found.share("red", "red") == found.share("red", "twin") == 0
    assert found.share("red", "blue") == found.share("blue", "red") == 1
    assert found.share("ensemble", "ensemble") == 0
    assert found.alone == 0
    assert found.across == pytest.approx(4 / 6)


def test_the_diagonal_is_the_white_box_attack() -> None:
    """The same attack on each classifier itself, counted by hand on the same pictures."""
    pictures = colours(60, 2)
    images, labels = pictures.pixels(torch.arange(60)), pictures.labels
    members = {f"m{n}": replace(NATURAL, seed=n).network(3).eval() for n in range(2)}
    together = Averaged(list(members.values()))
    with torch.no_grad():
        right = torch.stack([m(images).argmax(1) == labels for m in members.values()]).all(0)

    found = transfer(members, images, labels, attack)
    assert found.count == int(right.sum()) > 0
    for name, model in {**members, "ensemble": together}.items():
        moved = round8(attack(model, images[right], labels[right]))
        with torch.no_grad():
            share = float((model(moved).argmax(1) == labels[right]).float().mean())
        assert found.share(name, name) == pytest.approx(share)


def test_the_report_has_every_cell() -> None:
    """JSON with intervals, a Markdown row per source, and a picture that shows the difference."""
    found = Transfer(("a", "b", "ensemble"), ((0, 9, 5), (8, 1, 6), (2, 3, 0)), 10, 12, "pgd-20")
    record = found.record()
    cell = record["source_then_target"]["a"]["b"]
    assert cell["share"] == 0.9
    assert cell["interval"][0] < 0.9 < cell["interval"][1]
    assert record["members_right_on_examples_of"] == {"own": 0.05, "others": pytest.approx(0.85)}
    lines = found.markdown().splitlines()
    assert lines[2] == "| a | 0.0 | 90.0 | 50.0 |"
    assert "10 pictures that all had right (of 12)" in lines[-1]
    picture = found.picture()
    fooled, untouched = (picture.getpixel((24 + 120 + 84 * n + 6, 96 + 6)) for n in (0, 1))
    assert fooled == (139, 26, 26)
    assert min(untouched) > 200  # type: ignore[type-var]


def test_members_that_do_not_fit_are_named() -> None:
    """Other classes, other shapes, too few members, and nothing that all have right."""
    images, labels = halves()
    three = NATURAL.network(3)
    with pytest.raises(InputError, match="other has 3 classes and red has 2"):
        transfer({"red": Sees(0), "other": three}, images, labels, attack)
    grey = replace(NATURAL, channels=1).network(2)
    with pytest.raises(InputError, match=r"grey does not take pictures of shape \(3, 8, 8\)"):
        transfer({"red": Sees(0), "grey": grey}, images, labels, attack)
    with pytest.raises(InputError, match="two members"):
        transfer({"red": Sees(0)}, images, labels, attack)
    with pytest.raises(InputError, match="labels up to 2"):
        transfer({"a": Sees(0), "b": Sees(1)}, images, labels + 1, attack)
    with pytest.raises(InputError, match="none of the 24 pictures"):
        transfer({"a": Sees(0), "b": Sees(1)}, images, 1 - labels, attack)
