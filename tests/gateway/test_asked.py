"""What may be asked of the desk: ids, labels, limits and filters."""

from collections.abc import Callable
from typing import Any

import pytest

from guard.errors import InputError
from guard.gateway import asked
from guard.suspects.record import Filter


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda: asked.check_ids([]), "no suspect is named"),
        (lambda: asked.check_ids(["x" * 8] * 2000), ""),
        (lambda: asked.check_ids(map("{:08d}".format, range(1001))), "1001 suspects are too many"),
        (lambda: asked.check_ids(["?" * 200]), f"{'?' * 80!r} is not a suspect's id"),
        (lambda: asked.check_label("good" * 20), f"label {'good' * 10!r} is not adversarial, b"),
        (lambda: asked.check_limit(9, 8), "limit 9 is not between 1 and 8"),
        (lambda: asked.check_limit(8, 8), ""),
        (lambda: asked.check_filter(Filter(model="m" * 201)), "model: not more than 200"),
        (lambda: asked.check_filter(Filter(model="m" * 200)), ""),
    ],
)
def test_complaints_name_what_is_wrong(check: Callable[[], Any], text: str) -> None:
    """In one sentence, quoting little of it; what is just within the bounds passes."""
    if not text:
        check()
        return
    with pytest.raises(InputError) as caught:
        check()
    assert str(caught.value).startswith(text)
