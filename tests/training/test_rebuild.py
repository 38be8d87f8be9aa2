"""A pack exported anew from its own weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from guard.errors import PackError
from guard.onnx import Session
from guard.pack import Pack
from guard.training import rebuild

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the procedural signs' pack."""
    folder = tmp_path_factory.mktemp("packs") / "signs"
    shutil.copytree(MODELS / "signs", folder)
    return folder


def test_a_rebuilt_pack_is_the_same_pack(folder: Path) -> None:
    """With today's guard and yesterday's weights, every byte is what it was."""
    before = Pack.load(folder)
    after = rebuild.rebuild_pack(folder)
    assert (after.digest, after.files) == (before.digest, before.files)


def test_a_graph_that_says_something_else_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old pack stays as it was, and nothing is left beside it."""
    before = Pack.load(folder).files

    class Other(Session):
        def run(self, *arguments: object) -> dict[str, np.ndarray]:  # type: ignore[override, type-arg]
            """What a graph with other weights might say."""
            said = super().run(*arguments)  # type: ignore[arg-type]
            if isinstance(self.source, Path):
                said["probabilities"] = np.flip(said["probabilities"], axis=1)
            return said

        def __init__(self, source: bytes | Path) -> None:
            self.source = source
            super().__init__(source)

    monkeypatch.setattr(rebuild, "Session", Other)
    with pytest.raises(PackError, match="does not say what the old one did"):
        rebuild.rebuild_pack(folder)
    assert Pack.load(folder).files == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
