"""`guard suspects` against a running service, and deploy/docs/suspects.md command by command."""

import asyncio
import json
import re
import shlex
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from guard.cli import main
from guard.data import read
from guard.gateway.desk import Desk
from guard.suspects.export import CLASSES, png
from guard.suspects.suspect_store import SuspectStore
from guard.verdict import Decision
from tests.gateway.shelf import MISSING, filled, open_shelf, suspect, swift_folder
from tests.gateway.test_suspects import served

DOCUMENT = (Path(__file__).parents[2] / "deploy" / "docs" / "suspects.md").read_text()
COMMANDS = re.findall(r"^\$ guard suspects (.*)$", DOCUMENT, re.MULTILINE)


class Here:
    """A service over a store, and its address."""

    def __init__(self, store: SuspectStore, address: str) -> None:
        self.store, self.address = store, address

    def run(self, command: str, *arguments: object, status: int = 0, typed: str = "") -> Result:
        """One command; its exit status must be the one expected, its errors one plain line."""
        line = ["suspects", command, *map(str, arguments), "--at", self.address]
        result = CliRunner().invoke(main, line, input=typed)
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def here() -> Iterator[Here]:
    """The service, in a loop of its own."""
    with swift_folder() as folder:
        yield from serving(open_shelf(folder))


def serving(store: SuspectStore) -> Iterator[Here]:
    """The same over this store, which is closed in the end."""
    loop, started, addresses = asyncio.new_event_loop(), threading.Event(), []
    stop = asyncio.Event()

    async def serve() -> None:
        async with served(desk := Desk(store)) as address:
            addresses.append(address)
            started.set()
            await stop.wait()
        desk.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield Here(store, addresses[0])
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()
    store.close()


