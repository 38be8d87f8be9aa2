"""What every store of suspects must do."""

import dataclasses

import pytest

from guard.suspects.record import Filter


def test_a_filter_is_a_value() -> None:
    """A filter cannot be changed after a page of it was shown."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Filter().model = "other"  # type: ignore[misc]
