"""A gateway whose suspects' disk is full, writes short or fails, again and again; nobody waits."""

import asyncio
import contextlib
import random
import tempfile
import time
from pathlib import Path

import grpc
import grpc.aio
import numpy as np

from guard.gateway import protocol
from guard.suspects.opening import open_keys, open_store
from guard.testing import clean_images, make_pack
from tests.durability.mount import Mounted
from tests.durability.rounds import Tally
from tests.durability.work import rows
from tests.end_to_end.processes import GATEWAY, free_port, started, write_config
from tests.gateway.wire import infer_request

BREAKS = ("full", "short", "eio", "sync-eio")
BROKEN_SECONDS, BACK_SECONDS = 1.5, 5.0
PATH = protocol.INFERENCE_METHODS["ModelInfer"].path
SETTINGS = '[suspects]\nfolder = "{0}/kept"\nkey_file = "{0}/keys"\nsample_rate = 1.0\n'


class Clients:
    """Requests one after another, each with a picture of its own, and what became of them."""

    def __init__(self, address: str) -> None:
        self.answered, self.failed = 0, list[str]()
        self._address = address

    async def run(self) -> None:
        """Until cancelled."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            call = channel.unary_unary(PATH)
            for number in range(1 << 31):
                image = clean_images([number % 3]) + np.float32(number % 100_000 / 1e6)
                request = infer_request(image).SerializeToString()
                try:
                    await call(request, timeout=5)
                    self.answered += 1
                except grpc.aio.AioRpcError as error:
                    self.failed.append(str(error.code()))
                await asyncio.sleep(0.01)


def cycles(count: int, seed: int) -> Tally:
    """Break the disk under a gateway, mend it, and wait until suspects are kept again."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="guard-full-") as name:
        folder = Path(name)
        with Mounted(folder / "mount") as disk:
            asyncio.run(_play(disk, folder, count, seed, tally))
            _read(disk.folder, tally)
    return tally


async def _play(disk: Mounted, folder: Path, count: int, seed: int, tally: Tally) -> None:
    port = free_port()
    settings = {"metrics": f"127.0.0.1:{port}"}
    model = {"name": "tiny", "answer": "ensemble"}
    path = write_config(folder / "guard.toml", make_pack(folder / "tiny"), model, **settings)
    with path.open("a") as file:
        file.write("\n" + SETTINGS.format(disk.folder))
    chance = random.Random(seed)
    with started(GATEWAY, str(path)) as gateway:
        clients = Clients(gateway.address)
        task = asyncio.create_task(clients.run())
        await _kept_again(port, tally)
        for number in range(count):
            word = BREAKS[number % len(BREAKS)]
            disk.say(f"{word} {chance.getrandbits(32)}")
            await asyncio.sleep(BROKEN_SECONDS)
            disk.say("mend")
            await _kept_again(port, tally, word)
            tally.rounds += 1
        tally.failed = int(await _value(port, "guard_suspects_failures_total"))
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(1)
        tally.acknowledged = int(await _value(port, "guard_suspects_kept_total"))
    tally.wrong += [f"inference failed: {one}" for one in clients.failed]
    tally.note = f"{clients.answered} requests answered, {len(clients.failed)} failed"


async def _kept_again(port: int, tally: Tally, word: str = "nothing") -> None:
    began, before = time.monotonic(), await _value(port, "guard_suspects_kept_total")
    while await _value(port, "guard_suspects_kept_total") == before:
        if time.monotonic() - began > 30:
            tally.wrong.append(f"after {word}: nothing is kept again")
            return
        await asyncio.sleep(0.05)
    took = time.monotonic() - began
    tally.slowest = max(tally.slowest, took)
    if took > BACK_SECONDS and word != "nothing":
        tally.wrong.append(f"after {word}: kept again only after {took:.1f} s")


def _read(folder: Path, tally: Tally) -> None:
    """Whether all that was counted as kept is there and can be opened."""
    with contextlib.closing(
        open_store(open_keys(str(folder / "keys")), folder=str(folder / "kept"))
    ) as store:
        found = rows(store)
        if (seen := sum(row.seen for row in found.values())) < tally.acknowledged:
            tally.wrong.append(f"lost: {tally.acknowledged} were acknowledged, {seen} are there")
        for suspect_id in found:
            try:
                store.get(suspect_id)
            except Exception as error:  # whatever it is, it cannot be read
                tally.wrong.append(f"unreadable: {suspect_id}: {error}")


async def _value(port: int, name: str) -> float:
    """The sum of a metric over its labels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
    return sum(float(value) for _, value in lines)
