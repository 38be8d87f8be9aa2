"""Packs promoted and rolled back under load: does a request fail, does an answer mix packs?

python -m tests.bench.swap [--cycles 10] [--callers 16] [--pack models/signs]

A gateway in a process of its own, and callers that never stop and never repeat a call. A cycle
promotes two packs one after the other and rolls both back, for each model. The packs' detectors
and thresholds differ, so every number of an answer belongs to one pack only: what each pack says of
each picture is computed beforehand, without a gateway. An answer names its pack (`guard_pack`); all
of its scores, p-values and decisions must be that pack's, and a request that is sent once a
promotion was confirmed must be answered by the promoted pack. 1 when anything of this fails.

Without --pack: the tiny pack, once before an upstream that takes 20 ms, once answering itself.
"""

import argparse
import asyncio
import itertools
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from guard.client import read_answer
from guard.gateway import protocol
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.testing import clean_images, make_pack, suspicious_images
from tests.end_to_end.processes import GATEWAY, UPSTREAM, Process, free_port, started, write_config
from tests.gateway.children import make_child
from tests.gateway.wire import infer_request

Floats = NDArray[np.float32]
METHOD = "/inference.GRPCInferenceService/ModelInfer"
OUTPUTS = ("guard_scores", "guard_p_value", "guard_decision")
POOL, LARGEST = 24, 4
BUDGET = 0.05
CLOSE = 1e-4


@dataclass
class Swapped:
    """What happened. seconds: of promotions and rollbacks, as their caller saw them."""

    codes: Counter[str] = field(default_factory=Counter)
    packs: Counter[str] = field(default_factory=Counter)
    details: set[str] = field(default_factory=set)
    mixed: int = 0
    late: int = 0  # answered by the old pack though sent after the new one was confirmed
    promotions: list[float] = field(default_factory=list)
    rollbacks: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)  # bytes of the gateway after each cycle

    @property
    def good(self) -> bool:
        """Nothing failed, nothing was mixed, nothing was late."""
        return set(self.codes) == {"OK"} and not self.mixed and not self.late

    def __str__(self) -> str:
        failed = self.codes.total() - self.codes["OK"]
        p50, p99 = np.percentile(self.latencies, [50, 99]) * 1000
        return (
            f"{len(self.promotions)} promotions ({_spread(self.promotions)}), "
            f"{len(self.rollbacks)} rollbacks ({_spread(self.rollbacks)}); "
            f"{self.codes.total():,} requests: {failed} failed {sorted(self.details)[:3] or ''}, "
            f"{self.mixed} answers that mix packs, {self.late} by a pack that was gone; "
            f"answers by pack {dict(sorted(self.packs.items()))}; "
            f"latency {p50:.1f} ms (median), {p99:.1f} ms (99%); resident "
            f"{self.resident[0] / 1e6:.0f} MB after the first cycle, "
            f"{self.resident[-1] / 1e6:.0f} MB after the last"
        )


def _spread(seconds: Sequence[float]) -> str:
    return f"{np.median(seconds):.2f} s median, {max(seconds):.2f} s longest"


class Said:
    """What each pack says of each picture of the pool, by digest."""

    def __init__(self, folders: Sequence[Path], pool: Floats, secret: bytes) -> None:
        self.pool, self.names = pool, {}
        self._rows: dict[tuple[str, bool], list[Any]] = {}
        for folder in folders:
            pipeline = Pipeline.load(folder, max_false_positive_rate=BUDGET, secret=secret)
            self.names[pipeline.pack.digest] = pipeline.pack.name
            evidence = pipeline.evidence(pool)
            for asked in (False, True):  # the upstream there is says what the ensemble says
                verdicts = pipeline.judge(evidence, evidence.probabilities if asked else None)
                self._rows[pipeline.pack.digest, asked] = verdicts.rows()

    def fits(self, digest: str, chosen: Sequence[int], answer: Any, *, asked: bool) -> bool:
        """Whether every number of an answer on these pictures is this pack's."""
        for place, picture in enumerate(chosen):
            row = self._rows[digest, asked][picture]
            scores = np.array([*row.scores.values()])
            if (
                not np.allclose(answer.scores[place], scores, rtol=CLOSE, atol=CLOSE)
                or abs(float(answer.p_values[place]) - row.p_value) > CLOSE
                or answer.decisions[place] != row.decision
            ):
                return False
        return True


