"""`guard.v1.Guard`: status and inspection, for operators only."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.client import CallError, Client
from guard.gateway.server import running
from guard.testing import FakeUpstream, clean_images, gateway_config, suspicious_images
from guard.verdict import Decision


async def ask(address: str, question: Callable[[Client], Any]) -> Any:
    """One question through the blocking client, beside the gateway's loop."""

    def asking() -> Any:
        with Client(address) as client:
            return question(client)

    return await asyncio.to_thread(asking)


async def test_status_tells_posture_pack_and_counts(tiny_pack: Path) -> None:
    """What guards which model, how, and what it has seen so far."""
    async with FakeUpstream() as upstream:
        config = gateway_config(tiny_pack, upstream=upstream.address, mode="enforce")
        async with running(config) as gateway:
            images = np.concatenate([clean_images([0, 1]), suspicious_images([2])])
            await ask(gateway.address, lambda client: client.infer("tiny", images))
            status = await ask(gateway.address, lambda client: client.status())
            (model,) = status.models
            assert (model.name, model.ready, model.answer) == ("tiny", True, "upstream")
            assert (model.mode, model.on_flag, model.expose) == ("enforce", "annotate", "full")
            assert (model.requests, model.images) == (1, 3)
            assert (model.verdicts["allow"], model.verdicts["flag"]) == (2, 1)
            assert model.pack.digest.startswith("sha256:")
            assert list(model.pack.classes) == ["red", "green", "blue"]


async def test_inspect_judges_without_asking_the_upstream(tiny_pack: Path) -> None:
    """The verdict in full; a known answer of the production model changes it."""
    async with (
        FakeUpstream() as upstream,
        running(gateway_config(tiny_pack, upstream=upstream.address)) as gateway,
    ):
        images = np.concatenate([clean_images([0]), suspicious_images([1])])
        plain = await ask(gateway.address, lambda client: client.inspect("tiny", images))
        assert [row.decision for row in plain] == [Decision.ALLOW, Decision.FLAG]
        assert list(plain[0].scores) == ["stripes", "detector"]
        wrong = np.array([2, 1])
        told = await ask(gateway.address, lambda client: client.inspect("tiny", images, wrong))
        assert told[0].decision == Decision.FLAG
        assert told[0].label == 2
        assert not upstream.requests


@pytest.mark.parametrize(
    "question",
    [lambda client: client.status(), lambda client: client.inspect("tiny", clean_images([0]))],
)
async def test_nothing_is_told_where_verdicts_are_not_shown_in_full(
    tiny_pack: Path, question: Any
) -> None:
    """Scores are an attacker's compass, whichever service they would leave by."""
    async with running(gateway_config(tiny_pack, expose="decision")) as gateway:
        with pytest.raises(CallError) as caught:
            await ask(gateway.address, question)
        assert (caught.value.code, caught.value.reason) == ("PERMISSION_DENIED", "NOT_EXPOSED")


async def test_what_cannot_be_inspected_is_named(tiny_pack: Path) -> None:
    """Unknown models, wrong shapes and too many images are the caller's mistakes."""
    async with running(gateway_config(tiny_pack, max_images=2)) as gateway:
        for question, code in (
            (lambda client: client.inspect("other", clean_images([0])), "NOT_FOUND"),
            (lambda client: client.status("other"), "NOT_FOUND"),
            (lambda client: client.inspect("tiny", clean_images([0])[:, :2]), "INVALID_ARGUMENT"),
            (lambda client: client.inspect("tiny", clean_images([0] * 3)), "INVALID_ARGUMENT"),
            (lambda client: client.inspect("tiny", np.array(1.0)), "INVALID_ARGUMENT"),
            (
                lambda client: client.inspect("tiny", clean_images([0]), np.ones((1, 9))),
                "INVALID_ARGUMENT",
            ),
        ):
            with pytest.raises(CallError) as caught:
                await ask(gateway.address, question)
            assert caught.value.code == code
