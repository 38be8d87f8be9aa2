"""Files that a power cut finds whole: written beside, made durable, only then given the name."""

import contextlib
import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes, *, new: bool = False) -> None:
    """All of it or nothing, for the owner alone (mode 0600). Raises OSError.

    new: FileExistsError where the name is taken; else what was there is replaced.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            os.link(draft, path)  # fails where the name is taken, unlike a rename
        else:
            draft.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
