"""A contact sheet: originals, what an attack made of them, and the difference.

Letters: N images, C H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE, GAP, MARGIN, CAPTION, HEADER = 128, 14, 24, 24, 76  # pixels
INK, FAINT, PAPER, BAD = "#1c1f24", "#7a818c", "#ffffff", "#c0272d"


@dataclass(frozen=True)
class Pair:
    """One picture before and after, uint8 (H, W, C), and how each is read."""

    original: NDArray[np.uint8]
    changed: NDArray[np.uint8]
    truth: str
    answer: str
    fooled: bool


def sheet(pairs: Sequence[Pair], *, title: str, amplified: int = 10) -> Image.Image:
    """One column per pair: original, changed, difference; grey is no difference."""
    pitch = TILE + GAP
    width = max(2 * MARGIN + len(pairs) * pitch - GAP, 480)
    height = HEADER + 3 * (TILE + CAPTION) + MARGIN - CAPTION
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, 16), title, INK, ImageFont.load_default(18))
    below = (
        f"original, attacked, difference x {amplified}" if amplified > 1 else "original, attacked"
    )
    pen.text((MARGIN, 42), below, FAINT, ImageFont.load_default(14))
    for column, pair in enumerate(pairs):
        difference = amplified * (pair.changed.astype(np.int16) - pair.original)
        rows = (
            (pair.original, pair.truth, FAINT),
            (pair.changed, pair.answer, BAD if pair.fooled else FAINT),
            (np.clip(128 + difference, 0, 255).astype(np.uint8), "", FAINT),
        )
        for row, (pixels, caption, color) in enumerate(rows):
            at = (MARGIN + column * pitch, HEADER + row * (TILE + CAPTION))
            page.paste(_enlarged(pixels), at)
            pen.text((at[0], at[1] + TILE + 3), caption[:18], color, ImageFont.load_default(13))
    return page


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return picture.resize((TILE, TILE), Image.Resampling.NEAREST)
