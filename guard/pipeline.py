"""READ THIS FIRST: images ─► evidence ─► detector ─► verdicts.

One ONNX Runtime call runs the whole defence on a batch (`evidence`): squeezed and noisy views, the
robust ensemble, the sentinel, every score. A second, tiny one (`judge`) weighs that evidence,
with the production classifier's answer where there is one, and turns scores into p-values and
decisions. The gateway runs the first while it asks the upstream.

Shapes: N images, K classes, E evidence columns, D scores, S noise copies.
"""

import io
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guard import calibration
from guard.calibration import Calibration
from guard.errors import ConfigError, InputError, PackError
from guard.noise import NoiseBank
from guard.onnx import RUNTIME, Session
from guard.pack import Pack
from guard.verdict import Place, Policy, Verdict, Verdicts, decide

Floats = NDArray[np.float32]
Array = NDArray[np.generic]

JUDGED = ("evidence", "probabilities")  # the graph's outputs that a verdict needs
EXPLAINED = ("members", "views", "answers")  # those that people look at
SECRET_VARIABLE = "GUARD_SECRET"  # nosec B105  # noqa: S105 (the name)


@dataclass(frozen=True)
class Evidence:
    """What the graph saw in N images; independent of the upstream's answer."""

    rows: Floats  # (N, E)
    probabilities: Floats  # (N, K), the robust ensemble's
    noise_index: NDArray[np.int64]  # (N,), replays the noise
    place: Place | None = None  # None: they had a run to themselves

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> "Evidence":
        """The evidence on images start to stop."""
        part = slice(start, stop)
        first, size = self.place or (0, len(self))
        rows, probabilities = self.rows[part], self.probabilities[part]
        return Evidence(rows, probabilities, self.noise_index[part], (first + start, size))


@dataclass(frozen=True)
class Explanation:
    """What the defence saw in one image; all empty where the pack does not tell."""

    members: Mapping[str, Floats]  # (K,) probabilities, by member
    views: Mapping[str, Floats]  # (C, H, W), by view: what a squeezer or the noise made of it
    answers: Mapping[str, Floats]  # (K,) probabilities on each view
    asked: Mapping[str, str]  # the member that gave them


