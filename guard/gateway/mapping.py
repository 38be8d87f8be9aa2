"""From the settings of a model to how its tensors are read: pixels in, class probabilities out.

Letters: N images, K classes of the pack, U classes of the upstream.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guard.config import Input, Model, Output
from guard.errors import ConfigError, UpstreamError
from guard.gateway.answers import Floats, Kind, OutputSpec, read_output, upstream_probabilities
from guard.gateway.protocol import Message
from guard.images import PixelSpec
from guard.pack import Pack

_INTEGERS = frozenset(("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"))
_FLOATS = frozenset(("FP16", "BF16", "FP32", "FP64"))


def pixel_spec(model: Model, shape: tuple[int, int, int]) -> PixelSpec:
    """How this model's image tensor becomes pixels of the pack's (C, H, W)."""
    return PixelSpec(
        shape=shape,
        layout=model.input.layout,
        scale=model.input.scale,
        mean=tuple(model.input.mean),
        std=tuple(model.input.std),
        resize=model.input.resize,
        encoded=model.input.encoded,
        max_pixels=model.max_pixels,
        max_total_pixels=4 * model.max_pixels,
    )


def pixel_datatypes(spec: Input) -> tuple[str, ...]:
    """The datatypes an image tensor may have: with a scale any number, without one the usual."""
    if spec.encoded:
        return ("BYTES",)
    usual = ("FP32", "UINT8", "FP16", "BF16")
    return usual if spec.scale is None else (*usual, "FP64", *sorted(_INTEGERS - {"UINT8"}))


def class_order(output: Output, pack: Pack) -> tuple[int, ...] | None:
    """(U,) the pack's class of each of the upstream's classes; None where they are the same.

    Raises `ConfigError` where the two do not fit: a class that the pack does not know, or one of
    the pack's that the upstream never answers.
    """
    names = _upstream_classes(output, pack)
    if names is None or tuple(names) == pack.classes:
        return None
    for name in names:
        if name not in pack.classes:
            raise _unfit(f"{name!r} is not a class of the pack {pack.name!r}")
    missing = [name for name in pack.classes if name not in names]
    if missing:
        raise _unfit(f"no class of the upstream means {missing[0]!r} of the pack {pack.name!r}")
    return tuple(pack.classes.index(name) for name in names)


def _upstream_classes(output: Output, pack: Pack) -> Sequence[str] | None:
    classes = output.classes
    if isinstance(classes, list):
        return classes
    if isinstance(classes, dict):
        order = [str(index) for index in range(len(classes))]
        if set(classes) != set(order):
            raise _unfit(f"the table's keys must be 0 to {len(classes) - 1}")
        return [classes[index] for index in order]
    if not classes or Path(classes).resolve() == pack.folder.resolve():
        return None
    return Pack.load(classes).classes


def _unfit(message: str) -> ConfigError:
    return ConfigError(f"output.classes: {message}", key="output.classes")


class AnswerReader:
    """Finds the class probabilities in an upstream's answer, in the pack's order.

    The kind of numbers is the configured one, or told by the tensor's type and name; where those
    are silent, rows that sum to one are probabilities and anything else is logits.
    """

    def __init__(self, output: Output, pack: Pack) -> None:
        self.tensor = output.tensor  # empty until the upstream's first output is known
        self._kind = output.kind
        self._classes = class_order(output, pack)
        self._count = len(pack.classes)

    def read(self, response: Message, count: int) -> tuple[Floats, OutputSpec]:
        """Probabilities (N, K) for `count` = N images, and how the answer was understood.

        A row is NaN where any output of the upstream holds a number that is not finite: a label
        of 0 beside probabilities of NaN is no answer either.
        """
        if not self.tensor and response.outputs:  # a server that declares none: the first it sends
            self.tensor = response.outputs[0].name
        answer, spec = self._read(response, count)
        broken = _broken_rows(response, count, skip=spec.tensor)
        if broken.any():
            answer[broken] = np.nan
        return answer, spec

    def _read(self, response: Message, count: int) -> tuple[Floats, OutputSpec]:
        kind = self._told(response, count)
        if kind:
            spec = self._spec(kind)
            return upstream_probabilities(response, spec, count), spec
        try:
            spec = self._spec("probabilities")
            return upstream_probabilities(response, spec, count), spec
        except UpstreamError:
            spec = self._spec("logits")
            return upstream_probabilities(response, spec, count), spec

    def _spec(self, kind: Kind) -> OutputSpec:
        return OutputSpec(self.tensor, kind, self._count, self._classes)

    def _told(self, response: Message, count: int) -> Kind | None:
        if self._kind != "auto":
            return self._kind
        name = self.tensor.lower()
        for output in response.outputs:
            if output.name != self.tensor:
                continue
            if output.datatype in _INTEGERS and list(output.shape) in ([count], [count, 1]):
                return "label"
        if "logit" in name:
            return "logits"
        return "probabilities" if "prob" in name or "softmax" in name else None


def _broken_rows(response: Message, count: int, *, skip: str) -> NDArray[np.bool_]:
    """(N,) where an output other than `skip` is not finite; all, where it has no rows."""
    broken = np.zeros(count, np.bool_)
    for output in response.outputs:
        if output.name == skip or output.datatype not in _FLOATS:
            continue
        array = read_output(response, output.name)
        if not np.isfinite(array).all():
            rows = array.shape[:1] == (count,)
            broken |= ~np.isfinite(array.reshape(count, -1)).all(axis=1) if rows else True
    return broken
