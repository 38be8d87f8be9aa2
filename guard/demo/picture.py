"""The demo's picture: what was sent, what it hides, who said what.

Letters: C H W.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

ZOOM, GAP, MARGIN, TEXT = 4, 16, 28, 350  # pixels; ZOOM per pixel of a sign
HEADER, LINE, CAPTION = 88, 25, 24
AMPLIFIED = 10
INK, FAINT, PAPER, RULE = "#1c1f24", "#7a818c", "#ffffff", "#e3e6ea"
GOOD, BAD = "#1a7f4b", "#c0272d"


@dataclass(frozen=True)
class Example:
    """One picture of one row. original and sent are uint8 (C, H, W)."""

    name: str  # of the attack, or of clean traffic
    original: NDArray[np.uint8]
    sent: NDArray[np.uint8]
    truth: str
    production: str
    confidence: float
    ensemble: str
    blocked: bool
    p_value: float


def draw(examples: Sequence[Example], *, title: str) -> Image.Image:
    """One row per example: original, sent, difference x10, and the verdict in words."""
    tile = ZOOM * examples[0].original.shape[-1]
    pitch = tile + CAPTION + GAP
    width = 2 * MARGIN + 3 * (tile + GAP) + GAP + TEXT
    sheet = Image.new("RGB", (width, HEADER + len(examples) * pitch + MARGIN - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 20), title, INK, _font(20), stroke_width=0.4)
    heads = ("original", "sent", f"difference x {AMPLIFIED}", "verdict")
    for column, head in enumerate(heads):
        left = MARGIN + column * (tile + GAP) + (GAP if column == 3 else 0)
        pen.text((left, HEADER - 32), head, FAINT, _font(15))
    for row, example in enumerate(examples):
        _row(sheet, pen, example, top=HEADER + row * pitch, tile=tile)
    return sheet


def _row(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, example: Example, *, top: int, tile: int
) -> None:
    difference = example.sent.astype(np.int16) - example.original
    amplified = np.clip(128 + AMPLIFIED * difference, 0, 255).astype(np.uint8)
    captions = (example.truth, f"read as {example.production}", "")
    colors = (FAINT, FAINT if example.production == example.truth else BAD, FAINT)
    for column, pixels in enumerate((example.original, example.sent, amplified)):
        left = MARGIN + column * (tile + GAP)
        picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        sheet.paste(picture.resize((tile, tile), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + tile + 3), captions[column], colors[column], _font(14))
    _words(pen, example, left=MARGIN + 3 * (tile + GAP) + GAP, top=top)


def _words(pen: ImageDraw.ImageDraw, example: Example, *, left: int, top: int) -> None:
    """What everybody said, and the gateway's verdict as a badge."""
    wrong = example.production != example.truth
    pen.text((left, top), example.name, INK, _font(18), stroke_width=0.4)
    lines = (
        ("production says", f"{example.production} ({100 * example.confidence:.0f} %)", wrong),
        ("robust ensemble says", example.ensemble, example.ensemble != example.truth),
    )
    for index, (who, what, mistaken) in enumerate(lines):
        y = top + LINE + 6 + index * LINE
        pen.text((left, y), who, FAINT, _font(16))
        pen.text((left + 176, y), what, BAD if mistaken else INK, _font(16))
    y = top + 3 * LINE + 14
    verdict = "BLOCKED" if example.blocked else "ALLOWED"
    color = GOOD if example.blocked == wrong else BAD
    size = pen.textlength(verdict, _font(16))
    pen.rounded_rectangle((left, y - 3, left + size + 24, y + 24), 6, fill=color)
    pen.text((left + 12, y), verdict, PAPER, _font(16), stroke_width=0.3)
    pen.text((left + size + 38, y), f"p = {example.p_value:.4f}", INK, _font(16))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
