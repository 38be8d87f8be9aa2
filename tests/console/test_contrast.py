"""Colours: every text on every ground it stands on, by WCAG 2.2's own formula."""

import re

import pytest

from guard.console.page import STATIC

CSS = (STATIC / "console.css").read_text()
ENOUGH = 4.5  # WCAG 2.2 AA, success criterion 1.4.3
VISIBLE = 3.0  # 1.4.11: what has to be seen to understand
TEXTS = [
    ("ink", "paper"), ("ink", "sheet"), ("ink", "wash"), ("soft", "paper"), ("soft", "sheet"),
    ("soft", "track"), ("soft", "wash"), ("accent", "paper"), ("accent", "sheet"),
    ("accent", "wash"),
    ("on-accent", "accent"), ("adversarial", "sheet"), ("adversarial", "adversarial-wash"),
    ("benign", "sheet"), ("benign", "benign-wash"), ("unsure", "sheet"), ("unsure", "unsure-wash"),
]  # fmt: skip
SHAPES = [("adversarial", "track"), ("accent", "track"), ("benign", "track"), ("fill", "sheet")]


def theme(dark: bool) -> dict[str, str]:
    """The colours of a theme by name."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.S)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[0]))
    return (
        {**found, **dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[1]))} if dark else found
    )


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Their ratio, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_is_the_published_one() -> None:
    """Black on white is 21; #767676 is the lightest grey that passes on white."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") > ENOUGH > contrast("#777777", "#ffffff")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_can_be_read(dark: bool) -> None:
    """4.5 to 1 at least, in both themes."""
    colours = theme(dark)
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in TEXTS}
    assert {pair: ratio for pair, ratio in low.items() if ratio < ENOUGH} == {}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_bars_can_be_seen(dark: bool) -> None:
    """Bars that alarm stand out from their track, borders of fields from the sheet: 3 to 1."""
    colours = theme(dark)
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in SHAPES}
    assert {pair: ratio for pair, ratio in low.items() if ratio < VISIBLE} == {}
