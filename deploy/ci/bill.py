"""The bill of materials, CycloneDX 1.6: the locked packages with their hashes, and the packs.

bill.py LOCK OUTPUT. The packages come from cyclonedx-py, the packs from their manifests. The result
is checked against CycloneDX's own schema before it is written.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def packages(lock: Path) -> dict[str, Any]:
    """What cyclonedx-py says of the lock."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    arguments = ["--spec-version", "1.6", "--output-format", "JSON", "--output-reproducible"]
    done = subprocess.run(
        [str(tool), "requirements", *arguments, str(lock)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def packs() -> list[dict[str, Any]]:
    """One component for each shipped pack, its manifest's digest as hash."""
    found = []
    for path in sorted((ROOT / "models").glob("*/manifest.json")):
        raw = path.read_bytes()
        manifest = json.loads(raw)
        found.append(
            {
                "type": "machine-learning-model",
                "bom-ref": f"pack:{manifest['name']}",
                "name": manifest["name"],
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(raw).hexdigest()}],
                "modelCard": {
                    "modelParameters": {
                        "task": "image classification",
                        "architectureFamily": "ensemble",
                    }
                },
                "properties": [
                    {"name": "guard:file", "value": f"{name} sha256:{entry['sha256']}"}
                    for name, entry in sorted(manifest["files"].items())
                ],
            }
        )
    return found


def main() -> int:
    """Write the bill; complain where it is no valid CycloneDX."""
    bill = packages(Path(sys.argv[1]).resolve())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    guard = {
        "type": "application",
        "bom-ref": "guard",
        "name": project["name"],
        "version": project["version"],
        "licenses": [{"license": {"id": project["license"]}}],
    }
    bill.setdefault("metadata", {})["component"] = guard
    bill["components"] = [*bill.get("components", ()), *packs()]
    references = [one["bom-ref"] for one in bill["components"]]
    bill["dependencies"] = [{"ref": "guard", "dependsOn": sorted(references)}]
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        print(f"no valid CycloneDX: {problem}", file=sys.stderr)
        return 1
    Path(sys.argv[2]).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
