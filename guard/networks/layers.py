"""What classifiers are built from: activations, the first layer, a convolution with its norm."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=False),
    "silu": lambda: nn.SiLU(inplace=False),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=False),
}


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


class ConvNorm(nn.Module):
    """A convolution, batch normalisation while training, an activation."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, activation: str | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.activation = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out

    def fuse(self) -> None:
        """Fold the normalisation into the convolution, in place."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class Residual(nn.Module):
    """A basic residual block (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, activation: str) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride, activation=activation)
        self.second = ConvNorm(outputs, outputs, activation=None)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = ConvNorm(inputs, outputs, kernel=1, stride=stride, activation=None)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.activation(self.second(self.first(x)) + self.skip(x))
        return out
