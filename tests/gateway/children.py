"""Packs that were retrained from the tiny pack: another detector, the same evidence graph."""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from guard import calibration
from guard.onnx import Session
from guard.pack import Pack, sign_pack, write_manifest


def make_child(
    parent: Path,
    folder: Path,
    *,
    factor: float = 2.0,
    gate: Mapping[str, Any] | None = None,
    **manifest: Any,
) -> Path:
    """A candidate whose scores are `factor` times its parent's, and its calibration with them.

    gate: what its report says beyond that it passed, None in a value: without it.
    """
    old = Pack.load(parent)
    shutil.copytree(parent, folder)
    detector = _scaled(old.files["detector.onnx"], factor)
    (folder / "detector.onnx").write_bytes(detector)
    entries = calibration.load(old.files["calibration.npz"])
    scaled = {
        key: replace(entry, scores=(entry.scores * np.float32(factor)))
        for key, entry in entries.items()
    }
    (folder / "calibration.npz").write_bytes(calibration.dump(scaled))
    with np.load(io.BytesIO(old.files["golden.npz"])) as stored:
        golden = dict(stored)
    for name in ("scores_alone", "scores_upstream"):
        golden[name] = golden[name] * np.float32(factor)
    np.savez(folder / "golden.npz", **golden)
    report = {"against": old.digest, "passed": True, **(gate or {})}
    (folder / "gate.json").write_text(json.dumps(report))
    about = {key: value for key, value in old.manifest.items() if key != "files"}
    serial = int(about.get("serial", 0)) + 1
    about |= {"name": folder.name, "serial": serial, "parent": old.digest, **manifest}
    write_manifest(folder, about)
    sign_pack(folder)
    return folder


def _scaled(detector: bytes, factor: float) -> bytes:
    """The same graph with its outputs multiplied."""
    model = onnx.load_from_string(detector)
    names = [output.name for output in model.graph.output]
    for node in model.graph.node:
        node.output[:] = [f"{name}_once" if name in names else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("by", TensorProto.FLOAT, [], [factor]))
    for name in names:
        model.graph.node.append(helper.make_node("Mul", [f"{name}_once", "by"], [name]))
    return bytes(model.SerializeToString())


def scores(folder: Path, evidence: float) -> Any:
    """What a child's detector says of one stripe score, alone."""
    feeds = {
        "evidence": np.full((1, 1), evidence, np.float32),
        "probabilities": np.full((1, 3), 1 / 3, np.float32),
        "upstream": np.eye(3, dtype=np.float32)[:1],
    }
    return Session(folder / "detector.onnx").run(feeds, ("scores_alone",))["scores_alone"]
