"""Runs targets in child processes: what ends or hangs the whole process is a finding too."""

import hashlib
import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.child import MIRROR, MIRROR_VARIABLE
from tests.fuzz.engine import KINDS
from tests.fuzz.targets import TARGETS

STUCK = 120.0  # seconds without a word, after which a child hangs
RESTARTS = 20  # of one target, after which it is given up
ROOT = Path(__file__).parents[2]


@dataclass
class Row:
    """One target's line of the table."""

    name: str
    executions: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    outcomes: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)

    def add(self, said: dict[str, Any]) -> None:
        """What one child's last word was."""
        self.executions += said["executions"]
        self.accepted += said["accepted"]
        self.seconds += said["seconds"]
        self.slowest = max(self.slowest, said["slowest"])
        self.outcomes = max(self.outcomes, said["outcomes"])
        self.findings.update(said["findings"])
        self.texts += said["texts"]


def run(
    names: Sequence[str], executions: int, *, seed: int, engine: str, out: Path, table: Path | None
) -> int:
    """Share the executions among the targets, print the table; 1 where something was found."""
    total = sum(TARGETS[name].weight for name in names)
    rows = []
    for name in names:
        share = max(1, math.ceil(executions * TARGETS[name].weight / total))
        rows.append(_target(name, share, seed, engine, out))
        _say(_line(rows[-1]))
        for text in rows[-1].texts:
            _say(f"  {text}")
    lines = [*_head(), *map(_line, rows), _line(_sum(rows))]
    _say("\n" + "\n".join(lines))
    if table is not None:
        table.write_text("\n".join(lines) + "\n")
    return int(any(row.findings for row in rows))


def _target(name: str, executions: int, seed: int, engine: str, out: Path) -> Row:
    """One target, begun again where a child died."""
    row = Row(name)
    for attempt in range(RESTARTS):
        left = executions - row.executions
        if left <= 0:
            break
        with tempfile.NamedTemporaryFile() as mirror:
            mirror.truncate(MIRROR)
            said, death = _child(name, left, seed + 1000 * attempt, engine, out, mirror.name)
            row.add(said)
            if not death:
                break
            row.findings["crash" if "died" in death else "hang"] += 1
            row.texts.append(death)
            _keep(out / name, Path(mirror.name).read_bytes(), death)
    return row


def _child(
    name: str, executions: int, seed: int, engine: str, out: Path, mirror: str
) -> tuple[dict[str, Any], str]:
    """The last thing a child said, and how it ended where that was not by itself."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--child", name]
    command += ["--executions", str(executions), "--seed", str(seed), "--out", str(out.absolute())]
    command += ["--engine", engine]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", MIRROR_VARIABLE: mirror}
    said: dict[str, Any] = {
        "done": False, "executions": 0, "accepted": 0, "seconds": 0.0, "slowest": 0.0,
        "outcomes": 0, "findings": {}, "texts": [],
    }  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            while ready.select(STUCK):
                line = child.stdout.readline()
                if not line:
                    break
                if line.startswith(b'{"done"'):
                    said = json.loads(line)
            else:
                child.kill()
                return said, f"no answer for {STUCK:.0f} seconds"
    if said["done"]:
        return said, ""
    return said, f"the process died with status {child.returncode}"


def _keep(folder: Path, mirror: bytes, text: str) -> None:
    data = mirror[4 : 4 + int.from_bytes(mirror[:4], "little")]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"process-{hashlib.sha256(data).hexdigest()[:8]}"
    path.write_bytes(data)
    path.with_name(f"{path.name}.txt").write_text(text + "\n")


def _sum(rows: Sequence[Row]) -> Row:
    total = Row("all")
    for row in rows:
        total.executions += row.executions
        total.accepted += row.accepted
        total.seconds += row.seconds
        total.slowest = max(total.slowest, row.slowest)
        total.outcomes += row.outcomes
        total.findings.update(row.findings)
    return total


def _head() -> list[str]:
    columns = ["target", "executions", "a second", "accepted", "outcomes", "slowest", *KINDS]
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def _line(row: Row) -> str:
    cells = [
        row.name,
        f"{row.executions:,}",
        f"{row.executions / max(row.seconds, 1e-9):,.0f}",
        f"{row.accepted / max(row.executions, 1):.0%}",
        str(row.outcomes),
        f"{row.slowest * 1000:.0f} ms",
        *(str(row.findings[kind]) for kind in KINDS),
    ]
    return "| " + " | ".join(cells) + " |"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
