"""A pack's files: the manifest, and the graphs that ONNX Runtime is given."""

import hashlib
import json
import random
from collections.abc import Hashable, Sequence
from pathlib import Path

from guard.errors import ConfigError, GuardError, PackError
from guard.onnx import Session
from guard.pack import MANIFEST, Pack
from guard.pipeline import Pipeline
from guard.signing.keys import operator_key
from guard.testing import make_pack
from tests.fuzz.mutate import mutate
from tests.fuzz.structure import change_json
from tests.fuzz.target import Target, demand
from tests.sealing import seal


class Manifests(Target):
    """A manifest; the other files are as it should say."""

    name = "manifest"
    errors = (PackError,)
    words = (
        b'"../evidence.onnx"', b'"/etc/hosts"', b'"schema": 2', b'"classes": []', b'"noise_copies"',
        b'"sha256"', b'"files": {}', b'"members": []', b'"shape": [3, 8, 8]', b"[" * 2000, b"NaN",
    )  # fmt: skip
    good = 1
    structured = 0.85

    def __init__(self) -> None:
        super().__init__()
        self._pack = make_pack(self.folder / "tiny")
        self._key = operator_key()
        self._good = (self._pack / MANIFEST).read_bytes()
        self._files = set(json.loads(self._good)["files"])

    def seeds(self) -> list[bytes]:
        """The good one."""
        return [self._good, json.dumps(json.loads(self._good)).encode()]

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:
        """Another value."""
        return change_json(data, rng)

    def run(self, data: bytes) -> Hashable:
        """Load the pack, and read all that a manifest says."""
        (self._pack / MANIFEST).write_bytes(data)
        seal(self._pack, self._key)
        pack = Pack.load(self._pack)
        demand(set(pack.files) == self._files, "a pack with other files")
        for name, content in pack.files.items():
            wanted = pack.manifest["files"][name]["sha256"]
            demand(hashlib.sha256(content).hexdigest() == wanted, "a file that was not checked")
        demand(len(pack.input_shape) == 3 and len(pack.classes) > 0, "no shape or no class")
        demand(pack.noise_copies >= 0, "a number of copies below none")
        names = pack.score_names(upstream=True) + pack.score_names(upstream=False)
        return pack.name == "tiny", len(pack.members), len(pack.columns), len(names)


class PackFiles(Target):
    """Another file of a pack, its hash put right: the first byte says which. Loaded whole."""

    name = "pack"
    errors = (PackError, ConfigError)
    good = 3

    def __init__(self) -> None:
        super().__init__()
        self._pack = make_pack(self.folder / "tiny")
        self._key = operator_key()
        self._names: Sequence[str] = ("calibration.npz", "golden.npz", "detector.onnx")
        self._manifest = json.loads((self._pack / MANIFEST).read_bytes())
        self._whole = {name: (self._pack / name).read_bytes() for name in self._names}

    def seeds(self) -> list[bytes]:
        """Every file as it is."""
        return [bytes([at]) + self._whole[name] for at, name in enumerate(self._names)]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Little: most changes end at the first check."""
        return data[:1] + mutate(data[1:], rng, (), ())

    def run(self, data: bytes) -> Hashable:
        """Load the pipeline: hashes, calibration, golden vectors."""
        changed = self._names[data[0] % len(self._names)] if data else self._names[0]
        manifest = json.loads(json.dumps(self._manifest))
        for name in self._names:
            content = data[1:] if name == changed else self._whole[name]
            (self._pack / name).write_bytes(content)
            manifest["files"][name]["sha256"] = hashlib.sha256(content).hexdigest()
        (self._pack / MANIFEST).write_text(json.dumps(manifest))
        seal(self._pack, self._key)
        pipeline = Pipeline.load(self._pack, threads=1)
        return changed, pipeline.provider


class Graphs(Target):
    """An ONNX file: loaded by the one door, or refused."""

    name = "onnx"
    errors = (GuardError,)
    words = (b"ai.onnx", b"Loop", b"If", b"Constant", b"ReduceMean", b"Softmax", b"location", b"N")
    good = 2

    def seeds(self) -> list[bytes]:
        """Both graphs of the tiny pack."""
        folder = make_pack(self.folder / "tiny")
        return [Path(folder / name).read_bytes() for name in ("detector.onnx", "evidence.onnx")]

    def run(self, data: bytes) -> Hashable:
        """Load it."""
        session = Session(data, providers=["CPUExecutionProvider"], threads=1)
        return len(session.inputs), len(session.outputs)
