"""From what the command line says to what is crafted: pictures, targets, the attack, its recipe.

Letters: N images, C H W.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard import __version__
from guard.attacks.adaptive import adaptive
from guard.attacks.blackbox import Tally
from guard.attacks.catalogue import Ready, find, ready
from guard.data import ImageSet, read_parquet
from guard.data.write import png, read_columns
from guard.errors import ConfigError, InputError
from guard.evaluation.adversarial import Attack, Order
from guard.evaluation.sheet import Pair, sheet
from guard.evaluation.sticker import PLACING, control, held_out, placed, print_sticker
from guard.evaluation.victim import Victim
from guard.threat import ThreatModel

Log = Callable[[str], None]
PATCH = "0.1"  # of the picture: 10 x 10 of 32 x 32 pixels
PRINTING = {"steps": 200, "poses": 2}
VIEWS = 5  # poses in which a held-out picture is judged
SHOWN = 6


@dataclass(frozen=True)
class Asked:
    """The command line's wishes; empty and None are the attack's defaults."""

    name: str = "pgd"
    eps: str | None = None
    norm: str | None = None
    steps: int | None = None
    restarts: int | None = None
    queries: int | None = None
    budget: int | None = None
    extra: Sequence[str] = ()
    targeted: str | None = None
    source: str | None = None
    count: int = 1000
    seed: int = 0
    batch: int = 128
    shard: int = 512
    device: str = "auto"
    split: str | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if self.device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
            object.__setattr__(self, "device", device)

    @classmethod
    def names(cls) -> list[str]:
        """What can be asked for."""
        return [entry.name for entry in fields(cls)]

    @property
    def options(self) -> dict[str, Any]:
        """The attack's own options."""
        given = {"steps": self.steps, "restarts": self.restarts, "queries": self.queries}
        return {k: v for k, v in given.items() if v is not None} | parsed(self.extra)


@dataclass(frozen=True)
class Job:
    """An order, and what else is to be told about it."""

    order: Order
    title: str
    originals: ImageSet
    report: dict[str, float] = field(default_factory=dict)

    def draw(self, out: Path, picture: Path) -> None:
        """A contact sheet of the first pictures that were read right and now fool, if there are."""
        file, rows = self.order.files(out)[0]
        found = read_parquet(file)
        columns = read_columns(file, ["answer", "fooled", "original_answer", "original_index"])
        won = columns["fooled"] & (columns["original_answer"] == found.labels)
        first = np.unique(columns["original_index"], return_index=True)[1]  # one of each original
        shown = sorted(first, key=lambda row: not won[row])[:SHOWN]
        pairs = [
            Pair(
                self.originals.images[rows][row], found.images[row],
                found.classes[found.labels[row]], _named(found.classes, columns["answer"][row]),
                bool(columns["fooled"][row]),
            )
            for row in shown
        ]  # fmt: skip
        amplified = 1 if self.order.threat is not None and self.order.threat.norm == "patch" else 10
        picture.parent.mkdir(parents=True, exist_ok=True)
        sheet(pairs, title=self.title, amplified=amplified).save(picture)


