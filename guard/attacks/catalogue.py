"""The attacks by name: what each one is, may be held to and can be told.

`ready("pgd", LINF_8, steps=50)` gives a callable (model, images, labels) -> adversarial images with
all options settled; a new attack is one line in ENTRIES.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from guard.attacks import (
    apgd,
    autoattack,
    bim,
    cw,
    ddn,
    deepfool,
    fab,
    fgsm,
    hopskipjump,
    mifgsm,
    patch,
    pgd,
    simba,
    square,
)
from guard.attacks.ball import sizes
from guard.errors import InputError
from guard.threat import Norm, ThreatModel

Sight = Literal["gradients", "logits", "labels"]
_PLAIN = (str, int, float, bool, type(None))
# Not options: set by other arguments.
GIVEN = frozenset({"eps", "norm", "targets", "generator", "starts", "tally"})


@dataclass(frozen=True)
class Entry:
    """One named attack.

    run:     (model, images, labels, *, ...) -> adversarial images
    about:   one line for a list
    norms:   what its changes can be measured in, the default first
    sees:    what it needs of the model: gradients, logits (queries), or labels alone (queries)
    fixed:   options that make up the name, over the function's own defaults
    """

    name: str
    run: Callable[..., Tensor]
    about: str
    norms: tuple[Norm, ...] = ("linf", "l2")
    sees: Sight = "gradients"
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes(self) -> dict[str, Any]:
        """Every keyword of the function with its default; what the name fixes is left out."""
        known = inspect.signature(self.run).parameters.values()
        own = {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY}
        return {name: default for name, default in own.items() if name not in self.fixed}

    @property
    def options(self) -> dict[str, Any]:
        """The options a caller may set by name, with their defaults."""
        return {name: default for name, default in self.takes.items() if name not in GIVEN}

    @property
    def minimal(self) -> bool:
        """It looks for the smallest change of all: a budget only says which results count."""
        budgeted = "eps" in self.takes and self.takes["eps"] is not None
        return not budgeted and "patch" not in self.norms

    @property
    def targeted(self) -> bool:
        """It can aim at a wanted class."""
        return "targets" in self.takes


_PAIR = {"parts": autoattack.QUICK}
ENTRIES = (
    Entry("fgsm", fgsm.fgsm, "one step of the gradient's sign", ("linf",)),
    Entry("bim", bim.bim, "small signed steps from the image itself", ("linf",)),
    Entry("mifgsm", mifgsm.mifgsm, "steps with momentum, which transfer"),
    Entry("pgd", pgd.pgd, "many small steps, projected back into the ball"),
    Entry("cw-linf", pgd.pgd, "PGD on Carlini & Wagner's margin", fixed={"loss": "margin"}),
    Entry("apgd-ce", apgd.apgd, "PGD that finds its own step size", fixed={"loss": "ce"}),
    Entry("apgd-dlr", apgd.apgd, "the same on the logits' ratio", fixed={"loss": "dlr"}),
    Entry("apgd-t", apgd.apgd_t, "APGD towards each likely class in turn"),
    Entry("autoattack", autoattack.autoattack, "APGD-CE, APGD-T, FAB-T, Square in turn"),
    Entry("autoattack-quick", autoattack.autoattack, "APGD-CE, APGD-T in turn", fixed=_PAIR),
    Entry("fab", fab.fab, "smallest change along the boundary"),
    Entry("fab-t", fab.fab_t, "FAB towards each likely class in turn"),
    Entry("deepfool", deepfool.deepfool, "across the nearest linearised boundary", ("l2",)),
    Entry("cw", cw.cw, "smallest L2 change by optimisation", ("l2",)),
    Entry("ddn", ddn.ddn, "smallest L2 change in few steps", ("l2",)),
    Entry("square", square.square, "random search over squares", sees="logits"),
    Entry(
        "hopskipjump",
        hopskipjump.hopskipjump,
        "along the boundary by labels alone",
        ("l2", "linf"),
        "labels",
    ),
    Entry("simba", simba.simba, "random directions, kept by score", ("l2", "linf"), "logits"),
    Entry("patch", patch.patch, "a printed sticker, in any pose", ("patch",)),
)
CATALOGUE: Mapping[str, Entry] = {entry.name: entry for entry in ENTRIES}


@dataclass(frozen=True)
class Ready:
    """A named attack with every option settled: call it with (model, images, labels).

    images (N, C, H, W) in [0, 1], labels (N,), and targets (N,) where it was made `targeted`.
    An example of a minimal-norm attack that lies outside `threat` is given back as the original.
    """

    entry: Entry
    threat: ThreatModel | None
    options: Mapping[str, Any]
    targeted: bool = False
    generator: torch.Generator | None = None

    def __call__(
        self, model: Any, images: Tensor, labels: Tensor, targets: Tensor | None = None
    ) -> Tensor:
        """Adversarial images, (N, C, H, W) in [0, 1]; InputError when targets are amiss."""
        if self.targeted != (targets is not None):
            raise InputError(f"{self.entry.name}: targets are for targeted attacks, and only those")
        wanted = {"targets": targets} if self.targeted else {}
        found = self.entry.run(
            model, images, labels, generator=self.generator, **self.options, **wanted
        )
        held = self.threat if self.entry.minimal else None
        return found if held is None else _within(found, images, held)

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that decides the outcome but the seed, for a file's metadata."""
        named = {"attack": self.entry.name, "threat": str(self.threat) if self.threat else None}
        every = named | {"targeted": self.targeted} | self.entry.options | dict(self.options)
        return {
            key: value if isinstance(value, _PLAIN) else str(value)
            for key, value in every.items()
            if key != "progress"
        }


