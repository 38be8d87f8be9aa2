"""The one door to ONNX Runtime: sessions from bytes, and the provider really in use."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from guard.errors import PackError

Array = NDArray[np.generic]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
RUNTIME = f"onnxruntime {ort.__version__}"


def default_providers() -> list[str]:
    """CUDA first where this machine has an NVIDIA device and the runtime was built for it."""
    gpu = any(Path("/dev").glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None
    return [CUDA, CPU] if gpu and CUDA in ort.get_available_providers() else [CPU]


class Session:
    """A loaded ONNX model: named arrays in, named arrays out. Safe to use from many threads.

    model: the bytes of a single-file model, or its path. providers: ONNX Runtime's names in order
    of preference; the runtime may fall back without raising, so read `provider`. threads: of one
    run, None for one a core. Raises PackError when the model does not load.
    """

    def __init__(
        self,
        model: bytes | str | Path,
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        # Spinning worker threads would take the cores from the gateway's event loop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = model if isinstance(model, bytes) else Path(model).read_bytes()
        wanted = list(providers) if providers else default_providers()
        try:
            self._session = ort.InferenceSession(source, options, providers=wanted)
            self.inputs: dict[str, tuple[str, tuple[object, ...]]] = {
                node.name: (node.type, tuple(node.shape)) for node in self._session.get_inputs()
            }
            self.outputs: tuple[str, ...] = tuple(n.name for n in self._session.get_outputs())
        except Exception as error:  # the runtime's errors share no base class
            raise PackError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error

    @property
    def provider(self) -> str:
        """The execution provider in use, as the session reports it (first of its list)."""
        return str(self._session.get_providers()[0])

    def run(
        self, feeds: Mapping[str, Array], outputs: Iterable[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name; `outputs` None for all of them."""
        names = list(self.outputs if outputs is None else outputs)
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
