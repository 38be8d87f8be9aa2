"""Tampering with graphs, signed by somebody who is trusted: the gate alone stands before them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from guard.onnxgate import MAX_ELEMENTS, MAX_NODES
from tests.tampering.frame import Case, Stage

FLOAT = TensorProto.FLOAT


def changed(change: Callable[[ModelProto], object]) -> Callable[[Stage], None]:
    """The evidence graph, changed."""

    def tamper(stage: Stage) -> None:
        model = ModelProto.FromString((stage.folder / "evidence.onnx").read_bytes())
        change(model)
        stage.put("evidence.onnx", model.SerializeToString())

    return tamper


def written(change: Callable[[bytes], bytes]) -> Callable[[Stage], None]:
    """Its bytes, changed."""

    def tamper(stage: Stage) -> None:
        stage.put("evidence.onnx", change((stage.folder / "evidence.onnx").read_bytes()))

    return tamper


def node(kind: str, inputs: list[str], **attributes: Any) -> Callable[[Stage], None]:
    """One more node, whose output nobody needs."""

    def add(model: ModelProto) -> None:
        model.graph.node.append(helper.make_node(kind, inputs, ["unneeded"], **attributes))

    return changed(add)


def looped(trips: int) -> Callable[[Stage], None]:
    """A loop of as many turns."""

    def add(model: ModelProto) -> None:
        turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
        going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
        still = helper.make_tensor_value_info("still", TensorProto.BOOL, [])
        inner = helper.make_graph(
            [helper.make_node("Identity", ["going"], ["still"])], "inner", [turn, going], [still]
        )
        count = numpy_helper.from_array(np.array(trips, np.int64), "trips")
        model.graph.initializer.append(count)
        model.graph.node.append(helper.make_node("Loop", ["trips", ""], [], body=inner))

    return changed(add)


def branch(model: ModelProto) -> None:
    """A graph that is one graph or the other."""
    value = helper.make_tensor_value_info("v", FLOAT, [])
    inner = helper.make_graph([helper.make_node("Constant", [], ["v"], value_float=1.0)], "i", [],
                              [value])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "which"))
    model.graph.node.append(
        helper.make_node("If", ["which"], ["unneeded"], then_branch=inner, else_branch=inner)
    )


def outside(model: ModelProto) -> None:
    """A weight in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def two_values(model: ModelProto) -> None:
    """A reviewer reads one number, the runtime takes the other."""
    tensor = model.graph.initializer[0]
    tensor.float_data[:] = [1.0]
    tensor.raw_data = np.float32(7).tobytes()


def function(model: ModelProto) -> None:
    """A function of one's own, with a body."""
    body = [helper.make_node("Identity", ["x"], ["y"])]
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "f", ["x"], ["y"], body, opset))


def hidden_graph(model: ModelProto) -> None:
    """A graph inside an ordinary operator's attribute."""
    attribute = model.graph.node[0].attribute.add(name="extra", type=AttributeProto.GRAPH)
    attribute.g.name = "hidden"


def hidden_tensor(model: ModelProto) -> None:
    """A tensor beside the attribute's own value."""
    attribute = model.graph.node[0].attribute[0]
    attribute.t.CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), "hidden"))


def reference(model: ModelProto) -> None:
    """An attribute that takes its value from a function's caller."""
    attribute = model.graph.node[0].attribute[0]
    attribute.ref_attr_name = "elsewhere"


def override(model: ModelProto) -> None:
    """A weight that whoever calls may replace."""
    model.graph.input.append(helper.make_tensor_value_info("sharpness", FLOAT, []))


def named_alike(model: ModelProto) -> None:
    """Two weights of one name."""
    model.graph.initializer.append(model.graph.initializer[0])


def sparse(model: ModelProto) -> None:
    """Sparse weights, which no reader here expects."""
    model.graph.sparse_initializer.add().dims.append(3)


def training(model: ModelProto) -> None:
    """A second graph, for training."""
    model.training_info.add()


def domain(model: ModelProto) -> None:
    """Operators of somebody else."""
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def custom(model: ModelProto) -> None:
    """An operator of somebody else, without saying so."""
    model.graph.node[0].domain = "com.evil"


