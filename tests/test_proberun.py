"""A probe run says that a pack runs, or stops what would not end."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from guard.errors import PackError
from guard.pack import MANIFEST, Pack, write_manifest
from guard.proberun import probe
from guard.testing import make_pack
from tests.sealing import seal


def costly(folder: Path, change: Callable[[ModelProto], None]) -> Pack:
    """A pack that passes the gate, and whose graph costs more than its shapes tell."""
    model = ModelProto.FromString((folder / "evidence.onnx").read_bytes())
    change(model)
    (folder / "evidence.onnx").write_bytes(model.SerializeToString())
    write_manifest(folder, json.loads((folder / MANIFEST).read_bytes()))
    seal(folder)
    return Pack.load(folder)


def spread(times: int, model: ModelProto) -> None:
    """The probabilities plus nothing, by way of `times` rows an image, squared."""
    factor = numpy_helper.from_array(np.array([times], np.int64), "factor")
    nothing = numpy_helper.from_array(np.array(0, np.float32), "nothing")
    model.graph.initializer.extend([factor, nothing])
    last = next(node for node in model.graph.node if node.output[0] == "probabilities")
    last.output[0] = "own"
    add = helper.make_node
    model.graph.node.extend(
        [
            add("Shape", ["images"], ["count"], start=0, end=1),
            add("Mul", ["count", "factor"], ["much"]),
            add("Concat", ["much", "much"], ["square"], axis=0),
            add("Expand", ["nothing", "square"], ["vast"]),
            add("MatMul", ["vast", "vast"], ["product"]),
            add("ReduceSum", ["product"], ["sum"], keepdims=0),
            add("Add", ["own", "sum"], ["probabilities"]),
        ]
    )
    assert model.graph.output[1].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_good_pack_runs(tmp_path: Path) -> None:
    """Its seconds and bytes are told."""
    ran = probe(Pack.load(make_pack(tmp_path / "tiny")))
    assert 0 < ran.seconds < 60
    assert 10 << 20 < ran.memory < 4 << 30


def test_a_graph_that_wants_too_much_memory_is_stopped(tmp_path: Path) -> None:
    """80 GB, decided while it runs: no shape in the file tells."""
    pack = costly(make_pack(tmp_path / "tiny"), lambda model: spread(70_000, model))
    with pytest.raises(PackError, match=r"probe run (failed|ended)"):
        probe(pack)


def test_a_graph_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    """Minutes of multiplication in little memory, where the same pack needs a moment without."""
    folder = make_pack(tmp_path / "tiny")
    allowed = 3 * probe(Pack.load(folder)).seconds
    pack = costly(folder, lambda model: spread(4_000, model))
    with pytest.raises(PackError, match=r"took more than|ended with status"):
        probe(pack, seconds=allowed)


def test_a_child_that_says_nothing_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed, or never began, is refused too."""
    monkeypatch.setattr("guard.proberun.START", "import os; os._exit(9)")
    with pytest.raises(PackError, match="ended with status 9"):
        probe(Pack.load(make_pack(tmp_path / "tiny")))
