"""A sticker: a small patch, free inside its square, that works from many poses.

Brown, Mane, Roy, Abadi & Gilmer, "Adversarial Patch", 2017; expectation over transformation from
Athalye, Engstrom, Ilyas & Kwok, ICML 2018; stickers on road signs from Eykholt et al., CVPR 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss

NORM = "patch"


@dataclass(frozen=True)
class Sticker:
    """What is printed and how freely it is stuck on.

    size:   edge of the square in pixels
    center: where its middle goes, (down, right) in shares of the picture
    shift:  how far the middle may stray, in pixels
    turn:   how far it may be rotated, in degrees
    light:  how much brighter or darker it may be, as a share
    """

    size: int = 10
    center: tuple[float, float] = (0.5, 0.5)
    shift: float = 2.0
    turn: float = 15.0
    light: float = 0.15

    def draw(self, count: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random poses (N, 4): down, right (pixels), angle (radians), brightness."""
        reach = like.new_tensor([self.shift, self.shift, math.radians(self.turn), self.light])
        free = torch.rand((count, 4), generator=generator, device=like.device, dtype=like.dtype)
        return (2 * free - 1) * reach

    def stick(
        self, images: Tensor, print_: Tensor, poses: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Put the print (N or 1, C, size, size) on the images in the given poses (N, 4).

        mask (N or 1, 1, H, W): where a sticker holds (the sign), 1 there and 0 elsewhere.
        """
        count, channels, height, width = images.shape
        grid = affine_grid(self._placing(poses, height, width), [count, 1, height, width], False)
        whole = print_.expand(count, -1, -1, -1)
        sheet = torch.cat([whole, torch.ones_like(whole[:, :1])], 1)
        seen = grid_sample(sheet, grid, padding_mode="zeros", align_corners=False)
        alpha = seen[:, channels:] if mask is None else seen[:, channels:] * mask
        color = seen[:, :channels] / seen[:, channels:].clamp_min(1e-6)
        lit = (color * (1 + poses[:, 3, None, None, None])).clamp(0, 1)
        return (images * (1 - alpha) + lit * alpha).clamp(0, 1)

    def _placing(self, poses: Tensor, height: int, width: int) -> Tensor:
        """(N, 2, 3): from coordinates of the picture to those of the sticker, as affine_grid."""
        cos, sin = poses[:, 2].cos(), poses[:, 2].sin()
        x = (2 * self.center[1] - 1) + 2 * poses[:, 1] / width
        y = (2 * self.center[0] - 1) + 2 * poses[:, 0] / height
        wide, high = width / self.size, height / self.size
        rows = [cos * wide, sin * high, -(cos * x * wide + sin * y * high)]
        more = [-sin * wide, cos * high, sin * x * wide - cos * y * high]
        return torch.stack([torch.stack(rows, 1), torch.stack(more, 1)], 1)


@crafts
def patch(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | None = None,
    sticker: Sticker | None = None,
    shared: bool = True,
    mask: Tensor | None = None,
    steps: int = 200,
    rate: float = 0.05,
    poses: int = 2,
    loss: Loss = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Print a sticker and stick it on, in poses it was not printed for (Brown et al. 2017).

    images (N, C, H, W), labels (N,); eps: share of the picture's area that the sticker covers,
    None for the size that `sticker` says; shared: one print for all images, as a real sticker is,
    else one each; poses: how many random poses the gradient is averaged over in each of `steps`
    Adam steps; targets (N,): wanted classes (STOP read as a speed limit), None for any wrong one;
    mask: see Sticker.stick. Pixels outside the sticker are untouched.
    """
    sticker = sticker or Sticker()
    if eps is not None:
        sticker = replace(sticker, size=max(1, math.isqrt(int(eps * images[0, 0].numel()))))
    goal = Goal(labels, targets, loss)
    print_ = design(
        model, images, goal, sticker,
        shared=shared, mask=mask, steps=steps, rate=rate, poses=poses, generator=generator,
    )  # fmt: skip
    return sticker.stick(images, print_, sticker.draw(len(images), images, generator), mask)


def design(
    model: Classifier,
    images: Tensor,
    goal: Goal,
    sticker: Sticker,
    *,
    shared: bool = True,
    mask: Tensor | None = None,
    steps: int = 200,
    rate: float = 0.05,
    poses: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The print alone, (1 or N, C, size, size) in [0, 1]; arguments as for `patch`."""
    shape = (1 if shared else len(images), images.shape[1], sticker.size, sticker.size)
    first = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
    print_ = first.requires_grad_(True)
    adam = torch.optim.Adam([print_], lr=rate)
    for _ in range(steps):
        with torch.enable_grad():
            views = [
                sticker.stick(images, print_, sticker.draw(len(images), images, generator), mask)
                for _ in range(poses)
            ]
            rises = [goal.rise(model(view)).mean() for view in views]
            (print_.grad,) = torch.autograd.grad(-torch.stack(rises).mean(), print_)
        adam.step()
        with torch.no_grad():
            print_.clamp_(0, 1)
    return print_.detach()
