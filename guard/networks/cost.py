"""What a network costs: parameters and floating-point operations."""

import torch
from torch import Tensor, nn


def parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def flops(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one forward pass on one image (C, H, W): two per product."""
    total = 0

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        if isinstance(weight, Tensor):
            total += 2 * weight[0].numel() * output[0].numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    network(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total
