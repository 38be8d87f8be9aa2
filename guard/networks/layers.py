"""What classifiers are built from: activations, norms, first layers, blocks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=False),
    "silu": lambda: nn.SiLU(inplace=False),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=False),
    "gelu": lambda: nn.GELU(),
}


def _group(width: int) -> nn.Module:
    """Group normalisation (Wu and He 2018): at most 32 groups of at least 4 channels."""
    groups = max(n for n in (1, 2, 4, 8, 16, 32) if width % n == 0 and n * 4 <= max(width, 4))
    return nn.GroupNorm(groups, width)


# Images are independent of their batch with "group": for DP-SGD, and for equality across ranks.
NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "group": _group}


class Normalize(nn.Module):
    """Every image to zero mean and about unit contrast, so that light and exposure matter less.

    The floor keeps flat images flat instead of amplifying their noise.
    """

    def __init__(self, floor: float = 0.05) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C, H, W)."""
        centred = images - images.mean((1, 2, 3), keepdim=True)
        power = (centred * centred).mean((1, 2, 3), keepdim=True)
        return centred / (power + self.floor**2).sqrt()


class Standardize(nn.Module):
    """A fixed mean and standard deviation, for all channels or one for each."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.25
    ) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            column = torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, column, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C, H, W)."""
        return (images - self.mean) / self.std


class ConvNorm(nn.Module):
    """A convolution, its norm (a batch norm only until it is fused), an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        activation: str | None,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = NORMS[norm](outputs)
        self.activation = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


class Residual(nn.Module):
    """A basic residual block (He et al. 2016)."""

    def __init__(
        self, inputs: int, outputs: int, *, stride: int, activation: str, norm: str = "batch"
    ) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride, activation=activation, norm=norm)
        self.second = ConvNorm(outputs, outputs, activation=None, norm=norm)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = ConvNorm(
                inputs, outputs, kernel=1, stride=stride, activation=None, norm=norm
            )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.activation(self.second(self.first(x)) + self.skip(x))
        return out


class PreActivation(nn.Module):
    """A basic block with its norms and activations before the convolutions (He et al. 2016b)."""

    def __init__(
        self, inputs: int, outputs: int, *, stride: int, activation: str, norm: str = "batch"
    ) -> None:
        super().__init__()
        self.before = NORMS[norm](inputs)
        self.activation = ACTIVATIONS[activation]()
        self.first = ConvNorm(inputs, outputs, stride=stride, activation=activation, norm=norm)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.skip: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        active = self.activation(self.before(x))
        out: Tensor = self.second(self.first(active))
        return out + (x if self.skip is None else self.skip(active))
