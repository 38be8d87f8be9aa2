"""A training that is killed loses nothing."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from guard.training import checkpoint
from guard.training.classifier import train
from tests.training.toys import NATURAL, colours, equal

RECIPE = replace(NATURAL, attacks={"pgd": 1.0, "nfgsm": 1.0}, steps=2, eps=0.05, epochs=3)
PROGRAM = """
import sys, time
from pathlib import Path
from guard.training.classifier import Machine, train
from tests.training.test_killed import RECIPE
from tests.training.toys import colours

def tick(progress):
    print(f"{progress:.3f}", flush=True)
    time.sleep(0.05)

machine = Machine(save_every=0.0, tick=tick)
train(RECIPE, colours(160, 0), colours(30, 1), 3, folder=Path(sys.argv[1]), machine=machine)
"""


def test_kill_9_in_the_middle_of_an_epoch_changes_nothing(tmp_path: Path) -> None:
    """Killed by SIGKILL in its second epoch and resumed, a training ends with the very same
    weights as one that nobody disturbed, bit for bit."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if float(line) > 0.45:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(60) == -signal.SIGKILL
    _, about = checkpoint.load(tmp_path / checkpoint.STATE)
    epochs, step = about["at"]
    assert epochs == 1
    assert 0 < step < 10
    lines: list[str] = []
    pictures, held = colours(160, 0), colours(30, 1)
    resumed = train(RECIPE, pictures, held, 3, folder=tmp_path, log=lines.append)
    assert lines[0] == f"resumed at epoch 2, step {step}"
    assert equal(resumed, train(RECIPE, pictures, held, 3))
