"""What a pack says of its origin: in the formats that others read, and of these very files."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from guard.errors import PackError
from guard.pack import MANIFEST, Pack, sign_pack, write_manifest
from guard.provenance import BILL, PROVENANCE, Making, check_provenance, write_provenance
from guard.testing import make_pack

PARENT = "a" * 64
MAKING = Making(
    command="guard retrain --pack tiny --out packs/tiny-r1",
    started=datetime(2026, 11, 20, 9, tzinfo=UTC),
    inputs={"pack:tiny": PARENT, "data:suspects": "b" * 64},
    parameters={"seed": 3, "share": 0.15},
    facts={"epsilon": 4.5, "agreement": 0.97},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A signed pack with both files."""
    folder = make_pack(tmp_path / "tiny")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest |= {"parent": f"sha256:{PARENT}", "serial": 1, "lineage": [f"sha256:{PARENT}"]}
    write_provenance(folder, manifest, MAKING)
    write_manifest(folder, manifest)
    sign_pack(folder)
    return folder


def told(folder: Path, name: str) -> dict[str, Any]:
    """One of the files."""
    value: dict[str, Any] = json.loads((folder / name).read_bytes())
    return value


def test_a_statement_is_read_by_the_in_toto_library(folder: Path) -> None:
    """The library's own message takes every field, and finds nothing wrong."""
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    message = statement_pb2.Statement()
    json_format.Parse((folder / PROVENANCE).read_text(), message)
    read = Statement([], "", {})
    read.pb = message
    read.validate()
    assert {one.name for one in message.subject} == set(Pack.load(folder).files) - {
        PROVENANCE,
        BILL,
    }


def test_a_statement_says_how_the_pack_was_made(folder: Path) -> None:
    """Command, parameters, sources with their digests, guard's own code, what came out."""
    pack = Pack.load(folder)
    assert check_provenance(pack.files, pack.manifest) == MAKING.command
    predicate = told(folder, PROVENANCE)["predicate"]
    sources = {
        one["name"]: one["digest"]["sha256"]
        for one in predicate["buildDefinition"]["resolvedDependencies"]
        if "digest" in one
    }
    assert sources.items() >= MAKING.inputs.items()
    assert len(sources["guard:source"]) == 64
    assert predicate["buildDefinition"]["internalParameters"] == MAKING.parameters
    assert predicate["runDetails"]["byproducts"][0]["annotations"] == MAKING.facts
    assert predicate["runDetails"]["metadata"]["startedOn"] == "2026-11-20T09:00:00Z"


def test_the_bill_names_pack_parent_members_data_and_libraries(folder: Path) -> None:
    """Every part has a reference, and the pack depends on all of them."""
    bill = told(folder, BILL)
    pack = bill["metadata"]["component"]
    assert (pack["type"], pack["name"], pack["version"]) == ("machine-learning-model", "tiny", "1")
    assert pack["pedigree"]["ancestors"][0]["hashes"][0]["content"] == PARENT
    references = [one["bom-ref"] for one in bill["components"]]
    assert {"member:colour", "data:suspects"} <= set(references)
    assert any(one.startswith("pkg:pypi/onnx@") for one in references)
    assert bill["dependencies"] == [{"ref": "pack:tiny", "dependsOn": sorted(references)}]


def test_the_bill_is_valid_cyclonedx(folder: Path) -> None:
    """CycloneDX's own schema, where its library is installed (`deploy/ci/supply-chain`)."""

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str((folder / BILL).read_text())
    assert problem is None, problem


def test_a_pack_without_a_statement_has_no_story(tmp_path: Path) -> None:
    """Nothing is claimed of it, and nothing is refused."""
    pack = Pack.load(make_pack(tmp_path / "tiny"))
    assert check_provenance(pack.files, pack.manifest) == ""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"_type": "other"}, "no in-toto statement"),
        ({"subject": []}, "MODEL_CARD.md is not the file"),
        ({"predicate": {}}, "it lacks 'buildDefinition'"),
        ({"subject": [{"name": "x"}]}, "it lacks 'digest'"),
        ({"subject": 3}, "not iterable"),
    ],
)
def test_a_statement_about_other_files_is_refused(
    folder: Path, change: dict[str, Any], complaint: str
) -> None:
    """A statement that was taken from another pack, or is none."""
    pack = Pack.load(folder)
    files = {**pack.files, PROVENANCE: json.dumps(told(folder, PROVENANCE) | change).encode()}
    with pytest.raises(PackError, match=complaint):
        check_provenance(files, pack.manifest)


def test_another_parent_is_refused(folder: Path) -> None:
    """The manifest's parent has to be among the sources."""
    pack = Pack.load(folder)
    manifest = {**pack.manifest, "parent": "sha256:" + "c" * 64}
    with pytest.raises(PackError, match="does not name the parent pack"):
        check_provenance(pack.files, manifest)
