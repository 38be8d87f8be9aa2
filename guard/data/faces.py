"""The faces of the procedural traffic signs: flat drawings with a transparent surround.

Everything is polygons and thick strokes, letters and digits too, so that no font is needed. A
face is drawn in a square that reaches from -1 to 1, y pointing down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise

from PIL import Image, ImageDraw

Point = tuple[float, float]
Color = tuple[int, int, int]

OVERSAMPLING = 4
RED: Color = (190, 22, 34)
BLUE: Color = (18, 82, 168)
WHITE: Color = (243, 243, 240)
BLACK: Color = (22, 22, 24)
YELLOW: Color = (247, 190, 14)


class Pen:
    """Draws in the square from -1 to 1 at OVERSAMPLING times the final size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._half = size * OVERSAMPLING / 2
        self._image = Image.new("RGBA", (size * OVERSAMPLING,) * 2, (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Iterable[Point], color: Color) -> None:
        """A filled polygon."""
        self._draw.polygon([self._at(point) for point in points], fill=(*color, 255))

    def disc(self, center: Point, radius: float, color: Color) -> None:
        """A filled circle."""
        x, y = self._at(center)
        r = radius * self._half
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=(*color, 255))

    def stroke(self, points: Sequence[Point], width: float, color: Color) -> None:
        """A thick line with round ends and joints."""
        line = [self._at(point) for point in points]
        self._draw.line(line, fill=(*color, 255), width=max(1, round(width * self._half)))
        for point in points:
            self.disc(point, width / 2, color)

    def finish(self) -> Image.Image:
        """The drawing, size x size, alpha premultiplied (mode RGBa)."""
        small = (self.size, self.size)
        return self._image.resize(small, Image.Resampling.BOX).convert("RGBa")

    def _at(self, point: Point) -> Point:
        return (point[0] + 1) * self._half, (point[1] + 1) * self._half


@cache
def face(name: str, size: int) -> Image.Image:
    """The face of class `name`, size x size, mode RGBa."""
    pen = Pen(size)
    FACES[name](pen)
    return pen.finish()


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> list[Point]:
    """Points on an ellipse from angle start to stop (degrees; 0 is right, 90 is down)."""
    angles = (math.radians(start + (stop - start) * k / 24) for k in range(25))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def ngon(corners: int, radius: float, turn: float) -> list[Point]:
    """The corners of a regular polygon; the first stands at angle `turn` degrees."""
    return arc_points(radius, [turn + 360 * k / corners for k in range(corners)])


