"""torchvision's classifiers and their checkpoints."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from guard.errors import InputError
from guard.networks import build

MODEL = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A checkpoint for seven classes."""
    torch.manual_seed(0)
    return dict(models.get_model(MODEL, weights=None, num_classes=7).state_dict())


def test_a_checkpoint_is_the_published_network(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Pixels in [0, 1] give torchvision's logits on pictures normalised as ImageNet's are."""
    torch.save(state, tmp_path / "seven.pth")
    network = build("torchvision", model=MODEL, classes=7, weights=str(tmp_path / "seven.pth"))
    reference = models.get_model(MODEL, weights=None, num_classes=7)
    reference.load_state_dict(state)
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = (images - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(network.eval()(images), reference.eval()(seen), atol=1e-5)


def test_a_head_for_other_classes_is_fresh(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """The trunk is the checkpoint's, the head one for the classes asked for."""
    save_file(state, tmp_path / "seven.safetensors")
    network = build(
        "torchvision", model=MODEL, classes=4, weights=str(tmp_path / "seven.safetensors")
    )
    assert network.head.out_features == 4
    trunk = network.features.state_dict()
    assert trunk
    assert all(torch.equal(state[name], value) for name, value in trunk.items())


@pytest.mark.parametrize("name", ["empty.pth", "half.safetensors", "missing.pth", "list.pth"])
def test_unusable_checkpoints_are_named(name: str, tmp_path: Path) -> None:
    """Empty, cut off, absent, or no weights at all: one line that names the file."""
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match=name) as caught:
        build("torchvision", model=MODEL, classes=7, weights=str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    """Weights that do not fit fill nothing."""
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth does not fit"):
        build("torchvision", model=MODEL, classes=7, weights=str(tmp_path / "other.pth"))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    """An object that would call something while it is read is refused."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "executed"),)

    torch.save({"fc.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match=r"trap\.pth"):
        build("torchvision", model=MODEL, classes=7, weights=str(tmp_path / "trap.pth"))
    assert not (tmp_path / "executed").exists()


def test_auxiliary_heads_are_left_out() -> None:
    """While training too, GoogLeNet answers with logits alone."""
    network = build("torchvision", model="googlenet", classes=3).train()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"model": "resnet"}, "no classification model 'resnet'"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "no classification model"),
        ({"model": "squeezenet1_0"}, "linear layer"),
        ({"model": MODEL, "channels": 1}, "3 channels"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], reason: str) -> None:
    """An unknown name, a detector, a net that ends in a convolution, grey pictures."""
    with pytest.raises(ValueError, match=reason):
        build("torchvision", classes=3, **arguments)
