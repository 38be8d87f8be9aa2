"""The recipe of one classifier: everything that decides what is learned, in one dataclass."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import torch

from guard.attacks.ball import Ball
from guard.errors import InputError
from guard.networks import Network, build, takes
from guard.training.augment import Augment
from guard.training.crafting import NAMES, Craft
from guard.training.epsilon import Kind
from guard.training.losses import Objective
from guard.training.rates import Schedule, share

NFGSM = {"nfgsm": 1.0}
Optimizer = Literal["sgd", "adam"]
Select = Literal["last", "best"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome, apart from the pictures. Pixels are in [0, 1]."""

    architecture: str
    width: int
    activation: str = "relu"
    grid: int = 1
    channels: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)  # more, for the architecture

    # The examples. Weights of the attacks a batch draws from; none: natural training.
    attacks: Mapping[str, float] = field(default_factory=lambda: dict(NFGSM))
    chained: int = 1  # how many are drawn, one going on where the last one stopped
    norm: Ball = "linf"
    eps: float = 8 / 255
    steps: int = 10
    stride: float = 0.25  # of a step, in eps
    spread: float = 2.0  # of N-FGSM's noise, in eps
    epsilon: Kind = "warm"
    warm: float = 0.3  # share of training over which eps climbs from 0
    start: float = 0.05  # first eps of the adaptive kinds
    alpha: float = 0.001  # their step
    clamp: tuple[float, float] = (0.01, 0.06)
    gap: float = 0.5  # what "steered" holds L_adv - L_clean at
    sigma: float = 0.0  # randomised smoothing: Gaussian noise on every example
    noises: int = 1  # draws per picture; SmoothAdv attacks their mean and trains on each

    # The loss.
    objective: Objective = "ce"
    beta: float = 6.0  # of TRADES and MART
    clean_weight: float = 0.0  # share of the loss on the original pictures
    feature_weight: float = 0.0  # of the squared distance between features
    grad_align: float = 0.0  # of the slopes' disagreement inside the ball (GradAlign)
    l1: float = 0.0
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    awp: float = 0.0  # adversarial weight perturbation, share of each layer's length
    awp_from: float = 0.15  # share of training after which it starts

    # The way down.
    epochs: int = 30
    batch: int = 128
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "cyclic"
    peak_rate: float = 0.2
    clip: float = 5.0
    ema: float = 0.995
    swa: float = 1.0  # share of training after which epochs are averaged alike
    select: Select = "last"  # which epoch's weights are returned
    patience: int = 0  # epochs without a better canary before it stops; 0: never
    augment: Augment = field(default_factory=Augment)
    bf16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.attacks) - set(NAMES):
            raise InputError(f"no training attack {min(unknown)!r}; there are {', '.join(NAMES)}")
        if any(weight < 0 for weight in self.attacks.values()) or not self._whole:
            raise InputError(f"attacks need weights above 0, not {dict(self.attacks)}")
        for name, kind in CHOICES.items():
            if (value := getattr(self, name)) not in get_args(kind):
                raise InputError(f"no {name} {value!r}; there are {', '.join(get_args(kind))}")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise InputError(f"{name} is {least} at least, not {getattr(self, name)}")
        if len(self.clamp) != 2 or not 0 <= self.clamp[0] <= self.clamp[1]:
            raise InputError(f"clamp is a low and a high eps, not {self.clamp}")

    @property
    def _whole(self) -> float:
        """The sum of the attacks' weights; 1 for natural training."""
        return sum(self.attacks.values()) if self.attacks else 1.0

    @property
    def adversarial(self) -> bool:
        """Whether it trains on attacked pictures."""
        return bool(self.attacks)

    @property
    def paired(self) -> bool:
        """Whether a step also needs the answer on the original picture."""
        losses = self.objective != "ce" or self.clean_weight or self.feature_weight
        return self.adversarial and bool(losses or self.epsilon != "warm")

    def rate(self, progress: float) -> float:
        """The learning rate when `progress` (0 to 1) of the training is done."""
        return self.peak_rate * share(self.schedule, progress)

    def craft(self, eps: float) -> Craft:
        """The maker of examples of that strength."""
        return Craft(eps, norm=self.norm, steps=self.steps, stride=self.stride, spread=self.spread)

    def passes(self) -> float:
        """Mean forward-and-backward passes per picture and epoch: what equal compute means."""
        craft = self.craft(self.eps)
        crafting = sum(craft.passes(name) * w / self._whole for name, w in self.attacks.items())
        copies = self.noises if self.sigma else 1
        uphill = 1 - self.awp_from if self.awp else 0.0
        twice = 4 if self.grad_align else 0  # two slopes, and back through each
        learning = 1 + self.paired + twice
        return copies * (crafting * self.chained + learning * (1 + uphill))

    def within(self, passes: float) -> "Recipe":
        """The same recipe for as many whole epochs as fit into that many passes per picture."""
        return replace(self, epochs=max(1, int(passes / self.passes())))

    def network(self, classes: int) -> Network:
        """A fresh network of this recipe's shape, initialised from its seed.

        Raises InputError for an architecture or options that do not exist.
        """
        torch.manual_seed(self.seed)
        try:
            return build(self.architecture, **self.arguments(classes))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"no network {self.architecture!r} like this: {error}") from error

    def arguments(self, classes: int) -> dict[str, Any]:
        """What `guard.networks.build` needs besides the architecture's name.

        Width, activation and grid only where the architecture has one; its options say the rest.
        """
        sizes = {"width": self.width, "activation": self.activation, "grid": self.grid}
        taken = {name: value for name, value in sizes.items() if takes(self.architecture, name)}
        return {"classes": classes, "channels": self.channels, **taken, **self.options}

    def stored(self) -> dict[str, Any]:
        """As a checkpoint keeps it: tuples are lists."""
        kept: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return kept

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Recipe":
        """From `stored`; what it does not name is as by default. InputError for anything else."""
        try:
            augment = Augment(**stored["augment"])
            return cls(**{**stored, "augment": augment, "clamp": tuple(stored["clamp"])})
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"not a recipe of this version: {error}") from error


# Fields with a fixed choice, and the least that the counting ones may be.
CHOICES: dict[str, Any] = {
    "norm": Ball,
    "epsilon": Kind,
    "objective": Objective,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "select": Select,
}
LEAST = {
    "epochs": 1,
    "batch": 1,
    "steps": 1,
    "chained": 1,
    "noises": 1,
    "width": 1,
    "channels": 1,
    "grid": 1,
    "patience": 0,
    "eps": 0.0,
    "sigma": 0.0,
}
