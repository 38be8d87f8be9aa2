"""Weights averaged over the way (EMA, SWA) and weights pushed uphill (AWP).

Stochastic weight averaging: Izmailov et al., UAI 2018. Adversarial weight perturbation: Wu, Xia &
Wang, NeurIPS 2020.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The averaged twin of a network: what is tested, kept and shipped.

    decay: of the exponential average, reached slowly so that the first epochs count. swa: the
    share of training after which every epoch's weights count alike instead (1: never).
    """

    def __init__(self, network: nn.Module, *, decay: float, swa: float = 1.0) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.swa = decay, swa
        self.steps, self.epochs = 0, 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """After a step: move a little towards the network; running statistics are copied."""
        if self.epochs:
            return
        self.steps += 1
        self._blend(network, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)), False)

    @torch.no_grad()
    def close_epoch(self, network: nn.Module, progress: float) -> None:
        """After an epoch: from `swa` on, count it like every other such epoch."""
        if progress > self.swa:
            self._blend(network, 1 / (self.epochs + 1), True)
            self.epochs += 1

    def _blend(self, network: nn.Module, share: float, statistics: bool) -> None:
        source = network.state_dict()
        for name, value in self.network.state_dict().items():
            mixes = value.dtype.is_floating_point and (statistics or "running" not in name)
            if mixes:
                value.lerp_(source[name], share)
            else:
                value.copy_(source[name])


@contextmanager
def pushed(
    network: nn.Module,
    loss: Callable[[], Tensor],
    *,
    gamma: float,
    reduce: Callable[[Tensor], None],
) -> Iterator[None]:
    """Inside, the weights stand a share `gamma` of their length up the loss's slope.

    loss: computes the batch's loss; reduce: averages a gradient over processes, in place. After
    it they are what they were, bit for bit, even where the slope was no number.
    """
    layers = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    slopes = torch.autograd.grad(loss(), layers, allow_unused=True)
    before = [layer.detach().clone() for layer in layers]
    with torch.no_grad():
        for layer, slope in zip(layers, slopes, strict=True):
            if slope is not None:
                reduce(slope)
                layer.add_(slope * (gamma * layer.norm() / slope.norm().clamp_min(1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, value in zip(layers, before, strict=True):
                layer.copy_(value)