def arc_points(radius: float, degrees: Iterable[float]) -> list[Point]:
    """Points around the middle at the given angles."""
    turns = [math.radians(angle) for angle in degrees]
    return [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


# Strokes in a box 0.6 wide and 1 high.
GLYPHS: dict[str, list[list[Point]]] = {
    "0": [arc(0.3, 0.5, 0.28, 0.5, 0, 360)],
    "1": [[(0.06, 0.22), (0.34, 0.0), (0.34, 1.0)]],
    "2": [[*arc(0.3, 0.28, 0.28, 0.28, -170, 40), (0.0, 1.0), (0.6, 1.0)]],
    "3": [[*arc(0.27, 0.25, 0.27, 0.25, -155, 90), *arc(0.27, 0.74, 0.31, 0.26, -90, 155)]],
    "5": [[(0.54, 0.0), (0.1, 0.0), (0.06, 0.45), *arc(0.27, 0.68, 0.31, 0.32, -135, 150)]],
    "6": [
        [(0.5, 0.04), *arc(0.3, 0.5, 0.3, 0.5, -100, -200), *arc(0.3, 0.69, 0.3, 0.31, -180, 180)]
    ],
    "8": [arc(0.3, 0.24, 0.24, 0.24, 0, 360), arc(0.3, 0.74, 0.3, 0.26, 0, 360)],
    "S": [[*arc(0.3, 0.25, 0.28, 0.25, -25, -270), *arc(0.3, 0.75, 0.3, 0.25, -90, 155)]],
    "T": [[(0.0, 0.0), (0.6, 0.0)], [(0.3, 0.0), (0.3, 1.0)]],
    "O": [arc(0.3, 0.5, 0.3, 0.5, 0, 360)],
    "P": [[(0.04, 1.0), (0.04, 0.0), *arc(0.28, 0.26, 0.3, 0.26, -90, 90), (0.04, 0.52)]],
}


def write(pen: Pen, text: str, height: float, width: float, color: Color) -> None:
    """Centre `text` on the face; `width` of the whole text, strokes a fifth of the height."""
    bold = height * 0.2
    pitch = (width - bold) / (len(text) - 0.3)  # a glyph is 0.7 of the pitch wide
    for k, letter in enumerate(text):
        left = -(width - bold) / 2 + k * pitch
        for line in GLYPHS[letter]:
            inner = height - bold
            points = [(left + x * pitch * 0.7 / 0.6, (y - 0.5) * inner) for x, y in line]
            pen.stroke(points, bold, color)


def _arrow(pen: Pen, shaft: Sequence[Point], width: float = 0.24, head: float = 0.34) -> None:
    """A white arrow along `shaft`, its head at the last point."""
    (x0, y0), (x1, y1) = shaft[-2], shaft[-1]
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    for start, stop in pairwise(shaft):
        pen.stroke((start, stop), width, WHITE)
    tip = (x1 + dx * head, y1 + dy * head)
    wings = [(x1 + side * dy * head, y1 - side * dx * head) for side in (1, -1)]
    pen.polygon([tip, *wings], WHITE)


def _red_disc(pen: Pen) -> None:
    pen.disc((0, 0), 0.96, WHITE)
    pen.disc((0, 0), 0.93, RED)
    pen.disc((0, 0), 0.7, WHITE)


def _blue_disc(pen: Pen) -> None:
    pen.disc((0, 0), 0.96, WHITE)
    pen.disc((0, 0), 0.91, BLUE)


def _warning(pen: Pen) -> None:
    for radius, color in ((1.12, WHITE), (1.06, RED), (0.66, WHITE)):
        pen.polygon([(x, y + 0.22) for x, y in ngon(3, radius, -90)], color)


def _stop(pen: Pen) -> None:
    pen.polygon(ngon(8, 1.0, 22.5), WHITE)
    pen.polygon(ngon(8, 0.92, 22.5), RED)
    write(pen, "STOP", 0.72, 1.5, WHITE)


def _yield(pen: Pen) -> None:
    for radius, color in ((1.12, WHITE), (1.06, RED), (0.6, WHITE)):
        pen.polygon([(x, y - 0.22) for x, y in ngon(3, radius, 90)], color)


def _no_entry(pen: Pen) -> None:
    pen.disc((0, 0), 0.96, WHITE)
    pen.disc((0, 0), 0.92, RED)
    pen.polygon([(-0.66, -0.18), (0.66, -0.18), (0.66, 0.18), (-0.66, 0.18)], WHITE)


def _priority_road(pen: Pen) -> None:
    for radius, color in ((1.0, BLACK), (0.95, WHITE), (0.68, YELLOW)):
        pen.polygon(ngon(4, radius, 0), color)


def _speed(text: str) -> Callable[[Pen], None]:
    def draw(pen: Pen) -> None:
        _red_disc(pen)
        write(pen, text, 0.72, 1.12 if len(text) == 3 else 0.98, BLACK)

    return draw


def _car(pen: Pen, x: float, color: Color) -> None:
    pen.polygon([(x - 0.26, 0.02), (x + 0.26, 0.02), (x + 0.26, 0.24), (x - 0.26, 0.24)], color)
    pen.polygon([(x - 0.17, -0.2), (x + 0.17, -0.2), (x + 0.24, 0.04), (x - 0.24, 0.04)], color)
    for side in (-0.17, 0.17):
        pen.disc((x + side, 0.26), 0.09, color)


def _no_overtaking(pen: Pen) -> None:
    _red_disc(pen)
    _car(pen, -0.31, RED)
    _car(pen, 0.31, BLACK)


def _mandatory(*shaft: Point) -> Callable[[Pen], None]:
    def draw(pen: Pen) -> None:
        _blue_disc(pen)
        _arrow(pen, shaft)

    return draw


def _roundabout(pen: Pen) -> None:
    _blue_disc(pen)
    for turn in (-80, 40, 160):
        ring = arc_points(0.5, [turn - 8 * k for k in range(10)])
        _arrow(pen, ring, 0.2, 0.27)


def _danger(pen: Pen) -> None:
    _warning(pen)
    pen.polygon([(-0.12, -0.34), (0.12, -0.34), (0.07, 0.24), (-0.07, 0.24)], BLACK)
    pen.disc((0, 0.4), 0.11, BLACK)


def _pedestrians(pen: Pen) -> None:
    _warning(pen)
    pen.disc((0.02, -0.3), 0.11, BLACK)
    pen.stroke([(0.0, -0.14), (-0.02, 0.14)], 0.18, BLACK)
    pen.stroke([(-0.02, 0.14), (-0.22, 0.48)], 0.11, BLACK)
    pen.stroke([(-0.02, 0.14), (0.14, 0.3), (0.2, 0.5)], 0.11, BLACK)
    pen.stroke([(-0.24, 0.1), (-0.04, -0.12), (0.12, 0.02), (0.26, -0.02)], 0.08, BLACK)


FACES: dict[str, Callable[[Pen], None]] = {
    "stop": _stop,
    "yield": _yield,
    "no_entry": _no_entry,
    "priority_road": _priority_road,
    "speed_30": _speed("30"),
    "speed_50": _speed("50"),
    "speed_60": _speed("60"),
    "speed_80": _speed("80"),
    "speed_100": _speed("100"),
    "speed_120": _speed("120"),
    "no_overtaking": _no_overtaking,
    "ahead_only": _mandatory((0.0, 0.6), (0.0, -0.28)),
    "turn_left": _mandatory((0.36, 0.55), (0.36, -0.08), (-0.26, -0.08)),
    "turn_right": _mandatory((-0.36, 0.55), (-0.36, -0.08), (0.26, -0.08)),
    "keep_right": _mandatory((-0.42, -0.42), (0.2, 0.2)),
    "roundabout": _roundabout,
    "danger": _danger,
    "pedestrians": _pedestrians,
}
