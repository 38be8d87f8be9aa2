"""Suspects by number: the same every time, so that what comes back can be compared bit for bit."""

import base64
import hashlib

import numpy as np

from guard.suspects.record import Suspect
from guard.verdict import Decision, Verdict

SHAPE = (3, 16, 16)


def suspect(number: int, *, tenant: str = "", client: str = "someone") -> Suspect:
    """Suspect `number`."""
    rng = np.random.default_rng(number)
    p_value = float(rng.random()) / 100
    verdict = Verdict(
        decision=Decision(number % 3),
        p_value=p_value,
        label=number % 10,
        scores={"squeezing": float(rng.random()), "detector": float(rng.random())},
        p_values={"squeezing": float(rng.random()), "detector": p_value},
    )
    return Suspect(
        id=suspect_id(number),
        taken=1_700_000_000.0 + number,
        model="tiny",
        pack="a" * 64,
        tenant=tenant,
        client=client,
        near=tuple(int(code) for code in rng.integers(0, 1 << 30, 8)),
        sampled=number % 7 == 0,
        budget=0.01,
        verdict=verdict,
        image=rng.random(SHAPE, dtype=np.float32),
        evidence=rng.random(12, dtype=np.float32),
        probabilities=rng.random(10, dtype=np.float32),
        upstream=rng.random(10, dtype=np.float32) if number % 2 else None,
        noise_index=number,
        trace=f"{number:032x}",
    )


def suspect_id(number: int) -> str:
    """Its id, of the form that a store makes."""
    digest = hashlib.sha256(b"suspect %d" % number).digest()
    return base64.b32encode(digest).decode().lower()[:32]


def same(one: Suspect, other: Suspect) -> bool:
    """Whether two suspects are equal, bit for bit."""
    arrays = ("image", "evidence", "probabilities", "upstream")
    rest = [name for name in vars(one) if name not in arrays]
    return all(getattr(one, name) == getattr(other, name) for name in rest) and all(
        _bits(getattr(one, name)) == _bits(getattr(other, name)) for name in arrays
    )


def _bits(array: object) -> object:
    return None if array is None else (np.asarray(array).shape, np.asarray(array).tobytes())
