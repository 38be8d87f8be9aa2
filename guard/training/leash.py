"""How far a detector may move from its parent in one round: a ball around the parent's weights.

Weights of each head, theta, stay where |theta - theta_0| <= cap * |theta_0| (L2 over all of the
head's parameters): after every step they are projected back (projected gradient descent). What a
round of poisoned rows can do to the detector is bounded by it, whatever the rows are; so is what a
round can learn.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from guard.errors import ConfigError


class Leash:
    """Holds every head within `cap`, in shares of the norm that its weights have now."""

    def __init__(self, heads: Mapping[str, nn.Module], cap: float) -> None:
        if not cap > 0:
            raise ConfigError(f"drift must be above 0, not {cap}", key="drift")
        self.heads, self.cap = dict(heads), cap
        self.start = {name: _flat(head).clone() for name, head in self.heads.items()}
        self.touched = False  # whether it ever held one back

    @torch.no_grad()
    def pull(self) -> None:
        """Move every head that is outside back onto its ball."""
        for name, head in self.heads.items():
            start, moved = self.start[name], self.drift()[name]
            if moved > self.cap:
                self.touched = True
                _set(head, start + (_flat(head) - start) * (self.cap / moved))

    @torch.no_grad()
    def drift(self) -> dict[str, float]:
        """How far each head is from its start, in shares of its norm there."""
        return {
            name: float((_flat(head) - self.start[name]).norm() / self.start[name].norm())
            for name, head in self.heads.items()
        }


def _flat(head: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in head.parameters()])


def _set(head: nn.Module, flat: Tensor) -> None:
    start = 0
    for parameter in head.parameters():
        stop = start + parameter.numel()
        parameter.copy_(flat[start:stop].view_as(parameter))
        start = stop
