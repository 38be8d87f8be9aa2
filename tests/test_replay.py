"""Replaying a suspect: bit for bit as it was judged, or what differs."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec import structs
from numpy.typing import NDArray

from guard.cli import main
from guard.config import Config, load_config
from guard.data import signs
from guard.gateway.server import running
from guard.pipeline import Pipeline
from guard.replay import replay
from guard.suspects.record import Suspect
from guard.testing import FakeUpstream
from guard.verdict import Decision
from tests.gateway.wire import Caller

SIGNS = Path(__file__).parents[1] / "models" / "signs"
COUNT = 12


SENT = signs.make(COUNT, seed=3, size=32)


def answer(inputs: Any) -> dict[str, NDArray[Any]]:
    """An upstream that is right about every second of the signs that are sent."""
    known = {image.tobytes(): n for n, image in enumerate(SENT.pixels())}
    probabilities = np.full((len(inputs["images"]), 18), 0.01, np.float32)
    for row, image in zip(probabilities, inputs["images"], strict=True):
        n = known[image.tobytes()]
        row[(SENT.labels[n] + n % 2 * 5) % 18] = 0.83
    return {"probabilities": probabilities}


async def captured(config: Config) -> list[Suspect]:
    """Signs sent in requests of several sizes at once, all of them kept."""
    images = SENT.pixels()
    async with FakeUpstream(answer) as upstream:
        model = structs.replace(config.models[0], upstream=upstream.address)
        asked = structs.replace(config, models=[model])
        async with running(asked) as gateway, Caller(gateway.address) as caller:
            parts = np.split(images, [1, 3, 8])
            await asyncio.gather(*(caller.infer(part, model="signs") for part in parts))
            kept = gateway.kept
            assert kept is not None
            async with asyncio.timeout(20):
                while kept.store.counts().total < COUNT:
                    await asyncio.sleep(0.02)
            return [kept.store.get(row.id) for row in kept.store.rows(limit=COUNT).rows]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard.toml that keeps everything, beside its secret."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "secret").write_text("s" * 40)
    file = folder / "guard.toml"
    file.write_text(f"""
[gateway]
listen = "127.0.0.1:0"
metrics = ""
drain = 0.5
secret_file = "secret"
[suspects]
folder = "suspects"
key_file = "keys/suspects"
sample_rate = 1.0
[[models]]
name = "signs"
pack = "{SIGNS}"
upstream = "grpc://127.0.0.1:1"
[models.output]
tensor = "probabilities"
""")
    return file


@pytest.fixture(scope="module")
def suspects(config: Path) -> list[Suspect]:
    """What a gateway with these settings kept."""
    return asyncio.run(captured(load_config(config)))


@pytest.fixture(scope="module")
def pipeline(config: Path) -> Iterator[Pipeline]:
    """The pipeline of the same settings, loaded anew."""
    settings = load_config(config)
    yield Pipeline.load(SIGNS, policy=settings.policy(settings.models[0]), secret=b"s" * 40)


def test_a_verdict_is_replayed_bit_for_bit(suspects: list[Suspect], pipeline: Pipeline) -> None:
    """Every one of them, from runs of several sizes, flagged or not, to the last bit."""
    again = [replay(one, pipeline) for one in suspects]
    assert [one.differences for one in again] == [()] * COUNT
    assert [one.verdict for one in again] == [one.verdict for one in suspects]
    assert len({one.place[1] for one in suspects}) > 1
    assert len({one.verdict.decision for one in suspects}) == 2


def test_it_is_said_what_differs(suspects: list[Suspect], pipeline: Pipeline) -> None:
    """Another secret, pack, engine or image: the effect, and what may be why."""
    one = suspects[0]
    settings = Pipeline.load(pipeline.pack.folder, policy=pipeline.policy, secret=b"t" * 40)
    other = replay(one, settings)
    assert not other.identical
    assert "because of the secret? it draws other noise" in other.differences
    darker = replace(one, image=one.image * np.float32(0.5), engine="other 1", pack="sha256:1")
    told = "\n".join(replay(darker, pipeline).differences)
    assert "evidence: up to" in told
    assert "because of the engine? other 1 then" in told
    assert "because of the pack? sha256:1 then" in told
    blocked = replace(one, verdict=replace(one.verdict, decision=Decision.BLOCK))
    told = "\n".join(replay(blocked, pipeline).differences)
    assert told.startswith("decision: BLOCK then,")
    assert "because of the policy, or the queries before it?" in told


def run(*arguments: object) -> tuple[int, str]:
    """The command line: exit status and output."""
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    return done.exit_code, done.output


def test_the_command_says_so(suspects: list[Suspect], config: Path, tmp_path: Path) -> None:
    """`guard inspect --suspect`: 0 and one line; 1 and the differences with another secret."""
    one = suspects[0]
    status, text = run("inspect", "--suspect", one.id, "--config", config)
    assert (status, "bit for bit" in text) == (0, True), text
    status, text = run("inspect", "--suspect", one.id, "--config", config, "--json")
    assert (status, json.loads(text)["identical"]) == (0, True)
    other = config.with_name("other.toml")
    other.write_text(config.read_text().replace('"secret"', '"other"'))
    config.with_name("other").write_text("o" * 40)
    status, text = run("inspect", "--suspect", one.id, "--config", other)
    assert (status, "because of the secret?" in text) == (1, True), text


def test_misuse_is_told(suspects: list[Suspect], config: Path, tmp_path: Path) -> None:
    """An unknown id, no store, pictures and a suspect at once: one line each."""
    assert run("inspect", "--suspect", "nosuchsuspect", "--config", config)[0] == 1
    assert run("inspect", "--suspect", suspects[0].id)[0] == 2
    assert run("inspect", "--suspect", suspects[0].id, "--config", config, "--pack", SIGNS)[0] == 2
    assert run("inspect")[0] == 2
    bare = tmp_path / "guard.toml"
    bare.write_text(f'[[models]]\nname = "m"\npack = "{SIGNS}"\nanswer = "ensemble"\n')
    status, text = run("inspect", "--suspect", suspects[0].id, "--config", bare)
    assert (status, "no suspects are kept" in text) == (2, True), text


def test_check_says_what_is_kept(suspects: list[Suspect], config: Path) -> None:
    """`guard check` opens the store, counts, and says what goes in and when it goes out."""
    assert suspects
    status, text = run("check", config, "--offline")
    assert status == 0, text
    assert f"there now: {COUNT} suspects" in text
    assert "kept: what is flagged or blocked, and 100% of all" in text
    assert "for 90 days and 10 GiB at most" in text
    assert "unreadable from old backups within a minute" in text
