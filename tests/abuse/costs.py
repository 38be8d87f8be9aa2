"""python -m tests.abuse.costs: what each request of `costly.py` costs a gateway in memory, a table.

"of its bound" is of 32 MB, or of 100 times the request's bytes where that is more.
"""

import sys
import tempfile
from pathlib import Path

from tests.abuse.costly import AIM, NAMED, picture, pictures
from tests.abuse.weighed import Weighed
from tests.gateway.malformed import valid

FACTOR, FREE = 100, 32_000_000


def main() -> None:
    """Weigh them all, the costliest first."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = Weighed(Path(folder))
        try:
            for data in (valid(AIM, 2).SerializeToString(), pictures(picture(64, 64))):
                for _ in range(3):
                    gateway.send(data)
            rows = []
            for name, build in NAMED.items():
                data = build()
                cost, status = gateway.least(data, 0)
                rows.append((cost / max(FREE, FACTOR * len(data)), cost, len(data), name, status))
        finally:
            gateway.close()
    lines = ["| request | bytes | MB | of its bound | answer |", "|---|---|---|---|---|"]
    for share, cost, size, name, status in sorted(rows, reverse=True):
        lines.append(f"| {name} | {size:,} | {cost / 1e6:.1f} | {share:.0%} | {status} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
