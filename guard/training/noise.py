"""Label noise: reviewed rows whose label is probably wrong, by confident learning.

Northcutt, Jiang & Chuang 2021, by cleanlab. The probabilities come from a forest that is trained
for this alone, on the trusted rows and on the reviewed ones of *other* clients: nobody's rows vouch
for each other, and the detector has no say. It counts rows as probably wrong where confident
learning and the noise rate both say so.

Known limit: it needs honest company. Who holds most of what is reviewed of a kind of picture
decides what is noise there; the caps and the gate are what is left then.
"""

import numpy as np
from numpy.typing import NDArray

from guard.errors import InputError
from guard.rows import Rows
from guard.training.finetune import row_weights
from guard.training.reviewed import Reviewed

FOLDS, TREES, LEAF = 5, 60, 3
TRUSTED = 4000  # of the old rows, at most
SHARE = 0.2  # of the weight of each class, reviewed rows


def mislabelled(new: Reviewed, old: Rows) -> NDArray[np.bool_]:
    """(R,), True where a label is probably wrong; nowhere, where one label is all there is."""
    drop = np.zeros(len(new), bool)
    for sees in (True, False):  # a row without an upstream's answer is compared without one
        some = np.flatnonzero(new.has_upstream == sees)
        part = new.subset(some)
        clients = len(set(part.client.tolist()))
        if min(part.suspicious.sum(), (~part.suspicious).sum(), clients) >= 2:
            drop[some] = _issues(part, old, slice(None) if sees else slice(None, -1))
    return drop


def _issues(new: Reviewed, old: Rows, columns: slice) -> NDArray[np.bool_]:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise InputError("the label check needs cleanlab: pip install 'guard[train]'") from error
    given = new.suspicious.astype(int)
    probabilities = _probabilities(new, old, columns)
    found = find_label_issues(given, probabilities, filter_by="both", n_jobs=1)
    return np.asarray(found, bool)


def _probabilities(new: Reviewed, old: Rows, columns: slice) -> NDArray[np.float64]:
    """Benign, suspicious (R, 2), for each row by a forest that saw none of its client's."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    some = np.random.default_rng(0).permutation(len(old))[:TRUSTED]
    trusted, known = old.features[some][:, columns], old.suspicious[some]
    out = np.full((len(new), 2), 0.5)
    folds = min(FOLDS, len(set(new.client.tolist())))
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    rows = new.features[:, columns]
    for fit, held in parts.split(rows, new.suspicious, new.client):
        if not len(held):
            continue
        forest = ExtraTreesClassifier(TREES, min_samples_leaf=LEAF, random_state=0)
        marks = np.concatenate([known, new.suspicious[fit]])
        forest.fit(
            np.concatenate([trusted, rows[fit]]), marks, _weights(marks, len(known))
        )  # fmt: skip
        out[held] = forest.predict_proba(rows[held])
    return out


def _weights(suspicious: NDArray[np.bool_], trusted: int) -> NDArray[np.float64]:
    fresh = np.arange(len(suspicious)) >= trusted
    return row_weights(suspicious, fresh, SHARE) * len(suspicious)