def short(model: ModelProto) -> None:
    """A weight with fewer bytes than its shape needs."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.dims[:] = [4]
    tensor.raw_data = np.float32(7).tobytes()


def vast(model: ModelProto) -> None:
    """A weight of a shape that nobody has memory for, without a value."""
    model.graph.initializer[0].dims[:] = [MAX_ELEMENTS, 2]


def negative(model: ModelProto) -> None:
    """A shape that turns around."""
    model.graph.initializer[0].dims[:] = [-1]


def text(model: ModelProto) -> None:
    """A weight that is text."""
    words = helper.make_tensor("words", TensorProto.STRING, [1], [b"x"])
    model.graph.initializer.append(words)


def expanded(model: ModelProto) -> None:
    """80 GB out of one number."""
    shape = numpy_helper.from_array(np.array([20_000, 1_000_000], np.int64), "vast")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("Expand", ["sharpness", "vast"], ["unneeded"]))


def dangling(model: ModelProto) -> None:
    """A value that nothing computes."""
    model.graph.node.append(helper.make_node("Relu", ["nowhere"], ["unneeded"]))


def crowd(model: ModelProto) -> None:
    """More nodes than any pack has."""
    one = helper.make_node("Relu", ["images"], ["unneeded"])
    model.graph.node.extend([one] * (MAX_NODES + 1))


def other_weights(model: ModelProto) -> None:
    """A good graph that says something else."""
    model.graph.initializer[0].float_data[:] = [0.5]


def set_version(version: int) -> Callable[[ModelProto], None]:
    """Operators of another time."""

    def change(model: ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def set_format(version: int) -> Callable[[ModelProto], None]:
    """A format of another time."""

    def change(model: ModelProto) -> None:
        model.ir_version = version

    return change


CASES = [
    Case("a weight in another file", changed(outside), "in another file"),
    Case("two values of one weight", changed(two_values), "'sharpness' twice: float_data and raw"),
    Case("a function with a body", changed(function), "defines the function 'f'"),
    Case("a loop of 100 million turns", looped(10**8), "uses the operator Loop"),
    Case("a branch", changed(branch), "uses the operator If"),
    Case("a scan", node("Scan", ["images"]), "uses the operator Scan"),
    Case("a huge ConstantOfShape", node("ConstantOfShape", ["end"]), "operator ConstantOfShape"),
    Case("random numbers", node("RandomNormal", [], shape=[1]), "uses the operator RandomNormal"),
    Case("a picture decoder", node("ImageDecoder", ["images"]), "uses the operator ImageDecoder"),
    Case("a tensor in an attribute", node(
        "Constant", [], value=numpy_helper.from_array(np.zeros(3))), "uses the operator Constant"),
    Case("a custom operator", changed(custom), "uses the custom operator com.evil.ReduceMean"),
    Case("somebody else's operators", changed(domain), "imports the operators of 'com.microsoft'"),
    Case("a graph in an attribute", changed(hidden_graph), "holds a tensor or a graph in"),
    Case("two values of one attribute", changed(hidden_tensor), "more than one value in"),
    Case("an attribute from elsewhere", changed(reference), "refers elsewhere in"),
    Case("a weight that callers replace", changed(override), "lets callers replace"),
    Case("two weights of one name", changed(named_alike), "names two weights alike"),
    Case("sparse weights", changed(sparse), "sparse or quantised"),
    Case("a training graph", changed(training), "holds training information"),
    Case("a weight with too few bytes", changed(short), "of 4 elements in 4 bytes"),
    Case("a weight without end", changed(vast), f"of {2 * MAX_ELEMENTS} elements"),
    Case("a weight of negative size", changed(negative), "of shape [-1]"),
    Case("a weight of text", changed(text), "'words' of type 8"),
    Case("80 GB out of one number", changed(expanded), "'unneeded' of shape [20000, 1000000]"),
    Case("a value that nothing computes", changed(dangling), "refused by ONNX's checker"),
    Case("too many nodes", changed(crowd), f"more than {MAX_NODES}"),
    Case("old operators", changed(set_version(9)), "has operator sets [9]"),
    Case("operators of tomorrow", changed(set_version(99)), "has operator sets [99]"),
    Case("a format of tomorrow", changed(set_format(99)), "has IR version 99"),
    Case("a graph cut short, signed", written(lambda data: data[:-20]), "evidence.onnx"),
    Case("noise after the graph", written(lambda data: data + b"\xff" * 9), "is no ONNX file"),
    Case("a field that ONNX does not know", written(
        lambda data: data + b"\xfa\x7f\x03abc"), "fields that ONNX does not know"),
    Case("two graphs in one file", written(lambda data: data + data), "evidence.onnx"),
    Case("no graph at all", written(lambda data: b""), "has IR version 0"),
    Case("other weights than the golden ones", changed(other_weights), "golden vectors"),
]  # fmt: skip
