"""A live server as a black box: any server of the Open Inference Protocol, guarded or not.

    with Client("127.0.0.1:8001") as client:
        box = Live(client, "signs", budget=50_000)
        found = hopskipjump(box, images, labels, levels=255)
        box.asked, box.blocked, box.exhausted

Pictures travel as 8-bit pictures do, so attacks should be told `levels=255`. What is not answered
(blocked by the gateway, refused because of load, beyond the budget) is *no answer*, which attacks
take for *not fooled*: a NaN row among scores, NO_ANSWER among labels. A budget that is spent is no
error: from then on nothing is answered. A server that answers a batch only as a whole is best asked
with batch=1.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard.attacks.blackbox import NO_ANSWER, labels_of
from guard.client import Answer, CallError, Client
from guard.data.write import png
from guard.errors import InputError, UpstreamError
from guard.verdict import Decision

Kind = Literal["logits", "probabilities", "label"]
Array = NDArray[Any]

BLOCKED = "ADVERSARIAL_INPUT"
BUSY = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")  # worth another try
SILENT = (Decision.BLOCK, Decision.ERROR)
FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
SMALLEST = 1e-12  # probability whose logarithm is still taken
SUM_TOLERANCE = 0.05  # of probabilities, which may have been rounded


class Live:
    """One model behind a server. Call it with images (Q, C, H, W) in [0, 1].

    It answers with scores (Q, K), or with labels (Q,) where the server sends labels alone.
    tensor, output: names on the wire, by default what the server's metadata suggest
    scale:          the value that means white in a floating-point tensor
    budget:         images that may be asked about; None: no bound
    batch:          images per request
    patience:       attempts at a request while the server is busy, a growing pause between them
    Counts images: `asked`, of these `blocked`, `flagged` and `refused` (the server was busy or
    broken). Raises InputError when the server's tensors cannot be used, UpstreamError when nobody
    is there, CallError when the server says the caller is wrong.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        tensor: str = "",
        output: str = "",
        scale: float = 1.0,
        budget: int | None = None,
        batch: int = 32,
        patience: int = 4,
    ) -> None:
        self._client, self._model, self._scale = client, model, scale
        self._budget, self._batch, self._patience = budget, batch, patience
        self.asked = self.blocked = self.flagged = self.refused = 0
        try:
            about = client.model_metadata(model)
        except CallError as error:
            if error.code == "UNAVAILABLE":
                raise UpstreamError("no server answers there", code=error.code) from error
            raise
        self._input = _named(about.inputs, tensor, "input")
        outputs = [x for x in about.outputs if not x.name.startswith("guard_")]
        self._output = _named(sorted(outputs, key=_preference), output, "output")
        if self._input.datatype not in (*FLOATS, "UINT8", "BYTES"):
            raise InputError(f"input {self._input.name!r} takes {self._input.datatype}, not pixels")
        self.kind: Kind | None = _kind(self._output)

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: nothing is answered any more."""
        return self._budget is not None and self.asked >= self._budget

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (or logarithms of probabilities) (Q, K), or labels (Q,): what the server gives."""
        parts = [self._part(part) for part in torch.split(images, self._batch)]
        known = (part.shape[1] for part in parts if part.ndim == 2)
        width = max(known, default=max([1, *self._output.shape[1:]]))
        rows = [x if x.ndim == 2 else np.full((len(x), width), np.nan) for x in parts]
        answers = torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(images.device)
        if self.kind == "label":
            return answers[:, 0].nan_to_num(nan=NO_ANSWER).long()
        return answers

    def labels(self, images: Tensor) -> Tensor:
        """(Q,) int64, NO_ANSWER where there was none."""
        return labels_of(self(images))

    def _part(self, images: Tensor) -> Array:
        """(Q, K) or (Q, 1), or (Q,) of NaN where no row was answered."""
        left = len(images) if self._budget is None else self._budget - self.asked
        count = min(len(images), left)
        nothing = np.full(len(images), np.nan)
        if not count:
            return nothing
        self.asked += count
        pixels = (images[:count].detach().cpu() * 255).round().clamp(0, 255).byte().numpy()
        answer = self._ask(self._wire(pixels))
        if answer is None:
            return nothing
        values = self._read(answer, count)
        rest = np.full((len(images) - count, values.shape[1]), np.nan)
        return np.concatenate([values, rest])

    def _ask(self, sent: Array) -> Answer | None:
        """The server's answer; None where it gave none."""
        for attempt in range(self._patience):
            try:
                return self._client.infer(
                    self._model, sent, tensor=self._input.name, outputs=[self._output.name]
                )
            except CallError as error:
                if error.reason == BLOCKED:
                    self.blocked += len(sent)
                    return None
                if error.code not in (*BUSY, "INTERNAL"):
                    raise
                if error.code == "INTERNAL" or attempt == self._patience - 1:
                    self.refused += len(sent)
                    if error.code == "UNAVAILABLE":
                        raise UpstreamError(f"the server is gone: {error}") from error
                    return None
                time.sleep(0.2 * 2**attempt)
        return None

    def _read(self, answer: Answer, count: int) -> Array:
        """(Q, K) logits or (Q, 1) labels, NaN in the rows that were not answered."""
        values = answer.outputs[self._output.name]
        if values.shape[:1] != (count,) or values.dtype.kind not in "iuf":
            raise InputError(
                f"output {self._output.name!r} is {values.dtype} {list(values.shape)}: "
                f"not numbers, one row for each of {count} images"
            )
        rows = values.reshape(count, -1).astype(np.float64)
        if values.dtype.kind != "f":
            top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else -1
            rows[values.reshape(count, -1) == top] = np.nan
        for index, decision in enumerate(answer.decisions):
            self.blocked += decision in SILENT
            self.flagged += decision == Decision.FLAG
            if decision in SILENT:
                rows[index] = np.nan
        return self._as_logits(rows)

    def _as_logits(self, rows: Array) -> Array:
        """Probabilities become their logarithms; what they are is settled by the first answer."""
        heard = rows[np.isfinite(rows).all(1)]
        if self.kind is None and len(heard):
            spread = heard.min() >= 0 and np.abs(heard.sum(1) - 1).max() < SUM_TOLERANCE
            self.kind = "probabilities" if spread else "logits"
        return np.log(np.maximum(rows, SMALLEST)) if self.kind == "probabilities" else rows

    def _wire(self, pixels: NDArray[np.uint8]) -> Array:
        """8-bit pictures (Q, C, H, W) as the server takes them."""
        datatype, shape = self._input.datatype, list(self._input.shape)
        last = datatype == "BYTES" or (len(shape) == 4 and shape[3] == pixels.shape[1])
        if last and not (len(shape) == 4 and shape[1] == pixels.shape[1]):
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        if datatype == "BYTES":
            return np.array([png(picture) for picture in pixels], dtype=object)
        if datatype == "UINT8":
            return pixels
        return (pixels / 255 * self._scale).astype(FLOATS[datatype])


def _named(tensors: Any, name: str, what: str) -> Any:
    """The tensor of that name, or the first."""
    found = [tensor for tensor in tensors if name in ("", tensor.name)]
    if not found:
        known = ", ".join(tensor.name for tensor in tensors) or "none"
        raise InputError(f"the model has no {what} {name!r}; it has {known}")
    return found[0]


def _preference(output: Any) -> int:
    """Scores before labels before everything else."""
    kind = _kind(output)
    return 1 if kind == "label" else 0 if output.datatype in (*FLOATS, "BF16") else 2


def _kind(output: Any) -> Kind | None:
    """What a server's metadata say of an output; None: the numbers will tell."""
    if output.datatype not in (*FLOATS, "BF16") or len(output.shape) == 1:
        return "label"
    if "logit" in output.name.lower():
        return "logits"
    return "probabilities" if "prob" in output.name.lower() else None
