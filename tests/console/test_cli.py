"""`guard console`: who may log in, and the command that serves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guard.cli import main
from guard.console.users import matches, read_users
from tests.console.stock import PACK, PASSWORD, ROOT

CONFIG = """
[gateway]
listen = "127.0.0.1:0"
metrics = ""
[gateway.audit]
folder = "audit"
key_file = "keys/audit.key"
[suspects]
folder = "kept"
key_file = "keys/suspects.key"
[console]
listen = "127.0.0.1:0"
users_file = "users.json"
[[models]]
name = "signs"
pack = "{pack}"
answer = "ensemble"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with settings and a password in a file."""
    (tmp_path / "guard.toml").write_text(CONFIG.format(pack=PACK))
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    """A command about the users of this folder."""
    users = ("--users", str(folder / "users.json")) if "user" in arguments[0] else ()
    return CliRunner().invoke(main, ["console", *arguments, *users])


def add(folder: Path, name: str, *options: str) -> Result:
    """Add somebody with the password in the file."""
    return run(folder, "adduser", name, "--password-file", str(folder / "password"), *options)


def test_people_come_and_go(folder: Path) -> None:
    """Somebody is added, changed, taken out; others stay as they are."""
    assert add(folder, "ada").exit_code == 0
    assert add(folder, "ben", "--role", "trainer", "--role", "analyst").exit_code == 0
    assert add(folder, "ada", "--tenant", "north").exit_code == 0
    users = read_users(folder / "users.json")
    assert (users["ada"].roles, users["ada"].tenant) == (("analyst",), "north")
    assert users["ben"].roles == ("trainer", "analyst")
    assert matches(PASSWORD, users["ada"].secret)
    assert run(folder, "deluser", "ada").exit_code == 0
    assert list(read_users(folder / "users.json")) == ["ben"]


def test_what_is_wrong_is_said_in_a_line(folder: Path) -> None:
    """Names, roles and passwords that will not do, users that are not there."""
    cases = [
        (add(folder, "a b"), 2, "a name has letters"),
        (add(folder, "ada", "--role", "boss"), 2, "'boss' is none of"),
        (
            run(folder, "adduser", "ada", "--password-file", str(folder / "none")),
            2,
            "cannot be read",
        ),
        (run(folder, "deluser", "eve"), 1, "there is no 'eve'"),
        (run(folder, "adduser", "ada"), 2, "no terminal"),
    ]
    (folder / "password").write_text("short")
    cases.append((add(folder, "ada"), 2, "10 characters at least"))
    for result, code, text in cases:
        assert result.exit_code == code, result.output
        assert text in result.output
        assert len(result.output.strip().splitlines()) == 1
    assert not (folder / "users.json").exists()


def test_the_console_says_what_it_lacks(folder: Path) -> None:
    """No users file, nothing to listen on, nothing to review: exit status 2 and the key."""
    path = folder / "guard.toml"
    assert "users_file" in run(folder, str(path)).output
    text = path.read_text()
    path.write_text(text.replace('[console]\nlisten = "127.0.0.1:0"', "[console]"))
    assert "console.listen: must be set" in run(folder, str(path)).output
    path.write_text(text.replace('listen = "127.0.0.1:0"\nusers', 'listen = "0.0.0.0:0"\nusers'))
    assert "unencrypted" in run(folder, str(path)).output
    path.write_text(text.replace('[suspects]\nfolder = "kept"\nkey_file = "keys/suspects.key"', ""))
    result = run(folder, str(path))
    assert result.exit_code == 2
    assert "console.listen: there is nothing to review" in result.output


@pytest.mark.parametrize("command", [["console"], ["serve"]], ids=" ".join)
def test_it_serves_until_it_is_told_to_stop(folder: Path, command: list[str]) -> None:
    """Alone or in the gateway: one line says where, SIGTERM ends it with 0, a log of its own."""
    add(folder, "ada")
    process = subprocess.Popen(
        [sys.executable, "-m", "guard", *command, str(folder / "guard.toml")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if command == ["serve"]:
        assert "guard serving" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert line.startswith("console at http://127.0.0.1:"), errors
    assert process.returncode == 0, errors
    assert (folder / ("audit-console" if command == ["console"] else "audit")).is_dir()
