"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from guard.durable import sync_folder, write_whole


def test_only_the_owner_may_read_it_and_no_draft_stays(tmp_path: Path) -> None:
    """What was there is replaced by all of the bytes, with mode 0600, and nothing lies beside."""
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_whole(path, b"new" * 1000)
    assert path.read_bytes() == b"new" * 1000
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    """Where the name is taken, `new` fails, keeps what was there and leaves no draft."""
    path = tmp_path / "key"
    write_whole(path, b"first", new=True)
    with pytest.raises(FileExistsError):
        write_whole(path, b"second", new=True)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_durable_before_they_get_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synchronised while only its draft's name exists, the folder after the rename."""
    path, seen = tmp_path / "key", []
    real = os.fsync

    def watched(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"
        seen.append((kind, path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_whole(path, b"bytes")
    assert seen == [("file", False), ("folder", True)]


def test_a_disk_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the bytes cannot be made durable, the old file stays and the error comes out."""
    path = tmp_path / "key"
    path.write_bytes(b"old")

    def failing(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_a_folder_is_synchronised_as_one(tmp_path: Path) -> None:
    """`sync_folder` of a file is an error, not a silent nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        sync_folder(path)
