"""A gateway that is weighed from outside: what a request adds to its memory.

`python -m tests.abuse.weighed PACK FILE` is that gateway. It says its address; at every line it
reads it gives freed memory back to the system and says so.
"""

import asyncio
import ctypes
import gc
import subprocess
import sys
from pathlib import Path

import grpc

from guard.config import Config, Gateway, Input, Model
from guard.gateway import protocol
from guard.gateway.server import running
from guard.testing import classifier_onnx, make_pack

ROOT = Path(__file__).parents[2]
TRIES = 3  # something else may happen at the same time


class Weighed:
    """A gateway in another process, and what requests to it cost."""

    def __init__(self, folder: Path) -> None:
        pack, file = make_pack(folder / "tiny"), folder / "classifier.onnx"
        file.write_bytes(classifier_onnx())
        command = [sys.executable, "-m", "tests.abuse.weighed", str(pack), str(file)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._out, self._in = self._process.stdout, self._process.stdin
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(self._out.readline().strip(), options)
        self._proc = Path(f"/proc/{self._process.pid}")

    def close(self) -> None:
        """Stop it."""
        self._channel.close()
        self._process.kill()
        self._process.communicate()

    def send(self, data: bytes, *, rpc: str = "ModelInfer", gzip: bool = False) -> str:
        """One request; the status that it gets."""
        methods = {**protocol.INFERENCE_METHODS, **protocol.GUARD_METHODS}
        call = self._channel.unary_unary(methods[rpc].path)
        try:
            call(data, timeout=60, compression=grpc.Compression.Gzip if gzip else None)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def cost(self, *data: bytes, rpc: str = "ModelInfer", gzip: bool = False) -> tuple[int, str]:
        """Bytes that the gateway grew by while it worked on requests, and the last's status."""
        self._in.write("\n")
        self._in.flush()
        assert self._out.readline()
        (self._proc / "clear_refs").write_text("5")  # the peak is as of now
        before = self._status("VmRSS")
        statuses = [self.send(one, rpc=rpc, gzip=gzip) for one in data]
        return self._status("VmHWM") - before, statuses[-1]

    def least(
        self, data: bytes, limit: int, *, rpc: str = "ModelInfer", gzip: bool = False
    ) -> tuple[int, str]:
        """The smallest of a few measurements, if the first exceed the limit."""
        tries = [self.cost(data, rpc=rpc, gzip=gzip)]
        while tries[-1][0] > limit and len(tries) < TRIES:
            tries.append(self.cost(data, rpc=rpc, gzip=gzip))
        return min(tries)

    def _status(self, name: str) -> int:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) << 10
        raise AssertionError(name)


def config(pack: str, classifier: str) -> Config:
    """Four models, each with another way for its requests to be costly."""
    models = [
        Model(name="pixels", pack=pack, upstream=f"onnx:{classifier}"),
        Model(name="alone", pack=pack, answer="ensemble"),
        Model(name="resized", pack=pack, answer="ensemble", input=Input(resize=True)),
        Model(
            name="pictures",
            pack=pack,
            answer="ensemble",
            input=Input(encoded=True, resize=True),
        ),
    ]
    return Config(models=models, gateway=Gateway(listen="127.0.0.1:0", metrics=""))


async def main(pack: str, classifier: str) -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    async with running(config(pack, classifier)) as gateway:
        _say(gateway.address)
        while await loop.run_in_executor(None, sys.stdin.readline):
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            _say("trimmed")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
