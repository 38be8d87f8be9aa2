"""Batch normalisation folded into the convolutions before it: what is exported and served."""

from collections.abc import Iterator

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fuse(network: nn.Module) -> nn.Module:
    """Fold every batch norm that directly follows a convolution into it, in place.

    Returns the network, in eval mode. A norm that follows a sum (pre-activation nets) stays.
    """
    network.eval()
    for conv, norm in list(_pairs(network)):
        folded = fuse_conv_bn_eval(network.get_submodule(conv), network.get_submodule(norm))  # type: ignore[type-var]
        network.set_submodule(conv, folded)
        network.set_submodule(norm, nn.Identity())
    return network


def _pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions, and of the batch norms that are alone in using their output."""
    modules = dict(network.named_modules())
    for node in fx.symbolic_trace(network).graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        (before,) = node.args
        if before.op == "call_module" and isinstance(modules[before.target], nn.Conv2d):
            if len(before.users) == 1:
                yield before.target, node.target
