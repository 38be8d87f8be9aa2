"""How long a million audit records take to verify (goal: 60 s), and how fast acts become durable.

python -m tests.bench.audit [--records 1000000] [--segment-bytes 16777216] [--acts 2000]
                            [--folder FOLDER]

One thread. The log is written as the gateway writes it, with a checkpoint every 1000 records, in a
folder of its own that is removed afterwards. Acts: 32 administrative calls at a time, each waiting
for its record to be durable.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from guard.config.audit import AuditSettings
from guard.gateway.audit.keys import load_keys, make_keys
from guard.gateway.audit.log import AuditLog
from guard.gateway.audit.record import entry
from guard.gateway.audit.recorder import open_audit
from guard.gateway.audit.verify import verify

CHECKPOINT = 1000


def fill(root: Path, count: int, segment_bytes: int) -> float:
    """A log of so many records; the seconds it took."""
    keys = make_keys(root / "keys")
    log = AuditLog(root / "log", keys, export=root / "export", segment_bytes=segment_bytes)
    start = time.perf_counter()
    for first in range(0, count, CHECKPOINT):
        subject = keys.actor(f"spiffe://prod/client-{first}")
        log.write(
            [
                entry("admin.call", actor=subject, details={"rpc": "Status", "n": n})
                for n in range(first, min(first + CHECKPOINT, count))
            ]
        )
        log.sync()
        log.checkpoint()
    log.close()
    return time.perf_counter() - start


async def acts(root: Path, count: int) -> float:
    """Durable acts a second, 32 at a time."""
    settings = AuditSettings(folder=str(root / "acts"), key_file=str(root / "act-keys"))
    audit = open_audit(settings)
    start = time.perf_counter()
    for _ in range(0, count, 32):
        await asyncio.gather(*(audit.act("admin.call", actor="bench") for _ in range(32)))
    seconds = time.perf_counter() - start
    audit.close()
    return count / seconds


def main() -> None:
    """The figures, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--segment-bytes", type=int, default=16 << 20)
    parser.add_argument("--acts", type=int, default=2000)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        root = Path(name)
        wrote = fill(root, asked.records, asked.segment_bytes)
        start, cpu = time.perf_counter(), time.process_time()
        report = verify(root / "log", load_keys(root / "keys"), exported=root / "export")
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        size = sum(path.stat().st_size for path in (root / "log").iterdir())
        figures = {
            "records": report.records,
            "files": report.segments,
            "checkpoints": report.checkpoints,
            "megabytes": round(size / 1e6, 1),
            "intact": report.ok,
            "verify_seconds": round(seconds, 1),
            "verify_cpu_seconds": round(cpu, 1),
            "write_seconds": round(wrote, 1),
            "durable_acts_per_second": round(asyncio.run(acts(root, asked.acts))),
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
