"""Several processes that train one classifier: torchrun, gloo, a network with group norm."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from guard.errors import ConfigError
from guard.training import checkpoint
from guard.training.classifier import Machine, train
from guard.training.parallel import Team
from tests.training.toys import NATURAL, colours, stored

ROOT = Path(__file__).parents[2]
COMMAND = ("guard", "train", "classifier")
CHANGES = (
    "epochs=2", "width=4", "options.norm=group", "batch=48", "bf16=false", "augment.cutmix=0.5",
    "awp=0.005", "awp_from=0.2", "peak_rate=0.02",
    "augment.erase=0.3",
)  # fmt: skip
RECIPE = ("--recipe", "nfgsm", "--device", "cpu", *(f"--set={change}" for change in CHANGES))
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds ranks in /proc")


class Job(NamedTuple):
    """A finished training: its folder, what it said, what it printed."""

    folder: Path
    said: list[str]
    printed: str


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of three classes, as Parquet."""
    return stored(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The training by one process."""
    out = tmp_path_factory.mktemp("one")
    command = [sys.executable, "-m", *COMMAND, str(data), *RECIPE, "--out", str(out)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert found.returncode == 0, found.stderr
    return Job(out / "nfgsm", found.stderr.splitlines(), found.stdout)


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same by two, of which one is killed after the first epoch."""
    out = tmp_path_factory.mktemp("two")
    folder, lines = out / "nfgsm", []
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [sys.executable, "-m", *torchrun, "-m", *COMMAND, str(data), *RECIPE]
    with started([*command, "--out", str(out)]) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            lines.append(line.rstrip())
            if "epoch 1/2" in line:
                while not (folder / checkpoint.STATE).exists():
                    time.sleep(0.01)
                os.kill(rank(process.pid, 1), signal.SIGKILL)
        assert process.wait() == 0, "\n".join(lines)
        return Job(folder, lines, process.stdout.read())


def environment() -> dict[str, str]:
    """One thread for each process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process whose children do not outlive the test."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    late = threading.Timer(400, stop, [process])
    late.start()
    try:
        yield process
    finally:
        late.cancel()
        stop(process)
        process.wait()


def stop(process: subprocess.Popen[str]) -> None:
    """Kill it and what it started."""
    children = list(descendants(process.pid))
    process.kill()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def descendants(parent: int) -> Iterator[int]:
    """The processes that this one has started."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)


def rank(parent: int, number: int) -> int:
    """The process of that rank which torchrun has started."""
    wanted = f"\0RANK={number}\0".encode()
    for child in descendants(parent):
        if wanted in Path(f"/proc/{child}/environ").read_bytes():
            return child
    raise LookupError(number)


@linux
def test_two_processes_learn_what_one_learns(alone: Job, together: Job) -> None:
    """N-FGSM with AWP, CutMix and erasing: the same weights to 1e-5 and the same accuracies, even
    though one of the two was lost on the way. (Attacks of several signed steps and higher rates
    make much of the last bit: one GPU and another differ as much there.)"""
    mine, theirs = (
        checkpoint.load(job.folder / checkpoint.WEIGHTS)[0] for job in (alone, together)
    )
    assert mine.keys() == theirs.keys()
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-5
    rows = [(job.folder / "log.csv").read_text().splitlines()[1:] for job in (alone, together)]
    seen = [[row.split(",")[7:9] for row in one] for one in rows]
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]


@linux
def test_the_job_comes_back_after_the_loss_of_a_process(together: Job) -> None:
    """torchrun starts both again, they resume at the checkpoint and end."""
    resumed = [line for line in together.said if "resumed at epoch" in line]
    assert len(resumed) == 1
    assert "resumed at epoch 2, step" in resumed[0]
    assert not (together.folder / checkpoint.STATE).exists()


@linux
def test_only_the_lead_speaks(alone: Job, together: Job) -> None:
    """Every epoch is reported once and the ONNX file is named once."""
    for job in (alone, together):
        words = ("epoch 1/2", "epoch 2/2", "of the test pictures")
        assert [sum(word in line for line in job.said) for word in words] == [1, 1, 1]
        assert job.printed.split() == [str(job.folder) + ".onnx"]


def test_a_batch_that_does_not_divide_is_refused() -> None:
    """In one line, before anything is trained."""
    with pytest.raises(ConfigError, match=r"^a batch of 15 does not divide by 2 processes$"):
        train(
            replace(NATURAL, batch=15), colours(48, 0), colours(30, 1), 3,
            machine=Machine(team=Team(0, 2)),
        )  # fmt: skip


def test_rows_are_divided_without_a_rest() -> None:
    """Every row is somebody's, nobody's twice."""
    index = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    parts = [Team(rank, 3).rows(index) for rank in range(3)]
    assert torch.equal(torch.cat(parts), index)
    with pytest.raises(ConfigError, match="a batch of 12 does not divide by 5 processes"):
        Team(0, 5).rows(index)


def test_one_process_is_a_team() -> None:
    """Alone, nothing is averaged, wrapped or waited for."""
    team, value, model = Team(), torch.tensor([1.0, 2.0]), torch.nn.Linear(2, 2)
    team.average(value)
    team.wait()
    assert team.leads
    assert team.wrap(model) is model
    assert torch.equal(team.share(value), torch.tensor([1.0, 2.0]))
    assert torch.equal(team.neighbours(value), torch.tensor([2.0, 1.0]))
