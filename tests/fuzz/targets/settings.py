"""Settings and policies: `guard.toml` as bytes, and verdicts under any policy on any numbers."""

import io
import random
import struct
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from guard import calibration
from guard.config import canonical, load_config, settings, split_address
from guard.errors import ConfigError
from guard.explain import explain_audit
from guard.pipeline import Evidence, Pipeline
from guard.testing import make_pack
from guard.verdict import Decision, Policy
from tests.fuzz.mutate import mutate
from tests.fuzz.structure import change_lines, change_zip
from tests.fuzz.target import Target, demand

ROOT = Path(__file__).parents[3]
MODES = ("monitor", "enforce")
ON_FLAG = ("annotate", "substitute", "block")
ODD = (np.nan, np.inf, -np.inf, 0.0, 1.0, 0.01, 0.5, -1.0, 3e38, 1e-45, 2.0)


def _toml() -> list[bytes]:
    """The TOML blocks of the documents, a whole file each or a part of one."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "deploy" / "docs").glob("*.md"))):
        blocks = path.read_text().split("```toml\n")[1:]
        found += [block.split("```")[0].encode() for block in blocks]
    return found


class Settings(Target):
    """A settings file: read, or refused in one line that names the file."""

    name = "config"
    errors = (ConfigError,)
    words = tuple(
        word.encode()
        for word in (
            *(key.rpartition(".")[2] + " = " for key, _, _ in settings()),
            *("[gateway]\n", "[[models]]\n", "[models.input]\n", "[gateway.tls]\n", '"', "'''"),
            *("[gateway.identity.tokens]\n", "[[gateway.identity.grants]]\n", "[gateway.audit]\n"),
            *('"grpc://127.0.0.1:1"', '"onnx:x"', '"0.0.0.0:1"', '"[::1]:1"', "inf", "1_0", "0x7f"),
            *("1979-05-27T07:32:00Z", "= " + "[" * 500, "a." * 500 + "b = 1\n", "\\uD800", "\r"),
        )
    )
    good = 3
    structured = 0.8

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Other lines."""
        return change_lines(data, rng, self.words)

    def seeds(self) -> list[bytes]:
        """A full file, then whatever the documents show."""
        least = b'[[models]]\nname = "m"\npack = "p"\nanswer = "ensemble"\n'
        return [FULL, least, *_toml(), b""]

    def run(self, data: bytes) -> Hashable:
        """Load it, and say what `guard check` says first."""
        path = self.folder / "guard.toml"
        path.write_bytes(data)
        try:
            config = load_config(path)
        except ConfigError as error:
            demand("guard.toml" in str(error) or error.key, f"which file or key? {error}")
            raise
        demand(canonical(config) == canonical(load_config(path)), "read twice, two settings")
        split_address(config.gateway.listen, key="gateway.listen")
        for model in config.models:
            budget = config.policy(model).max_false_positive_rate
            demand(0 < budget < 1, f"a budget of {budget}")
        if not config.gateway.audit.folder:
            list(explain_audit(config.gateway.audit))
        return len(config.models), config.models[0].answer, config.gateway.insecure


