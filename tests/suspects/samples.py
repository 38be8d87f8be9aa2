"""Suspects to test stores with: pictures and verdicts out of a random generator, no data set."""

from dataclasses import replace
from typing import Any

import numpy as np

from guard.suspects.record import Floats, Suspect
from guard.suspects.store import Store
from guard.verdict import Decision, Verdict

NAMES = ("squeezing", "noise", "detector")


def picture(seed: int, shape: tuple[int, int, int] = (3, 16, 16)) -> Floats:
    """An image (C, H, W) of whole grey levels."""
    levels = np.random.default_rng(seed).integers(0, 256, shape)
    return (levels / np.float32(255)).astype(np.float32)


def suspect(store: Store, seed: int, *, who: str = "ada", **changed: Any) -> Suspect:
    """A suspect that differs with the seed; `changed` fields are as given, and the id fits."""
    generator = np.random.default_rng([seed, 1])
    scores = dict(zip(NAMES, generator.normal(size=3).tolist(), strict=True))
    p_values = dict(zip(NAMES, generator.uniform(0.02, 1, 3).tolist(), strict=True))
    verdict = Verdict(Decision.FLAG, 0.005, seed % 5, scores, {**p_values, "detector": 0.005})
    made = Suspect(
        id="",
        taken=1_700_000_000.0 + seed,
        model="signs",
        pack="sha256:1",
        tenant="",
        client=store.pseudonym(who),
        near=(),
        sampled=False,
        budget=0.01,
        verdict=verdict,
        image=picture(seed),
        evidence=generator.normal(size=6).astype(np.float32),
        probabilities=generator.dirichlet(np.ones(5)).astype(np.float32),
        upstream=None if seed % 2 else generator.dirichlet(np.ones(5)).astype(np.float32),
        noise_index=seed * 7,
        trace=f"{seed:032x}",
    )
    made = replace(made, **changed)
    marks = {"client": made.client, "tenant": made.tenant, "model": made.model, "pack": made.pack}
    return replace(made, id=store.suspect_id(made.image, **marks), near=store.near(made.image))


def same(one: Suspect, other: Suspect) -> bool:
    """Whether two are equal in every field, arrays bit for bit."""
    arrays = ("image", "evidence", "probabilities", "upstream")
    for name in arrays:
        first, second = getattr(one, name), getattr(other, name)
        if (first is None) != (second is None):
            return False
        if first is not None and (
            first.dtype != second.dtype
            or first.shape != second.shape
            or first.tobytes() != second.tobytes()
        ):
            return False
    empty = dict.fromkeys(arrays)
    return repr(replace(one, **empty)) == repr(replace(other, **empty))
