"""Tries every case of tampering and prints what each is refused with: `python -m tests.tampering`.

Ends with 1 where a tampered pack loaded, or was refused for another reason.
"""

import os
import sys
import tempfile
from pathlib import Path

from guard.signing.keys import HOME_VARIABLE
from tests.tampering.catalogue import GROUPS
from tests.tampering.frame import good_pack


def main() -> int:
    """The table."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        os.environ[HOME_VARIABLE] = str(base / "home")
        good = good_pack(base)
        for group, cases in GROUPS.items():
            print(f"| {group} | refused with |\n|---|---|")
            for number, case in enumerate(cases):
                place = base / f"{group.split()[0]}{number}"
                place.mkdir()
                said = case.refusal(good, place).replace(f"{place}/", "").replace("\n", " ")
                passed = case.says in said
                wrong += not passed
                print(f"| {case.name} | {said or 'IT LOADED'}{'' if passed else ' (WRONG)'} |")
            print()
    count = sum(map(len, GROUPS.values()))
    print(f"{count} cases, {count - wrong} refused for the right reason")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
