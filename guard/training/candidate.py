"""A candidate: its parent's pack with another detector, and the thresholds that go with it.

The graph is the parent's, byte for byte, and so are the rows that thresholds come from and that
detectors are held to. The folder gets its name last, so that a half-written one is never taken for
a pack.
"""

import datetime
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from guard import calibration, rows
from guard.calibration import Calibration
from guard.defenses.detector import Detector
from guard.defenses.load import fill, initializers, weights
from guard.errors import PackError
from guard.onnx import Session
from guard.pack import Pack
from guard.rows import Rows, joined
from guard.training.build import BROKEN, calibrate
from guard.training.export import detector_parity
from guard.training.reviewed import has_upstream

# Rows on the operator's own clean pictures, from `guard calibrate`: their thresholds replace those
# that the pack came with, and later candidates keep them.
OPERATOR = "operator"
CHECKED = 512  # rows of the hold-out that both engines judge
# What still holds of the parent's figures: those of the graph, which is the same.
LASTING = ("examined", "test_images", "production_clean", "clean", "robustness")


def parent_tables(parent: Pack) -> dict[str, Rows]:
    """The rows that a pack keeps; PackError where it has none, so nothing can be retrained."""
    data = parent.files.get(rows.FILE)
    tables = rows.load(data) if data is not None else {}
    missing = [name for name in rows.TABLES if name not in tables]
    if missing:
        raise PackError(
            f"{parent.folder} keeps no rows to {missing[0]}: build it again with this version"
        )
    return tables


def thresholds(
    detector: Detector, tables: Mapping[str, Rows], about: Mapping[str, Mapping[str, str]]
) -> dict[str, Calibration]:
    """Both calibrations: from the operator's own clean pictures where there are any.

    about: what the entries say of where they come from, by name.
    """
    entries = calibrate(detector, tables["calibrate"])
    own = tables.get(OPERATOR)
    if own is not None:
        theirs = calibrate(detector, own)
        entries["alone"] = theirs["alone"]
        if has_upstream(own).all():
            entries["upstream"] = theirs["upstream"]
    return {
        name: replace(entry, about={**entry.about, **about.get(name, {})})
        for name, entry in entries.items()
    }


def grown(
    tables: Mapping[str, Rows], new: Sequence[Rows | None], own: Rows | None
) -> dict[str, Rows]:
    """The tables of a child: more to replay, and the operator's own clean pictures."""
    parts = [part for part in new if part is not None and len(part)]
    kept = {**tables, "learn": joined([tables["learn"], *parts])}
    return kept if own is None else {**kept, OPERATOR: own}


def successor(parent: Pack) -> dict[str, Any]:
    """What a child's manifest says of its descent: name, serial, parent and lineage."""
    serial = int(parent.manifest.get("serial", 0)) + 1
    return {
        "name": f"{root(parent.name)}-r{serial}",
        "serial": serial,
        "parent": parent.digest,
        "lineage": [*parent.manifest.get("lineage", ()), parent.digest],
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def root(name: str) -> str:
    """A pack's name without the number of the round."""
    return re.sub(r"-r\d+$", "", name)


def write_parts(
    folder: Path,
    parent: Pack,
    detector: Detector,
    tables: Mapping[str, Rows],
    entries: Mapping[str, Calibration],
) -> float:
    """Write all files that are used at run time; returns how far the two engines are apart."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evidence.onnx").write_bytes(parent.files["evidence.onnx"])
    (folder / "detector.onnx").write_bytes(refilled(parent.files["detector.onnx"], detector))
    parity = _parity(detector, folder / "detector.onnx", tables["holdout"], len(parent.classes))
    (folder / "golden.npz").write_bytes(_golden(parent, detector))
    (folder / "calibration.npz").write_bytes(calibration.dump(entries))
    (folder / rows.FILE).write_bytes(rows.dump(tables))
    return parity


def refilled(model: bytes, detector: Detector) -> bytes:
    """The parent's `detector.onnx` with this detector's numbers: no graph is made anew.

    Raises PackError where they do not fit, bit for bit.
    """
    proto = onnx.load_model_from_string(model)
    state = weights(detector)
    for tensor in proto.graph.initializer:
        if tensor.name in state:
            value = state[tensor.name].numpy()
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    data = proto.SerializeToString(deterministic=True)
    again = Detector(detector.defenses, hidden=detector.hidden)
    before = initializers(model)
    if any(name not in before or before[name].shape != x.shape for name, x in state.items()):
        raise PackError("the parent's detector.onnx has another form than its manifest says")
    fill(again, initializers(data))
    if not all(torch.equal(x, state[name]) for name, x in weights(again).items()):
        raise PackError("detector.onnx does not hold the detector's numbers")
    return data


def _parity(detector: Detector, model: Path, held: Rows, classes: int) -> float:
    generator = torch.Generator().manual_seed(0)
    evidence = torch.from_numpy(held.features[:CHECKED, :-1].copy())
    ours, theirs = torch.randn(2, len(evidence), classes, generator=generator).mul(3).softmax(-1)
    return detector_parity(detector, model, evidence, ours, theirs).require(10 * BROKEN).worst


@torch.no_grad()
def _golden(parent: Pack, detector: Detector) -> bytes:
    """The parent's golden pictures, with what this detector says of them."""
    with np.load(io.BytesIO(parent.files["golden.npz"]), allow_pickle=False) as stored:
        golden = {name: stored[name] for name in stored.files}
    images = golden["images"].astype(np.float32) / np.float32(255)
    feeds = {"images": images, "noise": golden["noise"].astype(np.float32)}
    if not parent.noise_copies:
        del feeds["noise"]
    seen = Session(parent.files["evidence.onnx"]).run(feeds, ("evidence",))
    probabilities = torch.from_numpy(golden["probabilities"].astype(np.float32))
    labels = torch.from_numpy(golden["labels"].astype(np.int64))
    answer = torch.nn.functional.one_hot(labels, probabilities.shape[1]).float()
    evidence = torch.from_numpy(np.asarray(seen["evidence"], np.float32))
    alone, both = detector(evidence, probabilities, answer)
    scores = {"scores_alone": alone.numpy(), "scores_upstream": both.numpy()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{**golden, **scores})
    return buffer.getvalue()


def described(parent: Pack, detector: Detector, parity: float) -> dict[str, Any]:
    """The manifest of a candidate, without what was learned and how it was judged."""
    measured = {k: v for k, v in parent.manifest.get("measured", {}).items() if k in LASTING}
    return {
        **parent.manifest,
        **detector.spec(),
        **successor(parent),
        "parity": max(parity, float(parent.manifest.get("parity", 0.0))),
        "measured": measured,
    }
