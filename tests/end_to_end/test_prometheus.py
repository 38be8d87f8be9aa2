"""A real Prometheus scrapes the gateway. `.ci/run` installs it (Debian's package prometheus)."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.client import Client
from guard.gateway.server import Running
from guard.testing import clean_images, gateway_config, suspicious_images
from tests.end_to_end.peers.servers import free_ports, gateway

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no prometheus and promtool: Debian's package prometheus",
)

CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: guard
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
SECONDS = 20


@pytest.fixture(scope="module")
def served(tiny_pack: Path) -> Iterator[Running]:
    """A gateway with a metrics endpoint that has answered for three images, one of them striped."""
    config = gateway_config(tiny_pack, gateway={"metrics": "127.0.0.1:0"}, name="scraped")
    with gateway(config) as running:
        with Client(running.address) as client:
            client.infer("scraped", clean_images([0, 1]))
            client.infer("scraped", suspicious_images([2]))
        yield running


@pytest.fixture(scope="module")
def prometheus(served: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes it; HOST:PORT of its API."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(CONFIG.format(port=served.metrics_port))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield address
    process.terminate()
    process.wait()


def query(prometheus: str, expression: str) -> dict[str, float]:
    """The value of an expression by its label `decision` or `stage`, once there is one."""
    url = f"http://{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}"
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url) as response:
                found: list[dict[str, Any]] = json.load(response)["data"]["result"]
        except (urllib.error.URLError, ConnectionError):
            found = []
        if found:
            names = [
                each["metric"].get("decision") or each["metric"].get("stage") for each in found
            ]
            return {
                str(name): float(each["value"][1]) for name, each in zip(names, found, strict=True)
            }
        time.sleep(0.1)
    raise AssertionError(f"nothing found for {expression}")


def test_prometheus_counts_the_verdicts(prometheus: str) -> None:
    """What clients asked is what Prometheus sees: two images allowed, one flagged."""
    found = query(prometheus, 'guard_verdicts_total{model="scraped"} > 0')
    assert found == {"ALLOW": 2, "FLAG": 1}


def test_prometheus_has_every_stage(prometheus: str) -> None:
    """Latency by stage can be drawn: a quantile over the histogram is a number per stage."""
    expression = 'sum by (stage) (guard_stage_seconds_count{model="scraped"})'
    found = query(prometheus, expression)
    assert {"decode", "queue", "evidence", "detect", "encode"} <= {
        stage for stage, count in found.items() if count == 2
    }


def test_promtool_finds_no_fault(served: Running) -> None:
    """The endpoint's text follows Prometheus's rules for names, help and units."""
    url = f"http://127.0.0.1:{served.metrics_port}/metrics"
    with urllib.request.urlopen(url) as response:
        text = response.read()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    complaints = [line for line in done.stderr.decode().splitlines() if "guard_" in line]
    assert not complaints
