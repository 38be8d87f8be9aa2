"""A real Prometheus with the shipped rules, which scrapes the gateways of all faults of a run."""

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
SECONDS = 1.0  # between scrapes, and between evaluations of the rules


class Target(NamedTuple):
    """A metrics port; with a certificate and its key where it asks for one."""

    port: int
    cert: str = ""
    key: str = ""


def present() -> bool:
    """Whether Prometheus is installed: `deploy/ci/install services`."""
    return shutil.which("prometheus") is not None and shutil.which("promtool") is not None


class Prometheus:
    """One Prometheus over these targets by the name of their instance, all of the job `guard`."""

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
        every = f"{int(SECONDS * 1000)}ms"
        times = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        jobs = [_job(name, target) for name, target in self._targets.items()]
        return {"global": times, "rule_files": [str(RULES)], "scrape_configs": jobs}

    async def value(self, selector: str, instances: str) -> float | None:
        """The sum of a selector's series now, None where there is none."""
        name, _, rest = selector.partition("{")
        chosen = f'{name}{{instance=~"{instances}"{"," + rest if rest else "}"}'
        found = await self._get(f"query?query={urllib.parse.quote(f'sum({chosen})')}")
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    async def alerts(self, instances: tuple[str, ...]) -> set[str]:
        """The alerts whose expression is true now for one of these instances."""
        found = await self._get("alerts") or {"alerts": []}  # it may not be there yet
        mine = [a["labels"] for a in found["alerts"] if a["labels"]["instance"] in instances]
        return {labels["alertname"] for labels in mine}

    async def _get(self, path: str) -> Any:
        def fetch() -> Any:
            with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}") as response:
                return json.load(response)["data"]

        try:
            return await asyncio.to_thread(fetch)
        except (urllib.error.URLError, ConnectionError):
            return None  # not there yet


def _job(name: str, target: Target) -> dict[str, Any]:
    job: dict[str, Any] = {
        "job_name": name,
        "static_configs": [{"targets": [f"127.0.0.1:{target.port}"]}],
        "relabel_configs": [
            {"target_label": "job", "replacement": "guard"},
            {"target_label": "instance", "replacement": name},
        ],
    }
    if target.cert:
        files = {"cert_file": target.cert, "key_file": target.key}
        job |= {"scheme": "https", "tls_config": {"insecure_skip_verify": True, **files}}
    return job
