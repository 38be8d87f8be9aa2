"""Weights in half precision: what a pack stores, and what torch and ONNX Runtime compute with.

Half the bytes for a relative error of 2^-11 a weight. The modules are rounded first, so that all
that is measured is measured on the weights that are stored. Inside the ONNX file a Cast turns them
back, which ONNX Runtime computes once, when a session starts: requests cost what they did.
"""

from collections.abc import Container

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn

BIG = 64 * 1024  # bytes in single precision; smaller ones are not worth a rounding


@torch.no_grad()
def round_half(module: nn.Module) -> None:
    """Round every big weight to half precision, in place; it stays a float32 tensor.

    A weight beyond the range of half precision (65504) becomes the nearest that is in it.
    """
    limit = torch.finfo(torch.float16).max
    for tensor in module.state_dict().values():
        if tensor.dtype == torch.float32 and tensor.nbytes > BIG:
            tensor.copy_(tensor.clamp(-limit, limit).half())


def store_half(model: ModelProto, names: Container[str]) -> None:
    """Store the named big weights in half precision where that loses nothing, in place."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in names or tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if value.nbytes <= BIG or not np.array_equal(half.astype(np.float32), value):
            continue
        wide = f"{tensor.name}.float32"
        for node in model.graph.node:
            node.input[:] = [wide if name == tensor.name else name for name in node.input]
        casts.append(helper.make_node("Cast", [tensor.name], [wide], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
