"""What an ONNX file may hold, before ONNX Runtime sees it.

The runtime follows links for external data, runs loops without end, and of two values of one tensor
it takes another than reviewers read. So a graph of ours is a list of known operators over plain
tensors, and everything else is refused: control flow, functions, custom operators, data elsewhere.
"""

import hashlib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from guard.errors import PackError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# Those that the exporter makes of our defences and of the architectures we train. None of them
# makes much out of little, runs others, draws numbers, or reads anything but its inputs.
_NAMES = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Conv
    ConvTranspose CumSum Div Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND
    Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid
    HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Round Selu Shape Sigmoid Sign Slice Softmax Softplus Split Sqrt
    Squeeze Sub Sum Tanh TopK Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_NAMES.split())
DOMAINS = ("", "ai.onnx")
OPSETS = range(13, 25)
IR_VERSIONS = range(7, 14)
MAX_NODES = 20_000
MAX_ELEMENTS = 1 << 27  # of one tensor, an unknown dimension counted as 1
MAX_RANK = 8
# Bytes of one element, by TensorProto.DataType.
WIDTHS = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}
VALUES = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
# The field that holds the value, by AttributeProto.AttributeType; graphs and tensors have none.
ATTRIBUTES = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings"}
FIELDS = (
    *("f", "i", "s", "t", "g", "sparse_tensor", "tp"),
    *("floats", "ints", "strings", "tensors", "graphs", "sparse_tensors", "type_protos"),
)


# What passed, by SHA-256: a candidate has its parent's graph, and is loaded beside live traffic.
_passed: set[bytes] = set()


def check_graph(data: bytes, name: str) -> None:
    """Refuse what is no plain graph; PackError that names the file and the reason."""
    digest = hashlib.sha256(data).digest()
    if digest in _passed:
        return
    try:
        model = _parsed(data)
        _check_model(model)
        _check_nodes(model.graph.node)
        _check_tensors(model.graph)
        _check_shapes(_inferred(data))
        _passed.add(digest)
    except PackError as error:
        raise PackError(f"{name} {error}") from error


def _parsed(data: bytes) -> "ModelProto":
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError) as error:
        raise PackError(f"is no ONNX file: {error}") from error
    whole = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != whole:
        raise PackError("holds fields that ONNX does not know")
    if whole != len(data):
        raise PackError(f"says something twice: {len(data)} bytes for {whole} of content")
    return model


def _check_model(model: "ModelProto") -> None:
    if model.ir_version not in IR_VERSIONS:
        raise PackError(f"has IR version {model.ir_version}, not one of {_span(IR_VERSIONS)}")
    strange = [one.domain for one in model.opset_import if one.domain not in DOMAINS]
    if strange:
        raise PackError(f"imports the operators of {strange[0]!r}; only ONNX's own are allowed")
    versions = [one.version for one in model.opset_import]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise PackError(f"has operator sets {versions}, not one of {_span(OPSETS)}")
    if model.functions:
        raise PackError(f"defines the function {model.functions[0].name!r}")
    if model.training_info:
        raise PackError("holds training information")
    if len(model.graph.node) > MAX_NODES:
        raise PackError(f"has {len(model.graph.node)} nodes, more than {MAX_NODES}")


def _check_nodes(nodes: "Iterable[NodeProto]") -> None:
    for node in nodes:
        if node.domain not in DOMAINS:
            raise PackError(f"uses the custom operator {node.domain}.{node.op_type}")
        if node.op_type not in OPERATORS:
            raise PackError(f"uses the operator {node.op_type}, which no pack needs")
        for attribute in node.attribute:
            where = f"{node.op_type}'s attribute {attribute.name!r}"
            if attribute.ref_attr_name:
                raise PackError(f"refers elsewhere in {where}")
            if attribute.type not in ATTRIBUTES:
                raise PackError(f"holds a tensor or a graph in {where}")
            filled = [field for field in FIELDS if _filled(attribute, field)]
            if set(filled) - {ATTRIBUTES[attribute.type]}:
                raise PackError(f"holds more than one value in {where}")


def _check_tensors(graph: "GraphProto") -> None:
    if graph.sparse_initializer or graph.quantization_annotation:
        raise PackError("holds sparse or quantised weights")
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) != len(names):
        raise PackError("names two weights alike")
    overridable = {one.name for one in graph.input} & set(names)
    if overridable:
        raise PackError(f"lets callers replace the weight {sorted(overridable)[0]!r}")
    for tensor in graph.initializer:
        _check_tensor(tensor)


def _check_tensor(tensor: "TensorProto") -> None:
    if tensor.data_location or tensor.external_data:
        raise PackError(f"keeps the weight {tensor.name!r} in another file")
    if tensor.data_type not in WIDTHS:
        raise PackError(f"has the weight {tensor.name!r} of type {tensor.data_type}")
    if len(tensor.dims) > MAX_RANK or any(size < 0 for size in tensor.dims):
        raise PackError(f"has the weight {tensor.name!r} of shape {list(tensor.dims)[:9]}")
    count = math.prod(tensor.dims)
    if count > MAX_ELEMENTS:
        raise PackError(f"has the weight {tensor.name!r} of {count} elements")
    held = [field for field in VALUES if len(getattr(tensor, field))]
    held += ["raw_data"] if tensor.HasField("raw_data") else []
    if len(held) > 1 or tensor.HasField("segment"):
        raise PackError(f"gives the weight {tensor.name!r} twice: {' and '.join(held)}")
    size = len(tensor.raw_data) if held == ["raw_data"] else None
    if size is not None and size != count * WIDTHS[tensor.data_type]:
        raise PackError(f"has the weight {tensor.name!r} of {count} elements in {size} bytes")
    if size is None and count != (len(getattr(tensor, held[0])) if held else 0):
        raise PackError(f"has the weight {tensor.name!r} of {count} elements and other values")


def _inferred(data: bytes) -> "ModelProto":
    """The same graph with the shapes of all values, once ONNX's own checker is content."""
    from onnx import checker, load_model_from_string, shape_inference

    try:
        checker.check_model(data, full_check=True)
        return shape_inference.infer_shapes(
            load_model_from_string(data), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:  # the checker's errors share no base class
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise PackError(f"is refused by ONNX's checker: {text[0][:300]}") from error


def _check_shapes(model: "ModelProto") -> None:
    graph = model.graph
    for value in (*graph.value_info, *graph.input, *graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if math.prod(size or 1 for size in sizes) > MAX_ELEMENTS or len(sizes) > MAX_RANK:
            raise PackError(f"computes {value.name!r} of shape {sizes}: too large")


def _filled(message: Any, field: str) -> bool:
    repeated = field.endswith("s") and field != "s"
    return bool(getattr(message, field)) if repeated else bool(message.HasField(field))


def _span(values: range) -> str:
    return f"{values.start} to {values.stop - 1}"
