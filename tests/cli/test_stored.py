"""`guard suspects verify` and `backup`, on a store that a gateway of the same settings uses."""

import json
from pathlib import Path

import apsw
import pytest
from click.testing import CliRunner, Result

from guard.cli import main
from guard.suspects.opening import open_keys, open_store
from tests.suspects.samples import suspect

SETTINGS = """
[suspects]
folder = "kept"
key_file = "keys/suspects.key"

[[models]]
name = "signs"
pack = "{pack}"
answer = "ensemble"
"""
PACK = Path(__file__).parents[2] / "models" / "signs"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings whose store has three suspects."""
    path = tmp_path / "guard.toml"
    path.write_text(SETTINGS.format(pack=PACK))
    keys = open_keys(str(tmp_path / "keys" / "suspects.key"))
    store = open_store(keys, folder=str(tmp_path / "kept"))
    store.put([suspect(store, seed) for seed in range(3)])
    store.close()
    return path


def run(*arguments: object, status: int = 0) -> Result:
    """A command; its exit status must be the one expected, its errors one plain line."""
    result = CliRunner().invoke(main, ["suspects", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def test_a_sound_store_is_said_to_be(config: Path) -> None:
    """Exit status 0, a line, and the same as JSON."""
    assert run("verify", config).output == "3 suspects, 0 unreadable\n"
    found = json.loads(run("verify", config, "--json").output)
    assert found == {"suspects": 3, "unreadable": 0, "why": []}


def test_a_suspect_that_does_not_open_is_named(config: Path) -> None:
    """Exit status 1, and which one for what reason."""
    records = sorted((config.parent / "kept" / "records").iterdir())
    records[0].write_bytes(b"GSUS\1" + bytes(99))
    name = records[0].name.partition("-")[0]
    output = run("verify", config, status=1).output
    assert output.splitlines() == [
        f"suspect {name}: its sealed record was altered, or is another's",
        "3 suspects, 1 unreadable",
    ]
    assert json.loads(run("verify", config, "--json", status=1).output)["unreadable"] == 1


def test_a_backup_is_a_whole_index_in_one_file(config: Path) -> None:
    """Of mode 0600, with every row and no log beside it; never over another file."""
    out = config.parent / "backup.sqlite3"
    assert run("backup", config, out).output == f"{out}: the index of 3 suspects\n"
    assert out.stat().st_mode & 0o777 == 0o600
    copy = apsw.Connection(str(out), flags=apsw.SQLITE_OPEN_READONLY)
    assert list(copy.execute("SELECT count(*) FROM suspects")) == [(3,)]
    copy.close()
    assert [path.name for path in config.parent.glob("backup*")] == ["backup.sqlite3"]
    assert "File exists" in run("backup", config, out, status=1).output


def test_settings_without_suspects_are_misuse(tmp_path: Path) -> None:
    """Exit status 2, and nothing is made."""
    path = tmp_path / "guard.toml"
    path.write_text(f'[[models]]\nname = "signs"\npack = "{PACK}"\nanswer = "ensemble"\n')
    assert "keeps no suspects" in run("verify", path, status=2).output
    assert list(tmp_path.iterdir()) == [path]


def test_a_lost_key_is_one_plain_line(config: Path) -> None:
    """Exit status 1, what is missing, and what to do."""
    (config.parent / "keys" / "suspects.key").unlink()
    assert "restore it from its own backup" in run("verify", config, status=1).output
