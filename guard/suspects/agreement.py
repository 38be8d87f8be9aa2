"""When reviewers agree: pure, the same for every store."""

from collections.abc import Iterable

from guard.suspects.record import Label, Review, State


def latest(reviews: Iterable[Review]) -> tuple[Review, ...]:
    """The last word of each, oldest first; `reviews` as they were given, oldest first."""
    last: dict[tuple[str, str], Review] = {}
    for one in reviews:
        who = (one.source, one.reviewer)
        last.pop(who, None)
        last[who] = one
    return tuple(last.values())


def settled(reviews: Iterable[Review], required: int) -> tuple[State, Label | None]:
    """What the latest reviews come to; a client's word does not count.

    Agreed: as many as required say adversarial, or benign, and they are the majority. Disputed:
    both were said, and it is not agreed. Unsure settles nothing, but shows as the label where
    all who are required said so.
    """
    said = [one.label for one in reviews if one.source == "reviewer"]
    adversarial, benign = said.count("adversarial"), said.count("benign")
    if max(adversarial, benign) >= required and adversarial != benign:
        return "agreed", "adversarial" if adversarial > benign else "benign"
    if adversarial and benign:
        return "disputed", None
    unsure = not adversarial and not benign and len(said) >= max(required, 1)
    return "open", "unsure" if unsure else None
