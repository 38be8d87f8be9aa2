"""Signs whatever lies in a folder, fitting together or not: what a trusted hand got wrong."""

import hashlib
from pathlib import Path

from guard.signing import bundle
from guard.signing.bundle import SIGNATURE
from guard.signing.keys import Key, operator_key


def seal(folder: Path, key: Key | None = None) -> None:
    """A good signature over the files as they are; key None: the operator's."""
    (folder / SIGNATURE).unlink(missing_ok=True)
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }
    (folder / SIGNATURE).write_bytes(bundle.make(folder.name, digests, key or operator_key()))
