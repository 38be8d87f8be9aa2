"""The robust ensemble as the classifier that answers (`answer = "ensemble"`): outputs, metadata."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.config import Input
from guard.gateway import codec, protocol
from guard.pack import Pack
from guard.verdict import Verdicts

OUTPUTS = ("probabilities", "label")
VERSION = "1"


def output(name: str, verdicts: Verdicts, stopped: NDArray[np.bool_]) -> NDArray[Any]:
    """One output for N images; NaN and -1 in the rows `stopped` (N,), which are not answered."""
    if name not in OUTPUTS:
        return codec.guard_outputs(verdicts, (name,))[name]
    answer = verdicts.probabilities
    blank: Any = np.float32(np.nan)
    if name == "label":
        answer, blank = answer.argmax(axis=1), -1
    if stopped.any():
        answer = answer.copy()
        answer[stopped] = blank
    return answer


def metadata(name: str, spec: Input, pack: Pack) -> protocol.Message:
    """ModelMetadataResponse of the ensemble under the name `name`."""
    sizes = {"N": -1, **dict(zip("CHW", pack.input_shape, strict=True))}
    about = protocol.ModelMetadataResponse(name=name, versions=[VERSION], platform="guard")
    if spec.encoded:
        about.inputs.add(name=spec.tensor, datatype="BYTES", shape=[-1])
    else:
        shape = [sizes[letter] for letter in spec.layout]
        about.inputs.add(name=spec.tensor, datatype="FP32", shape=shape)
    about.outputs.add(name="probabilities", datatype="FP32", shape=[-1, len(pack.classes)])
    about.outputs.add(name="label", datatype="INT64", shape=[-1])
    return about
