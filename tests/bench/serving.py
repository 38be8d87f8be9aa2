"""What serving costs: the gateway beside its own graph in bare ONNX Runtime and in MLServer.

python -m tests.bench.serving [--pack models/gtsrb] [--seconds 2] [--rounds 3] [--json FILE]

One image per request, callers that wait for their answer, everything on this machine, in one run:
bare       the evidence graph in ONNX Runtime, called in batches as large as there are callers
gateway    `guard serve --pack`: the whole defence with verdicts, the pack's ensemble answers
MLServer   the same graph (noise from a fixed bank, no verdict); also with its adaptive batching.
           Only where GUARD_PEERS, or `deploy/ci/install peers`, says it is installed.
The rounds go through all four in turn, and every number is the median of its rounds. The share is
that of the bare session's images per second at the same number of callers.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from guard.client import CallError, Client
from guard.data import signs
from guard.gateway import codec, protocol
from guard.onnx import Session
from guard.pack import Pack
from guard.testing import make_pack
from tests.bench.load import write_requests
from tests.end_to_end.peers import servers

BARE = "bare ONNX Runtime"
CALLERS = (1, 8, 32)
IMAGES = 64
BATCHING = {"max_batch_size": 32, "max_batch_time": 0.002}
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One measurement; p50 and p99 are of one request, for the bare session of one batch."""

    what: str
    callers: int
    per_second: float
    p50_ms: float
    p99_ms: float
    share: float


def pictures(shape: tuple[int, int, int]) -> Floats:
    """IMAGES procedural signs of that size."""
    _, height, _ = shape
    return signs.make(IMAGES, seed=0, size=height).pixels()


def request_file(folder: Path, model: str, images: Floats) -> Path:
    """One ModelInferRequest per image."""
    requests = []
    for image in images:
        tensor = codec.pack_tensor(image[None])
        request = protocol.ModelInferRequest(model_name=model)
        request.inputs.add(name="images", datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.data)
        requests.append(request.SerializeToString())
    file = folder / f"{model}.requests"
    write_requests(file, requests)
    return file


def measure_bare(pack: Pack, images: Floats, batch: int, seconds: float) -> dict[str, float]:
    """The graph alone, one batch after the other."""
    session = Session(pack.files["evidence.onnx"])
    feeds = {"images": np.resize(images, (batch, *images.shape[1:]))}
    if pack.noise_copies:
        shape = (batch, pack.noise_copies, *pack.input_shape)
        feeds["noise"] = np.random.default_rng(0).standard_normal(shape, np.float32)
    for _ in range(3):
        session.run(feeds)
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        session.run(feeds)
        times.append(time.perf_counter() - start)
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    rate = batch * len(times) / sum(times)
    return {"per_second": rate, "p50_ms": float(p50), "p99_ms": float(p99)}


def measure_server(address: str, requests: Path, callers: int, seconds: float) -> dict[str, float]:
    """A server, from a load generator in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.load", address, str(requests)]
    done = subprocess.run(
        [*command, str(callers), str(seconds)],
        cwd=servers.ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


@contextlib.contextmanager
def gateway(pack: Path) -> Iterator[str]:
    """`guard serve --pack` as a process."""
    port, metrics = servers.free_ports(2)
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "guard.cli", "serve", "--pack", str(pack)]
    options = ["--listen", address, "--metrics", f"127.0.0.1:{metrics}"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    try:
        wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server is ready."""
    with Client(address) as client:
        while process.poll() is None:
            with contextlib.suppress(CallError):
                if client.ready():
                    return
            time.sleep(0.1)
    raise SystemExit("the gateway did not start")


def measure(folder: Path, seconds: float, rounds: int) -> Iterator[Row]:
    """All rows, those of one number of callers together."""
    pack = Pack.load(folder)
    images = pictures(pack.input_shape)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = {"gateway": stack.enter_context(gateway(folder))}
        if servers.environment() is not None:
            graph = {folder.name: (folder / "evidence.onnx").resolve()}
            for what, options in {"MLServer": {}, "MLServer, batching": BATCHING}.items():
                (work / what).mkdir()
                peer = servers.Peer("mlserver", graph, work / what, **options)
                addresses[what] = stack.enter_context(peer).address
        requests = request_file(work, folder.name, images)
        for callers in CALLERS:
            seen: dict[str, list[dict[str, float]]] = {}
            for _ in range(rounds):
                bare = measure_bare(pack, images, callers, seconds)
                seen.setdefault(BARE, []).append(bare)
                for what, address in addresses.items():
                    result = measure_server(address, requests, callers, seconds)
                    seen.setdefault(what, []).append(result)
            yield from rows(seen, callers)


def rows(seen: Mapping[str, Sequence[Mapping[str, float]]], callers: int) -> Iterator[Row]:
    """The medians over the rounds."""
    bare = median(result["per_second"] for result in seen[BARE])
    for what, results in seen.items():
        names = ("per_second", "p50_ms", "p99_ms")
        numbers = {name: median(result[name] for result in results) for name in names}
        yield Row(what, callers, **numbers, share=numbers["per_second"] / bare)


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, help="default: models/gtsrb, else a tiny one")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pack = options.pack or servers.ROOT / "models" / "gtsrb"
        if not options.pack and not pack.is_dir():
            pack = make_pack(Path(folder) / "tiny", shape=(3, 32, 32))
        print(f"{pack.name}: one image per request")
        print(f"{'':20}{'callers':>8}{'images/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'share':>8}")
        written = []
        for row in measure(pack, options.seconds, options.rounds):
            numbers = f"{row.per_second:10.0f}{row.p50_ms:9.2f}{row.p99_ms:9.2f}{row.share:8.2f}"
            print(f"{row.what:20}{row.callers:8}{numbers}", flush=True)
            written.append(asdict(row))
    if options.json:
        options.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
