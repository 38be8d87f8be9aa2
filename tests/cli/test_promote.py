"""`guard promote` and `guard rollback` against a running gateway, as the document has them."""

import asyncio
import json
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guard import metrics
from guard.cli import main
from guard.client import Client
from guard.gateway.server import running
from guard.testing import gateway_config, make_pack, suspicious_images
from tests.gateway.children import make_child
from tests.gateway.setting import counted

DOCUMENT = (Path(__file__).parents[2] / "deploy" / "docs" / "promote.md").read_text()
COMMANDS = re.findall(r"^\$ guard (.*)$", DOCUMENT, re.MULTILINE)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A gateway with one candidate, in a loop of its own."""
    pack = make_pack(tmp_path / "tiny")
    make_child(pack, tmp_path / "packs" / "signs-r1", factor=0.001, stricter=0.001)
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with running(gateway_config(pack, gateway=folders)) as gateway:
            found.append(gateway.address)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def run(address: str, line: str, status: int = 0) -> Result:
    """One command; its exit status must be the one expected, its errors one plain line."""
    result = CliRunner().invoke(main, [*shlex.split(line), "--at", address])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def test_the_document_command_by_command(address: str) -> None:
    """Listed, watched, promoted, rolled back: what the document shows is what happens."""
    said = []
    for number, line in enumerate(COMMANDS):
        said.append(run(address, line).output)
        if number == 1:
            with Client(address) as client:
                client.infer("tiny", suspicious_images([1]))
                while not client.call("ListPacks", _everything()).models[0].shadow_counts:
                    pass
    assert "signs-r1: may be promoted" in said[0]
    assert "in shadow: signs-r1" in said[1]
    assert "1 images: FLAG, would be ALLOW" in said[2]
    assert said[3].startswith("tiny: signs-r1 (sha256:")
    assert "before: the pack that the settings name" in said[3]
    assert said[4].startswith("tiny: the pack that the settings name")
    assert len(said) == 6


def test_json_and_refusals_are_for_scripts(address: str) -> None:
    """One object a model; a refusal is exit status 1 and one line, misuse is 2."""
    found = json.loads(run(address, "promote --json").output)
    assert (found["model"], found["current"]["pack"], found["before"]) == ("tiny", "", [])
    assert [each["pack"] for each in found["candidates"]] == ["signs-r1"]
    refused = counted("guard_promotions_total", model="tiny", outcome="refused")
    assert "there is no pack 'signs-r9'" in run(address, "promote signs-r9", 1).output
    assert "none to go back to" in run(address, "rollback", 1).output
    assert counted("guard_promotions_total", model="tiny", outcome="refused") == refused + 2
    run(address, "promote --shadow", 2)
    run(address, "promote signs-r1 --no-shadow", 2)


def test_every_metric_in_the_document_exists() -> None:
    """Names that nobody exports help nobody."""
    families = {family.name for family in metrics.REGISTRY.collect()}
    names = set(re.findall(r"`(guard_(?!pack`)\w+)(?:{[^`]*})?`", DOCUMENT.split("## Metrics")[1]))
    assert len(names) >= 8
    assert {name.removesuffix("_total") for name in names} <= families


def _everything() -> object:
    from guard.gateway import protocol

    return protocol.ListPacksRequest()
