"""Calibrating on traffic: only a fair sample counts, and what serving reads comes out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from guard import calibration
from guard.cli import main
from guard.errors import InputError
from guard.pipeline import Pipeline
from guard.suspects.export import write_export
from guard.suspects.record import Review, Row, Suspect
from guard.testing import classifier_onnx, clean_images, make_pack, suspicious_images
from guard.training.calibrate import kept_rows
from guard.training.cases import Case, from_gateway
from guard.training.sampled import Sampled, calibrate_on
from guard.verdict import Decision


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The tiny pack's."""
    folder = make_pack(tmp_path_factory.mktemp("packs") / "tiny")
    return Pipeline.load(folder, max_false_positive_rate=0.05, secret=b"s" * 32)


class Kept:
    """A suspect with its row, as an export has them."""

    def __init__(self, row: Row, suspect: Suspect) -> None:
        self.row, self.suspect = row, suspect


def kept(pipeline: Pipeline, count: int, *, seed: int = 0) -> Iterator[Kept]:
    """So many sampled pictures that two people called benign."""
    random = np.random.default_rng(seed)
    for number in range(count):
        base = clean_images([number % 3])
        image = np.clip(base + random.uniform(-0.1, 0.1, base.shape), 0, 1).astype(np.float32)
        evidence = pipeline.evidence(image)
        answer = np.eye(3, dtype=np.float32)[[number % 3]]
        verdict = pipeline.judge(evidence, answer).row(0)
        common: dict[str, Any] = {
            "id": f"{seed:016x}{number:016x}",
            "taken": 1e9 + number,
            "model": "tiny",
            "pack": pipeline.pack.digest,
            "tenant": "",
            "client": f"client {number % 4}",
            "sampled": True,
        }
        suspect = Suspect(
            **common,
            near=(),
            budget=0.05,
            verdict=verdict,
            image=image[0],
            evidence=evidence.rows[0],
            probabilities=evidence.probabilities[0],
            upstream=answer[0],
            noise_index=int(evidence.noise_index[0]),
        )
        row = Row(
            **common,
            decision=Decision.ALLOW,
            p_value=verdict.p_value,
            predicted=verdict.label,
            alarms=(),
            seen=1,
            bytes=1,
            state="agreed",
            label="benign",
            reviews=(Review("ada", "benign", 1e9), Review("bob", "benign", 1e9)),
        )
        yield Kept(row, suspect)


def cases(pipeline: Pipeline, count: int = 60, **options: int) -> list[Case]:
    """The same as cases."""
    return list(from_gateway(kept(pipeline, count, **options)))


def fit(pipeline: Pipeline, found: list[Case], **options: Any) -> Sampled:
    """A calibration of the tiny model from these."""
    settings = {"model": "tiny", "upstream": True, "about": {"data": "traffic"}, **options}
    return calibrate_on(pipeline, found, **settings)


def test_it_is_what_the_pipeline_says_of_benign_traffic(pipeline: Pipeline) -> None:
    """Scores of the sample become both calibrations, which say where they come from."""
    found = fit(pipeline, cases(pipeline))
    assert found.benign == 60
    assert found.busiest == 0.25
    assert not found.left_out
    for key, entry in found.entries.items():
        assert entry.names == pipeline.score_names(upstream=key == "upstream")
        assert len(entry) == 60
        assert entry.about["pack"] == pipeline.pack.digest
    scores = sorted(
        float(pipeline.judge(pipeline.evidence(case.image()[None])).scores[0, -1])
        for case in cases(pipeline)
    )
    alone = found.entries["alone"].scores[:, -1].tolist()
    assert alone == pytest.approx(scores, abs=1e-5)


def test_only_the_settled_random_sample_of_this_model_counts(pipeline: Pipeline) -> None:
    """What alarmed, what is attacked, another model's and the same twice are left out, counted."""
    good = cases(pipeline)
    others = [
        replace(good[0], id="a", sampled=False),
        replace(good[1], id="b", model="other"),
        replace(good[2], id="c", label="adversarial"),
        replace(good[3], id="d", agreed=False),
        replace(good[4], id="e", upstream=None),
        good[5],
    ]
    found = fit(pipeline, good + others)
    assert found.benign == 60
    assert found.left_out == {
        "not in the random sample": 1,
        "another model": 1,
        "adversarial": 1,
        "not settled": 1,
        "no answer of the upstream": 1,
        "there twice": 1,
    }


