"""The ensemble's own outputs."""

from pathlib import Path

import numpy as np

from guard.config import Input
from guard.gateway import ensemble
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.testing import clean_images, make_pack


def test_rows_that_are_not_answered_are_blank(tmp_path: Path) -> None:
    """NaN for probabilities, -1 for the label, and only in those rows."""
    pipeline = Pipeline.load(make_pack(tmp_path / "tiny"))
    verdicts = pipeline.judge(pipeline.evidence(clean_images([0, 1])))
    stopped = np.array([True, False])
    assert ensemble.output("label", verdicts, stopped).tolist() == [-1, 1]
    probabilities = ensemble.output("probabilities", verdicts, stopped)
    assert np.isnan(probabilities).all(axis=1).tolist() == [True, False]
    assert probabilities.dtype == np.float32
    assert ensemble.output("guard_decision", verdicts, stopped).tolist() == [0, 0]


def test_metadata_follows_the_input_settings(tmp_path: Path) -> None:
    """Layout and encoding decide what a client is told to send."""
    pack = Pack.load(make_pack(tmp_path / "tiny"))
    for spec, datatype, shape in (
        (Input(), "FP32", [-1, 3, 8, 8]),
        (Input(layout="NHWC"), "FP32", [-1, 8, 8, 3]),
        (Input(layout="CHW"), "FP32", [3, 8, 8]),
        (Input(encoded=True), "BYTES", [-1]),
    ):
        (about,) = ensemble.metadata("tiny", spec, pack).inputs
        assert (about.datatype, list(about.shape)) == (datatype, shape)
