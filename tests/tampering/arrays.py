"""Tampering with manifests and arrays, signed by somebody who is trusted."""

import io
import json
import zipfile
from collections.abc import Callable

import numpy as np

from guard.archive import MAX_BYTES, MAX_MEMBERS
from tests.tampering.frame import Case, Stage


def manifest(old: str, new: str) -> Callable[[Stage], None]:
    """A word of the manifest, replaced."""

    def tamper(stage: Stage) -> None:
        text = json.dumps(stage.manifest())
        assert old in text
        stage.written(text.replace(old, new, 1))

    return tamper


def listing(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Stage], None]:
    """The manifest's list of files, changed."""

    def tamper(stage: Stage) -> None:
        found = stage.manifest()
        change(found["files"])
        stage.written(json.dumps(found))

    return tamper


def archive(**members: bytes) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "."), data)
    return buffer.getvalue()


def array(value: object) -> bytes:
    """An .npy file, pickled where it has to be."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=True)
    return buffer.getvalue()


def calibration(data: bytes) -> Callable[[Stage], object]:
    """Another calibration.npz."""
    return lambda stage: stage.put("calibration.npz", data)


def bomb(stage: Stage) -> None:
    """Much out of little."""
    stage.put("calibration.npz", archive(zeros__npy=bytes(MAX_BYTES + 1)))


def double(stage: Stage) -> None:
    """Two arrays of one name: readers take one or the other."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.npy", array(1))
        file.writestr("A.npy", array(2))
    stage.put("golden.npz", buffer.getvalue())


LIAR = array(np.zeros(9)).replace(b"(9,)", b"(8,)")
CODE = array(np.zeros(9)).replace(b"(9,),", b"f(), ")
OBJECTS = np.array([{"a": 1}], dtype=object)

CASES = [
    Case("a key of the manifest twice", manifest(
        '{"classes"', '{"classes": [], "classes"'), "'classes' appears twice"),
    Case("NaN in the manifest", manifest('"noise_copies": 0', '"noise_copies": NaN'), "NaN"),
    Case("a deep manifest", lambda s: s.written("[" * 5000 + "]" * 5000), "nested too deeply"),
    Case("a manifest in UTF-16", lambda s: s.written(
        json.dumps(s.manifest()).encode("utf-16")), "is malformed"),
    Case("a manifest of another schema", manifest('"schema": 1', '"schema": 2'), "schema 2"),
    Case("a path for a name", listing(
        lambda f: f.update({"../../etc/passwd": {"sha256": "0" * 64}})), "not a plain name"),
    Case("an absolute path", listing(
        lambda f: f.update({"/etc/passwd": {"sha256": "0" * 64}})), "not a plain name"),
    Case("another hash in the list", listing(
        lambda f: f["golden.npz"].update(sha256="0" * 64)), "golden.npz was altered"),
    Case("a file that is not listed", listing(
        lambda f: f.pop("MODEL_CARD.md")), "does not list MODEL_CARD.md"),
    Case("a listed file that is not there", listing(
        lambda f: f.update({"rows.npz": f["golden.npz"]})), "rows.npz cannot be read"),
    Case("a serial below none", lambda s: s.rewrite(serial=-1), "serial -1"),
    Case("a serial that is true", lambda s: s.rewrite(serial=True), "serial True"),
    Case("a parent that is no digest", lambda s: s.rewrite(parent="signs"), "must be digests"),
    Case("a lineage that is none", lambda s: s.rewrite(lineage=[7]), "must be digests"),
    Case("pickled objects", calibration(archive(a__npy=array(OBJECTS))), "holds Python objects"),
    Case("a pickle beside the arrays", calibration(
        archive(a__npy=array(1), evil__pkl=b"cos\nsystem\n")), "'evil.pkl', which is no array"),
    Case("a zip bomb", bomb, f"more than {MAX_BYTES}"),
    Case("too many arrays", calibration(archive(
        **{f"a{n}__npy": array(n) for n in range(MAX_MEMBERS + 1)})), f"more than {MAX_MEMBERS}"),
    Case("two arrays of one name", double, "names two arrays alike"),
    Case("an array in a folder", calibration(
        archive(**{"../a__npy": array(1)})), "which is no array"),
    Case("an array shorter than it says", calibration(
        archive(a__npy=LIAR)), "not as long as it says"),
    Case("code in an array's header", calibration(archive(a__npy=CODE)), "no archive of arrays"),
    Case("an archive cut short", calibration(archive(a__npy=array(1))[:-9]), "no archive"),
    Case("a pickle for an archive", calibration(b"\x80\x04cos\nsystem\n"), "no archive"),
]  # fmt: skip
