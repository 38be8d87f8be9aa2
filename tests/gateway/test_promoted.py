"""What else of a gateway knows which pack serves: suspects, sequences, calibrations, `check`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec import structs

from guard import calibration
from guard.cli import main
from guard.client import Client
from guard.config import Config, load_config
from guard.config.suspects import Suspects
from guard.console.serving import _Live
from guard.errors import ConfigError, PackError
from guard.gateway import protocol
from guard.gateway.identity import ANONYMOUS
from guard.gateway.loading import Packs
from guard.gateway.server import running
from guard.pack import Pack
from guard.suspects.record import Filter
from guard.testing import gateway_config, make_pack, suspicious_images
from tests.end_to_end.processes import write_config
from tests.gateway.children import make_child
from tests.gateway.setting import counted, until
from tests.gateway.test_promotion import ask, opened


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A gateway that keeps suspects, before a pack with one child."""
    pack = make_pack(tmp_path / "tiny")
    make_child(pack, tmp_path / "packs" / "tiny-r1")
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    kept = Suspects(folder=str(tmp_path / "suspects"), key_file=str(tmp_path / "keys"))
    model = {"answer": "ensemble", "name": "tiny"}
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    file = write_config(tmp_path / "guard.toml", pack, model, secret_file=str(secret), **folders)
    return structs.replace(load_config(file), suspects=kept)


async def test_suspects_name_the_pack_that_judged_them(config: Config, tmp_path: Path) -> None:
    """Before and after a promotion; older ones keep the names of their classes."""
    promoting = protocol.PromotePackRequest(pack="tiny-r1")

    def asking(client: Client) -> list[tuple[str, str]]:
        client.infer("tiny", suspicious_images([1]))
        client.call("PromotePack", promoting)
        client.infer("tiny", suspicious_images([2]))
        while client.suspects.counts().total < 2:
            pass
        found = []
        for row in client.suspects.rows(Filter(), order="oldest").rows:
            request = protocol.GetSuspectRequest(id=row.id, picture=True)
            full = client.call("GetSuspect", request)
            found.append((full.row.pack, full.suspect.verdict.class_name))
        return found

    async with running(config) as gateway:
        found = await ask(gateway.address, asking)
        live = _Live(gateway.servicer.models)
        assert live["tiny"].pack.name == "tiny-r1"
        assert (list(live), len(live)) == (["tiny"], 1)
    first, child = Pack.load(tmp_path / "tiny"), Pack.load(tmp_path / "packs" / "tiny-r1")
    assert found == [(first.digest, "green"), (child.digest, "blue")]


async def test_an_attack_is_remembered_over_a_promotion(tiny_pack: Path, tmp_path: Path) -> None:
    """The memory of queries is the model's: changing its pack gives no attacker a fresh start."""
    make_child(tiny_pack, tmp_path / "packs" / "tiny-r1")
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    queries = {"watch": True, "alarm": 3}
    settings = gateway_config(tiny_pack, gateway=folders)
    model = structs.replace(
        settings.models[0], queries=structs.replace(settings.models[0].queries, **queries)
    )
    before = counted("guard_query_attack_total", model="tiny")
    picture = np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
    steps = [np.clip(picture + n * 0.002, 0, 1) for n in range(3)]

    def asking(client: Client) -> None:
        for step in steps[:2]:
            client.infer("tiny", step)
        client.call("PromotePack", protocol.PromotePackRequest(pack="tiny-r1"))
        client.infer("tiny", steps[2])

    async with running(structs.replace(settings, models=[model])) as gateway:
        await ask(gateway.address, asking)
        await until(lambda: counted("guard_query_attack_total", model="tiny") > before)


def calibrated(pack: Path, path: Path, upstream: str) -> Path:
    """What `guard calibrate --upstream` would write for a pack."""
    loaded = Pack.load(pack)
    about = {"pack": loaded.digest, "upstream": upstream}
    entries = calibration.load(loaded.files["calibration.npz"]).items()
    path.write_bytes(calibration.dump({key: from_there(entry, about) for key, entry in entries}))
    return path


def from_there(entry: calibration.Calibration, about: dict[str, str]) -> calibration.Calibration:
    """The same scores with another origin."""
    return calibration.Calibration(entry.names, entry.scores, about)


async def test_thresholds_of_another_upstream_are_not_promoted(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """A candidate without the operator's own thresholds would silently bring the pack's back."""
    packs = tmp_path / "packs"
    make_child(tiny_pack, packs / "forgot")
    file = calibrated(tiny_pack, tmp_path / "tiny.npz", "grpc://ours:9001")
    folders = {"packs": str(packs), "state": str(tmp_path / "state")}
    settings = gateway_config(tiny_pack, gateway=folders, calibration=str(file))
    async with opened(settings) as shop:
        with pytest.raises(PackError, match="calibrated on no upstream, what serves on grpc://our"):
            await shop.changes.promote(ANONYMOUS, "", "forgot")
    made = Packs(settings)
    (model,) = settings.models
    own = made.pipeline(model, made.own(model), b"s" * 32)
    assert own.calibrations["alone"].about["upstream"] == "grpc://ours:9001"
    child = made.pipeline(model, made.candidate(model, "forgot"), b"s" * 32)
    assert "upstream" not in child.calibrations["alone"].about
    calibrated(packs / "forgot", file, "grpc://ours:9001")
    again = made.pipeline(model, made.candidate(model, "forgot"), b"s" * 32)
    assert again.calibrations["alone"].about["upstream"] == "grpc://ours:9001"


async def test_check_and_inspect_know_what_was_promoted(config: Config, tmp_path: Path) -> None:
    """`check` names what serves and who approved it; a suspect is replayed by the pack it met."""
    async with running(config) as gateway:
        await ask(gateway.address, lambda one: one.infer("tiny", suspicious_images([1])))
        promoting = protocol.PromotePackRequest(pack="tiny-r1")
        await ask(gateway.address, lambda one: one.call("PromotePack", promoting))
        kept = gateway.kept
        assert kept is not None
        await until(lambda: kept.store.counts().total == 1)
        (row,) = kept.store.rows(limit=1).rows
    file = tmp_path / "guard.toml"
    said = run("check", file, "--offline")
    assert "tiny: tiny-r1, serial 1 (sha256:" in said
    assert "submitted by anonymous, approved by anonymous on 20" in said
    assert "before: the settings' own pack" in said
    assert "model tiny: pack tiny-r1 (" in said
    suspects = {"folder": config.suspects.folder, "key_file": config.suspects.key_file}
    lines = [f"{key} = {json.dumps(value)}" for key, value in suspects.items()]
    file.write_text("\n".join([file.read_text(), "[suspects]", *lines]))
    assert "bit for bit" in run("inspect", "--suspect", row.id, "--config", file)


def run(*arguments: Any) -> str:
    """A command that must succeed; what it said."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("gateway", "model", "key"),
    [
        ({"packs": "packs"}, {}, "gateway.packs"),
        ({"state": "state"}, {}, "gateway.packs"),
        ({}, {"shadow": "tiny-r1"}, "models[0].shadow"),
    ],
)
def test_settings_that_go_together_are_asked_for_together(
    tiny_pack: Path, tmp_path: Path, gateway: dict[str, Any], model: dict[str, Any], key: str
) -> None:
    """Candidates without a state, a shadow without candidates: said before anything starts."""
    settings = {"name": "tiny", "answer": "ensemble", **model}
    file = write_config(tmp_path / "guard.toml", tiny_pack, settings, **gateway)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert caught.value.key == key
