"""What a candidate's manifest and card say of the round that made it: every row it learned from.

Suspects are named by a hash of their id, which says nothing to who does not have the id already.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from guard.evaluation.card import percent, table
from guard.rows import Rows
from guard.training.finetune import Report
from guard.training.gather import DAY, Gathered, mark
from guard.training.reviewed import Reviewed


def story(
    found: Gathered,
    new: Reviewed,
    selection: Mapping[str, object],
    report: Report,
    *,
    went: Mapping[str, float],
    seen: Sequence[str],
    fresh: Rows | None,
    trained_by: str,
) -> dict[str, Any]:
    """The manifest's `retrained`, as JSON.

    new: what was learned from; selection: what it was chosen by, and the rest by reason;
    went: how much of the lesson each head kept; seen: marks of all that any round had in its hands;
    fresh: rows made here on top.
    """
    lines = [_line(new, number) for number in range(len(new))]
    return {
        "trained_by": trained_by,
        "counts": {
            "reviewed": len(found.reviewed),
            "learned": len(new),
            "adversarial": int(new.suspicious.sum()),
            "benign": int((~new.suspicious).sum()),
            "sampled": int(new.sampled.sum()),
            "clients": len(set(new.client.tolist())),
            "computed_again": found.computed,
            "fresh": 0 if fresh is None else len(fresh),
        },
        "left_out": dict(found.left_out),
        "selection": dict(selection),
        "reviewers": _reviewers(new),
        "ids_sha256": _digest(sorted(new.id.tolist())),
        "rows_sha256": hashlib.sha256(np.ascontiguousarray(new.features).tobytes()).hexdigest(),
        "finetune": {**asdict(report), "kept": dict(went)},
        "fresh": {} if fresh is None else dict(Counter(fresh.kinds[k] for k in fresh.kind)),
        "rows": lines,
        "seen": list(seen),
    }


def tell(manifest: Mapping[str, Any]) -> str:
    """The head of a candidate's card, as Markdown."""
    return "\n\n".join(_parts(manifest)) + "\n"


def _parts(manifest: Mapping[str, Any]) -> Iterator[str]:
    told = manifest["retrained"]
    counts, learned = told["counts"], told["finetune"]
    yield f"# {manifest['name']}"
    yield (
        f"The pack `{manifest['parent'][:19]}` with another detector and its thresholds; the graph "
        "is the parent's, byte for byte. Made by `guard retrain`"
        + (f" for {told['trained_by']}" if told["trained_by"] else "")
        + f" on {manifest['created']} from {counts['learned']} reviewed suspects "
        f"({counts['adversarial']} adversarial, {counts['benign']} benign, of these "
        f"{counts['sampled']} drawn at random) of {counts['clients']} clients, "
        f"{counts['fresh']} rows made here, and {learned['old']} rows that its parent knew."
    )
    yield "## What it learned from"
    yield (
        "One line a row, with the suspect's hash, is in `manifest.json` under `retrained.rows`. "
        f"SHA-256 of the sorted ids: `{told['ids_sha256']}`; of the rows: `{told['rows_sha256']}`."
    )
    agreed = told["reviewers"]
    yield table(
        ["reviewed suspects", "rows", "reviewers, at least", "on average", "contested"],
        [
            [name, *(f"{row[key]:g}" for key in ("rows", "fewest", "mean", "contested"))]
            for name, row in agreed.items()
        ],
    )
    chosen = told["selection"]
    reasons = {k: n for k, n in chosen.items() if k not in ("kept", "limits") and n}
    dropped = {**told["left_out"], **reasons}
    if dropped:
        yield table(["not learned from", "suspects"], [[k, str(n)] for k, n in dropped.items()])
    yield _trained(learned)


def _trained(learned: Mapping[str, Any]) -> str:
    share = ", ".join(f"{percent(value)}% of {name}" for name, value in learned["share"].items())
    drift = ", ".join(f"{name} {value:.2f}" for name, value in learned["drift"].items())
    spent = learned.get("privacy")
    private = (
        f" Differentially private for the new rows: epsilon {spent['epsilon']:.2f} at delta "
        f"{spent['delta']:g}."
        if spent
        else ""
    )
    kept = ", ".join(f"{name} {value:.0%}" for name, value in learned["kept"].items())
    return (
        f"New rows carried {share} of the weight. Drift of the weights (relative, at most "
        f"{learned['cap']:g}): {drift}. Of the way to what was "
        f"learned, each head went as far as the hold-out allows: {kept}.{private}"
    )


def _reviewers(new: Reviewed) -> dict[str, dict[str, float]]:
    found = {}
    for name, mask in (("adversarial", new.suspicious), ("benign", ~new.suspicious)):
        if mask.any():
            said = new.reviewers[mask]
            found[name] = {
                "rows": int(mask.sum()),
                "fewest": int(said.min()),
                "mean": round(float(said.mean()), 2),
                "contested": int((new.dissent[mask] > 0).sum()),
            }
    return found


def _line(new: Reviewed, number: int) -> str:
    label = "adversarial" if new.suspicious[number] else "benign"
    said = int(new.reviewers[number])
    of = said + int(new.dissent[number])
    day = datetime.fromtimestamp(float(new.day[number]) * DAY, UTC).date().isoformat()
    how = "sampled" if new.sampled[number] else "caught"
    return f"{mark(str(new.id[number]))} {label} {said}/{of} {day} {how}"


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
