"""What is made from files is made anew when they change, and stays when they go bad."""

import logging
import os
from pathlib import Path

import pytest

from guard.errors import ConfigError
from guard.gateway.watched import Watched, read
from tests.gateway.setting import counted


class Number:
    """Makes an int of a file, and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path, self.made = path, 0

    def __call__(self) -> int:
        """What the file holds now."""
        self.made += 1
        return int(self.path.read_text())


def replaced(path: Path, text: str) -> None:
    """The file swapped as a careful writer does."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


def test_it_is_made_once_until_the_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asking costs a look at the file; a new content, a swap and a touch are seen."""
    caplog.set_level(logging.INFO)
    make = Number(tmp_path / "one")
    make.path.write_text("1")
    watched = Watched("certificates", [str(make.path), ""], make)
    assert [watched.get() for _ in range(3)] == [1, 1, 1]
    assert make.made == 1
    replaced(make.path, "2")
    assert [watched.get(), watched.get()] == [2, 2]
    assert make.made == 2
    assert "certificates: read again" in caplog.text
    os.utime(make.path, ns=(0, 5))
    assert watched.get() == 2
    assert make.made == 3


def test_a_change_of_either_file_counts(tmp_path: Path) -> None:
    """Every path is watched, not the first alone."""
    make = Number(tmp_path / "one")
    make.path.write_text("1")
    (tmp_path / "two").write_text("")
    watched = Watched("token_keys", [str(make.path), str(tmp_path / "two")], make)
    replaced(tmp_path / "two", "x")
    watched.get()
    assert make.made == 2


def test_a_bad_file_leaves_the_last_good_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Garbage and a missing file are counted once each and logged; a good one is taken again."""
    make = Number(tmp_path / "one")
    make.path.write_text("1")
    watched = Watched("certificates", [str(make.path)], make)
    before = counted("guard_reload_failures_total", what="certificates")
    replaced(make.path, "garbage")
    assert [watched.get(), watched.get()] == [1, 1]
    make.path.unlink()
    assert [watched.get(), watched.get()] == [1, 1]
    assert counted("guard_reload_failures_total", what="certificates") == before + 2
    assert make.made == 3
    assert "the new files are not used" in caplog.text
    make.path.write_text("3")
    assert watched.get() == 3


def test_what_is_bad_at_the_start_is_raised(tmp_path: Path) -> None:
    """Whoever begins with unusable files is told, not served."""
    make = Number(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        Watched("certificates", [str(make.path)], make)


def test_an_unreadable_file_is_named_with_its_setting(tmp_path: Path) -> None:
    """One line: the setting, the path, the system's reason."""
    (tmp_path / "some").write_bytes(b"data")
    assert read(str(tmp_path / "some"), "a.key") == b"data"
    with pytest.raises(ConfigError, match=r"^a\.key: .*none: No such file") as caught:
        read(str(tmp_path / "none"), "a.key")
    assert caught.value.key == "a.key"
