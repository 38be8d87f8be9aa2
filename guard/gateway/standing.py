"""Which pack guards a model now, which did before, and who said so: one small file per model.

It is what makes a promotion outlive the process, so it is written whole before the promotion takes
effect, and at the next start it comes before what the settings say. A file that cannot be read
stops the start: to go on with another pack than the one last approved would be a silent rollback.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from guard.durable import write_whole
from guard.errors import PackError

KEPT = 16  # packs that one can go back through
SETTINGS = "settings"  # who submitted and approved what `guard.toml` names


@dataclass(frozen=True)
class Entry:
    """A pack that guards a model, or did, or is watched beside the one that does."""

    pack: str  # its name among the candidates; "": the one that the settings name
    digest: str
    serial: int
    submitted_by: str = SETTINGS
    approved_by: str = SETTINGS
    at: float = 0.0  # seconds since 1970


@dataclass(frozen=True)
class Standing:
    """How things stand with one model's packs."""

    current: Entry
    before: tuple[Entry, ...] = ()  # newest last
    shadow: Entry | None = None

    def promoted(self, entry: Entry) -> "Standing":
        """This one in front, the present one kept behind it, no shadow any more."""
        return Standing(entry, (*self.before, self.current)[-KEPT:])

    def rolled_back(self) -> "Standing":
        """The one before in front again. Raises PackError where there is none."""
        if not self.before:
            raise PackError("no pack was promoted here, so there is none to go back to")
        return Standing(self.before[-1], self.before[:-1])

    def shadowed(self, entry: Entry | None) -> "Standing":
        """With this one beside it."""
        return replace(self, shadow=entry)


class Standings:
    """The files, in one folder that is made where it is missing."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def read(self, model: str) -> Standing | None:
        """How it stands with a model, None where nothing was ever promoted. Raises PackError."""
        path = self._path(model)
        try:
            raw = json.loads(path.read_bytes())
            if raw["model"] != model:
                raise ValueError(f"it is about {raw['model']!r}")
            return Standing(
                _entry(raw["current"]),
                tuple(_entry(each) for each in raw["before"]),
                _entry(raw["shadow"]) if raw["shadow"] else None,
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PackError(
                f"gateway.state: {path.name} cannot be read: {error.strerror}"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PackError(f"gateway.state: {path.name} is malformed: {error}") from error

    def write(self, model: str, standing: Standing) -> None:
        """Make it durable. Raises PackError."""
        text = json.dumps({"model": model, **asdict(standing)}, indent=1)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path(model), (text + "\n").encode())
        except OSError as error:
            raise PackError(f"gateway.state: cannot be written: {error.strerror}") from error

    def _path(self, model: str) -> Path:
        return self._folder / f"{quote(model, safe='')}.json"


def _entry(raw: Any) -> Entry:
    entry = Entry(**raw)
    texts = (entry.pack, entry.digest, entry.submitted_by, entry.approved_by)
    if not all(isinstance(text, str) for text in texts) or not isinstance(entry.serial, int):
        raise TypeError("an entry has values of other kinds")
    return entry
