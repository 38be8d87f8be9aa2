"""Images to verdicts, and nothing that is not finite ever passes."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard import Decision, Pipeline, Policy, calibration
from guard.data import signs
from guard.errors import ConfigError, InputError, PackError
from guard.pack import sign_pack, write_manifest
from guard.pipeline import Evidence
from guard.testing import SHAPE, clean_images, make_pack, suspicious_images

MODELS = Path(__file__).parents[1] / "models"
ODD = st.sampled_from([np.nan, np.inf, -np.inf])
POLICIES = st.builds(
    Policy,
    mode=st.sampled_from(["monitor", "enforce"]),
    on_flag=st.sampled_from(["annotate", "substitute", "block"]),
    on_error=st.sampled_from(["block", "allow"]),
    max_false_positive_rate=st.floats(0.01, 0.5),
)
quietly = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The tiny pack, loaded."""
    folder = make_pack(tmp_path_factory.mktemp("packs") / "tiny")
    yield Pipeline.load(folder, secret=b"test", max_false_positive_rate=0.05)


def test_clean_passes_and_stripes_are_flagged(pipeline: Pipeline) -> None:
    """The tiny pack lets plain pictures through and flags striped ones, each row for itself."""
    images = np.concatenate([clean_images([0, 1]), suspicious_images([2])])
    verdicts = pipeline.inspect(images)
    assert [v.decision for v in verdicts] == [Decision.ALLOW, Decision.ALLOW, Decision.FLAG]
    assert [v.label for v in verdicts] == [0, 1, 2]


def test_uint8_is_the_same_as_float(pipeline: Pipeline) -> None:
    """Bytes are pixels times 255."""
    images = np.round(clean_images([0, 1, 2]) * 255)
    scores = [
        v.scores["detector"]
        for form in (images.astype(np.uint8), (images / 255).astype(np.float32))
        for v in pipeline.inspect(form)
    ]
    assert scores[:3] == pytest.approx(scores[3:], abs=1e-6)


def test_no_images_no_verdicts(pipeline: Pipeline) -> None:
    """An empty batch is answered, not crashed on."""
    assert pipeline.inspect(np.empty((0, *SHAPE), np.float32)) == []


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (np.zeros((1, 3, 4, 5), np.float32), "shape"),
        (np.zeros((3, 8, 8), np.float32), "shape"),
        (np.full((1, *SHAPE), 1.5, np.float32), "outside"),
        (np.full((1, *SHAPE), -0.1, np.float32), "outside"),
        (np.zeros((1, *SHAPE), np.int64), "int64"),
    ],
)
def test_unusable_images_are_named(pipeline: Pipeline, images: np.ndarray, problem: str) -> None:
    """A wrong shape, type or range is an InputError that says which."""
    with pytest.raises(InputError, match=problem):
        pipeline.inspect(images)


@quietly
@given(
    odd=ODD, row=st.integers(0, 2), place=st.integers(0, int(np.prod(SHAPE)) - 1), policy=POLICIES
)
def test_a_pixel_that_is_not_finite_never_passes(
    pipeline: Pipeline, odd: float, row: int, place: int, policy: Policy
) -> None:
    """One NaN or infinite pixel makes its own image ERROR and leaves the others alone."""
    images = clean_images([0, 1, 2])
    images[row].reshape(-1)[place] = odd
    verdicts = pipeline.judge(pipeline.evidence(images), policy=policy)
    assert [d == Decision.ERROR for d in verdicts.decisions] == [i == row for i in range(3)]


@quietly
@given(odd=ODD, row=st.integers(0, 2), column=st.integers(0, 3), policy=POLICIES)
def test_an_answer_that_is_not_finite_never_passes(
    pipeline: Pipeline, odd: float, row: int, column: int, policy: Policy
) -> None:
    """A non-finite number in the upstream's answer, or in the evidence, is ERROR."""
    evidence = pipeline.evidence(clean_images([0, 1, 2]))
    answer = np.eye(3, dtype=np.float32)
    if column < 3:
        answer[row, column] = odd
    else:
        rows = evidence.rows.copy()
        rows[row, 0] = odd
        evidence = Evidence(rows, evidence.probabilities, evidence.noise_index)
    verdicts = pipeline.judge(evidence, answer, policy=policy)
    assert [d == Decision.ERROR for d in verdicts.decisions] == [i == row for i in range(3)]


@pytest.mark.parametrize("labels", [[0, 3, 1], [0, -1, 1], [0, 0.5, 1], [0, np.nan, 1]])
def test_an_impossible_label_never_passes(pipeline: Pipeline, labels: list[float]) -> None:
    """A label outside the classes, or no whole number, is ERROR for its row alone."""
    evidence = pipeline.evidence(clean_images([0, 0, 1]))
    decisions = pipeline.judge(evidence, np.array(labels)).decisions
    assert [d == Decision.ERROR for d in decisions] == [False, True, False]


