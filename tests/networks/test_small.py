"""First layers and the small classifiers."""

import pytest
import torch

from guard.networks import Normalize, Standardize, build, fuse


@pytest.mark.parametrize("name", ["plain", "residual", "broad"])
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28)])
def test_fusing_changes_nothing(name: str, channels: int, size: int) -> None:
    """Folding normalisation into the convolutions keeps the logits, for colour and grey images."""
    torch.manual_seed(0)
    network = build(name, classes=5, channels=channels, width=4, grid=2)
    images = torch.rand(16, channels, size, size)
    network.train()
    network(images)  # gives the running statistics something to fold
    before = network.eval()(images)
    after = fuse(network)(images)
    assert torch.allclose(before, after, atol=1e-5)
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_contrast_and_light_are_taken_out() -> None:
    """A darker, flatter copy of a picture looks the same behind the first layer."""
    image = torch.rand(1, 3, 8, 8)
    seen = Normalize(floor=1e-4)(torch.cat([image, image * 0.3 + 0.2]))
    assert torch.allclose(seen[0], seen[1], atol=1e-3)


def test_flat_images_stay_finite() -> None:
    """A picture of one colour has no contrast to divide by."""
    assert torch.isfinite(Normalize()(torch.full((1, 3, 8, 8), 0.5))).all()


def test_standardising_is_the_papers() -> None:
    """Each channel less its mean, over its deviation; neither is part of the state."""
    layer = Standardize((0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    seen = layer(torch.full((1, 3, 2, 2), 0.6))
    assert torch.allclose(seen[0, :, 0, 0], torch.tensor([1.0, 1.6, 2.4]))
    assert not layer.state_dict()


def test_normalisation_is_chosen_by_name() -> None:
    """Contrast unless told for the small ones, standard for the published ones; no third."""
    assert isinstance(build("plain", classes=2).normalize, Normalize)
    assert isinstance(build("resnet", classes=2, width=4).normalize, Standardize)
    chosen = build("plain", classes=2, normalize="standard", mean=0.4, std=[0.1, 0.2, 0.3])
    assert torch.allclose(chosen.normalize(torch.full((1, 3, 1, 1), 0.6))[0, 0], torch.tensor(2.0))
    with pytest.raises(ValueError, match="layer"):
        build("plain", classes=2, normalize="layer")


def test_dropout_is_before_the_head_and_while_training_only() -> None:
    """Features come whole, training logits vary, answers do not."""
    torch.manual_seed(0)
    network = build("plain", classes=4, width=4, norm="group", dropout=0.5)
    images = torch.rand(8, 3, 8, 8)
    network.train()
    assert torch.equal(network.penultimate(images), network.penultimate(images))
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
