"""A real Prometheus with the shipped rules, which scrapes the gateways of one fault."""

import asyncio
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.end_to_end.peers.servers import ROOT, free_ports

RULES = ROOT / "deploy" / "prometheus" / "guard.rules.yml"
SECONDS = 0.5  # between scrapes, and between evaluations of the rules


class Target(NamedTuple):
    """A metrics port; `scrape` are further lines of its job, for TLS."""

    port: int
    scrape: Mapping[str, Any] = {}


def present() -> bool:
    """Whether Prometheus is installed: `deploy/ci/install services`."""
    return shutil.which("prometheus") is not None and shutil.which("promtool") is not None


class Prometheus:
    """One Prometheus over these targets, as the job `guard`."""

    def __init__(self, folder: Path, targets: Mapping[str, Target]) -> None:
        self._folder, self._targets = folder, targets
        self._address = f"127.0.0.1:{free_ports(1)[0]}"

    def __enter__(self) -> Self:
        path = self._folder / "prometheus.yml"
        path.write_text(json.dumps(self._settings()))  # JSON is YAML
        command = [
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address={self._address}",
        ]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def _settings(self) -> dict[str, Any]:
        jobs = [
            {
                "job_name": name,
                **target.scrape,
                "static_configs": [{"targets": [f"127.0.0.1:{target.port}"]}],
                "relabel_configs": [
                    {"target_label": "job", "replacement": "guard"},
                    {"target_label": "instance", "replacement": name},
                ],
            }
            for name, target in self._targets.items()
        ]
        every = f"{int(SECONDS * 1000)}ms"
        times = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        return {"global": times, "rule_files": [str(RULES)], "scrape_configs": jobs}

    async def value(self, expression: str) -> float | None:
        """The sum of what an expression gives now, None where that is nothing."""
        query = urllib.parse.quote(f"sum({expression})")
        found = await self._get(f"query?query={query}")
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    async def alerts(self) -> dict[str, str]:
        """The alerts whose expression is true now, and their states: pending or firing."""
        found = await self._get("alerts")
        return {a["labels"]["alertname"]: a["state"] for a in found["alerts"]} if found else {}

    async def _get(self, path: str) -> Any:
        def fetch() -> Any:
            with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}") as response:
                return json.load(response)["data"]

        try:
            return await asyncio.to_thread(fetch)
        except (urllib.error.URLError, ConnectionError):
            return None  # not there yet
