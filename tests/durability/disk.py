"""A disk that forgets: what was not fsynced may be lost, in whole, in part or out of order.

Harsher than most file systems, and allowed by POSIX: the bytes of a file survive where that file
was synced; its name survives where its folder was synced. Of what was not, a power cut keeps
whatever `random` says: writes in any subset, each torn between sectors, names one by one.
"""

import errno
import itertools
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SECTOR = 512
Change = tuple[int, bytes | None]  # where, and what is written there; None: cut off there
Fault = Callable[[str, str, int], int]  # operation, path, bytes ─► how many bytes go through


@dataclass(eq=False)
class File:
    """A file's bytes, and those that a power cut leaves."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    kept: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def change(self, at: int, data: bytes | None) -> None:
        """Write `data` at `at`, or cut the file off (or stretch it) there."""
        _apply(self.data, (at, data))
        self.pending.append((at, data))

    def sync(self) -> None:
        """All of it survives."""
        for change in self.pending:
            _apply(self.kept, change)
        self.pending.clear()

    def forget(self) -> None:
        """A sync failed: programs still see the bytes, the disk will never have them."""
        self.pending.clear()

    def cut(self, chance: random.Random) -> bytes:
        """What is left after a power cut."""
        left = bytearray(self.kept)
        share = chance.choice((0.0, 0.5, 0.9, 1.0))
        for at, data in self.pending:
            if data is None or chance.random() < share:
                _apply(left, (at, data))
            else:
                for sector in _sectors(at, data):
                    if chance.random() < share / 2:
                        _apply(left, sector)
        return bytes(left)


@dataclass(eq=False)
class Folder:
    """A folder's names, and those that a power cut leaves."""

    mode: int
    names: dict[str, "File | Folder"] = field(default_factory=dict)
    kept: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[tuple[str, "File | Folder | None"]] = field(default_factory=list)

    def set(self, name: str, node: "File | Folder | None") -> None:
        """Give a name to a file or a folder; None takes it away."""
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node
        self.pending.append((name, node))

    def sync(self) -> None:
        """Its names survive."""
        self.kept = dict(self.names)
        self.pending.clear()

    def forget(self) -> None:
        """A sync failed."""
        self.pending.clear()

    def cut(self, chance: random.Random) -> dict[str, "File | Folder"]:
        """What is left after a power cut: of each name's changes, the first few."""
        left = dict(self.kept)
        share = chance.choice((0.0, 0.5, 1.0))
        stopped: set[str] = set()
        for name, node in self.pending:
            if name in stopped or chance.random() >= share:
                stopped.add(name)
            elif node is None:
                left.pop(name, None)
            else:
                left[name] = node
        return left


Node = File | Folder


class Disk:
    """A tree of files. Operations raise OSError; paths begin with a slash.

    fault: asked before writes and syncs; raises, or says how many bytes go through (short write).
    lies: a sync of a path that this holds of does nothing; shows that a test would notice.
    """

    def __init__(self) -> None:
        self.root = Folder(stat.S_IFDIR | 0o700)
        self.fault: Fault = lambda _operation, _path, size: size
        self.lies: Callable[[str], bool] = lambda _path: False
        self.synced = 0

    def find(self, path: str) -> Node:
        """What is at a path."""
        node: Node = self.root
        for part in PurePosixPath(path).parts[1:]:
            if not isinstance(node, Folder):
                raise OSError(errno.ENOTDIR, path)
            if part not in node.names:
                raise OSError(errno.ENOENT, path)
            node = node.names[part]
        return node

    def folder(self, path: str) -> tuple[Folder, str]:
        """The folder that a path is in, and its name there."""
        where = PurePosixPath(path)
        node = self.find(str(where.parent))
        if not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, path)
        return node, where.name

    def make(self, path: str, mode: int) -> Node:
        """A new empty file or folder, as `mode` says."""
        parent, name = self.folder(path)
        if name in parent.names:
            raise OSError(errno.EEXIST, path)
        self.fault("make", path, 0)
        node: Node = Folder(mode) if stat.S_ISDIR(mode) else File(mode)
        parent.set(name, node)
        return node

    def remove(self, path: str) -> None:
        """Take a name away."""
        parent, name = self.folder(path)
        node = self.find(path)
        if isinstance(node, Folder) and node.names:
            raise OSError(errno.ENOTEMPTY, path)
        parent.set(name, None)

    def rename(self, old: str, new: str) -> None:
        """Within a name atomic, between two names not."""
        node = self.find(old)
        here, name = self.folder(old)
        there, other = self.folder(new)
        there.set(other, node)
        here.set(name, None)

    def link(self, path: str, new: str) -> None:
        """A second name of a file."""
        parent, name = self.folder(new)
        if name in parent.names:
            raise OSError(errno.EEXIST, new)
        parent.set(name, self.find(path))

    def write(self, path: str, file: File, at: int, data: bytes) -> int:
        """Bytes written; as many as the fault lets through."""
        size = self.fault("write", path, len(data))
        file.change(at, data[:size])
        return size

    def truncate(self, path: str, file: File, size: int) -> None:
        """Cut a file off, or stretch it with zeros."""
        self.fault("truncate", path, 0)
        file.change(size, None)

    def sync(self, path: str, node: Node) -> None:
        """Make a file's bytes, or a folder's names, survive."""
        try:
            self.fault("sync", path, 0)
        except OSError:
            node.forget()
            raise
        self.synced += 1
        if not self.lies(path):
            node.sync()

    def load(self, folder: Path) -> None:
        """Begin with what a real folder holds, all of it durable."""
        _load(self.root, folder)

    def cut(self, folder: Path, chance: random.Random) -> None:
        """A power cut: what is left of it goes to a real, empty folder."""
        _dump(self.root, folder, chance)


def _sectors(at: int, data: bytes) -> list[Change]:
    """A write in pieces that a disk writes whole."""
    first = SECTOR - at % SECTOR
    edges = [0, *range(first, len(data), SECTOR), len(data)]
    return [(at + start, data[start:end]) for start, end in itertools.pairwise(edges)]


def _apply(data: bytearray, change: Change) -> None:
    at, new = change
    if new is None:
        del data[at:]
    if len(data) < at:
        data.extend(bytes(at - len(data)))
    if new is not None:
        data[at : at + len(new)] = new


def _load(node: Folder, folder: Path) -> None:
    for path in folder.iterdir():
        mode = path.stat().st_mode
        if path.is_dir():
            child: Node = Folder(mode)
            assert isinstance(child, Folder)
            _load(child, path)
        else:
            content = path.read_bytes()
            child = File(mode, bytearray(content), bytearray(content))
        node.names[path.name] = node.kept[path.name] = child


def _dump(node: Folder, folder: Path, chance: random.Random) -> None:
    for name, child in node.cut(chance).items():
        path = folder / name
        if isinstance(child, Folder):
            path.mkdir()
            _dump(child, path, chance)
        else:
            path.write_bytes(child.cut(chance))
        path.chmod(stat.S_IMODE(child.mode))