def test_labels_and_probabilities_say_the_same(pipeline: Pipeline) -> None:
    """An upstream that gives labels is judged like one that gives certain probabilities."""
    evidence = pipeline.evidence(clean_images([0, 1, 2]))
    by_label = pipeline.judge(evidence, np.array([0, 1, 1]))
    by_row = pipeline.judge(evidence, np.eye(3, dtype=np.float32)[[0, 1, 1]])
    assert np.array_equal(by_label.scores, by_row.scores)
    assert by_label.labels.tolist() == [0, 1, 1]


def test_an_answer_of_another_shape_is_refused(pipeline: Pipeline) -> None:
    """An answer for other images or classes is an InputError."""
    evidence = pipeline.evidence(clean_images([0, 1]))
    with pytest.raises(InputError, match="answer has shape"):
        pipeline.judge(evidence, np.zeros((2, 4), np.float32))


def test_a_verdict_depends_on_the_image_alone(pipeline: Pipeline) -> None:
    """Scores are the same alone and among batch neighbours."""
    images = np.concatenate([clean_images([0, 1]), suspicious_images([2, 0])])
    together = pipeline.judge(pipeline.evidence(images)).scores
    apart = [pipeline.judge(pipeline.evidence(image[None])).scores[0] for image in images]
    assert together == pytest.approx(np.array(apart), abs=1e-5)


def test_substitution_answers_with_the_ensemble(pipeline: Pipeline) -> None:
    """Under `substitute` the label of a flagged image is the robust ensemble's."""
    policy = Policy(mode="enforce", on_flag="substitute", max_false_positive_rate=0.05)
    evidence = pipeline.evidence(suspicious_images([2]))
    verdict = pipeline.judge(evidence, np.array([0]), policy).rows()[0]
    assert (verdict.substituted, verdict.label) == (True, 2)


def test_a_budget_out_of_reach_is_refused(pipeline: Pipeline) -> None:
    """A budget that the calibration set cannot resolve would never alarm, so it is refused."""
    with pytest.raises(ConfigError, match="calibration images"):
        Pipeline.load(pipeline.pack.folder, max_false_positive_rate=1e-6)


def test_golden_vectors_that_differ_are_refused(tmp_path: Path) -> None:
    """A graph that computes something else than it did when it was built does not load."""
    folder = make_pack(tmp_path / "tiny")
    manifest = json.loads((folder / "manifest.json").read_text())
    with np.load(folder / "golden.npz") as stored:
        golden = dict(stored)
    golden["scores_alone"] = golden["scores_alone"] + 1
    np.savez(folder / "golden.npz", **golden)
    write_manifest(folder, manifest)
    sign_pack(folder)
    with pytest.raises(PackError, match="golden"):
        Pipeline.load(folder)


def test_a_calibration_for_another_pack_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    """Thresholds made for one pack never judge with another."""
    (tmp_path / "c.npz").write_bytes(calibration.dump(pipeline.calibrations))
    with pytest.raises(PackError, match="run `guard calibrate` again"):
        Pipeline.load(pipeline.pack.folder, calibration_file=tmp_path / "c.npz")


def test_an_explanation_shows_what_the_members_saw() -> None:
    """Views are those of the defences, answers sum to one, the robust members make the ensemble."""
    real = Pipeline.load(MODELS / "signs", secret=b"test")
    image = signs.make(1, seed=3, size=32).pixels()[0]
    seen = real.explain(image)
    assert list(seen.members) == [member.name for member in real.pack.members]
    assert list(seen.views) == list(seen.answers) == list(seen.asked)
    assert np.allclose(seen.views["squeeze_bits"], np.round(image * 31) / 31, atol=1e-6)
    assert {*seen.asked.values()} <= {*seen.members}
    for answer in (*seen.members.values(), *seen.answers.values()):
        assert answer.sum() == pytest.approx(1, abs=1e-5)
    robust = [seen.members[m.name] for m in real.pack.members if m.role == "robust"]
    evidence = real.evidence(real.pixels(image[None]))
    assert np.allclose(np.mean(robust, axis=0), evidence.probabilities[0], atol=1e-6)
    again = real.explain(image, int(evidence.noise_index[0]))
    assert np.array_equal(again.views["noise_1"], seen.views["noise_1"])
    with pytest.raises(InputError, match="no noise number"):
        real.explain(image, -1)


def test_a_pack_that_does_not_tell_explains_nothing(pipeline: Pipeline) -> None:
    """The views and members of a pack without those outputs are empty, not an error."""
    assert pipeline.explain(clean_images([0])[0]).views == {}