def find(name: str) -> Entry:
    """The entry of a name; InputError lists the names there are."""
    if name not in CATALOGUE:
        raise InputError(f"no attack {name!r}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def ready(
    name: str,
    threat: ThreatModel | None = None,
    *,
    targeted: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Ready:
    """A named attack, held to a threat model, with its options (steps, restarts, ...) settled.

    Options that are None keep the attack's default. Minimal-norm attacks (deepfool, cw, ...) need
    no threat model. Raises InputError for an unknown name or option, a norm the attack does not
    know, a missing budget, or a targeted attack that cannot aim.
    """
    entry = find(name)
    settled = {key: value for key, value in options.items() if value is not None}
    unknown = [key for key in settled if key not in entry.options]
    if unknown:
        known = ", ".join(entry.options) or "none"
        raise InputError(f"{name} has no option {unknown[0]!r}; its options: {known}")
    if targeted and not entry.targeted:
        raise InputError(f"{name} cannot aim at a wanted class")
    return Ready(entry, threat, {**_held(entry, threat), **settled}, targeted, generator)


def _within(found: Tensor, images: Tensor, threat: ThreatModel) -> Tensor:
    """The examples inside the budget; originals in place of the others."""
    size = sizes(found - images, norm="l2" if threat.norm == "l2" else "linf")
    return torch.where(size <= threat.eps * (1 + 1e-5) + 1e-7, found, images)


def _held(entry: Entry, threat: ThreatModel | None) -> dict[str, Any]:
    """What a threat model and the name itself settle."""
    held = dict(entry.fixed)
    if threat is None:
        if not entry.minimal:
            such = "patch 0.1" if "patch" in entry.norms else "linf 8/255"
            raise InputError(f"{entry.name} needs a threat model, such as {such!r}")
        return held
    if threat.norm not in entry.norms:
        known = " or ".join(entry.norms)
        raise InputError(f"{entry.name} is an attack in {known}, not in {threat.norm}")
    if "norm" in entry.takes:
        held["norm"] = threat.norm
    if "eps" in entry.takes:
        held["eps"] = threat.eps
    return held
