"""Read pip-audit's report: 0 nothing known, 1 something known, 2 not everything was looked up."""

import json
import sys


def main() -> int:
    """One line per vulnerability and per package that nobody knew; a verdict last."""
    try:
        packages = json.loads(sys.stdin.read())["dependencies"]
    except (ValueError, KeyError, TypeError):
        print("pip-audit: NOT AUDITED: no advisory service could be asked")
        return 2
    known = [(one, bug) for one in packages for bug in one.get("vulns", ())]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    for one, bug in known:
        fixed = ", ".join(bug["fix_versions"]) or "nothing yet"
        print(f"{one['name']} {one['version']}: {bug['id']}, fixed in {fixed}")
    if known:
        return 1
    if skipped or not packages:
        print(f"pip-audit: NOT AUDITED: {len(skipped)} of {len(packages)} packages are unknown to")
        print("the registry's advisory service: " + ", ".join(skipped))
        return 2
    print(f"pip-audit: {len(packages)} packages, nothing known")
    return 0


if __name__ == "__main__":
    sys.exit(main())
