"""Every Prometheus metric of the gateway, and the one place that writes verdicts into them.

Labels are bounded: model names come from the settings, defence names from the pack, the rest from
lists in this file. Client ids, image hashes and unknown model names are never labels. Verdicts are
counted per request, not per image: counting may cost the request nothing that matters.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import HistogramMetricFamily

from guard.verdict import Decision, Verdicts

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication as Application

Stage = Literal["decode", "queue", "evidence", "upstream", "detect", "encode"]
STAGES: tuple[Stage, ...] = ("decode", "queue", "evidence", "upstream", "detect", "encode")
Reason = Literal[
    "input", "unknown_model", "refused", "overloaded", "deadline", "cancelled", "upstream",
    "blocked", "non_finite", "defense", "defense_late", "internal", "unauthenticated", "forbidden",
    "not_audited", "rate_limited", "budget_spent", "store", "unknown_suspect", "queries", "pack",
    "shadow",
    "drift",
]  # fmt: skip
AuthFailure = Literal[
    "missing", "malformed", "algorithm", "unknown_key", "signature", "expired", "not_yet_valid",
    "audience", "issuer", "claims", "certificate", "handshake", "role", "unknown_call",
    "password", "origin",
]  # fmt: skip
SharedFailure = Literal["timeout", "connection", "answer"]
Watch = Literal["certificates", "token_keys"]
Loss = Literal["queue", "write", "late", "export"]
Why = Literal["flagged", "blocked", "sampled"]
Dropped = Literal["queue", "closing", "unusable", "error", "store"]
Finding = Literal["learning", "steady", "harmless", "recalibrate", "suspicious", "quiet"]
Strange = Literal["usual", "doubtful", "strange"]
Promotion = Literal["promoted", "rolled_back", "shadowed", "refused"]
StoreTask = Literal["open", "put", "count", "retention", "rotation"]
_UPSTREAM_CODES = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
    "MALFORMED",
)  # fmt: skip

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_P_VALUES = (0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)


class Counts(NamedTuple):
    """What of some verdicts is counted: columns for N images, D scores."""

    decisions: NDArray[np.int32]  # (N,)
    p_values: NDArray[np.float32]  # (N,)
    score_p_values: NDArray[np.float32]  # (N, D)
    score_names: tuple[str, ...]
    substituted: NDArray[np.bool_]  # (N,)


def merged(verdicts: Sequence[Verdicts]) -> "Counts | Verdicts":
    """Verdicts of one model on several requests as one, as far as they are counted."""
    if len(verdicts) == 1:
        return verdicts[0]
    return Counts(
        np.concatenate([each.decisions for each in verdicts]),
        np.concatenate([each.p_values for each in verdicts]),
        np.concatenate([each.score_p_values for each in verdicts]),
        verdicts[0].score_names,
        np.concatenate([each.substituted for each in verdicts]),
    )


class BulkHistogram:
    """A histogram that takes a whole array of observations at the cost of one.

    One label, `model`. Written from one thread (the event loop), read from any.
    """

    def __init__(self, name: str, text: str, edges: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._bounds = [*(repr(float(edge)) for edge in edges), "+Inf"]
        self._edges = np.array(edges, np.float32)
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, float] = {}
        REGISTRY.register(self)

    def observe(self, model: str, values: NDArray[np.float32]) -> None:
        """Count the finite ones of these values."""
        values = values[np.isfinite(values)]
        bins = np.searchsorted(self._edges, values)
        counts = np.bincount(bins, minlength=len(self._edges) + 1)
        self._counts[model] = self._counts.get(model, 0) + counts
        self._sums[model] = self._sums.get(model, 0.0) + float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape sees."""
        family = HistogramMetricFamily(self._name, self._text, labels=["model"])
        for model, counts in list(self._counts.items()):
            buckets = list(zip(self._bounds, np.cumsum(counts).tolist(), strict=True))
            family.add_metric([model], buckets, self._sums.get(model, 0.0))
        yield family


