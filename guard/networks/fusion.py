"""Batch normalisation folded into the convolutions before it: what is exported and served."""

import copy
from collections import Counter
from collections.abc import Iterator
from typing import cast

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from guard.networks.network import Network


def fuse(network: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution, and only it, into it, in place.

    Returns the network, in eval mode. Norms after a sum (pre-activation nets) stay as they are,
    as do all in a network whose path depends on its input.
    """
    network.eval()
    for before, after in list(_pairs(network)):
        conv, norm = network.get_submodule(before), network.get_submodule(after)
        network.set_submodule(before, fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var, arg-type]
        network.set_submodule(after, nn.Identity())
    return network


class Folded:
    """A fused twin of a network that is still learning: what the network says in eval mode, faster.

    `twin` is the network itself where nothing can be folded.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.pairs = list(_pairs(network))
        self.twin = network
        if self.pairs:
            self.twin = cast(Network, fuse(copy.deepcopy(network))).requires_grad_(False)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the network's present weights and statistics."""
        if not self.pairs:
            return
        fresh = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        for before, after in self.pairs:
            conv = cast(nn.Conv2d, self.network.get_submodule(before))
            norm = cast(nn.BatchNorm2d, self.network.get_submodule(after))
            mean, spread = (
                cast(torch.Tensor, norm.running_mean),
                cast(torch.Tensor, norm.running_var),
            )
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, mean, spread, norm.eps, norm.weight, norm.bias
            )
            fresh[f"{before}.weight"], fresh[f"{before}.bias"] = weight, bias
        for name, value in self.twin.state_dict().items():
            value.copy_(fresh[name])


def _pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions, and of the batch norms that are alone in using their output."""
    modules = dict(network.named_modules())
    if not any(isinstance(module, nn.BatchNorm2d) for module in modules.values()):
        return
    try:
        nodes = list(fx.symbolic_trace(network).graph.nodes)
    except fx.proxy.TraceError:
        return
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    for node in nodes:
        before = node.args[0] if node.args else None
        if (
            calls[node.target] == 1
            and isinstance(modules.get(str(node.target)), nn.BatchNorm2d)
            and isinstance(before, fx.Node)
            and isinstance(modules.get(str(before.target)), nn.Conv2d)
            and calls[before.target] == len(before.users) == 1
        ):
            yield str(before.target), str(node.target)
