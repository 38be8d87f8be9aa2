"""The picture: its layout, and what its colours mean."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageColor

from guard.demo.picture import BAD, GOOD, HEADER, MARGIN, ZOOM, Example, draw

FLAT = np.full((3, 32, 32), 100, np.uint8)
EXAMPLE = Example("FGSM 8/255", FLAT, FLAT + 8, "stop", "speed_50", 0.99, "stop", True, 0.001)


def colors(example: Example) -> set[tuple[int, ...]]:
    """Every colour in the picture of one example."""
    found = draw([example], title="t").getcolors(1 << 24) or []
    return {color for _, color in found if isinstance(color, tuple)}


def test_it_grows_by_one_row_per_example() -> None:
    """Width is fixed, height follows the examples."""
    one, three = draw([EXAMPLE], title="t"), draw([EXAMPLE] * 3, title="t")
    assert one.width == three.width
    assert three.height - one.height == 2 * (one.height - HEADER - MARGIN + 16)
    assert one.mode == "RGB"


def test_pixels_are_enlarged_without_smoothing() -> None:
    """A sign's pixel becomes a square of one colour."""
    sharp = FLAT.copy()
    sharp[:, 0, 0] = (250, 10, 10)
    sheet = np.asarray(draw([replace(EXAMPLE, original=sharp)], title="t"))
    square = sheet[HEADER : HEADER + ZOOM, MARGIN : MARGIN + ZOOM].reshape(-1, 3)
    assert (square == (250, 10, 10)).all()


def test_the_difference_is_ten_times_the_change() -> None:
    """Grey where nothing changed, 80 levels off where eight did, and it never wraps around."""
    assert (208, 208, 208) in colors(EXAMPLE)
    assert (128, 128, 128) in colors(replace(EXAMPLE, sent=FLAT))
    assert (0, 0, 0) in colors(replace(EXAMPLE, sent=FLAT - 90))


@pytest.mark.parametrize(
    ("production", "blocked", "good"),
    [("speed_50", True, True), ("speed_50", False, False), ("stop", False, True)],
)
def test_the_badge_is_green_when_the_gateway_was_right(
    production: str, blocked: bool, good: bool
) -> None:
    """Blocking a fooled production is right, letting it through is wrong, so is a false alarm."""
    example = replace(EXAMPLE, production=production, blocked=blocked, ensemble="stop")
    assert (ImageColor.getrgb(GOOD) in colors(example)) is good
    assert (ImageColor.getrgb(BAD) in colors(replace(example))) is (
        not good or production != "stop"
    )
