"""Dependencies: locked by hash, the same as tested with, and honestly audited."""

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CI = ROOT / "deploy" / "ci"


def pins(path: Path) -> dict[str, str]:
    """Version by name of every `name==version` line."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def blocks() -> dict[str, list[str]]:
    """The hashes of every package in the lock."""
    entries = re.split(r"\n(?=[a-z])", (CI / "serving.lock").read_text())
    lists = {one.split("==")[0]: re.findall(r"--hash=(\S+)", one) for one in entries if "==" in one}
    return {canonicalize_name(name.splitlines()[-1]): hashes for name, hashes in lists.items()}


def load(name: str) -> ModuleType:
    """One of the scripts in deploy/ci as a module."""
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_locked_package_has_its_hashes() -> None:
    """pip would refuse a package without one; each is a whole SHA-256."""
    locked = blocks()
    assert set(locked) == set(pins(CI / "serving.lock"))
    assert all(hashes for hashes in locked.values())
    assert all(
        re.fullmatch(r"sha256:[0-9a-f]{64}", one) for hashes in locked.values() for one in hashes
    )


def test_the_lock_is_what_the_tests_run_with() -> None:
    """A version in the lock is the one in constraints.txt, which makes the tests' environment."""
    constraints = pins(CI / "constraints.txt")
    locked = pins(CI / "serving.lock")
    locked.pop("onnxruntime")  # stands in for onnxruntime-gpu where that has no wheel
    assert {name: constraints.get(name) for name in locked} == locked


def test_the_lock_holds_all_that_serving_needs() -> None:
    """What pyproject.toml asks for, Redis, console, PostgreSQL and S3 too, in fitting versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = pins(CI / "serving.lock")
    extras = project["optional-dependencies"]
    asked = (*project["dependencies"], *extras["redis"], *extras["console"], *extras["scale"])
    waiting = [Requirement(one) for one in asked]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        environment = {**default_environment(), "extra": ""}
        if name in seen or (wanted.marker and not wanted.marker.evaluate(environment)):
            continue
        seen.add(name)
        assert name in locked, f"{wanted}: run deploy/ci/supply-chain lock"
        assert wanted.specifier.contains(locked[name], prereleases=True), f"{wanted}"
        try:
            inner = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [Requirement(one) for one in inner]
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 packages, nothing"),
        (
            {"dependencies": [{"name": "a", "version": "1", "vulns": [
                {"id": "CVE-1", "fix_versions": ["2"]}]}]},
            1, "a 1: CVE-1, fixed in 2",
        ),
        (
            {"dependencies": [{"name": "a", "skip_reason": "not found"},
                              {"name": "b", "version": "1", "vulns": []}]},
            2, "NOT AUDITED: 1 of 2",
        ),
        ({"dependencies": []}, 2, "NOT AUDITED"),
        ({"other": 1}, 2, "NOT AUDITED"),
        ("", 2, "NOT AUDITED"),
    ],
    ids=["clean", "vulnerable", "unknown", "empty", "another", "offline"],
)  # fmt: skip
def test_what_was_not_audited_is_not_called_clean(report: object, status: int, said: str) -> None:
    """Only a report that speaks of every package ends with 0."""
    text = json.dumps(report) if report else ""
    command = [sys.executable, str(CI / "audited.py")]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout


def test_the_bill_lists_every_pack_by_its_digest() -> None:
    """The packs in the bill of materials are the ones that ship, down to each file."""
    shipped = json.loads((ROOT / "guard" / "shipped.json").read_text())
    packs = load("bill").packs()
    assert {one["name"] for one in packs} == {path.name for path in (ROOT / "models").glob("*/")}
    for one in packs:
        content = one["hashes"][0]["content"]
        assert f"sha256:{content}" == shipped[one["name"]]
        folder = ROOT / "models" / one["name"]
        listed = {
            item["value"].split()[0]: item["value"].split(":")[1] for item in one["properties"]
        }
        for name, digest in listed.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert len(listed) == len(list(folder.iterdir())) - 1  # all but the manifest
