"""Reads a folder of plain files once, so that what is checked is what is used.

The folder and each file are opened without following links and looked at through their
descriptors: whatever happens to the names meanwhile, these are the bytes.
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path

from guard.errors import PackError

MAX_FILE = 64 << 20  # bytes


def read_folder(folder: Path, allowed: Collection[str], first: str) -> dict[str, bytes]:
    """The bytes of all files by name; PackError for anything else that lies there.

    allowed: the names that may be there. first: must be there, and is missed by its name.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if folder.is_symlink():
            raise PackError(f"{folder} is a link; packs are plain files in a plain folder")
        descriptor = os.open(folder, flags)
    except OSError as error:
        raise PackError(f"{folder / first} cannot be read: {error.strerror}") from error
    try:
        names = sorted(os.listdir(descriptor))  # noqa: PTH208 (a descriptor)
        if first not in names:
            raise PackError(f"{folder / first} cannot be read: No such file or directory")
        for name in names:
            if name not in allowed:
                raise PackError(f"{folder}: {name} is no file of a pack")
        return {name: _read(folder / name, descriptor) for name in names}
    finally:
        os.close(descriptor)


def _read(path: Path, folder: int) -> bytes:
    try:
        about = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(about.st_mode):
            raise PackError(f"{path} is a link; packs are plain files in a plain folder")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise PackError(f"{path} is not a plain file")
            if about.st_nlink > 1:
                raise PackError(f"{path} has several hard links; packs are plain files")
            if about.st_size > MAX_FILE:
                raise PackError(f"{path} is larger than {MAX_FILE} bytes")
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise PackError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise PackError(f"{path} is larger than {MAX_FILE} bytes")
    return data