def commission(
    victim: Victim, images: ImageSet, data: str, asked: Asked, *, live: bool, log: Log
) -> Job:
    """Settle everything. ConfigError or InputError when it does not fit together."""
    victim.check(images)
    index = _chosen(images, asked)
    some = images.subset(index)
    recipe: dict[str, Any] = {
        "target": victim.about, "data": data, "split": asked.split, "source": asked.source,
        "targeted": asked.targeted, "seed": asked.seed, "batch": asked.batch,
        "shard": asked.shard, "guard": __version__,
    }  # fmt: skip
    wanted = _targets(some, asked)
    common: dict[str, Any] = {
        "seed": asked.seed, "command": asked.command, "split": asked.split or "test",
        "batch": asked.batch, "shard": asked.shard, "device": asked.device,
    }  # fmt: skip
    if find(asked.name).norms == ("patch",):
        return _sticker(victim, some, index, wanted, asked, recipe, common, log)
    run, about, threat, tally = _attack(victim, images, wanted, asked, live=live)
    recipe |= about | {"pictures": f"sha256:{some.digest()}"}
    order = Order(
        some, index, run, recipe, threat=threat, targets=wanted, tally=tally, **common
    )  # fmt: skip
    title = f"{about['attack']} {threat or ''} on {victim.name}"
    return Job(order, title, some)


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """Options NAME=VALUE: numbers and true or false as such, everything else as text."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"an option is NAME=VALUE, not {word!r}")
        found[name.replace("-", "_")] = _value(text)
    return found


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part) for part in text.split(","))
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _label(classes: Sequence[str], name: str) -> int:
    """A class by name or number."""
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    few = ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")
    raise InputError(f"no class {name!r} among {len(classes)}: {few}")


def _named(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else "no answer"


def _chosen(images: ImageSet, asked: Asked) -> NDArray[np.int64]:
    """Which pictures (N,): of the source class, not yet of the wanted one, `count` at random."""
    fits = np.ones(len(images), bool)
    if asked.source is not None:
        fits &= images.labels == _label(images.classes, asked.source)
    if asked.targeted not in (None, "random"):
        fits &= images.labels != _label(images.classes, str(asked.targeted))
    order = np.random.default_rng(asked.seed).permutation(np.flatnonzero(fits))
    if not len(order):
        raise InputError("no picture is left to attack")
    return np.sort(order[: asked.count])


def _targets(some: ImageSet, asked: Asked) -> NDArray[np.int64] | None:
    if asked.targeted is None:
        return None
    if asked.targeted != "random":
        return np.full(len(some), _label(some.classes, asked.targeted), np.int64)
    steps = np.random.default_rng(asked.seed + 1).integers(1, len(some.classes), len(some))
    return (some.labels + steps) % len(some.classes)


def _threat(asked: Asked, norms: Sequence[str]) -> ThreatModel | None:
    if asked.norm is not None and asked.norm not in norms:
        raise InputError(f"{asked.name} is an attack in {' or '.join(norms)}, not {asked.norm}")
    eps = asked.eps or (PATCH if "patch" in norms else None)
    return None if eps is None else ThreatModel.parse(f"{asked.norm or norms[0]} {eps}")


def _attack(
    victim: Victim, images: ImageSet, targets: NDArray[np.int64] | None, asked: Asked, *, live: bool
) -> tuple[Attack, dict[str, Any], ThreatModel | None, Tally | None]:
    """The attack, its part of the recipe, its budget, and where its queries are counted."""
    if victim.through is not None:
        return _adaptive(victim, asked)
    entry = find(asked.name)
    options = asked.options
    if victim.gives != "gradients" and entry.sees == "gradients":
        raise InputError(f"{entry.name} needs gradients; {victim.name} only gives answers")
    if victim.gives == "labels" and entry.sees == "logits":
        raise InputError(f"{entry.name} needs scores; {victim.name} only gives labels")
    if "levels" in entry.options:
        options = {"levels": 255, **options}
    if asked.budget is not None and "queries" in entry.options:
        share = max(1, asked.budget // max(1, min(asked.count, len(images))))
        options = {"queries": share, **options}
    threat = _threat(asked, entry.norms)
    made = ready(entry.name, threat, targeted=targets is not None, **options)
    tally = Tally() if "tally" in entry.takes else None
    starts = _starts(victim, images, targets, asked) if "starts" in entry.takes else {}

    def run(x: Tensor, y: Tensor, t: Tensor | None, generator: torch.Generator) -> Tensor:
        more: dict[str, Any] = {} if tally is None else {"tally": tally}
        if t is not None and starts:
            more["starts"] = torch.stack([starts[int(label)] for label in t]).to(x)
        now: Ready = replace(made, generator=generator, options={**made.options, **more})
        return now(victim.model, x, y, t)

    return run, made.recipe | ({"live": True} if live else {}), threat, tally


def _starts(
    victim: Victim, images: ImageSet, targets: NDArray[np.int64] | None, asked: Asked
) -> dict[int, Tensor]:
    """For every wanted class a picture that is read as it."""
    found: dict[int, Tensor] = {}
    for label in () if targets is None else sorted(set(targets.tolist())):
        own = images.subset(np.flatnonzero(images.labels == label)[:32])
        pixels = torch.from_numpy(own.pixels()).to(asked.device)
        read = (victim.answers(pixels) == label).nonzero().flatten().tolist() if len(own) else []
        if not read:
            raise InputError(f"no picture is read as {images.classes[label]!r} to start from")
        found[label] = pixels[read[0]]
    return found


def _adaptive(
    victim: Victim, asked: Asked
) -> tuple[Attack, dict[str, Any], ThreatModel | None, Tally | None]:
    if victim.through is None:
        raise InputError(f"{victim.name} has no defence to go through")
    target, threshold = victim.through
    threat = _threat(asked, ("linf", "l2"))
    if threat is None or threat.norm == "patch":
        raise InputError("an adaptive attack needs a threat model, such as 'linf 8/255'")
    options = {"steps": 100, **asked.options}
    if isinstance(options.get("weights"), int | float):
        options["weights"] = (float(options["weights"]),)
    _known("adaptive", options, ("steps", "step", "weights", "draws", "confidence", "momentum"))
    eps, norm = threat.eps, threat.norm

    def run(x: Tensor, y: Tensor, t: Tensor | None, generator: torch.Generator) -> Tensor:
        return adaptive(
            target, x, y, eps=eps, norm=norm, threshold=threshold, targets=t,
            generator=generator, **options,
        )  # fmt: skip

    about = {"attack": "adaptive", "threat": str(threat), "threshold": threshold, **options}
    return run, about, threat, None


def _sticker(
    victim: Victim,
    some: ImageSet,
    index: NDArray[np.int64],
    targets: NDArray[np.int64] | None,
    asked: Asked,
    recipe: dict[str, Any],
    common: dict[str, Any],
    log: Log,
) -> Job:
    """Half of the pictures (whole tracks) to design on, the others judged in several poses."""
    if victim.gives != "gradients":
        raise InputError(f"patch needs gradients; {victim.name} only gives answers")
    threat = _threat(asked, ("patch",))
    target = None if targets is None else int(targets[0])
    options = {**PRINTING, **asked.options}
    steps, poses = options.pop("steps"), options.pop("poses")
    _known("patch", options, [*PLACING, *PRINTING])
    sticker, held = placed(threat, some, options), held_out(some, seed=asked.seed)
    log(f"designing a {sticker.size}x{sticker.size} sticker on {int((~held).sum())} pictures")
    printed = print_sticker(
        victim, some.subset(~held), target, sticker,
        steps=steps, poses=poses, seed=asked.seed, device=asked.device,
    )  # fmt: skip
    shown = some.subset(np.repeat(np.flatnonzero(held), VIEWS))
    threat_text = {"attack": "patch", "threat": str(threat), "sticker": str(sticker)}
    print_ = hashlib.sha256(png(printed.picture)).hexdigest()
    recipe |= threat_text | {"steps": steps, "poses": poses, "print": f"sha256:{print_}"}
    recipe |= {"pictures": f"sha256:{shown.digest()}"}
    order = Order(
        shown, index[np.repeat(np.flatnonzero(held), VIEWS)], printed.attack, recipe,
        threat=threat, targets=None if target is None else np.full(len(shown), target), **common,
    )  # fmt: skip
    report = control(victim, shown, target, printed, seed=asked.seed, device=asked.device)
    report |= {"designed_on": int((~held).sum()), "held_out": int(held.sum()), "poses": VIEWS}
    return Job(order, f"sticker on {victim.name}", shown, report)


def _known(name: str, options: Iterable[str], known: Sequence[str]) -> None:
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; its options: {', '.join(known)}")
