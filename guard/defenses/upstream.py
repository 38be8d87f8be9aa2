"""Upstream disagreement: how sure is the robust ensemble that the production answer is wrong?

log r_max - log r[upstream's label]: by far the strongest static signal we measured, because it
looks at the very model that is attacked. It takes only the upstream's label, so it does not care
how sure the attacked model is (symmetric distances miss minimal-norm attacks), nor whether the
upstream gives probabilities at all.

Known limit: an attack that fools the ensemble into the same class is invisible here, and honest
mistakes of the ensemble cost false alarms: it is as good as the ensemble's clean accuracy.
"""

from torch import Tensor

from guard.defenses import odds_against

COLUMN = "upstream_odds"


def upstream_odds(probabilities: Tensor, upstream: Tensor) -> Tensor:
    """(N,) >= 0 from the ensemble's probabilities and the upstream's, both (N, K).

    `upstream` may be one-hot; ties go to the first class.
    """
    return odds_against(probabilities, upstream.argmax(-1))
