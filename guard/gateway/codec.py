"""What clients send and what guard answers: pure functions between messages and numpy.

`check_request` first, `read_input` for the tensor that is looked at, `plan_request` for what the
upstream is asked. Whatever a client got wrong is an InputError that names the tensor. What comes
back from an upstream is the business of `answers.py`. Letters: N images, D scores.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from guard.errors import InputError
from guard.gateway import tensors
from guard.gateway.protocol import Message, ModelInferRequest, ModelInferResponse, Tensor
from guard.gateway.tensors import Array
from guard.verdict import Decision, Verdicts

Parameter: TypeAlias = bool | int | float | str
GUARD_OUTPUTS = ("guard_decision", "guard_p_value", "guard_scores")
GUARD_PREFIX = "guard_"  # reserved: outputs and response parameters
SPARE_BYTES = 1 << 20  # that a process with memory left can always get
MAX_TENSORS = 256  # inputs, or requested outputs, of one request
MAX_NAME = 256  # characters of a tensor's name; error messages repeat it
SHARED_MEMORY = "shared_memory_"  # parameters that point at memory instead of sending pixels


def parse(message_class: Message, data: bytes) -> Message:
    """The message in `data`; InputError where the bytes are no such message.

    MemoryError where there is no room for it: protobuf says the same about both.
    """
    try:
        return message_class.FromString(data)
    except DecodeError:
        bytearray(SPARE_BYTES + 4 * len(data))
        name = message_class.DESCRIPTOR.name
        raise InputError(f"{len(data)} bytes are not a {name}") from None


def check_request(request: Message) -> None:
    """Everything that can be refused before an element is read. All inputs, not only the images."""
    inputs, raw = request.inputs, request.raw_input_contents
    if not inputs:
        raise InputError("the request has no inputs")
    if raw and len(raw) != len(inputs):
        raise InputError(f"{len(raw)} raw_input_contents for {len(inputs)} inputs")
    _check_names("input", [tensor.name for tensor in inputs])
    for index, tensor in enumerate(inputs):
        _refuse_shared_memory(tensor)
        if not raw:
            tensors.check_typed(tensor.contents, tensor.datatype, tensor.shape, tensor.name)
            continue
        if tensor.HasField("contents") and tensor.contents.ByteSize():
            message = f"{tensor.name}: both contents and raw_input_contents, send one"
            raise InputError(message, tensor=tensor.name)
        tensors.check_raw(len(raw[index]), tensor.datatype, tensor.shape, tensor.name)
    _check_names("requested output", [output.name for output in request.outputs])
    for output in request.outputs:
        _refuse_shared_memory(output)


def _check_names(what: str, names: Sequence[str]) -> None:
    if len(names) > MAX_TENSORS:
        raise InputError(f"{len(names)} {what}s are too many, at most {MAX_TENSORS}")
    for index, name in enumerate(names):
        if not name:
            raise InputError(f"{what} {index} has no name")
        if len(name) > MAX_NAME:
            raise InputError(f"{what} {index}: a name of {len(name)} characters is too long")
    if len(set(names)) != len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{what} {name!r} is there more than once", tensor=name)


def _refuse_shared_memory(tensor: Message) -> None:
    for key in tensor.parameters:
        if key.startswith(SHARED_MEMORY):
            message = f"{tensor.name}: shared memory is refused, send the tensor itself"
            raise InputError(message, tensor=tensor.name)


def is_raw(request: Message) -> bool:
    """Whether a request uses raw_input_contents."""
    return len(request.raw_input_contents) > 0


def read_input(request: Message, name: str, *, datatypes: Collection[str] = ()) -> Array:
    """The input `name` of a checked request, in the shape it has on the wire.

    A read-only view of the message's bytes for raw contents; BF16 becomes float32, BYTES an object
    array of `bytes`. datatypes: those allowed, empty for any. Numbers may still be NaN or infinite.
    """
    names = [tensor.name for tensor in request.inputs]
    if name not in names:
        shown = ", ".join(names)[:MAX_NAME]
        raise InputError(f"input {name!r} is missing; the request has {shown}", tensor=name)
    index = names.index(name)
    tensor = request.inputs[index]
    if datatypes and tensor.datatype not in datatypes:
        allowed = " or ".join(datatypes)
        message = f"{name}: datatype {tensor.datatype[:32]!r}, this model takes {allowed}"
        raise InputError(message, tensor=name)
    if is_raw(request):
        data = request.raw_input_contents[index]
        return tensors.from_raw(data, tensor.datatype, tensor.shape, name)
    return tensors.from_typed(tensor.contents, tensor.datatype, tensor.shape, name)


@dataclass(frozen=True)
class Plan:
    """What the upstream is asked for, and what of its answer the client gets to see."""

    forward: Message  # the request for the upstream
    raw: bool  # the client used raw contents
    guard_outputs: tuple[str, ...] = ()  # of GUARD_OUTPUTS, that the client asked for
    hidden: frozenset[str] = frozenset()  # outputs that only the gateway asked for
    upstream_outputs: bool = True  # False: the client asked for guard's own outputs alone


def plan_request(request: Message, *, mapped: str = "", model_name: str = "") -> Plan:
    """Turn a checked request into the one for the upstream. `request` itself is never changed.

    mapped:     the upstream's output that guard reads; added where the client listed only others
    model_name: the upstream's name of the model, where it differs
    Requested guard outputs are taken out; all else travels as it came.
    """
    asked = [output.name for output in request.outputs]
    own = _guard_names(asked)
    for output in request.outputs:
        if output.name == mapped and "classification" in output.parameters:
            message = f"{mapped}: classification cannot be requested, guard reads this output"
            raise InputError(message, tensor=mapped)
    hide = bool(asked) and bool(mapped) and mapped not in asked
    rename = bool(model_name) and model_name != request.model_name
    if not own and not hide and not rename:
        return Plan(request, is_raw(request))
    forward = ModelInferRequest()
    forward.CopyFrom(request)
    kept = [output for output in request.outputs if output.name not in own]
    del forward.outputs[:]
    forward.outputs.extend(kept)
    if hide:
        forward.outputs.add(name=mapped)
    if rename:
        forward.model_name = model_name
    hidden = frozenset([mapped]) if hide else frozenset()
    return Plan(forward, is_raw(request), own, hidden, not asked or bool(kept))


def _guard_names(asked: Iterable[str]) -> tuple[str, ...]:
    own = tuple(name for name in asked if name.startswith(GUARD_PREFIX))
    for name in own:
        if name not in GUARD_OUTPUTS:
            known = ", ".join(GUARD_OUTPUTS)
            raise InputError(f"no output {name!r}; guard has {known}", tensor=name)
    return own


def wanted_outputs(request: Message, available: Sequence[str]) -> tuple[str, ...]:
    """The outputs to answer where guard itself does: those asked for, or all `available`.

    GUARD_OUTPUTS are sent only when asked for by name. InputError for a name that does not exist.
    """
    asked = tuple(output.name for output in request.outputs)
    own = _guard_names(asked)
    for name in asked:
        if name not in own and name not in available:
            known = ", ".join(available)
            raise InputError(f"no output {name!r}; this model has {known}", tensor=name)
    return asked or tuple(available)


def build_response(
    request: Message,
    outputs: Mapping[str, Array],
    *,
    parameters: Mapping[str, Parameter] | None = None,
    model_version: str = "",
) -> Message:
    """An answer of guard's own, in the form of contents that the request came in."""
    response = ModelInferResponse(
        model_name=request.model_name, model_version=model_version, id=request.id
    )
    raw = is_raw(request) or not all(map(tensors.has_typed_form, outputs.values()))
    for name, array in outputs.items():
        add_output(response, name, array, raw=raw)
    set_parameters(response, parameters or {})
    return response


