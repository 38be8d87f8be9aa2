"""A runtime for MLServer that answers with an ONNX file. Runs in the peers' own environment.

The model's `parameters.uri` names the file; every input of the graph is a tensor of the request,
every output a tensor of the answer. `noise` (guard's evidence graph) comes from a fixed bank.
"""

import asyncio

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

BANK = 256  # images in one batch at most


class OnnxModel(MLModel):
    """One ONNX Runtime session on the CPU, set up as the gateway sets up its own."""

    async def load(self) -> bool:
        """Open the file."""
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self.names = [output.name for output in self.session.get_outputs()]
        shapes = {value.name: value.shape[1:] for value in self.session.get_inputs()}
        self.noise = None
        if "noise" in shapes:
            draw = np.random.default_rng(0).standard_normal
            self.noise = draw((BANK, *shapes["noise"]), np.float32)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Tensors in, tensors out; the session runs off the event loop."""
        feeds = {item.name: NumpyCodec.decode_input(item) for item in payload.inputs}
        if self.noise is not None:
            feeds["noise"] = self.noise[: len(feeds["images"])]
        values = await asyncio.to_thread(self.session.run, self.names, feeds)
        outputs = [
            NumpyCodec.encode_output(name, value)
            for name, value in zip(self.names, values, strict=True)
        ]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
