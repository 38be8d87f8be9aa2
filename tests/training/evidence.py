"""Rows of evidence of an easy task: two signals, and the odds against the upstream's label."""

import numpy as np

from guard.rows import Rows, joined
from guard.training.reviewed import Reviewed

COLUMNS = ("first", "second", "upstream_odds")


def around(
    middle: tuple[float, float, float], count: int, *, suspicious: bool, kind: str, seed: int = 0
) -> Rows:
    """`count` rows around one point, a standard deviation of 1 away."""
    noise = np.random.default_rng(seed).normal(size=(count, 3))
    return Rows.of(kind, COLUMNS, (noise + middle).astype(np.float32), suspicious=suspicious)


def known(count: int = 400) -> Rows:
    """What the parent learned from: clean rows around 0, attacks far up in both signals."""
    return joined(
        [
            around((0, 0, 0), count, suspicious=False, kind="clean"),
            around((5, 5, 5), count, suspicious=True, kind="PGD", seed=1),
        ]
    )


def reviewed(rows: Rows, *, clients: int = 20, seed: int = 0, **given: object) -> Reviewed:
    """Rows as two agreeing reviewers left them, from some clients, all on one day."""
    random, count = np.random.default_rng(seed), len(rows)
    parts: dict[str, object] = {
        "id": np.array([random.bytes(8).hex() for _ in range(count)]),
        "has_upstream": np.ones(count, bool),
        "suspicious": rows.suspicious,
        "client": np.array([f"c{n % clients}" for n in range(count)]),
        "day": np.full(count, 20000, np.int32),
        "reviewers": np.full(count, 2, np.int16),
        "dissent": np.zeros(count, np.int16),
        "sampled": ~rows.suspicious,
        "model": np.full(count, "m"),
        "pack": np.full(count, "p"),
        "predicted": np.zeros(count, np.int32),
    }
    return Reviewed(columns=rows.columns, features=rows.features, **(parts | given))  # type: ignore[arg-type]
