"""No tampered pack loads, and each refusal says why."""

import shutil
from pathlib import Path

import pytest

from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.testing import clean_images
from tests.tampering.catalogue import GROUPS
from tests.tampering.frame import Case, good_pack

CASES = [case for cases in GROUPS.values() for case in cases]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that loads."""
    return good_pack(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_tampered_pack_does_not_load(case: Case, good: Path, tmp_path: Path) -> None:
    """The pack that it was made of loads; this one is refused, for the reason expected."""
    said = case.refusal(good, tmp_path)
    assert said, "it loaded"
    assert case.says in said


def test_there_are_many_cases_and_no_two_alike() -> None:
    """At least 40, each with a name of its own."""
    assert len({case.name for case in CASES}) == len(CASES) >= 40


def test_what_was_checked_is_what_runs(good: Path, tmp_path: Path) -> None:
    """Once a pack is loaded, nothing of its folder is read again: here the folder is gone."""
    folder = tmp_path / "good"
    shutil.copytree(good, folder)
    pack = Pack.load(folder)
    shutil.rmtree(folder)
    verdicts = Pipeline.load(pack, threads=1).inspect(clean_images([0, 1, 2]))
    assert [verdict.label for verdict in verdicts] == [0, 1, 2]
