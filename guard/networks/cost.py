"""What a network costs: parameters and floating-point operations."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def flops(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one forward pass on one image (C, H, W): two per product.

    Convolutions, linear layers and the products of attention; the rest is small change.
    """
    like = next(network.parameters(), torch.zeros(()))
    image = torch.zeros(1, *shape, device=like.device, dtype=like.dtype)
    training = {module for module in network.modules() if module.training}
    network.eval()
    try:
        # The counter knows the products of plain attention only.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(image)
    finally:
        for module in training:
            module.training = True
    return int(counter.get_total_flops())
