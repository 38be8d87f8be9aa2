"""Runs some tests in a copy of the tree, each time in a process forked from one that has numpy,
gRPC, pytest and guard already: what is left of a run is what depends on the module that was
changed, and the tests.
"""

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grimp

from tests.mutation.targets import ROOT

HEAVY = (
    "pytest", "_pytest.assertion.rewrite", "pytest_asyncio.plugin", "hypothesis", "numpy",
    "scipy.stats", "onnx", "onnxruntime", "grpc", "grpc.aio", "grpc_health.v1.health_pb2",
    "grpc_reflection.v1alpha.reflection_pb2", "google.protobuf.descriptor_pb2", "cryptography.x509",
    "cryptography.hazmat.primitives.asymmetric.rsa", "jwt", "msgspec", "click",
    "prometheus_client", "PIL.Image",
)  # fmt: skip
IGNORED = (".git", ".venv", ".venv-peers", ".cache", "work", "__pycache__", ".hypothesis")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `failed` names the first test that failed, "timeout", or nothing."""

    failed: str
    seconds: float


class Suite:
    """Tests in a copy of the tree, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.tree, self._log = folder / "tree", folder / "last-run.log"
        self._changed, self._dependent = "", dict[str, set[str]]()

    def fresh(self) -> None:
        """Make the copy, with everything compiled."""
        shutil.rmtree(self.tree, ignore_errors=True)
        skip = shutil.ignore_patterns(*IGNORED)
        shutil.copytree(ROOT, self.tree, ignore=skip, symlinks=True)
        command = [sys.executable, "-m", "compileall", "-q", "guard", "tests"]
        subprocess.run(command, cwd=self.tree, check=True)

    def begin(self) -> None:
        """From here on this process belongs to the copy: its folder, its path, its modules."""
        os.chdir(self.tree)
        sys.path[:] = [str(self.tree), *(p for p in sys.path if p not in ("", str(ROOT)))]
        os.environ["PYTHONPATH"] = str(self.tree)
        for name in HEAVY:
            importlib.import_module(name)

    def warm(self) -> None:
        """Import guard as well; what depends on a changed module is imported anew in each run."""
        for name in ("guard.testing", "guard.cli", "guard.gateway.server"):
            importlib.import_module(name)
        graph = grimp.build_graph("guard", cache_dir=None)
        self._dependent = {one: graph.find_downstream_modules(one) for one in graph.modules}

    def put(self, path: str, text: str) -> None:
        """A module's text, in the copy; no bytecode of an earlier one is left."""
        file = self.tree / path
        for old in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            old.unlink()
        file.write_text(text)
        self._changed = path.removesuffix(".py").replace("/", ".")

    def run(self, tests: Sequence[str], timeout: float, *, plugin: str = "") -> Outcome:
        """Run these tests up to the first that fails."""
        start = time.monotonic()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._child(tests, write, plugin)
        os.close(write)
        told, ended = b"", False
        while not ended and (left := timeout - (time.monotonic() - start)) > 0:
            if select.select([read], [], [], left)[0]:
                piece = os.read(read, 4096)
                told, ended = told + piece, not piece or told.endswith(b"\n")
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what the tests started, too
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seconds = time.monotonic() - start
        if not told.endswith(b"\n"):
            return Outcome("crash" if ended else "timeout", seconds)
        return Outcome(json.loads(told), seconds)

    def _forget(self) -> None:
        """Let what was changed, and all that imported it, be imported anew."""
        stale = {self._changed, *self._dependent.get(self._changed, ())}
        for name in stale:
            parent, _, child = name.rpartition(".")
            sys.modules.pop(name, None)
            if parent in sys.modules and hasattr(sys.modules[parent], child):
                delattr(sys.modules[parent], child)

    def _child(self, tests: Sequence[str], write: int, plugin: str) -> None:
        try:
            os.setsid()
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.dont_write_bytecode = True
            self._forget()
            import pytest

            first = First()
            plugins: list[object] = [first]
            if plugin:
                plugins.append(importlib.import_module(plugin).Plugin())
            options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--rootdir=."]
            code = int(pytest.main([*options, *tests], plugins=plugins))
            failed = first.failed or ("" if code == 0 else f"exit {code}")
            os.write(write, json.dumps(failed).encode() + b"\n")
        finally:
            os._exit(0)


class First:
    """A pytest plugin that remembers what failed first."""

    failed = ""

    def pytest_runtest_logreport(self, report: object) -> None:
        """A test, its set-up or its end went wrong."""
        if getattr(report, "failed", False):
            self.failed = self.failed or str(getattr(report, "nodeid", "?"))

    def pytest_collectreport(self, report: object) -> None:
        """A module of tests could not even be imported."""
        self.pytest_runtest_logreport(report)
