"""Packs load whole and unaltered, or not at all."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from guard import pack as pack_module
from guard.errors import PackError
from guard.pack import MANIFEST, Pack, pin, shipped_digests, write_manifest
from guard.signing import folder as folder_module
from guard.testing import make_pack
from tests.sealing import seal

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny pack."""
    return make_pack(tmp_path / "tiny")


def rewrite(folder: Path, **changes: object) -> None:
    """Change the manifest, hash and sign everything anew, as someone with the key would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, {**manifest, **changes})
    seal(folder)


def test_a_whole_pack_loads(folder: Path) -> None:
    """What was written is what is in memory: names, classes, columns, bytes."""
    pack = Pack.load(folder)
    assert pack.name == "tiny"
    assert pack.files["evidence.onnx"] == (folder / "evidence.onnx").read_bytes()
    assert pack.score_names(upstream=True)[-1] == "detector"
    assert not pack.shipped
    manifest = pack.manifest
    assert pack.classes == tuple(manifest["classes"])
    assert pack.input_shape == tuple(manifest["input"]["shape"])
    assert pack.columns == tuple(manifest["evidence"]["columns"])
    assert pack.noise_copies == manifest["evidence"]["noise_copies"]
    assert [(one.name, one.role) for one in pack.members] == [
        (one["name"], one["role"]) for one in manifest["members"]
    ]
    assert pack.members[0].about == manifest["members"][0]
    assert pack.score_names(upstream=False) == tuple(manifest["scores"]["alone"])
    assert pack.score_names(upstream=True) == tuple(manifest["scores"]["upstream"])
    raw = (folder / MANIFEST).read_bytes()
    assert pack.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert pack.folder == folder


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
    with pytest.raises(PackError, match=r"detector\.onnx is missing"):
        Pack.load(folder)
    seal(folder)
    with pytest.raises(PackError, match=r"detector\.onnx cannot be read"):
        Pack.load(folder)


def test_an_additional_file_is_refused(folder: Path) -> None:
    """Nothing may lie in a pack that is no file of packs, or that its manifest does not list."""
    (folder / "extra.py").write_text("")
    with pytest.raises(PackError, match=r"extra\.py is no file of a pack"):
        Pack.load(folder)
    (folder / "extra.py").rename(folder / "gate.json")
    with pytest.raises(PackError, match=r"gate\.json is not among the files that"):
        Pack.load(folder)
    seal(folder)
    with pytest.raises(PackError, match=r"gate\.json is not in the manifest"):
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
    seal(folder)
    with pytest.raises(PackError):
        Pack.load(folder)


def test_a_file_name_cannot_leave_the_folder(folder: Path) -> None:
    """A path in the manifest's file list is refused before anything is opened."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../../etc/passwd"] = {"sha256": "0" * 64, "bytes": 1}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    seal(folder)
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


@pytest.mark.parametrize("name", sorted(shipped_digests()))
def test_a_manifest_is_written_as_it_always_was(tmp_path: Path, name: str) -> None:
    """The same content gives the same bytes and so the same digest, whatever order it came in."""
    copy = tmp_path / name
    shutil.copytree(MODELS / name, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    shuffled = dict(reversed(list(manifest.items())))
    assert write_manifest(copy, {**shuffled, "files": {}, "schema": 0}) == shipped_digests()[name]


@pytest.mark.parametrize(
    ("name", "good"),
    [("a" * 64, True), ("a" * 65, False), ("A-z_0.9", True), (".hidden", False), ("a/b", False),
     ("a b", False), ("", False), (7, False), (None, False), ("ä", False)],
)  # fmt: skip
def test_names_are_plain(folder: Path, name: object, good: bool) -> None:
    """Letters, digits, and _ - . inside; at most 64 of them."""
    rewrite(folder, name=name)
    if good:
        assert Pack.load(folder).name == name
    else:
        with pytest.raises(PackError, match=r"manifest\.json is malformed: .* is not a plain name"):
            Pack.load(folder)


def test_sizes_and_counts_have_bounds(folder: Path) -> None:
    """What is at the bound loads, one more is refused with the reason."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for path, good, bad, complaint in (
        (("input", "shape"), [3, 4096, 1], [3, 4097, 1], "is not"),
        (("input", "shape"), [3, 1, 1], [3, 0, 1], "is not"),
        (("input", "shape"), [3, 8, 8], [3, 8], "is not"),
        (("evidence", "noise_copies"), 0, -1, "noise_copies is negative"),
    ):
        section = manifest[path[0]]
        rewrite(folder, **{path[0]: {**section, path[1]: good}})
        Pack.load(folder)
        rewrite(folder, **{path[0]: {**section, path[1]: bad}})
        with pytest.raises(PackError, match=complaint):
            Pack.load(folder)
        rewrite(folder, **{path[0]: section})


def test_large_files_are_refused_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of just the bound is read, one byte more is not."""
    size = max(path.stat().st_size for path in folder.iterdir())
    monkeypatch.setattr(folder_module, "MAX_FILE", size)
    Pack.load(folder)
    monkeypatch.setattr(folder_module, "MAX_FILE", size - 1)
    with pytest.raises(PackError, match=f"is larger than {size - 1} bytes"):
        Pack.load(folder)


def test_a_required_file_that_is_not_listed_is_named(folder: Path) -> None:
    """A manifest without the detector is no pack, even where everything listed is whole."""
    (folder / "detector.onnx").unlink()
    rewrite(folder)
    with pytest.raises(PackError, match=r"the manifest does not list detector\.onnx"):
        Pack.load(folder)


def test_a_pin_is_asked_for_and_can_be_left_out(folder: Path) -> None:
    """Under a shipped name only the pinned digest loads, except while a pack is being built."""
    rewrite(folder, name="signs")
    with pytest.raises(PackError, match="calls itself 'signs', a shipped pack"):
        Pack.load(folder)
    assert not Pack.load(folder, check_pin=False).shipped
    assert Pack.load(MODELS / "signs").shipped


def test_pinning_records_the_digest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pin` adds one pack to the list, sorted, and leaves the others."""
    assert Pack.load(folder).signer.endswith("(operator.pem)")
    (tmp_path / "shipped.json").write_text('{"zz": "sha256:1"}')
    monkeypatch.setattr(pack_module.resources, "files", lambda _name: tmp_path)
    digest = pin(folder)
    assert digest == Pack.load(folder).digest
    expected = json.dumps({"tiny": digest, "zz": "sha256:1"}, indent=1) + "\n"
    assert (tmp_path / "shipped.json").read_text() == expected
    assert Pack.load(folder).shipped
    assert Pack.load(folder).signer == "pinned by this version"
    seal(folder)
    with pytest.raises(PackError, match=r"model\.sig does not belong into a pinned pack"):
        Pack.load(folder)
