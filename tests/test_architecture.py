"""The design, held: walls, doors, sizes, names, the public surface, what may be committed."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import guard

ROOT = Path(__file__).parents[1]
MAX_MODELS = 45_000_000  # bytes
MAX_LINES, MAX_FUNCTION, MAX_TRAINING_LOOP = 400, 60, 100
TOP_LEVEL = {
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "guard",
    "models",
    "protos",
    "pyproject.toml",
    "tests",
}
PUBLIC = [
    "Decision",
    "GuardError",
    "Pipeline",
    "Policy",
    "Verdict",
    "load_evidence",
    "load_member",
]
TORCH_WINGS = {"attacks", "defenses", "evaluation", "networks", "training"}
FREE = {"__init__", "__main__", "cli", "demo"}  # these may reach both sides
EMPTY_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|misc|shared|stuff)(_|$)")
NOT_FOR_COMMIT = {
    "a secret": r"-----BEGIN [A-Z ]*PRIVATE" r" KEY|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}",
    "a path of one machine": r"(?<![\w.])/(root|home|Users|work)/\w|/opt/(py|wheels)",
    "a package registry's host": r"py" r"pi\.org|python" r"hosted\.org|registry\." r"npmjs",
    "a folder beside the project": r"\.\./" r"shared",
}
MAY_NAME = {".ci/run": {"a folder beside the project"}}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom, imports under TYPE_CHECKING counted."""
    return grimp.build_graph("guard", include_external_packages=True, cache_dir=None)


def tracked(*patterns: str) -> list[Path]:
    """The files that are committed, or will be."""
    command = ["git", "ls-files", "-z", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function in a file, methods and inner ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def contracts() -> dict[str, dict[str, list[str]]]:
    """The import-linter contracts by id."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract for contract in settings["contracts"]}


def test_every_module_stands_on_one_side_of_the_wall() -> None:
    """A new module cannot stay outside the contracts that keep torch out of serving."""
    walls = contracts()["no-torch"]
    serving = {name.removeprefix("guard.") for name in walls["source_modules"]}
    present = {path.stem for path in (ROOT / "guard").iterdir() if path.suffix == ".py"}
    present |= {path.parent.name for path in (ROOT / "guard").glob("*/__init__.py")}
    assert present - serving - FREE == TORCH_WINGS
    assert {f"guard.{name}" for name in TORCH_WINGS} < set(walls["forbidden_modules"])


def test_serving_modules_load_no_torch() -> None:
    """Importing the whole serving side leaves torch out of the process."""
    names = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for name in contracts()["no-torch"]["source_modules"]
        for path in tracked(f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/*.py")
        if path.stem not in FREE
    ]
    assert len(names) > 20
    code = "import sys, importlib; [importlib.import_module(n) for n in sys.argv[1:]]\n"
    code += "heavy = {'torch', 'torchvision', 'onnx', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
    code += "sys.exit(f'{sorted(heavy)} came along' if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, text=True, stderr=-1)
    assert done.returncode == 0, done.stderr


def test_no_circles(graph: grimp.ImportGraph) -> None:
    """No module imports itself through others."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for target in sorted(graph.find_modules_directly_imported_by(module)):
            if target.startswith("guard."):
                visit(target, (*path, module))
        done.add(module)

    for module in sorted(graph.modules):
        if module.startswith("guard"):
            visit(module, ())


def test_public_names_are_fixed_and_importable() -> None:
    """`guard` offers exactly these names, sorted, and each of them is there."""
    assert guard.__all__ == PUBLIC == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(importlib.import_module("guard"), name) is not None
    shown = {name for name in vars(guard) if name[0] != "_" and name[0].isupper()}
    assert shown <= {*PUBLIC, "TYPE_CHECKING", "Any"}


def test_files_are_short() -> None:
    """No source file exceeds 400 lines."""
    lengths = {path: len(path.read_text().splitlines()) for path in tracked("*.py", "*.proto")}
    assert not {path: length for path, length in lengths.items() if length > MAX_LINES}


def test_functions_are_short() -> None:
    """No function exceeds 60 lines, a training loop 100."""
    long = []
    for path in tracked("*.py"):
        training = path.parent == ROOT / "guard" / "training"
        limit = MAX_TRAINING_LOOP if training else MAX_FUNCTION
        for function in functions(path):
            length = (function.end_lineno or 0) - function.lineno + 1
            if length > limit:
                long.append(f"{path}: {function.name}: {length} lines")
    assert not long


def test_no_module_is_named_after_nothing() -> None:
    """No module is called utils, helpers, common or misc."""
    assert not [path for path in tracked("*.py") if EMPTY_NAMES.search(path.stem)]


def test_every_test_says_what_it_proves() -> None:
    """Every test function has a docstring."""
    silent = [
        f"{path}: {function.name}"
        for path in tracked("tests/*.py")
        for function in functions(path)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert not silent


def test_nothing_private_is_committed() -> None:
    """No tracked text holds a secret, a path of somebody's machine or a registry's host."""
    found = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # packs and pictures
        for what, pattern in NOT_FOR_COMMIT.items():
            if what not in MAY_NAME.get(name, ()) and (match := re.search(pattern, text)):
                found.append(f"{name}: {what}: {match[0]}")
    assert not found


def test_the_top_level_stays_small() -> None:
    """Nothing lies at the top but what the design names; its tools' settings start with a dot."""
    entries = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in entries if name[0] != "."} <= TOP_LEVEL


def test_packs_stay_small() -> None:
    """All packs together weigh less than 45 MB, so that a clone stays quick."""
    assert sum(path.stat().st_size for path in tracked("models")) < MAX_MODELS


def test_make_targets_are_one_line_each() -> None:
    """`demo`, `test`, `check` and `bench` are there, and each does its own set-up first."""
    rules = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "check", "bench"):
        assert re.search(rf"^{target}: (setup|check)? ?; @\S.*$", rules, re.MULTILINE), target
