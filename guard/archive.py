"""What a NumPy archive (.npz) may hold: plain numbers, of the size that it says, and not too many.

Nothing is unpacked and nothing unpickled to find out: only the list of the archive and the header
of each array are read.
"""

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from guard.errors import PackError

Arrays = Mapping[str, NDArray[np.generic]]
T = TypeVar("T")

MAX_BYTES = 256 << 20  # unpacked
MAX_MEMBERS = 64
KINDS = "biufSU"  # numbers, truth values, text of fixed width


def check_archive(data: bytes, name: str) -> None:
    """Refuse anything but plain arrays; PackError that names the file and the reason."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_list(members)
            for member in members:
                with archive.open(member) as file:
                    _check_header(file, member)
    except PackError as error:
        raise PackError(f"{name} {error}") from error
    except Exception as error:  # zipfile and numpy raise nearly anything on a broken file
        raise PackError(f"{name} is no archive of arrays: {error}") from error


def read_described(
    source: bytes | Path, build: Callable[[Arrays, str, Any], T], *, what: str, limit: int
) -> dict[str, T]:
    """What an archive's array `about` describes (JSON: an entry by name), built from its arrays.

    what: names such a file in errors; limit: bytes that it may unpack to. Raises PackError for
    anything that cannot be read, or that `build` cannot make something of.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise PackError(f"cannot read the {what} {source!r}: {error.strerror}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            if sum(member.file_size for member in members.infolist()) > limit:
                raise ValueError(f"it unpacks to more than {limit} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            return {str(name): build(stored, str(name), entry) for name, entry in about.items()}
    except Exception as error:  # numpy and zipfile raise nearly anything on a broken file
        raise PackError(f"not a {what}: {error}") from error


def _check_list(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(names) > MAX_MEMBERS:
        raise PackError(f"holds {len(names)} arrays, more than {MAX_MEMBERS}")
    if len({name.casefold() for name in names}) != len(names):
        raise PackError("names two arrays alike")
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise PackError(f"unpacks to {total} bytes, more than {MAX_BYTES}")
    for member in members:
        if not member.filename.endswith(".npy") or "/" in member.filename:
            raise PackError(f"holds {member.filename!r}, which is no array")


def _check_header(file: IO[bytes], member: zipfile.ZipInfo) -> None:
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(file))
    if read is None:
        raise PackError(f"holds {member.filename!r} in a format that guard does not write")
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise PackError(f"holds Python objects in {member.filename!r}; nothing is unpickled")
    if dtype.kind not in KINDS:
        raise PackError(f"holds {dtype} in {member.filename!r}")
    if file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise PackError(f"holds {member.filename!r}, which is not as long as it says")
