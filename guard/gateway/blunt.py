"""Answers that say less: rounded, clipped, the first few classes, or the label alone.

What a classifier's confidence tells beyond its label helps to copy it (Tramer et al.: "Stealing
Machine Learning Models", 2016) and to find out what it was trained on (Shokri et al. 2017).
Where anything is taken away, all outputs but the mapped one and integer labels are left out: they
would tell the same. Known limit: labels alone still copy, and still betray members, only slower
(Choquette-Choo et al. 2021); `deploy/docs/traffic.md` has what it was measured to do.
Letters: N images, K classes, U classes of the upstream.
"""

import numpy as np
from numpy.typing import NDArray

from guard.config.harden import Harden
from guard.gateway import answers
from guard.gateway.answers import SMALLEST, OutputSpec
from guard.gateway.identity import Identity
from guard.gateway.protocol import Message

Array = NDArray[np.generic]
Doubles = NDArray[np.float64]


def applying(settings: Harden, caller: Identity) -> Harden | None:
    """What this caller's answers are to be put through; None where they are told in full.

    Where nobody is known, nobody is exempt.
    """
    known = caller.kind != "anonymous"
    if (known and not caller.roles.isdisjoint(settings.exempt)) or settings == Harden(
        exempt=settings.exempt
    ):
        return None
    return settings


def blunt(settings: Harden, probabilities: Array) -> Doubles:
    """Probabilities (N, K) that say less; rows that are not finite stay. The label stays."""
    values = np.array(probabilities, np.float64)
    rows = np.flatnonzero(np.isfinite(values).all(1))
    label = values[rows].argmax(1)
    kept = values[rows]
    if settings.label_only:
        kept = np.eye(kept.shape[1])[label]
    if 0 < settings.top_k < kept.shape[1]:
        kept[np.arange(len(kept))[:, None], np.argsort(-kept, 1, "stable")[:, settings.top_k :]] = 0
    if not settings.label_only:
        kept = np.minimum(kept, settings.most)
    step = 10.0 ** -(settings.decimals or 6)
    if settings.decimals is not None:
        kept = kept.round(settings.decimals)
    # What became equal must not make another class the first.
    tied = kept.argmax(1) != label
    kept[tied, label[tied]] = kept[tied].max(1) + step
    values[rows] = kept
    return values


def blunt_response(settings: Harden, response: Message, spec: OutputSpec) -> None:
    """Make an upstream's answer say less. Changes the response, which the caller owns."""
    for index in reversed(range(len(response.outputs))):
        output = response.outputs[index]
        if output.name == spec.tensor or _is_label(response, index):
            continue
        del response.outputs[index]
        if response.raw_output_contents:
            del response.raw_output_contents[index]
    if spec.kind == "label":
        return
    array = answers.read_output(response, spec.tensor)
    values = array.reshape(len(array), -1).astype(np.float64)
    if spec.kind == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    found = blunt(settings, values)
    if spec.kind == "logits":
        found = np.log(np.maximum(found, SMALLEST))
    answers.write_output(response, spec.tensor, found.reshape(array.shape).astype(array.dtype))


def _is_label(response: Message, index: int) -> bool:
    """One integer for each image."""
    output = response.outputs[index]
    rows = int(np.prod(output.shape[:1])) if output.shape else -1
    return "INT" in output.datatype and int(np.prod(output.shape)) == rows
