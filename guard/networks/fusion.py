"""Batch normalisation folded into the convolutions before it: what is exported and served."""

from torch import nn

from guard.networks.layers import ConvNorm


def fuse(network: nn.Module) -> nn.Module:
    """Fold every batch normalisation into its convolution, in place; returns it in eval mode."""
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fuse()
    return network
