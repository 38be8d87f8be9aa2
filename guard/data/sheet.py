"""The contact sheet of a report: the worst pictures of each finding, for people who rather look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from guard.data.findings import Finding, Item, Report
from guard.data.scan import Scan

TILE, GAP, MARGIN, COLUMNS = 96, 12, 24, 10  # pixels; COLUMNS tiles in a row
HEADER, TITLE, CAPTION = 56, 26, 34
INK, FAINT, PAPER = "#1c1f24", "#7a818c", "#ffffff"
COLORS = {"serious": "#c0272d", "warning": "#b26a00", "note": "#7a818c"}
MARK = 86  # width of a level's badge
WIDTH = 2 * MARGIN + COLUMNS * (TILE + GAP) + 190  # room for longer titles

Bytes = NDArray[np.uint8]


Tiles = list[tuple[str, str, Bytes]]  # two lines of caption, picture


def draw(report: Report, scans: Sequence[Scan]) -> Image.Image:
    """One row of pictures for each finding that has some, the serious ones first."""
    by_split = {scan.split: scan for scan in scans}
    rows = [(finding, _shown(finding, by_split)) for finding in report.ordered()]
    rows = [(finding, tiles) for finding, tiles in rows if tiles or finding.level != "note"]
    tops = [HEADER]
    for _finding, tiles in rows:
        tops.append(tops[-1] + TITLE + GAP + (TILE + CAPTION if tiles else 0))
    sheet = Image.new("RGB", (WIDTH, tops[-1] + MARGIN + (0 if rows else TITLE)), PAPER)
    pen = ImageDraw.Draw(sheet)
    counts = ", ".join(f"{count} {split}" for split, count in report.pictures.items())
    pen.text((MARGIN, 16), f"{report.data}: {counts}", INK, _font(20), stroke_width=0.4)
    if not rows:
        pen.text((MARGIN, HEADER), "nothing to show", FAINT, _font(16))
    for (finding, tiles), top in zip(rows, tops, strict=False):
        _row(sheet, pen, finding, tiles, top=top)
    return sheet


def _row(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, finding: Finding, tiles: Tiles, *, top: int
) -> None:
    badge = (MARGIN, top, MARGIN + MARK - 10, top + 19)
    pen.rounded_rectangle(badge, 5, fill=COLORS[finding.level])
    pen.text((MARGIN + 8, top + 1), finding.level, PAPER, _font(14))
    text = _shortened(pen, f"{finding.check}: {finding.text}", sheet.width - 2 * MARGIN - MARK)
    pen.text((MARGIN + MARK, top), text, INK, _font(15))
    for column, (first, second, picture) in enumerate(tiles):
        left = MARGIN + column * (TILE + GAP)
        _paste(sheet, picture, (left, top + TITLE))
        for line, caption in enumerate((first, second)):
            place = (left, top + TITLE + TILE + 2 + 15 * line)
            pen.text(place, _fitted(pen, caption), FAINT, _font(12))


def _shown(finding: Finding, scans: Mapping[str, Scan]) -> Tiles:
    """At most a row of pictures, exhibits first; a pair is not torn apart."""
    tiles: Tiles = [(caption, "", picture) for caption, picture in finding.exhibits]
    for item in finding.items[:COLUMNS]:
        more = _pictures(item, scans)
        if len(tiles) + len(more) > COLUMNS:
            break
        tiles += more
    return tiles


def _pictures(item: Item, scans: Mapping[str, Scan]) -> Tiles:
    """The picture, and its partner after it."""
    found: Tiles = []
    for split, row in [(item.split, item.row), *([item.partner] if item.partner else [])]:
        scan = scans[split]
        at = np.flatnonzero(scan.rows == row)
        if len(at):
            name = scan.pictures.classes[scan.pictures.labels[at[0]]]
            found.append((f"{split} {row}", name, scan.pictures.images[at[0]]))
    return found


def _paste(sheet: Image.Image, picture: Bytes, place: tuple[int, int]) -> None:
    flat = np.ascontiguousarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    made = Image.fromarray(flat)
    factor = TILE / max(made.width, made.height)
    size = (max(1, round(made.width * factor)), max(1, round(made.height * factor)))
    sheet.paste(made.resize(size, Image.Resampling.NEAREST), place)


def _fitted(pen: ImageDraw.ImageDraw, text: str) -> str:
    while text and pen.textlength(text, _font(12)) > TILE + GAP - 4:
        text = text[:-1]
    return text


def _shortened(pen: ImageDraw.ImageDraw, text: str, room: int) -> str:
    words = text.split()
    while len(words) > 1 and pen.textlength(" ".join([*words, "..."]), _font(15)) > room:
        words.pop()
    return text if len(words) == len(text.split()) else " ".join([*words, "..."])


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
