"""`guard audit`, and deploy/docs/audit.md command by command."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guard.cli import main
from tests.gateway.audit.logs import Place, written

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "deploy" / "docs" / "audit.md").read_text()
COMMANDS = re.findall(r"^\$ guard (audit .*)$", DOCUMENT, re.MULTILINE)


def run(*arguments: object) -> Result:
    """One command in this process."""
    return CliRunner().invoke(main, ["audit", *(str(argument) for argument in arguments)])


@pytest.fixture
def there(tmp_path: Path) -> Place:
    """A log of 41 records."""
    return written(tmp_path / "log", 40)


def verified(there: Place, *more: object) -> Result:
    """`guard audit verify` of it."""
    return run(
        "verify", there.folder, "--key", there.root / "keys", "--checkpoints", there.export, *more
    )


def test_the_document_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway with the document's settings, then each of its commands: all do what they say."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guard.toml").write_text(re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)[0])
    checked = CliRunner().invoke(main, ["check", "guard.toml"])
    assert checked.exit_code == 0, checked.output
    assert "audit: kept in" in checked.output
    gateway = subprocess.Popen(
        [sys.executable, "-m", "guard.cli", "serve", "guard.toml"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert gateway.stdout is not None
    assert "guard serving signs" in gateway.stdout.readline()
    gateway.send_signal(signal.SIGTERM)
    _, said = gateway.communicate(timeout=60)
    assert gateway.returncode == 0, said
    assert "keep a copy elsewhere" in said
    assert len(COMMANDS) >= 7
    for command in COMMANDS:
        done = run(*shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.output)
    events = [
        json.loads(line)["event"]
        for line in run("show", "audit", "--json").output.split("\n")
        if line
    ]
    assert events == ["log.begin", "gateway.pack", "gateway.start", "gateway.stop"]


def test_verify_tells_by_its_exit_status(there: Place, tmp_path: Path) -> None:
    """0 intact, 1 changed, 2 not to be verified; each with a line that says so."""
    done = verified(there)
    assert (done.exit_code, "intact: records 1 to 41" in done.output) == (0, True)
    there.rewrite(lambda lines: [*lines[:9], *lines[10:]])
    done = verified(there)
    assert done.exit_code == 1
    assert done.output.splitlines()[0].startswith("DELETE: segment-000000000000001.jsonl record 10")
    assert "NOT INTACT" in done.output
    for arguments in (
        ("verify", tmp_path, "--key", there.root / "keys"),
        ("verify", there.folder, "--key", tmp_path / "none"),
        ("verify", there.folder, "--key", there.root / "keys", "--checkpoints", tmp_path / "log"),
        ("verify", there.folder),
    ):
        assert run(*arguments).exit_code == 2, arguments


def test_verify_reports_as_json(there: Place) -> None:
    """A program reads the same report."""
    report = json.loads(verified(there, "--json").output)
    assert (report["ok"], report["records"], report["signed"]) == (True, 41, 41)
    there.rewrite(lambda lines: [*lines[:9], lines[10], lines[9], *lines[11:]])
    report = json.loads(verified(there, "--json").output)
    assert not report["ok"]
    assert report["findings"][0]["kind"] == "reorder"
    assert report["findings"][0]["record"] == 10


def test_show_filters_and_cannot_steer_a_terminal(there: Place) -> None:
    """By event, time and subject; control characters in a changed file are not printed."""
    assert len(run("show", there.folder).output.splitlines()) == 41
    assert len(run("show", there.folder, "--event", "admin").output.splitlines()) == 40
    assert len(run("show", there.folder, "--event", "log.begin").output.splitlines()) == 1
    assert not run("show", there.folder, "--until", "2020").output
    assert len(run("show", there.folder, "--since", "2020").output.splitlines()) == 41
    assert run("show", there.folder, "--actor", "alice").exit_code == 2
    assert not run("show", there.folder, "--actor", "a", "--key", there.root / "keys").output
    there.rewrite(lambda ls: [b'{"event":"\\u001b[2J\\u0085"}', b"\x1b[2J", *ls])
    output = run("show", there.folder).output
    assert "unreadable" in output
    assert "\x1b" not in output
    assert run("show", there.root).exit_code == 2


def test_keys_rotate_and_are_copied_for_readers(there: Place, tmp_path: Path) -> None:
    """A reader's copy verifies; it neither finds subjects nor rotates, and overwrites nothing."""
    keys, copy = there.root / "keys", tmp_path / "reader"
    assert "key 2" in run("rotate", keys).output
    assert run("reader", keys, copy).exit_code == 0
    assert copy.stat().st_mode & 0o077 == 0
    assert run("verify", there.folder, "--key", copy).exit_code == 0
    assert run("show", there.folder, "--actor", "a", "--key", copy).exit_code == 2
    assert run("rotate", copy).exit_code == 2
    assert run("reader", keys, copy).exit_code == 2
    assert "seed" not in copy.read_text()