REQUESTS = Counter("guard_requests", "Inference requests, by gRPC status.", ["model", "code"])
REQUEST_SECONDS = Histogram(
    "guard_request_seconds", "Time from request to reply.", ["model"], buckets=_SECONDS
)
STAGE_SECONDS = Histogram(
    "guard_stage_seconds", "Time in one stage of a request.", ["model", "stage"], buckets=_SECONDS
)
VERDICTS = Counter("guard_verdicts", "Images, by decision.", ["model", "decision"])
SUBSTITUTED = Counter(
    "guard_substituted",
    "Images that the robust ensemble answered in place of the upstream.",
    ["model"],
)
ALARMS = Counter(
    "guard_alarms", "Images that one defence alone would flag at the budget.", ["model", "defense"]
)
P_VALUES = BulkHistogram(
    "guard_p_value", "p-values of the detector; uniform while traffic is clean.", _P_VALUES
)
UPSTREAM_ERRORS = Counter(
    "guard_upstream_errors", "Calls of the upstream that failed, by its status.", ["model", "code"]
)
ERRORS = Counter("guard_errors", "Requests or images that failed, by reason.", ["reason"])
FAULTS_ALLOWED = Counter(
    "guard_faults_allowed", "Images passed unexamined because on_error = allow.", ["model"]
)
AUTH_FAILURES = Counter(
    "guard_auth_failures",
    "Calls refused for who made them, by what was wrong; role: known, but not permitted.",
    ["reason"],
)
RELOAD_FAILURES = Counter(
    "guard_reload_failures", "Changed files that could not be used; the old stay.", ["what"]
)
CERTIFICATE_EXPIRY = Gauge(
    "guard_certificate_expiry_timestamp_seconds", "When the gateway's own certificate ends."
)
AUDIT_RECORDS = Counter("guard_audit_records", "Records in the audit log, by event.", ["event"])
AUDIT_FAILURES = Counter(
    "guard_audit_failures",
    "Audit records lost (queue full, write failed), late, and checkpoints not exported.",
    ["reason"],
)
AUDIT_CHECKPOINT = Gauge(
    "guard_audit_checkpoint_record", "The last audit record that a signed checkpoint covers."
)
SHARED_UP = Gauge(
    "guard_shared_limits_up",
    "Whether limits are counted together, in the store that is configured for that.",
    ["store"],
)
SHARED_FAILURES = Counter(
    "guard_shared_limits_failures",
    "Questions that the shared store did not answer: not in time, no connection, no sense.",
    ["reason"],
)
SUSPECTS_UP = Gauge(
    "guard_suspects_up", "Whether the store of suspects did what it was last asked.", ["store"]
)
SUSPECTS_CAPTURED = Counter(
    "guard_suspects_captured",
    "Images handed to the writer of suspects; sampled: for having been drawn, not for an alarm.",
    ["model", "why"],
)
SUSPECTS_SAMPLED = Counter(
    "guard_suspects_sampled", "Images drawn at random before the decision.", ["model"]
)
SUSPECTS_DROPPED = Counter(
    "guard_suspects_dropped",
    "Images that were to be kept and are not: queue full, gateway stopping, no evidence to keep,"
    " refused by the store, store never opened.",
    ["reason"],
)
SUSPECTS_KEPT = Counter("guard_suspects_kept", "Images that the store acknowledged as durable.")
SUSPECTS_WRITE_SECONDS = Histogram(
    "guard_suspects_write_seconds", "Time for one batch to become durable.", buckets=_SECONDS
)
SUSPECTS_FAILURES = Counter(
    "guard_suspects_failures", "What the store of suspects could not do, by what.", ["task"]
)
SUSPECTS_QUEUED = Gauge("guard_suspects_queued", "Images that wait to be kept.")
SUSPECTS_STORED = Gauge("guard_suspects_stored", "Suspects in the store.", ["state"])
SUSPECTS_BYTES = Gauge("guard_suspects_bytes", "Size of the suspects in the store.")
SUSPECTS_QUOTA = Gauge("guard_suspects_quota_bytes", "Size at which the oldest are erased.")
SUSPECTS_OLDEST = Gauge(
    "guard_suspects_oldest_timestamp_seconds",
    "When the oldest suspect was taken, 0: there is none.",
)
SUSPECTS_ERASED = Counter("guard_suspects_erased", "Suspects erased for their age, or the quota.")
SUSPECTS_ROTATION_DUE = Gauge(
    "guard_suspects_rotation_due_timestamp_seconds",
    "When the first suspect was erased whose key is still in old backups, 0: none is.",
)
SUSPECTS_ROTATED = Counter("guard_suspects_rotated", "Rotations of the key-encryption key.")
CALLERS = Gauge("guard_limited_callers", "Callers whose use of their limits is remembered.")
QUERY_ATTACK = Counter(
    "guard_query_attack",
    "Images in sequences of queries that nearly repeat each other, from the alarm on.",
    ["model"],
)
QUERIES_REMEMBERED = Gauge(
    "guard_queries_remembered", "Queries that new ones are compared with.", ["model"]
)
DRIFT = Gauge(
    "guard_drift",
    "Evidence that p-values, or pictures, are no longer what they were; an alarm from 1 on.",
    ["model", "of"],
)
DRIFT_FINDING = Gauge(
    "guard_drift_finding", "1 for what the tests of drift say together.", ["model", "finding"]
)
EXTRACTION = Gauge(
    "guard_extraction_score",
    "Callers, by how far their pictures are from what clean ones are: as a copyist's may be.",
    ["model", "score"],
)
READY = Gauge("guard_ready", "Whether a request for a model would be answered now.", ["model"])
CLOCK = Gauge("guard_clock_seconds", "The wall clock here, to be compared with the scraper's.")
OPEN_CALLS = Gauge("guard_open_calls", "Calls that are open, their requests sent or not.")
IN_FLIGHT = Gauge("guard_in_flight", "Inference requests being worked on.")
QUEUE = Gauge("guard_queue_images", "Images waiting for the defence.", ["model"])
PACK = Gauge(
    "guard_pack_info", "The pack that guards a model; always 1.", ["model", "pack", "digest"]
)
PACK_SERIAL = Gauge(
    "guard_pack_serial", "Rounds of learning behind the pack that guards a model.", ["model"]
)
PROMOTIONS = Counter(
    "guard_promotions",
    "What became of attempts to change a model's pack while serving.",
    ["model", "outcome"],
)
SHADOW = Gauge(
    "guard_shadow_info",
    "The pack that is watched beside the one that guards a model; always 1.",
    ["model", "pack", "digest"],
)
SHADOW_DECISIONS = Counter(
    "guard_shadow_decisions",
    "Images, by what the serving pack decided and what the candidate would have.",
    ["model", "current", "candidate"],
)
SHADOW_DROPPED = Counter(
    "guard_shadow_dropped", "Images that the candidate had no time to look at.", ["model"]
)
SHADOW_P_VALUES = BulkHistogram(
    "guard_shadow_p_value", "p-values of the candidate's detector.", _P_VALUES
)
PROVIDER = Gauge(
    "guard_provider_info",
    "The execution provider really in use; always 1.",
    ["model", "session", "provider"],
)
BUDGET = Gauge(
    "guard_false_positive_budget", "Share of clean images that may be flagged.", ["model"]
)


