"""Batch normalisation folded into the convolutions before it: what is exported and served."""

from collections import Counter
from collections.abc import Iterator

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


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
