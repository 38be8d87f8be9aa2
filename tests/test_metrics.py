"""The metrics: names that alert rules rely on, and counting a batch at once."""

import urllib.request

import numpy as np
import pytest
from prometheus_client import REGISTRY

from guard import metrics
from guard.errors import ConfigError
from guard.gateway.pages import Pages
from guard.verdict import Verdicts

NAMES = (
    "guard_requests_total",
    "guard_verdicts_total",
    "guard_alarms_total",
    "guard_p_value_bucket",
    "guard_request_seconds_bucket",
    "guard_stage_seconds_bucket",
    "guard_errors_total",
    "guard_upstream_errors_total",
    "guard_pack_info",
    "guard_provider_info",
)


def verdicts() -> Verdicts:
    """Four images: allowed, flagged and substituted, allowed, broken."""
    p_values = np.array([0.5, 0.004, 0.2, np.nan], np.float32)
    return Verdicts(
        decisions=np.array([0, 1, 0, 4], np.int32),
        p_values=p_values,
        labels=np.zeros(4, np.int64),
        probabilities=np.full((4, 2), 0.5, np.float32),
        scores=np.zeros((4, 2), np.float32),
        score_p_values=np.stack([np.full(4, 0.005, np.float32), p_values], axis=1),
        score_names=("squeezing", "detector"),
        substituted=np.array([False, True, False, False]),
    )


def value(name: str, **labels: str) -> float:
    """One sample as a scrape would see it, 0 where there is none."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_batch_is_counted_image_by_image() -> None:
    """One call per request adds up to one count per image."""
    recorder = metrics.ModelMetrics("counted", ("squeezing", "detector"))
    recorder.observe(verdicts(), budget=0.01)
    recorder.observe(verdicts(), budget=0.01)
    counts = {d: value("guard_verdicts_total", model="counted", decision=d) for d in
              ("ALLOW", "FLAG", "BLOCK", "ERROR")}  # fmt: skip
    assert counts == {"ALLOW": 4, "FLAG": 2, "BLOCK": 0, "ERROR": 2}
    assert value("guard_alarms_total", model="counted", defense="squeezing") == 8
    assert value("guard_alarms_total", model="counted", defense="detector") == 2
    assert value("guard_substituted_total", model="counted") == 2


def test_p_values_fall_into_their_buckets_and_nan_into_none() -> None:
    """The bulk histogram is cumulative and holds only finite values."""
    metrics.ModelMetrics("bucketed", ("squeezing", "detector")).observe(verdicts(), 0.01)
    bucket = {le: value("guard_p_value_bucket", model="bucketed", le=le) for le in
              ("0.002", "0.005", "0.2", "0.5", "1.0", "+Inf")}  # fmt: skip
    assert bucket == {"0.002": 0, "0.005": 1, "0.2": 2, "0.5": 3, "1.0": 3, "+Inf": 3}
    assert value("guard_p_value_sum", model="bucketed") == pytest.approx(0.704)


def test_a_scrape_shows_every_metric_that_rules_and_panels_use() -> None:
    """A real HTTP scrape carries the names, with zeros before the first request."""
    recorder = metrics.ModelMetrics("scraped", ("squeezing",))
    recorder.observe(verdicts_of_one(), budget=0.01)
    recorder.stage("decode", 0.001)
    recorder.request("OK", 0.01)
    metrics.error("input")
    metrics.UPSTREAM_ERRORS.labels("scraped", "UNAVAILABLE").inc()
    metrics.PACK.labels("scraped", "signs", "sha256:0").set(1)
    metrics.PROVIDER.labels("scraped", "evidence", "CPUExecutionProvider").set(1)
    server = Pages("127.0.0.1:0")
    try:
        url = f"http://127.0.0.1:{server.port}/metrics"
        text = urllib.request.urlopen(url, timeout=5).read().decode()
    finally:
        server.close()
    assert [name for name in NAMES if f"\n{name}{{" not in text] == []
    assert 'guard_verdicts_total{decision="BLOCK",model="scraped"} 0.0' in text


def verdicts_of_one() -> Verdicts:
    """One allowed image with one score."""
    one = np.ones((1, 1), np.float32)
    return Verdicts(
        np.zeros(1, np.int32), one[0], np.zeros(1, np.int64), one, one, one, ("squeezing",),
        np.zeros(1, np.bool_),
    )  # fmt: skip


def test_a_taken_port_is_a_plain_error() -> None:
    """Two gateways on one metrics port: the second says which setting to change."""
    server = Pages("127.0.0.1:0")
    try:
        with pytest.raises(ConfigError, match="cannot listen"):
            Pages(f"127.0.0.1:{server.port}")
    finally:
        server.close()


def test_images_passed_unexamined_have_a_counter_of_their_own() -> None:
    """What on_error = allow lets through can be alerted on."""
    metrics.ModelMetrics("faulty", ()).unexamined(3)
    assert value("guard_faults_allowed_total", model="faulty") == 3


def test_failures_are_counted_from_zero() -> None:
    """A counter that begins at one never rises: alerts would miss the first failure."""
    metrics.expect_upstream("new")
    assert value("guard_upstream_errors_total", model="new", code="UNAVAILABLE") == 0
    assert REGISTRY.get_sample_value("guard_errors_total", {"reason": "defense_late"}) is not None
    assert REGISTRY.get_sample_value("guard_audit_failures_total", {"reason": "late"}) is not None
