"""What a gateway still does while five times as much arrives as it can do, and how soon it is over.

python -m tests.bench.overload [--seconds 60] [--times 5] [--pack models/cifar10] [--deadline 1]
                               [--in-flight 64] [--classifier NAME] [--json FILE]

A pack's own ensemble behind `guard serve`, one image per request, the load from another process on
the same machine. With --classifier (a row of `tests.bench.networks`, random weights) that network
answers as the production classifier, in the gateway's process, and the pack guards it. Capacity is
what 32 callers in a closed loop get, before and after. Then requests arrive by an open clock: 10 s
at half the capacity, --seconds at --times the capacity, 20 s at half.
goodput    answers within the deadline, a second, during the overload; share of the capacity
refusals   RESOURCE_EXHAUSTED, from when they were due to be sent until they are told
normal     from the end of the overload until the first second whose p99 is no longer than in the
           worst second before it, and that stays so for three
Goals: goodput 90% of the capacity, p99 of refusals 20 ms, normal within 10 s.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from guard.config import Gateway
from guard.gateway.shares import REMEMBERED
from guard.pack import Pack
from tests.bench import arrivals
from tests.bench.serving import measure_server, pictures, request_file, wait_for
from tests.end_to_end.peers import servers

BEFORE, AFTER, CLOSED = 10.0, 20.0, 5.0  # seconds
CALLERS = 32
OK, LATE, REFUSED = 0, 4, 8  # gRPC status numbers
SETTLED = 3  # seconds that the p99 must stay normal
Rows = NDArray[np.float64]


def production(name: str, pack: Path, file: Path) -> str:
    """A network of `tests.bench.networks` as an upstream that answers for the pack's classes."""
    from guard.networks import build
    from guard.training.export import export_classifier
    from tests.bench.networks import NETWORKS

    about = Pack.load(pack)
    architecture, options = NETWORKS[name]
    channels, height, width = about.input_shape
    network = build(architecture, **options, classes=len(about.classes)).eval()
    export_classifier(network, file, shape=(channels, height, width))
    return f'upstream = "onnx:{file}"\n[models.output]\ntensor = "logits"\nkind = "logits"\n'


@contextlib.contextmanager
def gateway(pack: Path, work: Path, in_flight: int, classifier: str | None = None) -> Iterator[str]:
    """`guard serve` as a process, the pack's ensemble answering, or the classifier behind it."""
    port, metrics = servers.free_ports(2)
    address = f"127.0.0.1:{port}"
    answer = 'answer = "ensemble"\n'
    if classifier:
        answer = production(classifier, pack, work / "production.onnx")
    (work / "guard.toml").write_text(
        f'[gateway]\nlisten = "{address}"\nmetrics = "127.0.0.1:{metrics}"\n'
        f"max_in_flight = {in_flight}\n"
        f'[[models]]\nname = "{pack.name}"\npack = "{pack.resolve()}"\n{answer}'
    )
    command = [sys.executable, "-m", "guard.cli", "serve", str(work / "guard.toml")]
    process = subprocess.Popen(command, cwd=servers.ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait()


def arriving(address: str, requests: Path, deadline: float, phases: Sequence[str]) -> Rows:
    """The rows of `arrivals`, from a process of its own."""
    command = [sys.executable, "-m", "tests.bench.arrivals", address, str(requests)]
    done = subprocess.run(
        [*command, str(deadline), *phases], cwd=servers.ROOT, check=True, stdout=subprocess.PIPE
    )
    rows: Rows = np.load(io.BytesIO(done.stdout))
    return rows


def column(rows: Rows, name: str) -> Rows:
    """One column of the rows."""
    return rows[:, arrivals.COLUMNS.index(name)]


def phase(rows: Rows, index: int) -> Rows:
    """The rows of one phase."""
    return rows[column(rows, "phase") == index]


def p99(values: Rows) -> float:
    """In milliseconds; nan for none."""
    return float(np.percentile(values, 99) * 1e3) if len(values) else float("nan")


def by_second(rows: Rows, start: float) -> list[float]:
    """The p99 of each second's requests, whatever became of them."""
    second = ((column(rows, "due") - start) // 1).astype(int)
    return [p99(column(rows, "seconds")[second == n]) for n in range(second.max() + 1)]


def until_normal(after: Sequence[float], worst: float) -> float:
    """Seconds until the p99 is and stays normal; infinite where it does not come to that."""
    for n in range(len(after) - SETTLED + 1):
        if all(value <= worst for value in after[n : n + SETTLED]):
            return float(n)
    return float("inf")


def figures(rows: Rows, capacity: Sequence[float], seconds: float) -> dict[str, float]:
    """What the measurement says."""
    before, during, after = (phase(rows, n) for n in range(3))
    code = column(during, "code")
    served, refused = during[code == OK], during[code == REFUSED]
    normal = by_second(before, 0.0)
    goodput = len(served) / seconds
    return {
        "capacity": mean(capacity),
        "capacity_before": capacity[0],
        "capacity_after": capacity[1],
        "offered": len(during) / seconds,
        "goodput": goodput,
        "goodput_share": goodput / mean(capacity),
        "answers_p99_ms": p99(column(served, "seconds")),
        "refused": len(refused),
        "refusals_told_when": float(column(refused, "told").mean()) if len(refused) else 0.0,
        "refusals_p50_ms": float(np.median(column(refused, "seconds")) * 1e3),
        "refusals_p99_ms": p99(column(refused, "seconds")),
        "generator_late_p99_ms": p99(column(during, "sent") - column(during, "due")),
        "late": int((code == LATE).sum()),
        "otherwise_failed": int((~np.isin(code, (OK, LATE, REFUSED))).sum()),
        "normal_p99_ms": max(normal),
        "seconds_until_normal": until_normal(by_second(after, BEFORE + seconds), max(normal)),
        "failed_after": int((column(after, "code") != OK).sum()),
    }


def measure(
    folder: Path,
    seconds: float,
    times: float,
    deadline: float,
    in_flight: int,
    classifier: str | None = None,
) -> dict[str, float]:
    """One gateway: closed loop, open loop, closed loop."""
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(gateway(folder, work, in_flight, classifier))
        shape = Pack.load(folder).input_shape
        requests = request_file(work, folder.name, pictures(shape))
        capacity = [measure_server(address, requests, CALLERS, CLOSED)["per_second"]]
        rates = (capacity[0] / 2, capacity[0] * times, capacity[0] / 2)
        phases = [f"{r}:{s}" for r, s in zip(rates, (BEFORE, seconds, AFTER), strict=True)]
        rows = arriving(address, requests, deadline, phases)
        time.sleep(REMEMBERED + 1)  # for which the gateway keeps places for those connections
        capacity.append(measure_server(address, requests, CALLERS, CLOSED)["per_second"])
    return figures(rows, capacity, seconds)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--times", type=float, default=5.0, help="the capacity")
    parser.add_argument("--pack", type=Path, default=servers.ROOT / "models" / "cifar10")
    parser.add_argument("--in-flight", type=int, default=Gateway().max_in_flight)
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds of every request")
    parser.add_argument("--classifier", help="for example 'resnet-18 w64'")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked = parser.parse_args()
    found = measure(
        asked.pack, asked.seconds, asked.times, asked.deadline, asked.in_flight, asked.classifier
    )
    for name, value in found.items():
        print(f"{name:24}{value:10.3f}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