for _reason in get_args(AuthFailure):
    AUTH_FAILURES.labels(_reason)  # a rate needs the zero it rises from
for _files in get_args(Watch):
    RELOAD_FAILURES.labels(_files)
for _failure in get_args(Reason):
    ERRORS.labels(_failure)
for _shared in get_args(SharedFailure):
    SHARED_FAILURES.labels(_shared)
for _loss in get_args(Loss):
    AUDIT_FAILURES.labels(_loss)
for _dropped in get_args(Dropped):
    SUSPECTS_DROPPED.labels(_dropped)
for _task in get_args(StoreTask):
    SUSPECTS_FAILURES.labels(_task)
CLOCK.set_function(time.time)
_serving: dict[str, tuple[str, str, str]] = {}  # PACK's labels, by model
_shadows: dict[str, tuple[str, str, str]] = {}  # SHADOW's


class ModelMetrics:
    """The metrics of one model with its labels filled in, so that a request looks nothing up."""

    def __init__(self, model: str, score_names: Iterable[str]) -> None:
        self.model = model
        self.seconds = REQUEST_SECONDS.labels(model)
        self.queue = QUEUE.labels(model)
        self.faults_allowed = FAULTS_ALLOWED.labels(model)
        self._stages = {stage: STAGE_SECONDS.labels(model, stage) for stage in STAGES}
        self._verdicts = [VERDICTS.labels(model, decision.name) for decision in Decision]
        self._alarms = {name: ALARMS.labels(model, name) for name in score_names}
        self._substituted = SUBSTITUTED.labels(model)

    def stage(self, stage: Stage, seconds: float) -> None:
        """One stage took so long."""
        self._stages[stage].observe(seconds)

    def request(self, code: str, seconds: float) -> None:
        """One request ended with this gRPC status after so long."""
        REQUESTS.labels(self.model, code).inc()
        self.seconds.observe(seconds)

    def observe(self, verdicts: Counts | Verdicts, budget: float) -> None:
        """Count the verdicts on some images."""
        for decision, count in enumerate(np.bincount(verdicts.decisions, minlength=5).tolist()):
            if count:
                self._verdicts[decision].inc(count)
        substituted = int(verdicts.substituted.sum())
        if substituted:
            self._substituted.inc(substituted)
        alarms = (verdicts.score_p_values <= budget).sum(axis=0).tolist()
        for name, count in zip(verdicts.score_names, alarms, strict=True):
            if count:
                self._alarms[name].inc(count)
        P_VALUES.observe(self.model, verdicts.p_values)

    def unexamined(self, count: int) -> None:
        """So many images passed without a verdict, because the policy says so."""
        self.faults_allowed.inc(count)