class Policies(Target):
    """Any numbers under any policy: nothing that is not finite is ever let through.

    The first bytes are the policy, the rest float32: per image one evidence value, three
    probabilities and three of the upstream's.
    """

    name = "policy"
    errors = (ConfigError,)
    good = 6

    def __init__(self) -> None:
        super().__init__()
        self._pipeline = Pipeline.load(make_pack(self.folder / "tiny"), threads=1)

    def seeds(self) -> list[bytes]:
        """Each policy on a few images, quiet and loud."""
        rows = np.array(
            [
                [0.0, 0.9, 0.05, 0.05, 0.9, 0.05, 0.05],
                [0.3, 0.1, 0.8, 0.1, 0.9, 0.05, 0.05],
                [0.04, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0],
            ],
            "<f4",
        )
        return [
            struct.pack("<BBBf", mode, on_flag, upstream, 0.01) + rows.tobytes()
            for mode in (0, 1)
            for on_flag in (0, 1, 2)
            for upstream in (0, 1)
        ]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """A number replaced by an odd one."""
        if len(data) < 11:
            return mutate(data, rng, (), ())
        at = 7 + rng.randrange((len(data) - 7) // 4) * 4
        number = struct.pack("<f", rng.choice(ODD))
        return data[:at] + number + data[at + 4 :]

    def run(self, data: bytes) -> Hashable:
        """Judge the rows; the rules of the design, written again."""
        if len(data) < 7 + 28:
            return "too short"
        mode, on_flag, with_upstream, budget = struct.unpack("<BBBf", data[:7])
        policy = Policy(
            mode=MODES[mode % 2],  # type: ignore[arg-type]
            on_flag=ON_FLAG[on_flag % 3],  # type: ignore[arg-type]
            max_false_positive_rate=budget,
        )
        rows = np.frombuffer(data[7 : 7 + (len(data) - 7) // 28 * 28], "<f4").reshape(-1, 7)
        count = len(rows)
        evidence = Evidence(rows[:, :1].copy(), rows[:, 1:4].copy(), np.zeros(count, np.int64))
        upstream: Any = rows[:, 4:].copy() if with_upstream % 2 else None
        with np.errstate(all="ignore"):
            verdicts = self._pipeline.judge(evidence, upstream, policy)
        seen = rows if upstream is not None else rows[:, :4]
        finite = np.isfinite(seen).all(axis=1)
        for index, row in enumerate(verdicts.rows()):
            _check(row, bool(finite[index]), policy)
        return policy.mode, policy.on_flag, tuple(sorted(set(verdicts.decisions.tolist())))


def _check(row: Any, finite: bool, policy: Policy) -> None:
    if not finite:
        demand(row.decision is Decision.ERROR, f"{row.decision} on a number that is not finite")
    if row.decision is Decision.ERROR:
        demand(not row.substituted, "an ERROR was substituted")
        return
    demand(0 < row.p_value <= 1, f"p = {row.p_value}")
    clear = row.p_value > policy.max_false_positive_rate
    demand((row.decision is Decision.ALLOW) == clear, f"{row.decision} at p = {row.p_value}")
    blocks = policy.mode == "enforce" and policy.on_flag == "block"
    demand(clear or row.decision is (Decision.BLOCK if blocks else Decision.FLAG), "wrong alarm")
    wanted = not clear and policy.mode == "enforce" and policy.on_flag == "substitute"
    demand(row.substituted == wanted, "substituted")


class Calibrations(Target):
    """A calibration file: read, or refused; what is read gives p-values in (0, 1]."""

    name = "npz"
    words = (
        b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"about.npy", b"alone.npy", b"\x93NUMPY\x01\0",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (", b"'|O'", b"'<U999999'", b"'V9'",
    )  # fmt: skip
    good = 2
    structured = 0.8

    def seeds(self) -> list[bytes]:
        """A small calibration, the same compressed, a real one, and a bomb."""
        folder = make_pack(self.folder / "tiny")
        real = (folder / "calibration.npz").read_bytes()
        table = np.zeros((3, 1), np.float32)
        small = calibration.dump(
            {"alone": calibration.Calibration.fit(["a"], table, about={"x": "y"})}
        )
        packed, bomb = io.BytesIO(), io.BytesIO()
        with np.load(io.BytesIO(small)) as stored:
            np.savez_compressed(packed, **stored)
            np.savez_compressed(bomb, **{**stored, "alone": np.zeros((20 << 20, 1), np.float32)})
        return [small, packed.getvalue(), real, bomb.getvalue()]

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:
        """Another member."""
        return change_zip(data, rng, self.words)

    def run(self, data: bytes) -> Hashable:
        """Load it and use it."""
        found = calibration.load(data)
        for entry in found.values():
            p = entry.p_values(np.array([[0.01] * len(entry.names)], np.float32))
            demand(bool(((p > 0) & (p <= 1)).all()), "a p-value outside (0, 1]")
        return tuple(sorted((key, len(entry.names)) for key, entry in found.items()))


FULL = b"""
[gateway]
listen = "127.0.0.1:8001"
metrics = "127.0.0.1:9100"
max_in_flight = 64
request_timeout = 30.0
reflection = false
passthrough_rpcs = ["ModelConfig"]
[gateway.tls]
cert = "a.pem"
key = "a.key"
client_ca = "ca.pem"
[gateway.identity.tokens]
keys = "keys.json"
issuer = "i"
audience = "a"
leeway = 30.0
[[gateway.identity.grants]]
match = "spiffe://prod/cameras/*"
roles = ["client"]
tenant = "cameras"
[[models]]
name = "production"
pack = "models/cifar10"
upstream = "grpcs://127.0.0.1:9001"
mode = "enforce"
on_flag = "block"
max_false_positive_rate = 0.01
expose = "decision"
[models.tls]
ca = "up.pem"
[models.input]
tensor = "images"
layout = "NHWC"
scale = 255.0
mean = [0.4, 0.5, 0.6]
std = [0.2, 0.2, 0.2]
[models.output]
kind = "logits"
classes = ["a", "b"]
"""
