"""Packs that were retrained from the tiny pack: another detector, the same evidence graph."""

import hashlib
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
from guard.pack import Pack, sign_pack, write_manifest


def make_child(
    parent: Path,
    folder: Path,
    /,
    *,
    factor: float = 2.0,
    stricter: float = 1.0,
    gate: Mapping[str, Any] | None = None,
    **manifest: Any,
) -> Path:
    """A candidate whose scores are `factor` times its parent's, and its calibration with them.

    stricter: what its calibration is divided by. gate: what its report says beyond that it passed.
    """
    old = Pack.load(parent)
    shutil.copytree(parent, folder)
    detector = _scaled(old.files["detector.onnx"], factor)
    (folder / "detector.onnx").write_bytes(detector)
    entries = calibration.load(old.files["calibration.npz"])
    scaled = {
        key: replace(entry, scores=(entry.scores * np.float32(factor / stricter)))
        for key, entry in entries.items()
    }
    (folder / "calibration.npz").write_bytes(calibration.dump(scaled))
    with np.load(io.BytesIO(old.files["golden.npz"])) as stored:
        golden = dict(stored)
    for name in ("scores_alone", "scores_upstream"):
        golden[name] = golden[name] * np.float32(factor)
    np.savez(folder / "golden.npz", **golden)
    judged = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("detector.onnx", "calibration.npz")
    }
    report = {"against": old.digest, "passed": True, "heads": ["upstream", "alone"]}
    report |= {"judged": judged, **(gate or {})}
    (folder / "gate.json").write_text(json.dumps(report))
    about = {key: value for key, value in old.manifest.items() if key != "files"}
    serial = int(about.get("serial", 0)) + 1
    about |= {"name": folder.name, "serial": serial, "parent": old.digest}
    about |= {"lineage": [*old.lineage, old.digest], **manifest}
    write_manifest(folder, about)
    sign_pack(folder)
    return folder


def _scaled(detector: bytes, factor: float) -> bytes:
    """The same graph with its outputs multiplied."""
    model = onnx.load_from_string(detector)
    names, by = [output.name for output in model.graph.output], f"by{len(model.graph.node)}"
    inner = {name: f"{name}_{by}" for name in names}
    for node in model.graph.node:
        node.output[:] = [inner.get(name, name) for name in node.output]
    model.graph.initializer.append(helper.make_tensor(by, TensorProto.FLOAT, [], [factor]))
    for name in names:
        model.graph.node.append(helper.make_node("Mul", [inner[name], by], [name]))
    return bytes(model.SerializeToString())
