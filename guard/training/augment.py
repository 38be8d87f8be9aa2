"""Changes that leave the class alone: moved, turned, lit, mirrored, covered, mixed.

CutMix: Yun et al., ICCV 2019. Crop-and-shift, colour and erasing together are in the manner of
IDBH (Li & Spratling, ICLR 2023), which delays robust overfitting.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from guard.training.dice import Dice


@dataclass(frozen=True)
class Augment:
    """How far each change may go; 0 leaves it out. Drawn per picture."""

    rotation: float = 0.0  # degrees, each way
    zoom: float = 0.0  # share, each way
    shift: float = 0.0  # of the width, each way
    light: float = 0.0  # brightness and contrast, as a share each way
    colour: float = 0.0  # saturation, as a share each way
    noise: float = 0.0  # largest standard deviation of Gaussian noise added
    flip: bool = False  # mirrored left to right, every other picture
    crop: int = 0  # pixels: moved by up to so many, black beyond the edge
    erase: float = 0.0  # edge of a grey square put anywhere, as a share of the width
    cutmix: float = 0.0  # share of the batches whose pictures are pasted into each other

    def __call__(self, images: Tensor, dice: Dice) -> Tensor:
        """Pictures (N, C, H, W) in [0, 1], each changed in its own way."""
        if self.flip:
            mirrored = dice.uniform(len(images)) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        if self.crop:
            images = _crop(images, self.crop, dice)
        if self.rotation or self.zoom or self.shift:
            images = self._move(images, dice)
        if self.light or self.colour or self.noise:
            images = self._relight(images, dice)
        if self.erase:
            images = _erase(images, self.erase, dice)
        return images

    def _move(self, images: Tensor, dice: Dice) -> Tensor:
        count = len(images)
        angle = dice.spread(count, math.radians(self.rotation))
        scale = 1 + dice.spread(count, self.zoom)
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        across, down = dice.spread(count, 2 * self.shift), dice.spread(count, 2 * self.shift)
        rows = (cosine, -sine, across, sine, cosine, down)
        grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _relight(self, images: Tensor, dice: Dice) -> Tensor:
        count = len(images)
        bright, contrast = dice.spread(count, self.light), 1 + dice.spread(count, self.light)
        centre = images.mean((1, 2, 3), keepdim=True)
        lit = (images - centre) * contrast.view(-1, 1, 1, 1)
        lit = lit + centre * (1 + bright).view(-1, 1, 1, 1)
        if self.colour:
            grey = lit.mean(1, keepdim=True)
            lit = grey + (lit - grey) * (1 + dice.spread(count, self.colour)).view(-1, 1, 1, 1)
        if self.noise:
            level = dice.uniform(count).view(-1, 1, 1, 1) * self.noise
            lit = lit + level * dice.normal(*lit.shape)
        return lit.clamp(0, 1)


def turned(rows: Tensor) -> Tensor:
    """Each row's predecessor in the batch; the first one's is the last."""
    return rows.roll(1, 0)


def cutmix(
    images: Tensor, soft: Tensor, dice: Dice, *, neighbours: Callable[[Tensor], Tensor] = turned
) -> tuple[Tensor, Tensor]:
    """A box of each picture's neighbour pasted in, and the classes mixed by area.

    images (N, C, H, W), soft (N, K) class shares; the box is the same for the batch, its area
    uniform (Beta(1, 1)); neighbours: whose box each row gets.
    """
    height, width = images.shape[2:]
    area, down, across = (dice.shared(1) for _ in range(3))
    tall, wide = (1 - area).sqrt() * height, (1 - area).sqrt() * width
    rows, columns = _inside(height, down, tall), _inside(width, across, wide)
    box = rows[:, None] & columns[None, :]  # (H, W)
    share = 1 - box.float().mean()
    mixed = torch.where(box, neighbours(images), images)
    return mixed, share * soft + (1 - share) * neighbours(soft)


def _inside(length: int, middle: Tensor, size: Tensor) -> Tensor:
    place = torch.arange(length, device=middle.device) + 0.5
    return (place - middle * length).abs() < size / 2


def _crop(images: Tensor, reach: int, dice: Dice) -> Tensor:
    """Moved by whole pixels, black beyond the edge."""
    count, channels, height, width = images.shape
    span = 2 * reach + 1
    down = (dice.uniform(count) * span).long()
    across = (dice.uniform(count) * span).long()
    padded = F.pad(images, (reach,) * 4)
    rows = down[:, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = across[:, None] + torch.arange(width, device=images.device)  # (N, W)
    picked = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width + 2 * reach))
    return picked.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def _erase(images: Tensor, share: float, dice: Dice) -> Tensor:
    """A grey square anywhere, of an edge up to `share` of the width (random erasing)."""
    count, _, height, width = images.shape
    size = dice.uniform(count, 1) * share * width
    down, across = dice.uniform(count, 1) * height, dice.uniform(count, 1) * width
    rows = (torch.arange(height, device=images.device) + 0.5 - down).abs() < size / 2  # (N, H)
    columns = (torch.arange(width, device=images.device) + 0.5 - across).abs() < size / 2
    box = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(box, 0.5)
