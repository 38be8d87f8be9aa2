"""A real Triton, started by pytriton, that answers with ONNX files.

Runs in the peers' own environment:
triton_onnx.py GRPC_PORT HTTP_PORT METRICS_PORT NAME=FILE...
"""

import sys
from collections.abc import Callable

import numpy as np
import onnxruntime
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}


def open_session(file: str) -> onnxruntime.InferenceSession:
    """One ONNX Runtime session on one thread, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def answer_with(session: onnxruntime.InferenceSession) -> Callable[[list], list[dict]]:
    """The function that Triton calls: requests in, arrays by name out."""
    names = [output.name for output in session.get_outputs()]

    def infer(requests: list) -> list[dict]:
        return [
            dict(zip(names, session.run(names, dict(request)), strict=True)) for request in requests
        ]

    return infer


def tensors(values: list) -> list[Tensor]:
    """Triton's description of a graph's inputs or outputs, the batch left out."""
    return [
        Tensor(
            name=value.name,
            dtype=DTYPES[value.type],
            shape=tuple(size if isinstance(size, int) else -1 for size in value.shape[1:]),
        )
        for value in values
    ]


def main(grpc_port: str, http_port: str, metrics_port: str, *models: str) -> None:
    """Serve until a signal."""
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=int(grpc_port),
        http_address="127.0.0.1",
        http_port=int(http_port),
        metrics_port=int(metrics_port),
    )
    with Triton(config=config) as triton:
        for model in models:
            name, _, file = model.partition("=")
            session = open_session(file)
            triton.bind(
                model_name=name,
                infer_func=answer_with(session),
                inputs=tensors(session.get_inputs()),
                outputs=tensors(session.get_outputs()),
                config=ModelConfig(max_batch_size=64),
                strict=True,
            )
        triton.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