def add_output(response: Message, name: str, array: Array, *, raw: bool) -> None:
    """Append one output tensor to a response."""
    datatype = tensors.datatype_of(array)
    output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
    if raw:
        response.raw_output_contents.append(tensors.to_raw(array, datatype))
    else:
        tensors.to_typed(output.contents, array, datatype, name)


def set_parameters(message: Message, parameters: Mapping[str, Parameter]) -> None:
    """Set entries of `message.parameters`, each in the field of its Python type."""
    for key, value in parameters.items():
        slot = message.parameters[key]
        if isinstance(value, bool):
            slot.bool_param = value
        elif isinstance(value, int):
            slot.int64_param = value
        elif isinstance(value, float):
            slot.double_param = value
        else:
            slot.string_param = value


def get_parameters(message: Message) -> dict[str, Parameter]:
    """The entries of `message.parameters` as Python values."""
    chosen = {key: slot.WhichOneof("parameter_choice") for key, slot in message.parameters.items()}
    return {
        key: getattr(message.parameters[key], field)
        for key, field in chosen.items()
        if field is not None
    }


def guard_outputs(verdicts: Verdicts, names: Collection[str]) -> dict[str, Array]:
    """Those of GUARD_OUTPUTS in `names`: INT32 [N], FP32 [N] (NaN where ERROR), FP32 [N, D]."""
    columns: dict[str, Array] = {
        "guard_decision": verdicts.decisions.astype(np.int32, copy=False),
        "guard_p_value": verdicts.p_values.astype(np.float32, copy=False),
        "guard_scores": verdicts.scores.astype(np.float32, copy=False),
    }
    return {name: columns[name] for name in names if name in columns}


def guard_parameters(verdicts: Verdicts, suspects: Sequence[str] = ()) -> dict[str, Parameter]:
    """The verdict as response parameters, which clients that do not know guard ignore.

    guard_decision: the decision's name, comma-separated for several images.
    guard_substituted: whether any row was answered by the robust ensemble instead of the upstream.
    guard_suspect_ids: where any image is kept as a suspect, its id, comma-separated likewise.
    """
    decisions = ",".join(Decision(value).name for value in verdicts.decisions.tolist())
    kept: dict[str, Parameter] = {"guard_suspect_ids": ",".join(suspects)} if any(suspects) else {}
    substituted = bool(verdicts.substituted.any())
    return {"guard_decision": decisions, "guard_substituted": substituted, **kept}


def pack_tensor(array: Array) -> Message:
    """An array as `guard.v1.Tensor`."""
    datatype = tensors.datatype_of(array)
    return Tensor(datatype=datatype, shape=array.shape, data=tensors.to_raw(array, datatype))


def unpack_tensor(tensor: Message, name: str) -> Array:
    """The array in a `guard.v1.Tensor`; `name` is what an InputError calls it."""
    return tensors.from_raw(tensor.data, tensor.datatype, tensor.shape, name)
