"""deploy/docs/your-own-classifier.md, command by command, as its reader would run it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guard.client import Client
from guard.data import ImageSet, read, signs

DOCUMENT = Path(__file__).parents[2] / "deploy" / "docs" / "your-own-classifier.md"
COMMAND = [sys.executable, "-m", "guard.cli"]


def guard(*arguments: str, cwd: Path) -> str:
    """Run one command of the document; its output."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(*command: str, cwd: Path) -> Iterator[str]:
    """A server in a process of its own; yields the address of its first line."""
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " on " in line, line
        yield line.split(" on ")[1].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        if process.stdout is not None:
            process.stdout.close()


def write_folders(images: ImageSet, folder: Path) -> None:
    """Pictures by class, as PNG."""
    for index, (picture, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / images.classes[label]
        path.mkdir(parents=True, exist_ok=True)
        pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
        Image.fromarray(pixels).save(path / f"{index}.png")


def your_pictures(kind: str) -> dict[str, ImageSet]:
    """MNIST from GUARD_DATA, or procedural signs."""
    if kind == "signs":
        return {"train": signs.make(1000, seed=31), "test": signs.make(320, seed=32)}
    if "GUARD_DATA" not in os.environ:
        pytest.skip("GUARD_DATA is not set: no MNIST")
    folder = Path(os.environ["GUARD_DATA"]) / "mnist"
    counts = {"train": 1000, "test": 320}
    return {split: read(folder, split).subset(slice(0, n)) for split, n in counts.items()}


@pytest.mark.parametrize("kind", ["mnist"] if "GUARD_DATA" in os.environ else ["signs", "mnist"])
def test_from_a_folder_of_pictures_to_a_guarded_server(kind: str, tmp_path: Path) -> None:
    """Train "your" server, build a pack, calibrate, check, serve, infer: nothing else is needed."""
    for split, images in your_pictures(kind).items():
        write_folders(images, tmp_path / "pictures" / split)
    train = "train classifier pictures --quick --member referee --out server"
    guard(*train.split(), cwd=tmp_path)
    guard(*["pack", "build", "pictures", "--out", "packs/mine", "--quick"], cwd=tmp_path)
    assert "undetected" in (tmp_path / "packs/mine/MODEL_CARD.md").read_text().lower()
    config = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    model = ["-m", "guard.gateway.standalone", "server/referee.onnx", "--name", "production"]
    with served(sys.executable, *model, "--listen", "127.0.0.1:0", cwd=tmp_path) as upstream:
        text = config.replace("127.0.0.1:9001", upstream).replace("127.0.0.1:8001", "127.0.0.1:0")
        text = text.replace('metrics = "127.0.0.1:9100"', 'metrics = ""')
        uncalibrated = "\n".join(x for x in text.splitlines() if "calibration" not in x)
        (tmp_path / "guard.toml").write_text(uncalibrated)
        said = guard(
            *["calibrate", "guard.toml", "--data", "pictures", "--split", "test"], cwd=tmp_path
        )
        assert "production.npz" in said
        (tmp_path / "guard.toml").write_text(text)
        assert "calibration: 320 images" in guard("check", "guard.toml", cwd=tmp_path)
        with served(*COMMAND, "serve", "guard.toml", cwd=tmp_path) as address:
            _infer(tmp_path, address, upstream)


def _infer(folder: Path, address: str, upstream: str) -> None:
    """Pictures through the gateway and past it: the same logits, bit for bit, and a verdict."""
    pictures = read(folder / "pictures", "test").subset(slice(0, 16)).pixels()
    with Client(address) as guarded, Client(upstream) as direct:
        answer = guarded.infer("production", pictures, outputs=["logits", "guard_decision"])
        plain = direct.infer("production", pictures, outputs=["logits"])
    assert np.array_equal(answer.outputs["logits"], plain.outputs["logits"])
    assert len(answer.decisions) == 16
