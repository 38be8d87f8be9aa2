"""Where a pack comes from and what it is made of, beside it and under its signature.

`provenance.json` is an in-toto statement (Statement v1, predicate SLSA provenance v1.0): which
command made which files of what. `bom.cdx.json` is a CycloneDX 1.6 bill of materials for machine
learning. Both are plain statements of whoever signs the pack; nothing is proven by them alone.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from guard import __version__
from guard.durable import write_whole
from guard.errors import PackError
from guard.signing import strict

PROVENANCE, BILL = "provenance.json", "bom.cdx.json"
# They cannot vouch for themselves, nor for what holds their hashes.
OUTSIDE = frozenset((PROVENANCE, BILL, "manifest.json", "model.sig"))
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:guard:pack-build:v1"
BUILDER = "urn:guard:operator"  # unisolated: SLSA build level 1
LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "torchvision")


@dataclass(frozen=True)
class Making:
    """How a pack was made.

    parameters: what the command was told. inputs: SHA-256 in hexadecimal by name, such as
    "pack:signs", "data:fit", "suspects". facts: what came out, such as epsilon or agreement.
    """

    command: str
    started: datetime
    inputs: Mapping[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_provenance(folder: Path, manifest: Mapping[str, Any], making: Making) -> None:
    """Write both files beside all others of a pack; the manifest and the signature come after."""
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name not in OUTSIDE
    }
    now = datetime.now(UTC)
    for name, value in (
        (PROVENANCE, statement(digests, manifest, making, now)),
        (BILL, bill(digests, manifest, making, now)),
    ):
        write_whole(folder / name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
        (folder / name).chmod(0o644)


def check_provenance(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
    """The command that made a pack, once its statement speaks of these very files.

    Empty where a pack has none. Raises PackError.
    """
    if PROVENANCE not in files:
        return ""
    try:
        told = strict.parse(files[PROVENANCE])
        if (told["_type"], told["predicateType"]) != (STATEMENT, PREDICATE):
            raise ValueError("it is no in-toto statement with SLSA provenance")
        subjects = {str(one["name"]): str(one["digest"]["sha256"]) for one in told["subject"]}
        for name in sorted({*subjects, *files} - OUTSIDE):
            data = files.get(name)
            if data is None or subjects.get(name) != hashlib.sha256(data).hexdigest():
                raise ValueError(f"{name} is not the file that it speaks of")
        definition = told["predicate"]["buildDefinition"]
        parent = str(manifest.get("parent") or "").removeprefix("sha256:")
        named = definition["resolvedDependencies"]
        sources = {one["digest"]["sha256"] for one in named if "digest" in one}
        if parent and parent not in sources:
            raise ValueError("it does not name the parent pack")
        return str(definition["externalParameters"]["command"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise PackError(f"{PROVENANCE} does not fit the pack: {text}") from error


def statement(
    digests: Mapping[str, str], manifest: Mapping[str, Any], making: Making, now: datetime
) -> dict[str, Any]:
    """The in-toto statement over files; digests: SHA-256 by file name."""
    sources = {**making.inputs, "guard:source": source_digest()}
    return {
        "_type": STATEMENT,
        "subject": [_descriptor(name, digest) for name, digest in sorted(digests.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"command": making.command, "pack": manifest["name"]},
                "internalParameters": _plain(making.parameters),
                "resolvedDependencies": [
                    *(_descriptor(name, digest) for name, digest in sorted(sources.items())),
                    *({"name": one, "uri": f"pkg:pypi/{one}@{v}"} for one, v in libraries()),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"guard": __version__}},
                "metadata": {"startedOn": _time(making.started), "finishedOn": _time(now)},
                "byproducts": [{"name": "facts", "annotations": _plain(making.facts)}],
            },
        },
    }


def bill(
    digests: Mapping[str, str], manifest: Mapping[str, Any], making: Making, now: datetime
) -> dict[str, Any]:
    """The CycloneDX 1.6 bill: the pack, its members, its data, the libraries that made it."""
    name = str(manifest["name"])
    parts = [*_members(manifest), *_data(making), *_libraries()]
    whole: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"pack:{name}",
        "name": name,
        "version": str(manifest.get("serial", 0)),
        "description": "detector of adversarial inputs and robust ensemble, as one pack of guard",
        "modelCard": _model_card(manifest, making),
        "properties": [
            {"name": "guard:file", "value": f"{file} sha256:{digest}"}
            for file, digest in sorted(digests.items())
        ],
    }
    if manifest.get("parent"):
        parent = str(manifest["parent"]).removeprefix("sha256:")
        ancestor = {
            "type": "machine-learning-model",
            "name": "the parent pack",
            "hashes": [{"alg": "SHA-256", "content": parent}],
        }
        whole["pedigree"] = {"ancestors": [ancestor]}
    identity = json.dumps([name, dict(digests)], sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": _time(now),
            "tools": {"components": [_application()]},
            "component": whole,
        },
        "components": parts,
        "dependencies": [
            {"ref": whole["bom-ref"], "dependsOn": sorted(one["bom-ref"] for one in parts)}
        ],
    }


@cache
def source_digest() -> str:
    """SHA-256 over guard's own Python files: which code ran."""
    whole = hashlib.sha256()
    root = Path(str(resources.files("guard")))
    for path in sorted(root.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{content}  {path.relative_to(root).as_posix()}\n".encode())
    return whole.hexdigest()


def libraries() -> list[tuple[str, str]]:
    """Name and version of what computes, where it is installed."""
    found = []
    for name in LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _model_card(manifest: Mapping[str, Any], making: Making) -> dict[str, Any]:
    data = [name for name in making.inputs if name.startswith("data:")]
    measured = manifest.get("measured", {})
    metrics = [
        {"type": "accuracy", "value": f"{value:.4f}", "slice": f"clean, {member}"}
        for member, value in measured.get("clean", {}).items()
    ]
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "detection of adversarial images; image classification",
            "architectureFamily": "ensemble of convolutional networks",
            "modelArchitecture": ", ".join(
                sorted({str(one.get("architecture", "?")) for one in manifest["members"]})
            ),
            "datasets": [{"ref": name} for name in data],
            "inputs": [{"format": f"image {manifest['input']['shape']}"}],
            "outputs": [{"format": f"probabilities of {len(manifest['classes'])} classes"}],
        },
        "considerations": {
            "technicalLimitations": [
                "an attacker who knows the defence and can differentiate through it beats it"
            ]
        },
    }
    return card | ({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {})


def _members(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": f"member:{one['name']}",
            "name": str(one["name"]),
            "description": f"{one['role']} member of the ensemble",
        }
        for one in manifest["members"]
    ]


def _data(making: Making) -> list[dict[str, Any]]:
    return [
        {
            "type": "data",
            "bom-ref": name,
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, digest in sorted(making.inputs.items())
    ]


def _libraries() -> list[dict[str, Any]]:
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        for name, version in libraries()
    ]


def _application() -> dict[str, Any]:
    return {
        "type": "application",
        "name": "guard",
        "version": __version__,
        "hashes": [{"alg": "SHA-256", "content": source_digest()}],
    }


def _descriptor(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as JSON knows them."""
    found: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return found


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
