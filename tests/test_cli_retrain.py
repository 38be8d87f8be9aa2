"""`guard retrain`: from an export or a running gateway to a candidate, or a line that says why."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from guard.cli import main
from guard.cli.textfile import METRICS
from guard.pack import Pack
from guard.reviewing import Seen
from guard.suspects.record import Review
from tests.cli.test_suspects import serving
from tests.gateway.shelf import open_shelf, swift_folder
from tests.training.traffic import exported, seen, small_pack

COUNT = 40


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pack with rows."""
    return small_pack(tmp_path_factory.mktemp("packs") / "small")


@pytest.fixture(scope="module")
def export(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviewed suspects of an attack that it misses."""
    return exported(tmp_path_factory.mktemp("exports") / "r.parquet", Pack.load(pack), COUNT)


def run(*arguments: object, status: int = 0) -> Result:
    """One command; its exit status must be the one expected, its errors one plain line."""
    result = CliRunner().invoke(main, ["retrain", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def test_an_export_becomes_a_candidate(pack: Path, export: Path, tmp_path: Path) -> None:
    """It is signed, tells what was done, and leaves metrics; the same name is not taken twice."""
    out, metrics = tmp_path / "small-r1", tmp_path / "guard.prom"
    options = ("--pack", pack, "--out", out, "--export", export, "--steps", 60)
    options = (*options, "--work", tmp_path / "work", "--metrics-file", metrics, "--json")
    told = json.loads(run(*options, "--when", "reviewed>=50,adversarial>=20").stdout)
    assert told["passed"] and told["candidate"] == str(out)
    assert told["digest"] == Pack.load(out).digest
    assert told["counts"]["reviewed"] == 2 * COUNT
    assert set(told["seconds"]) == {"read", "select", "learn", "export", "gate"}
    lines = metrics.read_text().splitlines()
    assert 'guard_retrain_passed{pack="small"} 1.0' in lines
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == set(METRICS)
    assert "is there already" in run(*options, status=1).output
    again = ("--pack", out, "--out", tmp_path / "small-r2", "--export", export)
    waits = run(*again, "--when", "reviewed>=1")
    assert waits.stdout == "nothing to do yet: 0 of 1 reviewed\n"
    assert "has not learned from" in run(*again, status=1).output


def test_enough_has_to_wait(pack: Path, export: Path, tmp_path: Path) -> None:
    """Where the condition does not hold nothing is written, and the exit status is 0: for cron."""
    options = ("--pack", pack, "--out", tmp_path / "small-r1", "--export", export)
    waits = run(*options, "--when", "reviewed>=200, benign>=10", "--json")
    assert json.loads(waits.stdout) == {"waiting": "80 of 200 reviewed"}
    assert not list(tmp_path.iterdir())
    assert "is not NAME>=NUMBER" in run(*options, "--when", "all", status=2).output
    assert "is not NAME>=NUMBER" in run(*options, "--when", "seen>=3", status=2).output


def test_a_gateway_is_asked(pack: Path, tmp_path: Path) -> None:
    """Suspects come from a running service; those that reviewers have not settled stay away."""
    with swift_folder() as folder:
        store = open_shelf(folder)
        for here in serving(store):
            for one in seen(Pack.load(pack), COUNT):
                store.put([suspect := kept(store, one)])
                if len(one.row.id) % 2 or one.row.label == "benign":
                    review = Review("jwt:anna", one.row.label or "unsure", 1.0)
                    store.review([suspect.id], review)
            options = ("--pack", pack, "--out", tmp_path / "small-r1", "--at", here.address)
            settled = store.counts().by_state["agreed"]
            waits = run(*options, "--when", f"reviewed>={settled + 1}")
            assert f"{settled} of {settled + 1} reviewed" in waits.stdout
            told = json.loads(run(*options, "--steps", 60, "--quorum", 1, "--json").stdout)
    assert told["counts"]["reviewed"] == settled < 2 * COUNT
    assert told["selection"]["limits"]["quorum"] == 1


def kept(store: Any, one: Seen) -> Any:
    """The suspect under the id and the client that this store gives it."""
    suspect = one.suspect
    client = store.pseudonym(suspect.client)
    known = {"client": client, "tenant": "", "model": suspect.model, "pack": suspect.pack}
    return replace(suspect, client=client, id=store.suspect_id(suspect.image, **known))


def test_what_does_not_go_together_is_misuse(pack: Path, export: Path, tmp_path: Path) -> None:
    """One source of suspects, and pictures only with a classifier to attack."""
    options = ("--pack", pack, "--out", tmp_path / "small-r1")
    assert "give --export or --at" in run(*options, status=2).output
    both = (*options, "--export", export, "--at", "127.0.0.1:1")
    assert "give --export or --at" in run(*both, status=2).output
    fresh = (*options, "--export", export, "--fresh", "signs")
    assert "--fresh and --victim" in run(*fresh, status=2).output
    assert (
        "per_client must be"
        in run(*options, "--export", export, "--per-client", 2, status=2).output
    )
    (tmp_path / "none.parquet").write_bytes(b"PAR1")
    none = run(*options, "--export", tmp_path / "none.parquet", status=1)
    assert "none.parquet cannot be read" in none.output
