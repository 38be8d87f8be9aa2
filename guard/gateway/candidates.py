"""The packs that may be promoted: folders in one folder, named by their plain names, never by path.

A candidate fits where it is the child of the pack that serves: the same evidence graph byte for
byte, the serving pack as its parent, and a gate's report that says it is no worse than exactly that
pack. There is no way to promote one that does not.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from guard.errors import PackError
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.signing.trust import Trust

GATE = "gate.json"
DECIDING = ("detector.onnx", "calibration.npz")  # whose hashes the report must have
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}\Z")
MOST = 100  # folders listed


class Candidates:
    """What lies in the folder `gateway.packs`."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def names(self) -> list[str]:
        """Those there, by name."""
        try:
            found = [path.name for path in self._folder.iterdir() if NAME.match(path.name)]
        except OSError:
            return []
        return sorted(found)[:MOST]

    def load(self, name: str, *, trust: Trust | None = None, min_serial: int = 0) -> Pack:
        """Read and verify one. Raises PackError, whose text has names and no paths."""
        if not NAME.match(name) or not (self._folder / name).is_dir():
            raise PackError(f"there is no pack {name[:64]!r} in gateway.packs")
        try:
            return Pack.load(self._folder / name, trust=trust, min_serial=min_serial)
        except PackError as error:
            raise PackError(str(error).replace(f"{self._folder}/", "")) from error


def check_graph(pack: Pack, current: Pack) -> None:
    """Raise PackError unless it looks at pictures exactly as the pack that serves does."""
    if pack.files["evidence.onnx"] != current.files["evidence.onnx"]:
        raise PackError(
            f"{pack.name} has another evidence graph than {current.name}, which serves: "
            "only detector and calibration can be changed while serving"
        )
    if pack.classes != current.classes or pack.input_shape != current.input_shape:
        raise PackError(f"{pack.name} has other classes or pictures than {current.name}")


def check_thresholds(candidate: Pipeline, current: Pipeline) -> None:
    """Raise PackError where its thresholds come from answers of another upstream."""
    new, old = (one.calibrations["upstream"].about.get("upstream") for one in (candidate, current))
    if new != old:
        raise PackError(
            f"{candidate.pack.name} is calibrated on {new or 'no upstream'}, what serves on "
            f"{old or 'no upstream'}: `guard retrain --calibration` takes the gateway's own along"
        )


def check_candidate(pack: Pack, current: Pack, heads: Collection[str]) -> None:
    """Raise PackError unless it may follow the pack that serves now.

    heads: the detector's heads that decide here, "alone" or "upstream"; the gate must have had
    the power to refuse it for each of them.
    """
    check_graph(pack, current)
    if pack.parent != current.digest:
        raise PackError(f"{pack.name} was not made from {current.name}, which serves")
    if pack.serial <= current.serial:
        raise PackError(f"{pack.name} is no newer than {current.name}: serial {pack.serial}")
    gate = _gate(pack)
    if gate.get("against") != current.digest:
        raise PackError(
            f"{pack.name} was compared with {str(gate.get('against'))[:19]}, not with "
            f"{current.digest[:19]} ({current.name}), which serves"
        )
    if gate.get("passed") is not True:
        raise PackError(f"{pack.name} did not pass the gate: it is worse than {current.name}")
    unjudged = [head for head in heads if head not in _listed(gate.get("heads"))]
    if unjudged:
        raise PackError(f"{pack.name} was not judged by its head {unjudged[0]!r}, which decides")
    judged = gate.get("judged")
    for name in DECIDING:
        found = hashlib.sha256(pack.files[name]).hexdigest()
        if not isinstance(judged, dict) or judged.get(name) != found:
            raise PackError(f"{pack.name}: its {name} is not the one that was compared")


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _gate(pack: Pack) -> Mapping[str, Any]:
    if GATE not in pack.files:
        raise PackError(f"{pack.name} has no {GATE}: nobody compared it with what serves")
    try:
        report = json.loads(pack.files[GATE])
    except (ValueError, RecursionError) as error:
        raise PackError(f"{pack.name}: {GATE} is no JSON: {error}") from error
    if not isinstance(report, dict):
        raise PackError(f"{pack.name}: {GATE} is no report")
    return report
