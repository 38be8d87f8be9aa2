"""A forgetful disk as a mounted file system (FUSE), in a process of its own.

python -m tests.durability.mount FOLDER [CONTENT]     # commands on standard input, see `Mounted`
"""

import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.durability.disk import Disk, Fault, File, Folder, Node

try:
    import mfusepy
except (ImportError, OSError):  # no package, or no libfuse
    mfusepy = None

SHARED_MEMORY = "-shm"  # SQLite maps it, which needs the kernel's cache; nothing in it must survive
ROOT = Path(__file__).parents[2]


def lacking() -> str:
    """What this machine lacks for it; empty: nothing."""
    if mfusepy is None or not Path("/dev/fuse").exists():
        return "no FUSE: deploy/ci/install services"
    return "" if os.geteuid() == 0 or shutil.which("fusermount3") else "may not mount"


class Mounted:
    """The mount, for the length of a `with`; `cut` ends what is on it.

    content: a folder whose files are on it at first.
    """

    def __init__(self, folder: Path, content: Path | None = None) -> None:
        self.folder = folder
        self._content = content

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        command = [sys.executable, "-W", "ignore", "-m", "tests.durability.mount", str(self.folder)]
        command += [str(self._content)] if self._content else []
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        end = time.monotonic() + 20
        while not os.path.ismount(self.folder):
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError("the forgetful disk does not mount")
            time.sleep(0.005)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)
        self._process.kill()
        self._process.communicate()

    def cut(self, left: Path, seed: int) -> None:
        """The power goes: every operation fails from now on; what is left goes to a new folder."""
        left.mkdir()
        self.say(f"cut {seed} {left}")

    def say(self, command: str) -> str:
        """cut SEED FOLDER | lie WORD | short SEED | eio SEED | sync-eio SEED | full | mend."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer.startswith("ok"), answer or "the forgetful disk is gone"
        return answer


class System:
    """A `Disk` behind the calls of FUSE."""

    use_ns = True

    def __init__(self, disk: Disk) -> None:
        self.disk, self.off, self._lock = disk, False, threading.Lock()
        self._open: dict[int, Node] = {}

    def __call__(self, operation: str, path: str, *arguments: Any) -> Any:
        """One operation; after a power cut, none."""
        with self._lock:
            if self.off:
                raise OSError(errno.EIO, path)
            return getattr(self, f"_{operation}")(path, *arguments)

    def cut(self, folder: Path, seed: int) -> None:
        """The power goes."""
        with self._lock:
            self.off = True
            self.disk.cut(folder, random.Random(seed))

    def _node(self, path: str, info: Any = None) -> Node:
        return self._open[info.fh] if info and info.fh in self._open else self.disk.find(path)

    def _file(self, path: str, info: Any = None) -> File:
        node = self._node(path, info)
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, path)
        return node

    def _opened(self, path: str, node: Node, info: Any) -> int:
        info.fh = max(self._open, default=0) + 1
        # Past the kernel's cache, so that a short write comes through as one.
        info.direct_io = not path.endswith(SHARED_MEMORY)
        self._open[info.fh] = node
        return 0

    def _getattr(self, path: str, info: Any = None) -> dict[str, Any]:
        node = self._node(path, info)
        size = len(node.data) if isinstance(node, File) else 0
        links = 1 if isinstance(node, File) else 2
        return {"st_mode": node.mode, "st_nlink": links, "st_size": size, "st_ino": id(node)}

    def _readdir(self, path: str, _info: Any) -> Iterator[str]:
        node = self.disk.find(path)
        if not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, path)
        return iter([".", "..", *node.names])

    def _create(self, path: str, mode: int, info: Any) -> int:
        node = self.disk.make(path, stat.S_IFREG | stat.S_IMODE(mode))
        return self._opened(path, node, info)

    def _open_(self, path: str, info: Any) -> int:
        node = self._file(path)
        if info.flags & os.O_TRUNC:
            self.disk.truncate(path, node, 0)
        return self._opened(path, node, info)

    def _release(self, _path: str, info: Any) -> int:
        self._open.pop(info.fh, None)
        return 0

    def _read(self, path: str, size: int, at: int, info: Any) -> bytes:
        return bytes(self._file(path, info).data[at : at + size])

    def _write(self, path: str, data: bytes, at: int, info: Any) -> int:
        return self.disk.write(path, self._file(path, info), at, bytes(data))

    def _truncate(self, path: str, size: int, info: Any = None) -> int:
        self.disk.truncate(path, self._file(path, info), size)
        return 0

    def _fsync(self, path: str, _data_only: int, info: Any) -> int:
        self.disk.sync(path, self._node(path, info))
        return 0

    def _fsyncdir(self, path: str, _data_only: int, _info: Any) -> int:
        self.disk.sync(path, self.disk.find(path))
        return 0

    def _mkdir(self, path: str, mode: int) -> int:
        self.disk.make(path, stat.S_IFDIR | stat.S_IMODE(mode))
        return 0

    def _unlink(self, path: str) -> int:
        self.disk.remove(path)
        return 0

    def _rename(self, old: str, new: str) -> int:
        self.disk.rename(old, new)
        return 0

    def _link(self, new: str, path: str) -> int:
        self.disk.link(path, new)
        return 0

    def _chmod(self, path: str, mode: int) -> int:
        node = self.disk.find(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return 0

    def _statfs(self, _path: str) -> dict[str, int]:
        free = 1 << 20
        sizes = {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 2 * free, "f_namemax": 255}
        return {**sizes, "f_bfree": free, "f_bavail": free, "f_files": free, "f_ffree": free}


OPERATIONS = ("getattr", "readdir", "create", "release", "read", "write", "truncate", "fsync",
              "fsyncdir", "mkdir", "unlink", "rename", "link", "chmod", "statfs")  # fmt: skip


def breaking(word: str, seed: int) -> Fault:
    """Faults of a disk: now and then or, for "full", whenever something is to be written."""
    chance = random.Random(seed)

    def fault(operation: str, path: str, size: int) -> int:
        hit = chance.random() < 0.2 and not path.endswith(SHARED_MEMORY)
        if word == "full" and operation in ("write", "make"):
            raise OSError(errno.ENOSPC, path)
        if word == "short" and hit and operation == "write" and size > 1:
            return chance.randrange(1, size)
        if word == "eio" and hit and operation in ("write", "make", "truncate"):
            raise OSError(errno.EIO, path)
        if word == "sync-eio" and hit and operation == "sync":
            raise OSError(errno.EIO, path)
        return size

    return fault


def _obey(system: System, words: list[str]) -> None:
    whole = Disk().fault
    match words:
        case ["cut", seed, folder]:
            system.cut(Path(folder), int(seed))
        case ["lie", word]:
            system.disk.lies = lambda path: word in path
        case ["mend"]:
            system.disk.fault = whole
        case [word, seed]:
            system.disk.fault = breaking(word, int(seed))
        case _:
            raise ValueError(words)


def _listen(system: System) -> None:
    for line in sys.stdin:
        _obey(system, line.split())
        sys.stdout.write(f"ok {system.disk.synced}\n")
        sys.stdout.flush()


def _operations(system: System) -> Any:
    def bound(name: str) -> Callable[..., Any]:
        return lambda _self, *arguments: system(name, *arguments)

    names = {name: bound(name) for name in OPERATIONS} | {"open": bound("open_")}
    names["rmdir"] = bound("unlink")
    return type("Forgetful", (mfusepy.Operations,), {**names, "use_ns": True})()


def main(folder: str, content: str = "") -> None:
    """Mount, and obey standard input until unmounted."""
    disk = Disk()
    if content:
        disk.load(Path(content))
    system = System(disk)
    threading.Thread(target=_listen, args=(system,), daemon=True).start()
    with suppress(RuntimeError):  # unmounted by force
        mfusepy.FUSE(
            _operations(system), folder, raw_fi=True, nothreads=True, foreground=True,
            attr_timeout=0, entry_timeout=0, negative_timeout=0,
        )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
