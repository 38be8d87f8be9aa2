"""What an upstream answered: read its probabilities, mask or substitute rows, add the verdict.

Functions change the response they are given, which the caller owns. A response that cannot be
understood is an UpstreamError, one whose rows cannot be taken out one by one is an UnmaskableError.
Rows with a number that is not finite are handed on as NaN, never repaired.
Letters: N images, K classes of the pack, U classes of the upstream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from guard.errors import ConfigError, GuardError, InputError, UpstreamError
from guard.gateway import tensors
from guard.gateway.codec import GUARD_PREFIX, Parameter, Plan, add_output, set_parameters
from guard.gateway.protocol import Message
from guard.gateway.tensors import Array

Floats = NDArray[np.float32]
Kind = Literal["logits", "probabilities", "label"]
SUM_TOLERANCE = 0.05  # of probabilities, which may have been rounded to BF16
SMALLEST = 1e-12  # probability that substituted logits do not go below


class UnmaskableError(GuardError):
    """An output cannot be blanked for some images of a batch only."""


@dataclass(frozen=True)
class OutputSpec:
    """How one output of the upstream becomes probabilities in the pack's class order.

    tensor:  name of the output
    kind:    what its numbers are: [N, U] for logits and probabilities, [N] or [N, 1] for a label
    count:   K
    classes: (U,) the pack's class of each of the upstream's; None: the same classes
    """

    tensor: str
    kind: Kind
    count: int
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for value in self.classes or ():
            if not 0 <= value < self.count:
                raise ConfigError(f"class {value} is not one of the pack's {self.count}")

    @property
    def targets(self) -> NDArray[np.int64]:
        """(U,) the pack's class of each of the upstream's."""
        return np.arange(self.count) if self.classes is None else np.array(self.classes, np.int64)


def check_response(response: Message) -> None:
    """The form of an upstream's answer: as many raw buffers as outputs, every name once."""
    names = [output.name for output in response.outputs]
    if len(set(names)) != len(names):
        raise UpstreamError("the upstream's answer has an output more than once")
    if response.raw_output_contents and len(response.raw_output_contents) != len(names):
        buffers = len(response.raw_output_contents)
        raise UpstreamError(f"the upstream sent {buffers} raw buffers for {len(names)} outputs")


def read_output(response: Message, name: str) -> Array:
    """The output `name` as an array in its shape on the wire (see `codec.read_input`)."""
    for index, output in enumerate(response.outputs):
        if output.name == name:
            return _read(response, index)
    raise UpstreamError(f"the upstream's answer has no output {name!r}")


def _read(response: Message, index: int) -> Array:
    output, raw = response.outputs[index], response.raw_output_contents
    try:
        if raw:
            return tensors.from_raw(raw[index], output.datatype, output.shape, output.name)
        return tensors.from_typed(output.contents, output.datatype, output.shape, output.name)
    except InputError as error:
        raise UpstreamError(f"the upstream's answer is malformed: {error}") from error
    except IndexError:
        raise UpstreamError("the upstream's answer lacks a raw buffer") from None


def _write(response: Message, index: int, array: Array) -> None:
    output = response.outputs[index]
    if response.raw_output_contents:
        response.raw_output_contents[index] = tensors.to_raw(array, output.datatype)
        return
    output.ClearField("contents")
    tensors.to_typed(output.contents, array, output.datatype, output.name)


def write_output(response: Message, name: str, array: Array) -> None:
    """Replace the numbers of the output `name`, which must be there, by others of its shape."""
    names = [output.name for output in response.outputs]
    _write(response, names.index(name), array)


def upstream_probabilities(response: Message, spec: OutputSpec, count: int) -> Floats:
    """The upstream's class probabilities (N, K) in the pack's order, for `count` = N images.

    A label becomes a one-hot row. A row that holds a number that is not finite, or a label that is
    no class, is NaN throughout. UpstreamError for a wrong shape, type or kind.
    """
    array = read_output(response, spec.tensor)
    if array.dtype.kind not in "iuf":
        datatype = tensors.datatype_of(array)
        raise UpstreamError(f"upstream output {spec.tensor!r} is {datatype}, not numbers")
    width = 1 if spec.kind == "label" else len(spec.targets)
    if array.shape[:1] != (count,) or array.size != count * width:
        raise UpstreamError(
            f"upstream output {spec.tensor!r} has shape {list(array.shape)}, "
            f"expected [{count}, {width}]: is `kind = {spec.kind!r}` right?"
        )
    values = array.reshape(count, width).astype(np.float64)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    values[~finite] = np.nan
    answer = _one_hot(values[:, 0], spec) if spec.kind == "label" else _spread(values, finite, spec)
    return answer.astype(np.float32)


def _one_hot(labels: NDArray[np.float64], spec: OutputSpec) -> NDArray[np.float64]:
    targets = spec.targets
    with np.errstate(invalid="ignore"):
        known = (labels >= 0) & (labels < len(targets)) & (labels == np.floor(labels))
    answer = np.full((len(labels), spec.count), np.nan)
    answer[known] = 0.0
    answer[known, targets[labels[known].astype(np.int64)]] = 1.0
    return answer