def swapped(cycles: int, callers: int, folder: Path, pack: Path | None = None) -> Swapped:
    """Promote and roll back so often while so many callers ask."""
    secret = secrets.token_bytes(32)
    (folder / "secret").write_bytes(secret.hex().encode())
    base = pack or make_pack(folder / "tiny")
    one = make_child(base, folder / "packs" / "one", factor=2.0, stricter=1.5)
    two = make_child(one, folder / "packs" / "two", factor=1.5, stricter=0.7)
    said = Said([base, one, two], _pool(base, own=pack is None), secret.hex().encode())
    settings = {name: str(folder / name) for name in ("packs", "state")}
    models: list[dict[str, Any]] = [{"name": "alone", "answer": "ensemble"}]
    with ExitStack() as stack:
        if pack is None:
            port = free_port()
            stack.enter_context(started(UPSTREAM, str(port), "0.02"))
            upstream = {"upstream": f"grpc://127.0.0.1:{port}", "upstream_model": "tiny"}
            models.append({"name": "asked", **upstream})
        models = [{**model, "max_false_positive_rate": BUDGET} for model in models]
        settings["secret_file"] = str(folder / "secret")
        config = write_config(folder / "guard.toml", base.resolve(), *models, **settings)
        gateway = stack.enter_context(started(GATEWAY, str(config)))
        outcome = Swapped()
        names = [str(model["name"]) for model in models]
        asyncio.run(_load(gateway, names, cycles, callers, said, outcome))
    return outcome


def _pool(pack: Path, *, own: bool) -> Floats:
    if own:
        labels = [n % 3 for n in range(POOL // 2)]
        noise = np.random.default_rng(0).normal(0, 0.01, (POOL, 3, 1, 1)).astype(np.float32)
        images = np.concatenate([clean_images(labels), suspicious_images(labels)])
        ramp = np.linspace(0, 0.03, images.shape[-1], dtype=np.float32)
        return np.clip(images + noise * np.cos(97 * ramp), 0, 1).astype(np.float32)
    shape = Pack.load(pack).input_shape
    return np.random.default_rng(0).random((POOL, *shape), np.float32)


async def _load(
    gateway: Process,
    models: Sequence[str],
    cycles: int,
    callers: int,
    said: Said,
    outcome: Swapped,
) -> None:
    over = asyncio.Event()
    confirmed: dict[str, tuple[float, str]] = {}
    async with grpc.aio.insecure_channel(gateway.address, [("grpc.enable_retries", 0)]) as channel:
        asking = [
            asyncio.create_task(_ask(channel, models, n, said, confirmed, over, outcome))
            for n in range(callers)
        ]
        await asyncio.sleep(0.5)
        for cycle in range(cycles):
            for name, fields in (
                *(("PromotePack", {"pack": pack}) for pack in ("one", "two")),
                *(("RollbackPack", {}) for _ in range(2)),
            ):
                for model in models:
                    await _change(channel, name, model, fields, confirmed, outcome)
                await asyncio.sleep(0.1)
            outcome.resident.append(gateway.resident_bytes)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{cycle + 1}/{cycles} cycles, {dict(outcome.codes)}")
        over.set()
        await asyncio.gather(*asking)


async def _change(
    channel: Any,
    name: str,
    model: str,
    fields: Mapping[str, Any],
    confirmed: dict[str, tuple[float, str]],
    outcome: Swapped,
) -> None:
    method = protocol.GUARD_METHODS[name]
    begun = time.perf_counter()
    confirmed.pop(model, None)  # from here on either pack may answer
    request = method.request(model_name=model, **fields)
    standing = await protocol.unary_call(channel, method)(request, timeout=60)
    now = time.perf_counter()
    confirmed[model] = (now, standing.current.digest)
    (outcome.promotions if name == "PromotePack" else outcome.rollbacks).append(now - begun)


async def _ask(
    channel: Any,
    models: Sequence[str],
    seed: int,
    said: Said,
    confirmed: Mapping[str, tuple[float, str]],
    over: asyncio.Event,
    outcome: Swapped,
) -> None:
    rng, call = np.random.default_rng(seed), channel.unary_unary(METHOD)
    for model in itertools.cycle(models):
        if over.is_set():
            return
        chosen = rng.integers(0, POOL, rng.integers(1, LARGEST + 1)).tolist()
        request = infer_request(said.pool[chosen], model=model, outputs=OUTPUTS)
        begun, before = time.perf_counter(), confirmed.get(model)
        try:
            data = await call(request.SerializeToString(), timeout=20)
        except grpc.aio.AioRpcError as error:
            outcome.codes[error.code().name] += 1
            outcome.details.add(str(error.details())[:100])
            continue
        outcome.latencies.append(time.perf_counter() - begun)
        outcome.codes["OK"] += 1
        answer = read_answer(protocol.ModelInferResponse.FromString(data))
        outcome.packs[said.names.get(answer.pack, "none")] += 1
        if answer.pack not in said.names or not said.fits(
            answer.pack, chosen, answer, asked=model == "asked"
        ):
            outcome.mixed += 1
        # Confirmed before it was sent, and no change began until it was answered.
        if before is not None and confirmed.get(model) == before and answer.pack != before[1]:
            outcome.late += 1


def main() -> int:
    """Print what happened; 1 when anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.swap", description=__doc__)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--pack", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GUARD_HOME"] = f"{folder}/home"  # keys of this run alone
        outcome = swapped(chosen.cycles, chosen.callers, Path(folder), chosen.pack)
    print(outcome)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
