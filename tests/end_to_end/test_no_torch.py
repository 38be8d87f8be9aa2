"""The serving install, in an environment of its own: no torch, and it serves."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.testing import make_pack
from tests.end_to_end.peers.servers import free_ports

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".cache" / "serving" / "bin" / "python"
SECONDS = 60

ASK = """
import sys, time
import numpy as np
import guard
from guard.client import CallError, Client

address, model, pack = sys.argv[1:]
shape = guard.Pipeline.load(pack).input_shape
images = np.full((2, *shape), 128, np.uint8)
with Client(address) as client:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if client.ready(model):
                break
        except CallError:
            time.sleep(0.1)
    answer = client.infer(model, images, outputs=["label", "probabilities", "guard_p_value"])
assert answer.outputs["label"].shape == (2,)
assert answer.outputs["probabilities"].shape[0] == 2
assert np.isfinite(answer.p_values).all()
assert [type(decision) for decision in answer.decisions] == [guard.Decision] * 2
assert not {"torch", "torchvision"} & set(sys.modules)
print(guard.__file__)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of `pip install .` without extras; installed once, guard itself every time.

    `.ci/run` prepares it; without that the first run takes half a minute.
    """
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / "deploy" / "ci" / "install", "serving"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return PYTHON


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shipped pack where there is one, else the tiny one."""
    shipped = ROOT / "models" / "signs"
    if (shipped / "manifest.json").is_file():
        return shipped
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture
def address(python: Path, pack: Path, tmp_path: Path) -> Iterator[str]:
    """`guard serve --pack`, run by the serving install away from the source tree."""
    port, metrics = free_ports(2)
    listen = f"127.0.0.1:{port}"
    command = [python.with_name("guard"), "serve", "--pack", pack, "--listen", listen]
    options = ["--metrics", f"127.0.0.1:{metrics}"]
    process = subprocess.Popen([*command, *options], cwd=tmp_path, stdout=subprocess.DEVNULL)
    yield listen
    process.terminate()
    assert process.wait(SECONDS) == 0


def run(python: Path, folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Some code in the serving install, away from the source tree."""
    command = [python, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.parametrize("module", ["torch", "torchvision", "onnxscript", "matplotlib"])
def test_the_serving_install_has_no_training_library(
    python: Path, tmp_path: Path, module: str
) -> None:
    """What training needs is not there, so nothing can lean on it by accident."""
    done = run(python, tmp_path, f"import {module}")
    assert f"No module named '{module}'" in done.stderr


def test_it_serves_and_its_client_gets_verdicts(
    python: Path, pack: Path, address: str, tmp_path: Path
) -> None:
    """A pack is served, and guard's own client gets answers and verdicts, all without torch."""
    done = run(python, tmp_path, ASK, address, pack.name, str(pack))
    assert done.returncode == 0, done.stderr
    assert PYTHON.parents[1] in Path(done.stdout.strip()).parents


def test_what_needs_torch_says_so(python: Path, tmp_path: Path) -> None:
    """`guard.load_member` without torch is one plain sentence that names the extra."""
    done = run(python, tmp_path, "import guard\nguard.load_member('pack', 'member')")
    assert "pip install 'guard[train]'" in done.stderr
    assert done.returncode == 1
