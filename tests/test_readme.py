"""What the documents show is what the code does."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from guard import metrics
from guard.config import Config, load_config, settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PACKS = ("models/signs", "models/gtsrb", "models/cifar10")


def between(text: str, mark: str) -> str:
    """What stands between <!-- mark --> and <!-- /mark -->."""
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, re.DOTALL)
    assert found, mark
    return found[1].strip()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def settings_table() -> str:
    """The settings as the README must show them."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for key, default, text in settings():
        shown = "required" if default is msgspec.NODEFAULT else f"`{default!r}`"
        lines.append(f"| `{key}` | {shown} | {text} |")
    return "\n".join(lines)


def test_every_setting_is_documented_as_it_is() -> None:
    """The README's settings table is the one the code gives."""
    assert between(README, "settings") == settings_table()


def test_the_example_config_is_valid(tmp_path: Path) -> None:
    """The first toml block loads, as written, into a config."""
    (tmp_path / "guard.toml").write_text(blocks(README, "toml")[0])
    assert isinstance(load_config(tmp_path / "guard.toml"), Config)


def test_the_python_example_runs() -> None:
    """The Python block runs from the checkout and prints a verdict a picture."""
    code = blocks(README, "python")[0]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 8


def test_metrics_named_in_the_readme_exist() -> None:
    """Every guard_ metric in the README's metrics section is registered."""
    section = README.split("## Metrics")[1].split("##")[0]
    families = {family.name for family in metrics.REGISTRY.collect()}
    names = {name.removesuffix("_total") for name in re.findall(r"`(guard_\w+)`", section)}
    assert names
    assert names <= families | {name.removesuffix("_info") for name in names & families}


def test_commands_named_in_the_readme_exist() -> None:
    """Every command of the command line is named in the README, and no other."""
    from guard.cli import main

    section = README.split("## Commands")[1].split("##")[0]
    named = set(re.findall(r"`(?:guard )?([a-z]+(?: [a-z]+)?)`", section))
    real = set()
    for name, command in main.commands.items():
        inner = getattr(command, "commands", None)
        shown = {sub for sub, one in (inner or {}).items() if not one.hidden}
        real |= {f"{name} {sub}" for sub in shown} if inner else {name}
    assert named == real


def test_the_figures_are_the_packs_own() -> None:
    """The README's figures are the ones in the packs' manifests."""
    from guard.evaluation.card import overview
    from guard.pack import Pack

    manifests = [Pack.load(ROOT / folder).manifest for folder in PACKS]
    assert between(README, "card") == overview(manifests)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy" / "docs").glob("*.md")), ids=lambda p: p.name
)
def test_toml_in_the_documents_parses(path: Path) -> None:
    """Every toml block in the documents is TOML."""
    for block in blocks(path.read_text(), "toml"):
        tomllib.loads(block)