def _spread(
    values: NDArray[np.float64], finite: NDArray[np.bool_], spec: OutputSpec
) -> NDArray[np.float64]:
    if spec.kind == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    else:
        _demand_probabilities(values[finite], spec)
    if spec.classes is None:
        return values
    answer = np.zeros((len(values), spec.count))
    np.add.at(answer.T, spec.targets, values.T)
    answer[~finite] = np.nan
    return answer


def _demand_probabilities(values: NDArray[np.float64], spec: OutputSpec) -> None:
    if not values.size:
        return
    sums, smallest = values.sum(axis=1), values.min()
    if smallest < -SUM_TOLERANCE or np.abs(sums - 1).max() > SUM_TOLERANCE:
        raise UpstreamError(
            f"upstream output {spec.tensor!r} holds no probabilities (a row sums to "
            f"{sums[np.abs(sums - 1).argmax()]:.3g}, the smallest is {smallest:.3g}): "
            "is `kind` right?"
        )


def mask_rows(response: Message, rows: NDArray[np.bool_]) -> None:
    """Blank the images marked in `rows` (N,) in every output.

    Floats become NaN, signed integers -1, unsigned ones their largest value, BYTES empty.
    UnmaskableError, and nothing changed, where an output's first dimension is not N or it is BOOL:
    every BOOL is a possible answer.
    """
    if not rows.any():
        return
    masked = [_masked(response, index, rows) for index in range(len(response.outputs))]
    for index, array in enumerate(masked):
        _write(response, index, array)


def _masked(response: Message, index: int, rows: NDArray[np.bool_]) -> Array:
    array = _read(response, index)
    name = response.outputs[index].name
    if array.shape[:1] != rows.shape:
        raise UnmaskableError(f"output {name!r} {list(array.shape)} is not one row per image")
    if array.dtype.kind == "b":
        raise UnmaskableError(f"output {name!r} is BOOL and has no value that means masked")
    array = array.copy()
    array[rows] = _mask_value(array.dtype)
    return array


def _mask_value(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "O":
        return b""
    if dtype.kind == "f":
        return np.nan
    return -1 if dtype.kind == "i" else np.iinfo(dtype).max


def substitute_rows(
    response: Message, spec: OutputSpec, rows: NDArray[np.bool_], probabilities: Floats
) -> None:
    """Answer the images marked in `rows` (N,) with the robust ensemble's `probabilities` (N, K).

    The mapped output gets them in the upstream's own class order, kind and datatype; in every other
    output these rows are masked, since they came from the classifier that is not believed.
    """
    if not rows.any():
        return
    for index, output in enumerate(response.outputs):
        array = _masked(response, index, rows)
        if output.name == spec.tensor:
            if array.dtype.kind not in "iuf":
                raise UnmaskableError(f"output {output.name!r} is {output.datatype}, not numbers")
            values = _upstream_form(probabilities[rows], spec)
            array[rows] = values.reshape(-1, *array.shape[1:])
        _write(response, index, array)


def _upstream_form(probabilities: Floats, spec: OutputSpec) -> Array:
    targets = spec.targets
    shares = np.bincount(targets, minlength=spec.count)[targets]
    values = probabilities[:, targets].astype(np.float64) / shares
    if spec.kind == "label":
        return np.asarray(values.argmax(axis=1))
    return np.log(np.maximum(values, SMALLEST)) if spec.kind == "logits" else values


def finish_response(
    response: Message,
    plan: Plan,
    *,
    outputs: Mapping[str, Array],
    parameters: Mapping[str, Parameter],
    model_name: str = "",
) -> None:
    """Make an upstream's answer the client's: drop what only guard asked for, add the verdict.

    outputs:    guard's own, already narrowed to what the client asked for and may see
    parameters: from `codec.guard_parameters`, or empty
    model_name: the name the client used, where the upstream has another
    Outputs and parameters in guard's name that the upstream itself sent are removed: nobody but
    this gateway speaks for it.
    """
    raw = bool(response.raw_output_contents) if response.outputs else plan.raw
    _drop_outputs(response, plan)
    for key in [key for key in response.parameters if key.startswith(GUARD_PREFIX)]:
        del response.parameters[key]
    for name, array in outputs.items():
        add_output(response, name, array, raw=raw)
    set_parameters(response, parameters)
    if model_name:
        response.model_name = model_name


def _drop_outputs(response: Message, plan: Plan) -> None:
    for index in reversed(range(len(response.outputs))):
        name = response.outputs[index].name
        hidden = name in plan.hidden or name.startswith(GUARD_PREFIX)
        if hidden or not plan.upstream_outputs:
            del response.outputs[index]
            if response.raw_output_contents:
                del response.raw_output_contents[index]
