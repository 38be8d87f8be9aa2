"""Exports a pack's graph anew from the pack's own weights, for what a newer guard adds to it.

Nothing is trained, calibrated or measured again, so nothing may change: the new graph must say what
the golden vectors and the old graph say.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from guard import calibration
from guard.defenses.load import load_evidence
from guard.errors import PackError
from guard.onnx import Session
from guard.pack import MANIFEST, Pack, sign_pack, write_manifest
from guard.pipeline import JUDGED, Pipeline
from guard.signing.bundle import SIGNATURE
from guard.training.build import BROKEN, probes
from guard.training.export import evidence_parity, export_evidence
from guard.verdict import Policy

GRAPH = "evidence.onnx"


def rebuild_pack(folder: Path) -> Pack:
    """Write `evidence.onnx` and what the manifest says of it anew; returns the pack.

    Where the new graph does not say what the old one says, PackError, and the old one stays. A
    shipped pack has to be pinned again. A signed one has to be trusted here, and is signed again.
    """
    signed = (folder / SIGNATURE).exists()
    pack = Pack.load(folder, check_pin=signed)
    with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=".rebuild-") as beside:
        fresh = Path(beside) / folder.name
        shutil.copytree(folder, fresh)
        _export(pack, fresh)
        again = Pack.load(fresh, check_pin=False)
        entries = calibration.load(again.files["calibration.npz"])
        policy = Policy(max_false_positive_rate=0.5)
        Pipeline(again, policy=policy, calibrations=entries, secret=b"golden vectors")
        for name in (GRAPH, MANIFEST):
            (fresh / name).replace(folder / name)
    return sign_pack(folder) if signed else Pack.load(folder, check_pin=False)


def _export(pack: Pack, fresh: Path) -> None:
    graph = load_evidence(pack)
    export_evidence(graph, fresh / GRAPH, shape=pack.input_shape)
    images, noise = probes(graph, pack.input_shape)
    parity = evidence_parity(graph, fresh / GRAPH, images, noise).require(BROKEN)
    feeds = {"images": images.numpy(), "noise": noise.numpy()}
    before = Session(pack.files[GRAPH]).run(feeds, JUDGED)
    after = Session(fresh / GRAPH).run(feeds, JUDGED)
    if not all(np.allclose(before[n], after[n], rtol=BROKEN, atol=BROKEN) for n in JUDGED):
        raise PackError(f"{pack.folder}: the graph exported anew does not say what the old one did")
    spec = json.loads(json.dumps(graph.spec()["evidence"]))
    worst = max(float(pack.manifest.get("parity", 0.0)), parity.worst)
    manifest = {**pack.manifest, "evidence": {**pack.manifest["evidence"], **spec}, "parity": worst}
    write_manifest(fresh, manifest)
