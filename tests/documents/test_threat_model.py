"""The threat model speaks of what exists: catalogue ids, modules, files, tests."""

import ast
import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "deploy" / "docs" / "threat-model.md").read_text()
FLAT = " ".join(DOCUMENT.split())
CATALOGUES = json.loads((Path(__file__).parent / "catalogues.json").read_text())
PINNED = {name: title for one in CATALOGUES.values() for name, title in one["ids"].items()}
ID = re.compile(r"AML\.[A-Z]{1,2}\d+(?:\.\d+)?|ML\d+:\d+|NISTAML\.\d+")
PATH = re.compile(r"`((?:guard|tests|deploy)/[^`]+)`")
TAGS = ("untrusted input", "trusted only")


def controls() -> dict[str, str]:
    """Text of each control by its heading."""
    section = DOCUMENT.split("## Controls")[1].split("\n## ")[0]
    parts = re.split(r"^### ", section, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: " ".join(part.split()) for part in parts}


def components() -> Iterator[tuple[str, str, list[str]]]:
    """Glob, tag and tests of every row of the table of components."""
    section = DOCUMENT.split("## Components")[1]
    for line in section.splitlines():
        if line.startswith("| `"):
            modules, tag, _, tests = (cell.strip() for cell in line.strip("|").split("|"))
            yield modules.strip("`"), tag, PATH.findall(tests)


def test_every_id_is_in_the_pinned_catalogues() -> None:
    """No id is made up or mistyped, and the name beside it is the catalogue's own."""
    found = list(ID.finditer(FLAT))
    assert len({one[0] for one in found}) > 60
    wrong = [one[0] for one in found if one[0] not in PINNED]
    assert not wrong
    named = [one[0] for one in found if FLAT[one.end() :].startswith(f" {PINNED[one[0]]}")]
    assert set(named) == {one[0] for one in found}


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_pinned_threat_is_spoken_of(catalogue: str) -> None:
    """All that was pinned has a control, or says that it has none."""
    assert set(CATALOGUES[catalogue]["ids"]) <= set(ID.findall(FLAT))


def test_the_catalogues_say_which_edition_they_are() -> None:
    """Ids change with editions: each catalogue names its own, and ids have its form."""
    assert set(CATALOGUES) == {
        "MITRE ATLAS",
        "OWASP Machine Learning Security Top 10",
        "NIST AI 100-2",
    }
    assert all(re.search(r"\d{4}", one["version"]) for one in CATALOGUES.values())
    assert all(ID.fullmatch(name) for name in PINNED)


@pytest.mark.parametrize("heading", controls())
def test_every_control_is_whole(heading: str) -> None:
    """Against what, what it does and does not, where it is, and a test of its own."""
    text = controls()[heading]
    for part in ("* Against:", "* Does:", "* Does not:", "* Where:", "* Proven by:"):
        assert text.count(part) == 1, part
    where, proof = text.split("* Where:")[1].split("* Proven by:")
    assert all(name.startswith(("guard/", "deploy/")) for name in PATH.findall(where))
    assert PATH.findall(where)
    assert all(name.startswith("tests/") for name in PATH.findall(proof))
    assert PATH.findall(proof)


def test_every_file_and_test_that_is_named_exists() -> None:
    """A file is there, and so is the function behind `::`."""
    missing = []
    for name in {one for one in PATH.findall(DOCUMENT) if "*" not in one}:
        path, _, function = name.partition("::")
        file = ROOT / path
        if not file.is_file():
            missing.append(name)
        elif function:
            nodes = ast.walk(ast.parse(file.read_text()))
            kinds = ast.FunctionDef | ast.AsyncFunctionDef
            if function not in {node.name for node in nodes if isinstance(node, kinds)}:
                missing.append(name)
    assert not missing


def test_every_module_is_tagged() -> None:
    """Whoever adds a module says whether strangers reach it; no row is about nothing."""
    rows = list(components())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "guard").rglob("*.py")}
    # fnmatch's * would cross folders: the depth has to agree.
    fits = {
        glob: {
            one
            for one in modules
            if one.count("/") == glob.count("/") and fnmatch.fnmatchcase(one, glob)
        }
        for glob, _, _ in rows
    }
    assert not [glob for glob, found in fits.items() if not found]
    assert modules == set().union(*fits.values())
    assert {tag for _, tag, _ in rows} == set(TAGS)
    untested = [glob for glob, tag, tests in rows if tag == TAGS[0] and not tests]
    assert not untested


def test_the_documents_link_to_what_exists() -> None:
    """Links between the documents lead somewhere."""
    for name in ("threat-model.md", "encryption-in-use.md", "supply-chain.md"):
        text = (ROOT / "deploy" / "docs" / name).read_text()
        links = re.findall(r"\]\(([^)#]+)\)", text)
        inner = [one for one in links if not one.startswith("https://")]
        assert not [one for one in inner if not (ROOT / "deploy" / "docs" / one).exists()]