def test_the_document_runs(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of deploy/docs/suspects.md does what it says, in the order of the document."""
    one, other = (kept.id for kept in filled(here.store, 2))
    here.run("label", "adversarial", other)
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        here.run(*shlex.split(command.replace("$ID", one)))
    assert Image.open(tmp_path / "suspect.png").size == (8, 8)
    assert len(read(tmp_path / "reviewed.parquet")) == 1
    assert here.store.counts().total == 0


def test_list_filters_pages_and_speaks_json(here: Here) -> None:
    """Rows newest first, those that are meant, more than a page of them if asked."""
    kept = filled(here.store, 6)
    here.store.put([suspect(here.store, 8, client="jwt:other", decision=Decision.FLAG)])
    told = here.run("list", "--json", "--limit", 3)
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [row["id"] for row in rows[1:]] == [kept[5].id, kept[4].id]
    assert "there are more" in told.stderr
    for options, count in (
        (["--decision", "flag"], 1),
        (["--client", "jwt:camera"], 6),
        (["--client-hash", kept[0].client], 6),
        (["--predicted", 2, "--not-sampled"], 3),
        (["--since", "2023-11-14T22:13:24"], 3),
        (["--until", "2023-11-14T22:13:24+00:00"], 4),
        (["--id", kept[0].id, "--id", kept[1].id], 2),
        (["--p-at-most", "0.001"], 0),
        (["--label", "benign"], 0),
        (["--model", "no such", "--state", "open"], 0),
    ):
        lines = here.run("list", *options).stdout.splitlines()
        assert len(lines) == count, options
    assert "BLOCK" in here.run("list", "--id", kept[0].id).stdout


def test_show_writes_the_picture_only_when_asked(here: Here, tmp_path: Path) -> None:
    """All that is known; a PNG that the owner alone may read, saying where it is rounded."""
    (known, *_) = filled(here.store, 4)  # the first and the last look alike
    plain = here.run("show", known.id, "--similar", 2).stdout
    assert known.id in plain
    assert "similar:" in plain
    assert "probabilities" not in plain
    path = tmp_path / "out" / "suspect.png"
    full = here.run("show", known.id, "--picture", path)
    assert "rounded to 8 bits" in full.stderr
    assert "probabilities" in full.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = np.asarray(Image.open(path)).transpose(2, 0, 1)
    assert np.abs(shown / 255 - known.image).max() <= 0.5 / 255 + 1e-6
    told = json.loads(here.run("show", known.id, "--picture", path, "--json").stdout)
    assert told["verdict"]["scores"] == pytest.approx(dict(known.verdict.scores))
    assert told["similar"] == []
    (alike,) = json.loads(here.run("show", known.id, "--similar", 5, "--json").stdout)["similar"]
    assert alike["predicted"] == known.verdict.label


def test_label_count_undo(here: Here) -> None:
    """What was labelled is counted; what was taken back is not."""
    ids = [one.id for one in filled(here.store, 3)]
    rows = here.run("claim", "--limit", 2, "--json").stdout.splitlines()
    assert len(rows) == 2
    here.run("label", "benign", *ids[:2])
    counts = json.loads(here.run("counts", "--json").stdout)
    assert (counts["total"], counts["agreed"], counts["benign"]) == (3, 2, 2)
    assert "agreed" in here.run("counts").stdout
    assert len(here.run("undo").stdout.splitlines()) == 2
    assert "nothing to take back" in here.run("undo").stderr
    assert json.loads(here.run("counts", "--json").stdout)["agreed"] == 0


def test_feedback_is_for_who_sent_it(here: Here) -> None:
    """Nobody is known here, so everybody is `anonymous`: their own, and not another's."""
    mine, theirs = suspect(here.store, 1, client="anonymous"), suspect(here.store, 2)
    here.store.put([mine, theirs])
    here.run("feedback", "benign", mine.id)
    assert "benign by client" in here.run("show", mine.id).stdout
    assert "NOT_FOUND" in here.run("feedback", "benign", theirs.id, status=1).output


def test_an_export_is_a_data_set(here: Here, tmp_path: Path) -> None:
    """`guard.data.read` reads it; evidence, labels and origins are in it, and exact pixels."""
    import pyarrow.parquet as pq

    kept = filled(here.store, 5)
    here.run("label", "adversarial", kept[0].id)
    here.run("label", "benign", kept[1].id)
    here.run("label", "unsure", kept[2].id)
    path = tmp_path / "out" / "suspects.parquet"
    told = json.loads(here.run("export", path, "--json").stdout)
    assert told["suspects"] == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    images = read(path)
    assert images.classes == CLASSES
    assert [images.classes[k] for k in images.labels] == [
        "adversarial", "benign", "unlabelled", "unlabelled", "unlabelled"
    ]  # fmt: skip
    rows = pq.read_table(path).to_pylist()
    for one, row in zip(kept, rows, strict=True):
        pixels = np.frombuffer(row["pixels"], "<f4").reshape(row["shape"])
        assert (pixels == one.image).all()
        assert (np.array(row["evidence"], np.float32) == one.evidence).all()
        assert (row["id"], row["pack"], row["client"]) == (one.id, one.pack, one.client)
        assert {score["name"] for score in row["scores"]} == set(one.verdict.scores)
        assert (row["upstream"] is None) == (one.upstream is None)
    assert rows[2]["reviews"][0]["label"] == "unsure"
    metadata = pq.read_schema(path).metadata
    assert json.loads(metadata[b"guard"])["what"] == "suspects"
    assert not list(path.parent.glob("*.part"))


def test_eight_bits_need_no_second_copy() -> None:
    """A picture that came as bytes is its PNG, bit for bit; another is not, and says so."""
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        pixels = rng.integers(0, 256, (channels, 9, 7), np.uint8)
        assert png(pixels.astype(np.float32) / np.float32(255))[1]
    assert not png(np.full((3, 4, 4), 0.1234, np.float32))[1]
    assert not png(np.zeros((4, 4, 4), np.float32))[1]
    assert not png(np.zeros((2, 4, 4), np.float32))[1]


def test_erase_asks_first(here: Here) -> None:
    """Nothing goes without a filter, without a yes, or by another's name."""
    filled(here.store, 3)
    here.run("erase", "--yes", status=2)
    here.run("erase", "--client", "jwt:camera", typed="n\n", status=1)
    assert here.run("erase", "--client", "jwt:nobody", "--yes").stdout == "erased 0\n"
    assert here.store.counts().total == 3
    told = here.run("erase", "--client", "jwt:camera", "--json", typed="y\n").stdout
    assert json.loads(told.splitlines()[-1]) == {"erased": 3}
    assert here.store.counts().total == 0
    assert json.loads(here.run("rotate", "--json").stdout) == {"wrapped": 0}


HOSTILE = ("../../etc/passwd", "'; DROP TABLE rows; --", "\x1b[2J", "ａ" * 32, "x" * 10_000)


def test_hostile_words_are_refused_in_one_clean_line(here: Here) -> None:
    """Ids that are none and names that nobody has: no traceback, no control character."""
    filled(here.store, 1)
    for text in HOSTILE:
        for command in (["show", text], ["label", "benign", text], ["list", "--id", text]):
            output = here.run(*command, status=1).output
            assert len(output.splitlines()) == 1
            assert output.strip().isprintable()
            assert len(output) < 300
        for option in ("--client", "--model", "--tenant", "--defense", "--pack"):
            line = ["suspects", "list", option, text, "--at", here.address]
            result = CliRunner().invoke(main, line)
            assert result.exit_code in (0, 1)
            assert not result.stdout
    assert here.store.counts().total == 1


def test_what_cannot_be_done_is_one_line(here: Here, tmp_path: Path) -> None:
    """Ids that are not there, times that are none, an empty export, nobody at the port."""
    known = filled(here.store, 1)[0].id
    assert "NOT_FOUND: no such suspect" in here.run("show", MISSING, status=1).output
    assert "no time" in here.run("list", "--since", "yesterday", status=2).output
    here.run("label", "friendly", MISSING, status=2)
    here.run("list", "--client", "a", "--client-hash", "b", status=2)
    path = tmp_path / "none.parquet"
    assert "no suspect to export" in here.run("export", path, "--model", "x", status=1).output
    assert not path.exists()
    (tmp_path / "file").touch()
    into = tmp_path / "file" / "suspect.png"
    assert str(into) in here.run("show", known, "--picture", into, status=1).output
    nobody = Here(here.store, "127.0.0.1:1")
    assert "UNAVAILABLE" in nobody.run("list", status=1).output
