"""How a store does, as those who watch it see."""

from guard.suspects.health import Health
from tests.gateway.setting import counted


def up() -> float:
    """The gauge."""
    return counted("guard_suspects_up", store="health-test")


def test_counting_well_does_not_hide_that_nothing_is_kept() -> None:
    """One user's success takes back its own failure, not another's."""
    health = Health("health-test")
    health.well("count")
    assert up() == 1
    health.failed("capture")
    health.well("count")
    assert up() == 0
    health.well("capture")
    assert up() == 1
