"""A stock KServe client in a process of its own: its messages and tritonclient's clash in one.

kserve_client.py HOST:PORT MODEL IMAGES.npy ANSWER.npz
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main(address: str, model: str, images: str, answer: str) -> None:
    """Ask once; write every output, and the response's parameters as text."""
    pixels = np.load(images)
    tensor = InferInput("images", list(pixels.shape), "FP32")
    tensor.set_data_from_numpy(pixels)
    client = InferenceGRPCClient(address, retries=0)
    response = await client.infer(InferRequest(model_name=model, infer_inputs=[tensor]))
    await client.close()
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    np.savez(answer, **outputs, __parameters__=str(sorted(response.parameters)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
