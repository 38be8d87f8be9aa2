"""deploy/docs/training.md, its first section run as it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "docs" / "training.md").read_text()


def commands() -> list[list[str]]:
    """The console lines of the document, without the prompt."""
    blocks = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ guard ")) for line in lines]


def test_the_first_section_runs(tmp_path: Path) -> None:
    """Train, evaluate and attack, one after the other; every file that is promised is there."""
    said = ""
    for command in commands():
        done = subprocess.run(
            [sys.executable, "-m", "guard.cli", *command],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "2"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said += done.stdout
    assert len(commands()) == 3
    folder = tmp_path / "work" / "mine" / "nfgsm"
    for name in ("weights.safetensors", "recipe.json", "log.csv", "curves.png"):
        assert (folder / name).stat().st_size > 0
    assert folder.with_suffix(".onnx").exists()
    assert "| nfgsm |" in said
    assert list((folder.parent / "attacked").glob("*.parquet"))


def test_every_recipe_named_exists() -> None:
    """The table of recipes and the ladder agree."""
    from guard.training.ladder import LADDER
    from guard.training.recipes import RECIPES

    table = TEXT.split("| recipe | what |")[1].split("\n\n")[0]
    named = set(
        re.findall(r"`([a-z0-9-]+)`", "\n".join(x.split("|")[1] for x in table.splitlines()[2:]))
    )
    ablations = {f"adaptive{name}" for name in named if name.startswith("-")}
    named = {name for name in named if not name.startswith("-")} | ablations
    assert named == set(LADDER) | (set(RECIPES) - {"default"})
