"""Packs load whole and unaltered, or not at all."""

import json
import os
from pathlib import Path

import pytest

from guard.errors import PackError
from guard.pack import MANIFEST, Pack, shipped_digests, write_manifest
from guard.testing import make_pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny pack."""
    return make_pack(tmp_path / "tiny")


def rewrite(folder: Path, **changes: object) -> None:
    """Change the manifest and hash everything anew, as someone with write access would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, {**manifest, **changes})


def test_a_whole_pack_loads(folder: Path) -> None:
    """What was written is what is in memory: names, classes, columns, bytes."""
    pack = Pack.load(folder)
    assert pack.name == "tiny"
    assert pack.files["evidence.onnx"] == (folder / "evidence.onnx").read_bytes()
    assert pack.score_names(upstream=True)[-1] == "detector"
    assert not pack.shipped


@pytest.mark.parametrize(
    "name", ["evidence.onnx", "detector.onnx", "calibration.npz", "golden.npz"]
)
def test_one_changed_byte_is_refused(folder: Path, name: str) -> None:
    """Any file whose bytes are not the manifest's is named and refused."""
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(PackError, match=f"{name} was altered"):
        Pack.load(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    """A pack without its detector does not load."""
    (folder / "detector.onnx").unlink()
    with pytest.raises(PackError, match=r"detector\.onnx cannot be read"):
        Pack.load(folder)


def test_an_additional_file_is_refused(folder: Path) -> None:
    """Nothing may lie in a pack that its manifest does not vouch for."""
    (folder / "extra.py").write_text("")
    with pytest.raises(PackError, match=r"extra\.py is not in the manifest"):
        Pack.load(folder)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_refused(folder: Path, tmp_path: Path, link: object) -> None:
    """A file that is a link could change behind its hash."""
    outside = tmp_path / "outside.onnx"
    (folder / "evidence.onnx").rename(outside)
    link(outside, folder / "evidence.onnx")  # type: ignore[operator]
    with pytest.raises(PackError, match="link"):
        Pack.load(folder)


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """The folder itself may not be a link either."""
    (tmp_path / "alias").symlink_to(folder)
    with pytest.raises(PackError, match="link"):
        Pack.load(tmp_path / "alias")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../escape"},
        {"classes": ["same", "same"]},
        {"classes": []},
        {"input": {"shape": [3, 0, 8]}},
        {"members": [{"name": "a", "role": "sentinel"}]},
        {"members": [{"name": "a", "role": "boss"}]},
        {"evidence": {"columns": ["a", "a"], "noise_copies": 0}},
        {"evidence": {}},
        {"scores": {"alone": ["detector"]}},
    ],
)
def test_a_malformed_manifest_is_refused(folder: Path, changes: dict[str, object]) -> None:
    """Correct hashes do not save a manifest that makes no sense."""
    rewrite(folder, **changes)
    with pytest.raises(PackError, match="malformed"):
        Pack.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 2}', "null"])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    """Garbage, another schema or nothing at all is a PackError."""
    (folder / MANIFEST).write_text(text)
    with pytest.raises(PackError):
        Pack.load(folder)


def test_a_file_name_cannot_leave_the_folder(folder: Path) -> None:
    """A path in the manifest's file list is refused before anything is opened."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../../etc/passwd"] = {"sha256": "0" * 64, "bytes": 1}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(PackError, match="plain name"):
        Pack.load(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message names the file that was looked for."""
    with pytest.raises(PackError, match=MANIFEST):
        Pack.load(tmp_path / "none")


@pytest.mark.skipif(not shipped_digests(), reason="no packs are pinned yet")
def test_an_impostor_of_a_shipped_pack_is_refused(folder: Path) -> None:
    """A consistent pack that takes a shipped pack's name is not the pinned one."""
    rewrite(folder, name=next(iter(shipped_digests())))
    with pytest.raises(PackError, match="calls itself"):
        Pack.load(folder)


@pytest.mark.parametrize("name", sorted(shipped_digests()))
def test_shipped_packs_are_the_pinned_ones(name: str) -> None:
    """Every pinned pack is in the repository and is what its digest says."""
    pack = Pack.load(Path(__file__).parents[1] / "models" / name)
    assert pack.shipped
