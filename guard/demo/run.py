"""`guard demo`: its options, its end, and `run` between them.

Torch is imported when the run begins, so that a serving install can say what is missing.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import guard
from guard.demo import picture, report
from guard.demo.picture import Example
from guard.demo.report import Report
from guard.errors import GuardError, PackError

Say = Callable[[str], None]

SHIPPED = Path("models") / "signs"
TITLE = "What was sent, who fell for it, and what the gateway did"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    json: Path | None = None
    picture: Path = field(default_factory=lambda: Path("guard-demo.png"))
    pack: Path | None = None  # default: models/signs, here or beside the source
    seed: int = 0
    quick: bool = False  # a weaker production model and few pictures, for tests


@dataclass(frozen=True)
class Outcome:
    """The numbers, and one example of each row for the picture."""

    report: Report
    examples: list[Example]


def demo(options: Options, *, say: Say) -> Report:
    """Run the demo, print the table, write the picture and the JSON.

    Raises GuardError when something it needs is missing. However it ends, by SIGINT, SIGTERM or
    SIGHUP too, its servers are stopped and its temporary files are gone.
    """
    for path in (options.picture, *filter(None, (options.json,))):
        _check_writable(path)
    with _signals_interrupt():
        outcome = run(options, say)
    say("")
    for line in report.render(outcome.report):
        say(line)
    picture.draw(outcome.examples, title=TITLE).save(options.picture, "PNG")
    if options.json is not None:
        options.json.write_text(json.dumps(outcome.report.record(), indent=2) + "\n")
    say(f"\npicture: {options.picture} ({outcome.report.seconds:.0f} seconds in all)")
    return outcome.report


def run(options: Options, say: Say) -> Outcome:
    """Train, serve, guard, attack, count. Leaves nothing behind; prints only through `say`."""
    started = time.monotonic()
    pack = find_pack(options.pack)
    rounds, stage = _torch_parts()
    effort = stage.QUICK if options.quick else stage.Effort()
    with stage.set_up(pack, effort, seed=options.seed, say=say) as scene:
        log = rounds.play(scene, effort, seed=options.seed, say=say)
    summary = Report(
        pack=scene.pack,
        digest=scene.digest,
        production=scene.about_production(),
        false_alarm_budget=stage.BUDGET,
        calibration_pictures=effort.calibrate,
        rows=log.rows,
        sticker=log.sticker,
        latency=log.latency,
        metrics=log.metrics,
        card=str(pack / "MODEL_CARD.md"),
        seed=options.seed,
        seconds=time.monotonic() - started,
    )
    return Outcome(summary, log.examples)


def find_pack(given: Path | None) -> Path:
    """The pack's folder: the one given, or models/signs here or beside the source."""
    source = Path(guard.__file__).resolve().parents[1]
    places = [given] if given is not None else [SHIPPED, source / SHIPPED]
    for place in places:
        if (place / "manifest.json").is_file():
            return place
    raise PackError(f"no pack at {places[0]}: name one with --pack, or run where models/ is")


def _torch_parts() -> tuple[Any, Any]:
    try:
        from guard.demo import rounds, stage
    except ModuleNotFoundError as error:
        raise GuardError(
            f"the demo trains a classifier and needs {error.name}: pip install 'guard[train]'"
        ) from error
    return rounds, stage


def _check_writable(path: Path) -> None:
    """Two minutes later would be a bad time to find out."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise GuardError(f"cannot write {path}")


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, through every `finally`.

    What is ignored stays ignored (nohup).
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        kind = getattr(signal, name, None)  # Windows has no SIGHUP
        if kind is not None and signal.getsignal(kind) == signal.SIG_DFL:
            before[kind] = signal.signal(kind, interrupt)
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