class Pipeline:
    """A pack, ready to judge images. Immutable after loading and safe to use from many threads."""

    def __init__(
        self,
        pack: Pack,
        *,
        policy: Policy,
        calibrations: dict[str, Calibration],
        secret: bytes,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        like: "Pipeline | None" = None,
    ) -> None:
        self.pack, self.policy, self.calibrations = pack, policy, calibrations
        graph = pack.files["evidence.onnx"]
        alike = like if like is not None and like.pack.files["evidence.onnx"] == graph else None
        self._graph: Session = (
            alike._graph if alike else Session(graph, providers=providers, threads=threads)
        )
        # A few hundred multiplications: threads would cost more than they bring.
        self._detector = Session(
            pack.files["detector.onnx"], providers=["CPUExecutionProvider"], threads=1
        )
        shape = (pack.noise_copies, *pack.input_shape)
        self._bank: NoiseBank = alike._bank if alike else NoiseBank(secret, shape)
        _check_calibrations(pack, policy, calibrations)
        _check_golden(self)

    @classmethod
    def load(
        cls,
        pack: str | Path | Pack,
        *,
        max_false_positive_rate: float = 0.01,
        policy: Policy | None = None,
        calibration_file: Path | None = None,
        secret: bytes | None = None,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        like: "Pipeline | None" = None,
    ) -> "Pipeline":
        """Verify a pack (one that is loaded was) and make it ready.

        max_false_positive_rate: the false-alarm budget (ignored when `policy` is given).
        calibration_file: what `guard calibrate --upstream` wrote; its entries replace the pack's.
        secret: keys the noise; default: environment variable GUARD_SECRET, else a fresh random
        one, with which verdicts on borderline images differ from one process to the next.
        like: another pipeline, whose graph and noise serve here too where the graph is the same.
        Raises PackError when the pack cannot be trusted and ConfigError when the budget is
        smaller than the calibration set can resolve.
        """
        loaded = pack if isinstance(pack, Pack) else Pack.load(pack)
        chosen = policy or Policy(max_false_positive_rate=max_false_positive_rate)
        calibrations = calibration.load(loaded.files["calibration.npz"])
        if calibration_file is not None:
            calibrations |= _fitting(calibration.load(Path(calibration_file)), loaded)
        key = secret or os.environ.get(SECRET_VARIABLE, "").encode() or secrets.token_bytes(32)
        return cls(
            loaded,
            policy=chosen,
            calibrations=calibrations,
            secret=key,
            providers=providers,
            threads=threads,
            like=like,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names."""
        return self.pack.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.pack.input_shape

    @property
    def provider(self) -> str:
        """The execution provider that really runs the evidence graph."""
        return self._graph.provider

    @property
    def engine(self) -> str:
        """What runs the graph: the last bits of a number may differ elsewhere."""
        return f"{RUNTIME}, {self.provider}"

    def score_names(self, *, upstream: bool) -> tuple[str, ...]:
        """The D names of the scores, the detector's last."""
        return self.pack.score_names(upstream=upstream)

    def inspect(self, images: Array, upstream: Array | None = None) -> list[Verdict]:
        """Verdicts on images (N, C, H, W): float in [0, 1], or uint8.

        upstream: the production model's class probabilities (N, K) or labels (N,), in the pack's
        class order. An image with a non-finite pixel gets the decision ERROR; a wrong shape or a
        pixel outside [0, 1] raises InputError.
        """
        return self.judge(self.evidence(self.pixels(images)), upstream).rows()

    def pixels(self, images: Array) -> Floats:
        """Check images and bring them to float32 (N, C, H, W) in [0, 1]; NaN and Inf stay."""
        array = np.asarray(images)
        if array.ndim != 4 or array.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise InputError(f"images have shape {array.shape}, not (N, {wanted})")
        if array.dtype == np.uint8:
            return array.astype(np.float32) / np.float32(255)
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"images are {array.dtype}, not float in [0, 1] or uint8")
        pixels = np.ascontiguousarray(array, np.float32)
        with np.errstate(invalid="ignore"):
            outside = np.isfinite(pixels) & ((pixels < 0) | (pixels > 1))
        if outside.any():
            raise InputError(f"a pixel is {pixels[outside][0]:g}, outside [0, 1]")
        return pixels

    def evidence(self, images: Floats) -> Evidence:
        """Run the defence on images (N, C, H, W), float32 in [0, 1], in one session run.

        A row with a non-finite pixel comes back all NaN.
        """
        if not len(images):
            return Evidence(
                np.empty((0, len(self.pack.columns)), np.float32),
                np.empty((0, len(self.classes)), np.float32),
                np.empty(0, np.int64),
            )
        index = self._bank.index(images)
        rows, probabilities = self._run_graph(images, self._bank.windows(index))
        unusable = ~np.isfinite(images).all(axis=(1, 2, 3))
        if unusable.any():
            rows, probabilities = rows.copy(), probabilities.copy()
            rows[unusable], probabilities[unusable] = np.nan, np.nan
        return Evidence(rows, probabilities, index)

    def judge(
        self, evidence: Evidence, upstream: Array | None = None, policy: Policy | None = None
    ) -> Verdicts:
        """Verdicts from evidence and, where there is one, the upstream's answer.

        upstream: probabilities (N, K) or labels (N,). A row whose answer is not finite, or whose
        label is none of the K classes, gets the decision ERROR.
        """
        answer, usable = self._answer(evidence, upstream)
        key = "alone" if upstream is None else "upstream"
        scores = self._run_detector(evidence, answer, key)
        finite = (
            usable
            & np.isfinite(evidence.rows).all(1)
            & np.isfinite(evidence.probabilities).all(1)
            & np.isfinite(scores).all(1)
        )
        p_values = self.calibrations[key].p_values(scores)
        p_values[~finite] = np.nan
        decisions, substituted = decide(p_values[:, -1], finite, policy or self.policy)
        own = np.nan_to_num(evidence.probabilities, nan=-1.0).argmax(1)
        theirs = np.nan_to_num(answer, nan=-1.0).argmax(1)
        labels = own if upstream is None else np.where(substituted, own, theirs)
        return Verdicts(
            decisions=decisions,
            p_values=p_values[:, -1],
            labels=labels.astype(np.int64),
            probabilities=evidence.probabilities,
            scores=scores,
            score_p_values=p_values,
            score_names=self.score_names(upstream=upstream is not None),
            substituted=substituted,
        )

    def explain(self, image: Array, noise_index: int | None = None) -> Explanation:
        """What each member and each view says of one image (C, H, W), for people to look at.

        noise_index: of the verdict to be explained; None: the image's own here. Raises InputError.
        """
        looks = self.pack.manifest["evidence"].get("views", ())
        if not looks or not {*EXPLAINED} <= {*self._graph.outputs}:
            return Explanation({}, {}, {}, {})
        images = self.pixels(np.asarray(image)[None])
        index = self._bank.index(images) if noise_index is None else np.array([noise_index])
        if not 0 <= index[0] < self._bank.draws:
            raise InputError(f"there is no noise number {index[0]}")
        seen = self._run_graph(images, self._bank.windows(index), EXPLAINED)
        members, views, answers = (each[:, 0] for each in seen)
        names = [look["name"] for look in looks]
        return Explanation(
            members=dict(zip((m.name for m in self.pack.members), members, strict=True)),
            views=dict(zip(names, views, strict=True)),
            answers=dict(zip(names, answers, strict=True)),
            asked={look["name"]: look["asked"] for look in looks},
        )

    def _answer(
        self, evidence: Evidence, upstream: Array | None
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """The upstream's answer as (N, K) floats, and which rows of it are usable."""
        count, classes = len(evidence), len(self.classes)
        if upstream is None:
            return evidence.probabilities, np.ones(count, bool)
        answer = np.asarray(upstream)
        if answer.shape == (count,):
            return _one_hot(answer, classes)
        if answer.shape != (count, classes):
            raise InputError(
                f"the upstream's answer has shape {answer.shape}, "
                f"not ({count}, {classes}) or ({count},)"
            )
        rows = answer.astype(np.float32)
        return rows, np.asarray(np.isfinite(rows).all(1), np.bool_)

    def _run_graph(
        self, images: Floats, noise: Floats, outputs: Sequence[str] = JUDGED
    ) -> list[Floats]:
        feeds = {"images": images, "noise": noise} if self.pack.noise_copies else {"images": images}
        out = self._graph.run(feeds, outputs)
        return [out[name].astype(np.float32) for name in outputs]

    def _run_detector(self, evidence: Evidence, answer: Floats, key: str) -> Floats:
        if not len(evidence):
            return np.empty((0, len(self.pack.manifest["scores"][key])), np.float32)
        feeds = {
            "evidence": evidence.rows,
            "probabilities": evidence.probabilities,
            "upstream": answer,
        }
        name = f"scores_{key}"
        return self._detector.run(feeds, (name,))[name].astype(np.float32)


def _one_hot(labels: Array, classes: int) -> tuple[Floats, NDArray[np.bool_]]:
    numbers = labels.astype(np.float64)
    with np.errstate(invalid="ignore"):
        usable = (numbers >= 0) & (numbers < classes) & (numbers == np.floor(numbers))
    rows = np.zeros((len(labels), classes), np.float32)
    chosen = np.flatnonzero(usable)
    rows[chosen, numbers[chosen].astype(np.int64)] = 1
    return rows, np.asarray(usable, bool)


def _fitting(entries: dict[str, Calibration], pack: Pack) -> dict[str, Calibration]:
    for entry in entries.values():
        made_for = entry.about.get("pack", "")
        if made_for != pack.digest:
            raise PackError(
                f"the calibration was made for pack {made_for[:19] or 'unknown'}, not for "
                f"{pack.digest[:19]} ({pack.folder}): run `guard calibrate` again"
            )
    return entries


def _check_calibrations(pack: Pack, policy: Policy, entries: dict[str, Calibration]) -> None:
    budget = policy.max_false_positive_rate
    for key in ("alone", "upstream"):
        if key not in entries or entries[key].names != pack.score_names(upstream=key == "upstream"):
            raise PackError(f"{pack.folder}: the calibration {key!r} does not fit the scores")
        if not entries[key].smallest <= budget < 1:
            raise ConfigError(
                f"max_false_positive_rate = {budget:g} is out of reach: {len(entries[key])} "
                f"calibration images resolve {entries[key].smallest:.2g} at best",
                key="max_false_positive_rate",
            )


def _check_golden(pipeline: Pipeline) -> None:
    """Run the golden vectors; other kernels may differ in the last digits, not more."""
    pack = pipeline.pack
    try:
        with np.load(io.BytesIO(pack.files["golden.npz"]), allow_pickle=False) as stored:
            golden = {name: stored[name] for name in stored.files}
        images = golden["images"].astype(np.float32) / np.float32(255)
        rows, probabilities = pipeline._run_graph(images, golden["noise"].astype(np.float32))
        evidence = Evidence(rows, probabilities, np.zeros(len(rows), np.int64))
        answer, _ = _one_hot(golden["labels"], len(pack.classes))
        seen = {
            "probabilities": probabilities,
            "scores_alone": pipeline._run_detector(evidence, probabilities, "alone"),
            "scores_upstream": pipeline._run_detector(evidence, answer, "upstream"),
        }
        wrong = [name for name, value in seen.items() if not _close(value, golden[name])]
    except PackError:
        raise
    except Exception as error:  # the runtime's errors share no base class
        raise PackError(f"{pack.folder}: the golden vectors do not run: {error}") from error
    if wrong:
        raise PackError(f"{pack.folder}: {wrong[0]} differ from the golden vectors")


def _close(seen: Floats, golden: Array) -> bool:
    return seen.shape == golden.shape and bool(np.allclose(seen, golden, rtol=0.02, atol=0.02))
