"""Threat models: written and read back the same, nonsense refused."""

import pytest

from guard.errors import InputError
from guard.threat import LINF_8, ThreatModel


@pytest.mark.parametrize("text", ["linf 8/255", "linf 4/255", "l2 0.5", "patch 0.1"])
def test_round_trip(text: str) -> None:
    """What is parsed prints as it was written."""
    assert str(ThreatModel.parse(text)) == text


def test_values() -> None:
    """A fraction of 255 is taken as what papers mean by it."""
    assert ThreatModel.parse("linf 8/255") == LINF_8
    assert LINF_8.eps == 8 / 255


@pytest.mark.parametrize(
    "text", ["", "linf", "linf x", "linf 1/0", "l7 0.1", "linf -0.1", "linf 0", "l2 nan"]
)
def test_nonsense(text: str) -> None:
    """Anything else is an InputError."""
    with pytest.raises(InputError):
        ThreatModel.parse(text)
