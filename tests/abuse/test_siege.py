"""A short siege; the long one is `python -m tests.abuse`."""

from pathlib import Path

import pytest

from guard.testing import make_pack
from tests.abuse.attackers import ATTACKERS
from tests.abuse.siege import besiege


@pytest.mark.slow
def test_a_healthy_client_is_served_through_every_attack_at_once(tmp_path: Path) -> None:
    """Thirteen kinds of hostile connections at a time: honest requests are answered, there is no
    handler too many, and no connection stays behind."""
    pack = make_pack(tmp_path / "tiny")
    outcome = besiege(pack, list(ATTACKERS), connections=len(ATTACKERS), seconds=4, rate=10)
    assert outcome.codes["OK"] >= 0.95 * outcome.codes.total() > 0
    assert outcome.most_in_flight <= outcome.limit
    assert outcome.descriptors[1] <= outcome.descriptors[0] + 2
