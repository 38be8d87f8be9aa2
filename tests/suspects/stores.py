"""The stores that the contract is tested with: `kinds` opens one in a folder.

Everything in `test_store*.py` is run once for each kind here. A kind that needs a service which is
not there is skipped, visibly.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from guard.suspects.opening import open_keys, open_store
from guard.suspects.suspect_store import SuspectStore

Open = Callable[[Path], SuspectStore]


def embedded(folder: Path) -> SuspectStore:
    """SQLite and sealed files; the keys beside the store's folder."""
    return open_store(open_keys(str(folder / "keys" / "suspects.key")), folder=str(folder / "kept"))


KINDS: Mapping[str, Open] = {"embedded": embedded}
