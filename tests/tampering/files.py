"""Tampering with files and their names."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from guard.pack import REQUIRED, SIGNATURE
from guard.signing import folder as folder_module
from guard.testing import make_pack
from tests.tampering.frame import Case, Stage


def flip(name: str) -> Callable[[Stage], None]:
    """One bit in the middle of a file."""

    def tamper(stage: Stage) -> None:
        path = stage.folder / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))

    return tamper


def link(make: Callable[[Path, Path], object]) -> Callable[[Stage], None]:
    """The same bytes, but elsewhere."""

    def tamper(stage: Stage) -> None:
        path = stage.folder / "evidence.onnx"
        path.rename(stage.base / "elsewhere")
        make(stage.base / "elsewhere", path)

    return tamper


def add(name: str, data: bytes = b"{}") -> Callable[[Stage], object]:
    """One more file."""
    return lambda stage: (stage.folder / name).write_bytes(data)


def rename(old: str, new: str) -> Callable[[Stage], object]:
    """Another name."""
    return lambda stage: (stage.folder / old).rename(stage.folder / new)


def linked_folder(stage: Stage) -> None:
    """The pack through a link."""
    (stage.base / "alias").symlink_to(stage.folder)
    stage.folder = stage.base / "alias"


def exchanged(stage: Stage) -> None:
    """Two files under each other's names."""
    one, other = stage.folder / "evidence.onnx", stage.folder / "detector.onnx"
    one.rename(stage.base / "kept")
    other.rename(one)
    (stage.base / "kept").rename(other)


def replaced(make: Callable[[Path], object]) -> Callable[[Stage], None]:
    """Something that is no file."""

    def tamper(stage: Stage) -> None:
        path = stage.folder / "MODEL_CARD.md"
        path.unlink()
        make(path)

    return tamper


def huge(stage: Stage) -> None:
    """A file with a hole: large to read, small on the disk."""
    os.truncate(stage.folder / "golden.npz", folder_module.MAX_FILE + 1)


def swapped_while_read(stage: Stage) -> None:
    """Once the graphs were read, all files become those of another good pack."""
    other = make_pack(stage.base / "other" / "good", shape=(3, 12, 12))
    read = folder_module._read

    def reading(path: Path, folder: int) -> bytes:
        if path.name == "golden.npz":
            for name in (*REQUIRED, "manifest.json", SIGNATURE):
                shutil.copy(other / name, path.parent / name)
        return read(path, folder)

    stage.undo.append(lambda: setattr(folder_module, "_read", read))
    folder_module._read = reading


CASES = [
    *(
        Case(f"one bit in {name}", flip(name), f"{name} was altered")
        for name in (*REQUIRED, "manifest.json")
    ),
    Case("one bit in model.sig", flip(SIGNATURE), "model.sig"),
    Case("a graph cut short", lambda s: os.truncate(s.folder / "detector.onnx", 99), "was altered"),
    Case("an empty graph", lambda s: os.truncate(s.folder / "evidence.onnx", 0), "was altered"),
    Case("a file of packs added", add("gate.json"), "gate.json is not among the files"),
    Case("a script added", add("extra.py"), "extra.py is no file of a pack"),
    Case("a hidden file added", add(".gitattributes"), ".gitattributes is no file of a pack"),
    Case("a folder added", lambda s: (s.folder / "more").mkdir(), "more is no file of a pack"),
    Case("a name that looks alike", add("mаnifest.json"), "is no file of a pack"),
    Case(
        "a file removed",
        lambda s: (s.folder / "detector.onnx").unlink(), "detector.onnx is missing",
    ),
    Case(
        "the manifest removed",
        lambda s: (s.folder / "manifest.json").unlink(), "manifest.json cannot be read",
    ),
    Case("a file renamed", rename("golden.npz", "rows.npz"), "golden.npz is missing"),
    Case("a name in other letters", rename("golden.npz", "Golden.npz"), "Golden.npz is no file"),
    Case("two files exchanged", exchanged, "detector.onnx was altered"),
    Case("a symbolic link", link(lambda a, b: b.symlink_to(a)), "evidence.onnx is a link"),
    Case("a hard link", link(lambda a, b: b.hardlink_to(a)), "has several hard links"),
    Case("a linked folder", linked_folder, "alias is a link"),
    Case("a pipe in a file's place", replaced(os.mkfifo), "is not a plain file"),
    Case("a folder in a file's place", replaced(Path.mkdir), "Is a directory"),
    Case("a huge file", huge, f"is larger than {folder_module.MAX_FILE} bytes"),
    Case("another pack's files while it is read", swapped_while_read, "was altered"),
]  # fmt: skip
