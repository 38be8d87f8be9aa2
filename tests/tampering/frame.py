"""What a case of tampering is, and how it is tried: on a good pack, which loads until then."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard.errors import PackError
from guard.pack import MANIFEST, Pack, write_manifest
from guard.pipeline import Pipeline
from guard.signing.bundle import SIGNATURE
from guard.signing.trust import Trust
from guard.testing import make_pack
from tests.sealing import seal

GOOD = "good"


@dataclass
class Stage:
    """A good, signed pack in a folder of its own, and how it will be loaded."""

    base: Path
    folder: Path
    trust: Trust | None = None
    min_serial: int = 0
    undo: list[Callable[[], object]] = field(default_factory=list)

    def manifest(self) -> dict[str, Any]:
        """The manifest as it is."""
        found: dict[str, Any] = json.loads((self.folder / MANIFEST).read_bytes())
        return found

    def put(self, name: str, data: bytes) -> None:
        """Another file, its hash put right and all signed anew: what a trusted hand got wrong."""
        (self.folder / name).write_bytes(data)
        write_manifest(self.folder, self.manifest())
        seal(self.folder)

    def rewrite(self, **changes: object) -> None:
        """Another manifest, in good order and signed."""
        write_manifest(self.folder, {**self.manifest(), **changes})
        seal(self.folder)

    def written(self, text: str | bytes) -> None:
        """A manifest word for word, signed."""
        data = text.encode() if isinstance(text, str) else text
        (self.folder / MANIFEST).write_bytes(data)
        seal(self.folder)

    def bundle(self) -> dict[str, Any]:
        """The signature as it is."""
        found: dict[str, Any] = json.loads((self.folder / SIGNATURE).read_bytes())
        return found

    def signature(self, bundle: object) -> None:
        """Another signature."""
        (self.folder / SIGNATURE).write_text(json.dumps(bundle))


@dataclass(frozen=True)
class Case:
    """One way to tamper, and what the refusal has to say."""

    name: str
    tamper: Callable[[Stage], object]
    says: str  # a part of the message

    def refusal(self, good: Path, base: Path) -> str:
        """The message that the tampered pack is refused with; empty: it loaded."""
        shutil.copytree(good, base / GOOD)
        stage = Stage(base, base / GOOD)
        Pack.load(stage.folder)
        try:
            self.tamper(stage)
            pack = Pack.load(stage.folder, trust=stage.trust, min_serial=stage.min_serial)
            Pipeline.load(pack, threads=1)
        except PackError as error:
            return str(error)
        finally:
            for undo in stage.undo:
                undo()
        return ""


def good_pack(base: Path) -> Path:
    """What all cases start from."""
    return make_pack(base / GOOD)
