"""A runtime for MLServer that answers with an ONNX file. Runs in the peers' own environment.

The model's `parameters.uri` names the file; every input of the graph is a tensor of the request,
every output a tensor of the answer.
"""

import asyncio

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """One ONNX Runtime session on one thread, on the CPU."""

    async def load(self) -> bool:
        """Open the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self.names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Tensors in, tensors out; the session runs off the event loop."""
        feeds = {item.name: NumpyCodec.decode_input(item) for item in payload.inputs}
        values = await asyncio.to_thread(self.session.run, self.names, feeds)
        outputs = [
            NumpyCodec.encode_output(name, value)
            for name, value in zip(self.names, values, strict=True)
        ]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
