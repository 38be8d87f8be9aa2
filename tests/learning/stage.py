"""A production classifier, a gateway in front of it that tells callers apart, and who calls it."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from guard.client import Client
from guard.data import ImageSet
from guard.data.write import write_parquet
from guard.suspects.record import Filter, Label
from guard.training.export import export_classifier
from tests.end_to_end.processes import GATEWAY, free_port, started, write_config
from tests.gateway.credentials import AUDIENCE, ISSUER, Issuer, jwks

MODEL = "production"
BUDGET = 0.05
CAMERAS = 20  # callers
AT_ONCE = 32  # images in a request
WAITING = 256  # suspects that may wait to be kept before callers pause


@dataclass(frozen=True)
class Stage:
    """A running gateway, its folder, and tokens for whoever calls it."""

    folder: Path
    address: str
    metrics: str
    issuer: Issuer

    def client(self, name: str, *roles: str) -> Client:
        """Somebody with these roles."""
        token = self.issuer.token(name, roles=list(roles), exp=time.time() + 7200)
        return Client(self.address, token=token)

    def token_file(self, name: str, *roles: str) -> Path:
        """The same, for a command."""
        path = self.folder / f"{name}.token"
        path.write_text(self.issuer.token(name, roles=list(roles), exp=time.time() + 7200))
        return path

    def p_values(self, images: Tensor) -> NDArray[np.float32]:
        """What the gateway says of images (N, C, H, W), the production model's answer included."""
        with self.client("camera-0", "client") as client:
            return np.concatenate([
                _p_values(client, images[n : n + AT_ONCE]) for n in range(0, len(images), AT_ONCE)
            ])  # fmt: skip

    def send(self, images: Tensor) -> None:
        """From all callers in turn; they wait where the gateway cannot keep up with keeping."""
        with contextlib.ExitStack() as stack:
            callers = [
                stack.enter_context(self.client(f"camera-{n}", "client")) for n in range(CAMERAS)
            ]
            for turn, first in enumerate(range(0, len(images), AT_ONCE)):
                _p_values(callers[turn % CAMERAS], images[first : first + AT_ONCE])
                while self.metric("guard_suspects_queued") > WAITING:
                    time.sleep(0.1)
        while self.metric("guard_suspects_queued"):
            time.sleep(0.1)

    def metric(self, name: str) -> float:
        """A metric without labels."""
        token = self.issuer.token("ops", roles=["operator"])
        link = http.client.HTTPConnection(self.metrics, timeout=10)
        link.request("GET", "/metrics", headers={"authorization": f"Bearer {token}"})
        lines = link.getresponse().read().decode().splitlines()
        link.close()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


@contextlib.contextmanager
def staged(
    folder: Path, pack: Path, production: nn.Module, clean: ImageSet, *, sample_rate: float
) -> Iterator[Stage]:
    """Export the production model, calibrate for it on clean pictures, serve."""
    export_classifier(production, folder / "production.onnx", shape=clean.shape)
    write_parquet(folder / "clean" / "test.parquet", clean)
    (folder / "secret").write_text(os.urandom(32).hex())
    issuer = Issuer()
    (folder / "keys.json").write_text(jwks(issuer))
    (folder / "packs").mkdir()
    metrics = f"127.0.0.1:{free_port()}"
    tokens = {"keys": "keys.json", "issuer": ISSUER, "audience": AUDIENCE, "roles_claim": "roles"}
    model = {
        "name": MODEL, "upstream": "onnx:production.onnx", "mode": "monitor", "expose": "full",
        "max_false_positive_rate": BUDGET, "queries": {"watch": False},
    }  # fmt: skip
    gateway = {
        "metrics": metrics, "secret_file": "secret", "packs": "packs", "state": "state",
        "identity": {"tokens": tokens},
    }  # fmt: skip
    path = folder / "guard.toml"
    write_config(path, pack.resolve(), model, **gateway)
    command("calibrate", path, "--data", folder / "clean", "--out", folder)
    write_config(path, pack.resolve(), model | {"calibration": f"{MODEL}.npz"}, **gateway)
    with path.open("a") as config:
        config.write(
            '\n[suspects]\nfolder = "suspects"\nkey_file = "suspect.keys"\n'
            f"sample_rate = {sample_rate}\n"
        )
    with started(GATEWAY, str(path)) as process:
        yield Stage(folder, process.address, metrics, issuer)


def command(*arguments: object, refused: bool = False) -> str:
    """Run `guard ARGUMENTS`; what it printed. refused: exit status 1 is an answer too."""
    run = [sys.executable, "-m", "guard", *map(str, arguments)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode and not (refused and done.returncode == 1):
        raise RuntimeError(f"guard {arguments[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout + (done.stderr if refused else "")


def review(
    stage: Stage, truth: dict[bytes, bool], limit: int, *, since: float = 0.0
) -> dict[str, int]:
    """Label suspects over the public calls, knowing the truth; how many of which.

    truth: whether a picture, by `fingerprint`, is an attack. since: seconds since the epoch.
    """
    sent = Filter(taken_from=since)
    counts = {"adversarial": 0, "benign": 0}
    with stage.client("analyst", "analyst") as client:
        while sum(counts.values()) < limit:
            rows = client.suspects.claim(sent, limit=min(50, limit - sum(counts.values())))
            if not rows:
                break
            said: dict[Label, list[str]] = {"adversarial": [], "benign": []}
            for row in rows:
                image = client.suspects.get(row.id).suspect.image
                attack = truth[fingerprint(image)]
                said["adversarial" if attack else "benign"].append(row.id)
            for label, ids in said.items():
                if ids:
                    client.suspects.label(
                        ids, "adversarial" if label == "adversarial" else "benign"
                    )
                counts[label] += len(ids)
    return counts


def fingerprint(image: NDArray[np.float32]) -> bytes:
    """A picture (C, H, W) of 8 bits as a key."""
    return np.rint(image * 255).astype(np.uint8).tobytes()


def show(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [table[0], ["---", *["---:"] * (len(table[0]) - 1)], *table[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def dumped(path: Path, found: object) -> None:
    """Keep results as JSON."""
    path.write_text(json.dumps(found, indent=1))


def _p_values(client: Client, images: Tensor) -> NDArray[np.float32]:
    found = client.infer(MODEL, images.numpy(), outputs=["guard_p_value"]).p_values
    assert found is not None
    return found
