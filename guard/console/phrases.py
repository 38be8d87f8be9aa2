"""Numbers and names as people read them."""

import math
import time
from datetime import UTC, datetime

# Of the shipped packs; anything else is shown by its own name.
DEFENSES = {
    "detector": "Detector",
    "squeezing": "Feature squeezing",
    "noise": "Consistency under noise",
    "ensemble": "Ensemble's disagreement",
    "sentinel": "Sentinel against ensemble",
    "upstream": "Classifier against ensemble",
}
SHORT = {"squeezing": "Squeezing", "noise": "Noise", "ensemble": "Ensemble",
         "sentinel": "Sentinel", "upstream": "Classifier"}  # fmt: skip
VIEWS = {
    "squeeze_bits": "Fewer bits",
    "squeeze_median2": "Median 2×2",
    "squeeze_median3": "Median 3×3",
    "squeeze_dct": "JPEG-like",
    "squeeze_nlm": "Non-local means",
}
FLOOR = 1e-4  # the smallest p-value that a bar tells apart


def defense(name: str) -> str:
    """What a defence is called."""
    return DEFENSES.get(name, plain(name))


def short(name: str) -> str:
    """The same in one word."""
    return SHORT.get(name, plain(name))


def view(name: str) -> str:
    """What a view is called."""
    return VIEWS.get(name, plain(name.removeprefix("squeeze_")))


def plain(name: str) -> str:
    """A technical name with spaces and a capital."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    """A score: three digits."""
    return f"{value:.3g}" if math.isfinite(value) else "not a number"


def chance(p: float) -> str:
    """A p-value: never rounded to nothing."""
    if not math.isfinite(p):
        return "none"
    return f"{p:.3f}" if p >= 0.01 else f"{p:.4f}" if p >= 0.0001 else f"{p:.1g}"


def rarer(p: float) -> str:
    """A p-value in words."""
    if not math.isfinite(p):
        return "cannot be compared with clean pictures"
    share = 100 * (1 - p)
    digits = 0 if share < 99 else 1 if share < 99.9 else 2
    return f"more suspicious than {min(share, 99.99):.{digits}f} % of clean pictures"


def rarity(p: float) -> float:
    """A p-value as the length of a bar, 0 to 100: logarithmic, longer is rarer."""
    if not math.isfinite(p):
        return 0.0
    return round(100 * min(1.0, math.log10(max(p, FLOOR)) / math.log10(FLOOR)), 2)


def percent(value: float) -> str:
    """A probability as a share."""
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:.0f} %" if value >= 0.005 else "<1 %" if value > 0 else "0 %"


def size(count: int) -> str:
    """Bytes."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def many(count: int) -> str:
    """A count with thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u202f")


def moment(seconds: float) -> str:
    """A time, to the second."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(seconds: float) -> str:
    """A time for `<time datetime>`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def ago(seconds: float) -> str:
    """How long ago that was."""
    passed = max(0.0, time.time() - seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{int(passed // length)} {unit} ago"
    return "just now"


def person(name: str) -> str:
    """A reviewer without the kind of the name."""
    return name.partition(":")[2] or name