def serving(model: str, pack: str, digest: str, serial: int) -> None:
    """This pack guards a model from now on, and no other does."""
    labels = (model, pack, digest)
    if (old := _serving.get(model, labels)) != labels:
        PACK.remove(*old)
    _serving[model] = labels
    PACK.labels(*labels).set(1)
    PACK_SERIAL.labels(model).set(serial)
    for outcome in get_args(Promotion):
        PROMOTIONS.labels(model, outcome)


def shadowing(model: str, pack: str = "", digest: str = "") -> None:
    """This pack is watched beside a model's own; "": none is."""
    if old := _shadows.pop(model, None):
        SHADOW.remove(*old)
    if digest:
        _shadows[model] = labels = (model, pack, digest)
        SHADOW.labels(*labels).set(1)
        SHADOW_DROPPED.labels(model)


def shadowed(model: str, found: NDArray[np.int64], p_values: NDArray[np.float32]) -> None:
    """Images by the serving pack's decision and the candidate's (5, 5), and its p-values."""
    for current, candidate in np.argwhere(found).tolist():
        names = Decision(current).name, Decision(candidate).name
        SHADOW_DECISIONS.labels(model, *names).inc(int(found[current, candidate]))
    SHADOW_P_VALUES.observe(model, p_values)


def expect_upstream(model: str) -> None:
    """A model has an upstream, whose failures are to be counted from zero."""
    for code in _UPSTREAM_CODES:
        UPSTREAM_ERRORS.labels(model, code)


def expect_suspects(model: str) -> None:
    """A model's suspects are kept, and counted from zero."""
    SUSPECTS_SAMPLED.labels(model)
    for why in get_args(Why):
        SUSPECTS_CAPTURED.labels(model, why)


def expect_drift(model: str) -> None:
    """A model's traffic is compared with its calibration."""
    drift(model, "learning", verdicts=0.0, pictures=0.0)
    callers(model, {})


def drift(model: str, finding: Finding, *, verdicts: float, pictures: float) -> None:
    """What the tests of drift found."""
    DRIFT.labels(model, "verdicts").set(verdicts)
    DRIFT.labels(model, "pictures").set(pictures)
    for one in get_args(Finding):
        DRIFT_FINDING.labels(model, one).set(one == finding)


def callers(model: str, counts: Mapping[Strange, int]) -> None:
    """How many callers are strange."""
    for one in get_args(Strange):
        EXTRACTION.labels(model, one).set(counts.get(one, 0))


def error(reason: Reason, count: int = 1) -> None:
    """Something failed for this reason."""
    ERRORS.labels(reason).inc(count)


def exposition() -> "Application":
    """What a scrape gets, as a WSGI application; `gateway/pages.py` serves it."""
    return make_wsgi_app(REGISTRY)
