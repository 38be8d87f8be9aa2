"""From a blocked picture to its erasure, through a real gateway that knows who calls."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from guard.client import CallError, Client
from guard.config.access import Grant, Identities
from guard.config.audit import AuditSettings
from guard.config.suspects import Suspects
from guard.gateway import protocol
from guard.gateway.audit.keys import load_keys
from guard.gateway.audit.show import records
from guard.gateway.server import Running, running
from guard.suspects.record import Filter
from guard.testing import clean_images, gateway_config, make_pack, suspicious_images
from tests.gateway.credentials import World, make_world

PEOPLE = {
    "camera": ("client", ""),
    "north": ("client", "north"),
    "ana": ("analyst", ""),
    "nora": ("analyst", "north"),
    "tom": ("trainer", ""),
    "pia": ("privacy", ""),
}


class Place:
    """A gateway and who may call it."""

    def __init__(self, gateway: Running, world: World) -> None:
        self._address, self._world = gateway.address, world

    async def ask(self, name: str, question: Any) -> Any:
        """One question of this person."""

        def asking() -> Any:
            with Client(self._address, token=self._world.issuer.token(name)) as client:
                return question(client)

        return await asyncio.to_thread(asking)


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    """A gateway that blocks, keeps suspects and an audit log, and tells people apart by tokens."""
    world = make_world(folder)
    grants = [
        Grant(match=f"jwt:{name}", roles=[role], tenant=tenant)  # type: ignore[list-item]
        for name, (role, tenant) in PEOPLE.items()
    ]
    tokens = world.identities(certificates=False).tokens
    settings = {
        "identity": Identities(tokens=tokens, grants=grants),
        "audit": AuditSettings(folder=str(folder / "log"), key_file=str(folder / "log.key")),
        "insecure": True,
    }
    config = gateway_config(
        make_pack(folder / "tiny"), gateway=settings, mode="enforce", on_flag="block"
    )
    suspects = Suspects(
        folder=str(folder / "kept"), key_file=str(folder / "kept.key"), sample_rate=0.0
    )
    async with running(structs.replace(config, suspects=suspects)) as gateway:
        yield Place(gateway, world)


async def blocked(here: Place, name: str, image: Any) -> str:
    """The id that a client gets for a picture that was blocked."""
    with pytest.raises(CallError) as caught:
        await here.ask(name, lambda c: c.infer("tiny", image))
    assert caught.value.reason == "ADVERSARIAL_INPUT"
    return caught.value.info["suspect_id"]


async def said(here: Place, name: str, suspect_id: str) -> None:
    """Feedback, tried again while the suspect is still being written."""
    for _ in range(50):
        try:
            return await here.ask(name, lambda c: c.suspects.feedback(suspect_id, "benign"))
        except CallError as error:
            if error.code != "NOT_FOUND":
                raise
            await asyncio.sleep(0.05)
    raise AssertionError("it was never kept")


async def test_from_a_false_alarm_to_its_erasure(tmp_path: Path) -> None:
    """Blocked, complained of, looked at, labelled, exported, erased: by who may, on record."""
    image = suspicious_images([1])
    async with place(tmp_path) as here:
        mixed = await here.ask(
            "camera",
            lambda c: c.infer("tiny", np.concatenate([clean_images([0]), suspicious_images([2])])),
        )
        first, second = mixed.suspect_ids
        assert (first, bool(second)) == ("", True)
        mine = await blocked(here, "camera", image)
        theirs = await blocked(here, "north", image)
        assert len({mine, theirs, second}) == 3  # the same picture from another is another
        await said(here, "camera", mine)
        await said(here, "north", theirs)
        for name in ("north", "ana"):
            with pytest.raises(CallError) as caught:
                await here.ask(name, lambda c: c.suspects.feedback(mine, "benign"))
            assert caught.value.code in ("NOT_FOUND", "PERMISSION_DENIED")

        assert {r.id for r in (await here.ask("ana", lambda c: c.suspects.rows())).rows} == {
            mine, theirs, second
        }  # fmt: skip
        assert [r.id for r in (await here.ask("nora", lambda c: c.suspects.rows())).rows] == [
            theirs
        ]
        seen = await here.ask("ana", lambda c: c.suspects.get(mine))
        assert (seen.suspect.image == image[0]).all()
        request = protocol.GetSuspectRequest(id=mine, picture=True)
        raw = await here.ask("ana", lambda c: c.call("GetSuspect", request))
        assert raw.suspect.verdict.class_name == "green"
        assert [one.source for one in seen.row.reviews] == ["client"]
        with pytest.raises(CallError, match="NOT_FOUND"):
            await here.ask("nora", lambda c: c.suspects.label([mine], "benign"))
        await here.ask("ana", lambda c: c.suspects.label([mine], "benign"))

        exported = await here.ask("tom", lambda c: list(c.suspects.export(Filter(label="benign"))))
        assert [one.row.id for one in exported] == [mine]
        assert await here.ask("pia", lambda c: c.suspects.erase(client_name="jwt:camera")) == 2
        with pytest.raises(CallError, match="NOT_FOUND"):
            await here.ask("ana", lambda c: c.suspects.get(mine))
        assert [r.id for r in (await here.ask("ana", lambda c: c.suspects.rows())).rows] == [theirs]
    told = list(records(tmp_path / "log"))
    keys = load_keys(tmp_path / "log.key")
    views = [one for one in told if one["event"] == "suspect.view"]
    assert [(one["actor"], one["outcome"]) for one in views] == [
        (keys.actor("jwt:ana"), "ok"),
        (keys.actor("jwt:ana"), "ok"),
        (keys.actor("jwt:ana"), "NOT_FOUND"),
    ]  # fmt: skip
    assert views[0]["details"]["suspects"] == [mine]
    kinds = {one["event"] for one in told}
    assert {"suspect.label", "suspect.export", "suspect.erase"} <= kinds
    assert "camera" not in json.dumps(told)


async def test_a_list_is_refused_to_who_may_not(tmp_path: Path) -> None:
    """A client sees nobody's suspects, an analyst erases none, and both are on record."""
    async with place(tmp_path) as here:
        for name, question in (
            ("camera", lambda c: c.suspects.rows()),
            ("camera", lambda c: c.suspects.counts()),
            ("ana", lambda c: c.suspects.erase(Filter(model="tiny"))),
            ("ana", lambda c: list(c.suspects.export())),
            ("tom", lambda c: c.suspects.get("a" * 32)),
            ("pia", lambda c: c.suspects.rows()),
        ):
            with pytest.raises(CallError, match="PERMISSION_DENIED"):
                await here.ask(name, question)
    refused = [one["details"]["rpc"] for one in records(tmp_path / "log", events=["refused"])]
    assert refused == [
        "ListSuspects", "CountSuspects", "EraseSuspects", "ExportSuspects", "GetSuspect",
        "ListSuspects",
    ]  # fmt: skip


async def test_where_nobody_is_known_scores_stay_hidden(tmp_path: Path) -> None:
    """A policy that hides scores hides them here, too, from whoever is nobody in particular."""
    config = gateway_config(make_pack(tmp_path / "tiny"), expose="decision")
    suspects = Suspects(folder=str(tmp_path / "kept"), key_file=str(tmp_path / "kept.key"))
    async with running(structs.replace(config, suspects=suspects)) as gateway:
        for question in (
            lambda c: c.suspects.rows(),
            lambda c: c.suspects.get("a" * 32),
            lambda c: c.suspects.claim(),
            lambda c: c.suspects.label(["a" * 32], "benign"),
            lambda c: c.suspects.undo(),
            lambda c: list(c.suspects.export()),
        ):
            with Client(gateway.address) as client, pytest.raises(CallError) as caught:
                await asyncio.to_thread(question, client)
            assert caught.value.reason == "NOT_EXPOSED"
        with Client(gateway.address) as client:
            assert (await asyncio.to_thread(client.suspects.counts)).total == 0