def test_a_half_reviewed_sample_is_refused(pipeline: Pipeline) -> None:
    """Alarms are reviewed first: what is settled early is no fair sample."""
    found = cases(pipeline)
    found += [replace(case, id=f"open {n}", agreed=False) for n, case in enumerate(found[:4])]
    with pytest.raises(InputError, match="only 60 of 64 sampled suspects are settled"):
        fit(pipeline, found)


def test_too_few_for_the_budget_are_refused(pipeline: Pipeline) -> None:
    """Nineteen resolve one in twenty, eighteen do not."""
    assert fit(pipeline, cases(pipeline, 19)).benign == 19
    with pytest.raises(InputError, match=r"18 benign suspects .* takes 19 at least"):
        fit(pipeline, cases(pipeline, 18))


def test_evidence_of_another_graph_is_computed_again(pipeline: Pipeline) -> None:
    """A suspect of a pack that this one does not descend from is judged from its picture."""
    found = cases(pipeline)
    strange = [
        replace(case, pack="sha256:other", evidence=np.full(99, 7, np.float32)) for case in found
    ]
    fresh, stored = fit(pipeline, strange), fit(pipeline, found)
    assert fresh.entries["alone"].scores == pytest.approx(stored.entries["alone"].scores, abs=1e-5)


def test_evidence_that_is_not_the_graphs_is_refused(pipeline: Pipeline) -> None:
    """A stored row of the wrong length names its suspect."""
    found = cases(pipeline)
    found[7] = replace(found[7], evidence=np.zeros(99, np.float32))
    with pytest.raises(InputError, match=f"suspect {found[7].id}"):
        fit(pipeline, found)


def test_without_an_upstream_its_answers_do_not_matter(pipeline: Pipeline) -> None:
    """One calibration comes out."""
    found = [replace(case, upstream=None) for case in cases(pipeline)]
    assert [*fit(pipeline, found, upstream=False).entries] == ["alone"]


def test_traffic_that_changed_gets_its_budget_back(pipeline: Pipeline) -> None:
    """Pictures that the pack's own calibration flags are flagged at the budget afterwards."""
    random = np.random.default_rng(3)
    striped = 0.5 * (clean_images([0] * 400) + suspicious_images([0] * 400))
    images = np.clip(striped + random.uniform(-0.2, 0.2, striped.shape), 0, 1).astype(np.float32)
    evidence = pipeline.evidence(images)
    before = (pipeline.judge(evidence).p_values <= 0.05).mean()
    template = cases(pipeline, 1)[0]
    drawn = [
        replace(
            template, id=str(n), evidence=evidence.rows[n], probabilities=evidence.probabilities[n]
        )
        for n in range(200)
    ]
    found = fit(pipeline, drawn, upstream=False)
    scores = pipeline.judge(evidence).scores[200:]
    after = (found.entries["alone"].p_values(scores)[:, -1] <= 0.05).mean()
    assert before > 0.3
    assert after < 0.12


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and everything printed."""
    result = CliRunner().invoke(main, ["calibrate", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_reads_an_export_and_writes_what_serving_reads(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """From Parquet to MODEL.npz, and the misuse of it in one line."""
    (tmp_path / "model.onnx").write_bytes(classifier_onnx())
    config = tmp_path / "guard.toml"
    config.write_text(
        f'[[models]]\nname = "tiny"\npack = "{pipeline.pack.folder}"\n'
        'upstream = "onnx:model.onnx"\nmax_false_positive_rate = 0.05\n'
    )
    export = tmp_path / "sample.parquet"
    write_export(export, kept(pipeline, 40), {})
    status, text = run(config, "--from-suspects", export)
    assert status == 0, text
    assert "40 benign pictures of traffic" in text
    written = calibration.load(tmp_path / "tiny.npz")
    assert {key: len(one) for key, one in written.items()} == {"alone": 40, "upstream": 40}
    rows = kept_rows(tmp_path / "tiny.npz")
    assert rows is not None
    assert len(rows) == 40
    served = Pipeline.load(
        pipeline.pack.folder, calibration_file=tmp_path / "tiny.npz", max_false_positive_rate=0.05
    )
    assert len(served.calibrations["upstream"]) == 40
    assert run(config)[0] == 2
    assert run(config, "--data", "signs", "--from-suspects", export)[0] == 2
