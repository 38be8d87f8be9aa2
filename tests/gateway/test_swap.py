"""Packs are swapped under load: nothing fails, nothing is mixed, nothing is left behind."""

import asyncio
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from guard.gateway.identity import ANONYMOUS
from guard.gateway.uses import Uses
from guard.testing import FakeUpstream, clean_images, gateway_config
from tests.bench.swap import CLOSE, Said, _pool, swapped
from tests.gateway.children import make_child
from tests.gateway.setting import until
from tests.gateway.test_promotion import opened
from tests.gateway.wire import infer_request


def test_swaps_under_load_fail_no_request_and_mix_no_answer(tmp_path: Path) -> None:
    """A short run of `python -m tests.bench.swap`, in processes of their own."""
    outcome = swapped(1, 6, tmp_path)
    assert outcome.good, str(outcome)
    assert len(outcome.promotions) == len(outcome.rollbacks) == 4
    assert set(outcome.packs) == {"tiny", "one", "two"}


def test_every_number_tells_which_pack_it_is_of(tiny_pack: Path, tmp_path: Path) -> None:
    """What the run above looks for can be seen: no row of one pack could be another's."""
    one = make_child(tiny_pack, tmp_path / "one", factor=2.0, stricter=1.5)
    two = make_child(one, tmp_path / "two", factor=1.5, stricter=0.7)
    said = Said([tiny_pack, one, two], _pool(tiny_pack, own=True), b"s" * 32)
    for asked in (False, True):
        rows = np.array(
            [
                [[*row.scores.values(), row.p_value] for row in said._rows[digest, asked]]
                for digest in said.names
            ]
        )
        for a in range(3):
            for b in range(a):
                apart = np.abs(rows[a] - rows[b])
                assert (apart[:, :-1].max(axis=1) > 10 * CLOSE).mean() > 0.4
                assert (apart[:, -1] > 10 * CLOSE).any()


class Waiting:
    """An upstream that answers once it may."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.asked, self.may = inner, asyncio.Event(), asyncio.Event()

    async def infer(self, question: Any) -> Any:
        """The inner one's answer."""
        self.asked.set()
        await self.may.wait()
        return await self._inner.infer(question)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_a_request_under_way_is_answered_by_the_pack_it_began_with(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """Its evidence was the old pack's, so are its scores; the old one goes after that answer."""
    make_child(tiny_pack, tmp_path / "packs" / "tiny-r1")
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    async with FakeUpstream() as upstream:
        config = gateway_config(tiny_pack, upstream=upstream.address, gateway=folders)
        async with opened(config) as shop:
            old = shop.model
            waiting: Any = Waiting(old.upstream)
            old.upstream = waiting
            request = infer_request(clean_images([1]), outputs=["probabilities", "guard_scores"])

            async def asked() -> str:
                with old.uses:
                    served = await old.infer(request, request.SerializeToString(), timeout=60)
                return str(served.response.parameters["guard_pack"].string_param)

            asking = asyncio.create_task(asked())
            await asyncio.wait_for(waiting.asked.wait(), 20)
            await shop.changes.promote(ANONYMOUS, "", "tiny-r1")
            assert (shop.model is old, asking.done()) == (False, False)
            waiting.may.set()
            assert await asking == old.pipeline.pack.digest
            await shop.changes.close()
            assert shop.model.upstream is waiting
            assert shop.model.tally is old.tally
            await until(lambda: "evidence-tiny_0" not in {t.name for t in threading.enumerate()})


async def test_what_was_replaced_is_forgotten(tiny_pack: Path, tmp_path: Path) -> None:
    """Packs are megabytes: a gateway that was promoted a hundred times is no larger for it."""
    make_child(tiny_pack, tmp_path / "packs" / "tiny-r1")
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    async with opened(gateway_config(tiny_pack, gateway=folders)) as shop:
        old = weakref.ref(shop.model.pipeline)
        await shop.changes.promote(ANONYMOUS, "", "tiny-r1")
        await shop.changes.close()
        assert old() is None


async def test_uses_are_over_when_the_last_one_is() -> None:
    """Nobody is waited for where nobody is; the last of several lets go."""
    uses = Uses()
    await uses.over()
    with uses:
        with uses:
            pass
        waiting = asyncio.create_task(uses.over())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await waiting
