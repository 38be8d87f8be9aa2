"""The forgetful disk itself."""

import errno
import random
import stat
from pathlib import Path

import pytest

from tests.durability.disk import Disk, File

FILE, FOLDER = stat.S_IFREG | 0o600, stat.S_IFDIR | 0o700


def left(disk: Disk, folder: Path, seed: int) -> dict[str, bytes]:
    """The files after a power cut."""
    folder.mkdir()
    disk.cut(folder, random.Random(seed))
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def made(disk: Disk, path: str, content: bytes) -> File:
    """A new file."""
    file = disk.make(path, FILE)
    assert isinstance(file, File)
    disk.write(path, file, 0, content)
    return file


def test_what_was_synced_stays(tmp_path: Path) -> None:
    """A synced file in a synced folder is whole after every power cut."""
    disk = Disk()
    disk.make("/a", FOLDER)
    disk.sync("/a", made(disk, "/a/one", b"1" * 5000))
    disk.sync("/a", disk.find("/a"))
    disk.sync("/", disk.root)
    for seed in range(20):
        assert left(disk, tmp_path / str(seed), seed) == {"a/one": b"1" * 5000}


def test_what_was_not_synced_may_be_whole_torn_or_gone(tmp_path: Path) -> None:
    """Names and bytes are each lost in some cuts and kept in others, and bytes are torn in some."""
    disk = Disk()
    made(disk, "/one", b"1" * 5000)
    seen = [left(disk, tmp_path / str(seed), seed).get("one") for seed in range(60)]
    assert {None, b"", b"1" * 5000} <= set(seen)
    assert any(one and 0 < one.count(b"1") < 5000 for one in seen)


def test_a_rename_is_old_or_new(tmp_path: Path) -> None:
    """Whoever replaces a file finds the one or the other afterwards, never none."""
    disk = Disk()
    disk.sync("/kept", made(disk, "/kept", b"old"))
    disk.sync("/", disk.root)
    disk.sync("/new", made(disk, "/new", b"new"))
    disk.rename("/new", "/kept")
    seen = {left(disk, tmp_path / str(seed), seed)["kept"] for seed in range(20)}
    assert seen == {b"old", b"new"}


def test_after_a_sync_that_failed_nothing_is_promised(tmp_path: Path) -> None:
    """The bytes of a failed sync are never on the disk, whatever is synced later."""
    disk = Disk()
    file = made(disk, "/one", b"1")
    disk.sync("/", disk.root)

    def failing(operation: str, _path: str, size: int) -> int:
        if operation == "sync":
            raise OSError(errno.EIO, "one")
        return size

    whole, disk.fault = disk.fault, failing
    with pytest.raises(OSError, match="one"):
        disk.sync("/one", file)
    disk.fault = whole
    disk.sync("/one", file)
    assert left(disk, tmp_path / "left", 1) == {"one": b""}
