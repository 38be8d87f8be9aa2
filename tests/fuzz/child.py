"""One target in a process of its own: says on stdout, line by line, how far it is."""

import hashlib
import json
import mmap
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.engine import Tally, fuzz
from tests.fuzz.targets import make

MIRROR = 1 << 20  # bytes of the input under way, for when this process does not survive it
MIRROR_VARIABLE = "GUARD_FUZZ_MIRROR"


def work(name: str, executions: int, seed: int, out: Path, engine: str) -> None:
    """Run one target; what was found goes to `out`/`name`."""

    def finish(tally: Tally) -> None:
        save(tally, out / name)
        _tell(tally, done=True)

    if engine == "atheris":
        from tests.fuzz import covered

        covered.fuzz(name, executions, seed, about_to=_mirror(), progress=_tell, finish=finish)
        return
    with make(name) as target:
        tally = fuzz(target, executions, seed=seed, about_to=_mirror(), progress=_tell)
    finish(tally)


def save(tally: Tally, folder: Path) -> None:
    """Each finding's input in a file whose name says what it was, its text beside it."""
    for key, (data, text) in tally.inputs.items():
        folder.mkdir(parents=True, exist_ok=True)
        kind = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")[:60]
        path = folder / f"{kind}-{hashlib.sha256(data).hexdigest()[:8]}"
        path.write_bytes(data)
        path.with_name(f"{path.name}.txt").write_text(text + "\n")


def _mirror() -> Callable[[bytes], None]:
    """Keeps the input under way where the parent finds it."""
    path = os.environ.get(MIRROR_VARIABLE)
    if not path:
        return lambda _data: None
    with Path(path).open("r+b") as file:
        memory = mmap.mmap(file.fileno(), MIRROR)

    def write(data: bytes) -> None:
        kept = data[: MIRROR - 4]
        memory[:4] = len(kept).to_bytes(4, "little")
        memory[4 : 4 + len(kept)] = kept

    return write


def _tell(tally: Tally, *, done: bool = False) -> None:
    line: dict[str, Any] = {
        "done": done,
        "executions": tally.executions,
        "accepted": tally.accepted,
        "seconds": tally.seconds,
        "slowest": tally.slowest,
        "outcomes": len(tally.seen),
        "findings": dict(tally.findings),
        "texts": [text for _, text in tally.inputs.values()],
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
