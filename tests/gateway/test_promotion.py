"""A pack is promoted and rolled back while a gateway serves."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard.client import Client
from guard.config import Config
from guard.gateway import protocol
from guard.gateway.server import running
from guard.pack import Pack
from guard.testing import clean_images, gateway_config
from tests.gateway.children import make_child


@pytest.fixture
def shop(tiny_pack: Path, tmp_path: Path) -> Config:
    """Settings of a gateway before the tiny pack, with one child of it to be promoted."""
    make_child(tiny_pack, tmp_path / "packs" / "tiny-r1")
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    return gateway_config(tiny_pack, gateway=folders)


async def ask(address: str, question: Callable[[Client], Any]) -> Any:
    """One question through the blocking client, beside the gateway's loop."""

    def asking() -> Any:
        with Client(address) as client:
            return question(client)

    return await asyncio.to_thread(asking)


def promote(name: str) -> Callable[[Client], Any]:
    """The question that promotes."""
    return lambda client: client.call("PromotePack", protocol.PromotePackRequest(pack=name))


def roll_back(client: Client) -> Any:
    """The question that goes back."""
    return client.call("RollbackPack", protocol.RollbackPackRequest())


def digest_of(client: Client) -> str:
    """The digest of the pack that serves."""
    return str(client.status().models[0].pack.digest)


async def test_a_promoted_pack_serves_and_the_one_before_comes_back(
    tiny_pack: Path, shop: Config
) -> None:
    """Promotion and rollback change the pack of the very next answer, and outlive a restart."""
    child, first = Pack.load(Path(shop.gateway.packs) / "tiny-r1"), Pack.load(tiny_pack)
    async with running(shop) as gateway:
        assert await ask(gateway.address, digest_of) == first.digest
        standing = await ask(gateway.address, promote("tiny-r1"))
        assert (standing.current.pack, standing.current.serial) == ("tiny-r1", 1)
        assert await ask(gateway.address, digest_of) == child.digest
        await ask(gateway.address, lambda client: client.infer("tiny", clean_images([1])))
    async with running(shop) as gateway:
        assert await ask(gateway.address, digest_of) == child.digest
        standing = await ask(gateway.address, roll_back)
        assert (standing.current.pack, standing.current.digest) == ("", first.digest)
        assert await ask(gateway.address, digest_of) == first.digest
