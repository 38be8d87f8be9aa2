"""What a round of learning tells Prometheus, as a file for node_exporter's textfile collector.

A command that ends cannot be scraped. The file is replaced whole, so that no half of it is read.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard.durable import write_whole
from guard.errors import InputError

METRICS = {
    "guard_retrain_last_run_timestamp_seconds": "When the last round ended.",
    "guard_retrain_passed": "1 where its candidate passed the gate, else 0.",
    "guard_retrain_refused_rows": "Rows of the gate that refused it.",
    "guard_retrain_learned": "Reviewed suspects that it learned from, by label.",
    "guard_retrain_dropped": "Reviewed suspects that it did not learn from, by reason.",
    "guard_retrain_seconds": "How long each step took.",
}


def write_metrics(path: Path, told: Mapping[str, Any], pack: str) -> None:
    """Write the file; told: what `guard retrain --json` says. pack: the parent's name."""
    chosen = told["selection"]
    dropped = {
        **told["left_out"],
        **{k: n for k, n in chosen.items() if k not in ("kept", "limits")},
    }
    counts = told["counts"]
    samples: dict[str, dict[str, float]] = {
        "guard_retrain_last_run_timestamp_seconds": {"": time.time()},
        "guard_retrain_passed": {"": float(told["passed"])},
        "guard_retrain_refused_rows": {"": float(len(told["reasons"]))},
        "guard_retrain_learned": {
            f'label="{name}"': counts[name] for name in ("adversarial", "benign")
        },
        "guard_retrain_dropped": {f'reason="{name}"': count for name, count in dropped.items()},
        "guard_retrain_seconds": {f'step="{k}"': value for k, value in told["seconds"].items()},
    }
    lines = []
    for name, text in METRICS.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for label, value in samples[name].items():
            both = ",".join(filter(None, (f'pack="{pack}"', label)))
            lines.append(f"{name}{{{both}}} {round(value, 3)}")
    try:
        write_whole(path, ("\n".join(lines) + "\n").encode())
        path.chmod(0o644)  # the collector runs as somebody else
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'cannot be written'}") from error
