"""A gateway that keeps suspects, over real connections and with a real store."""

import contextlib
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from msgspec import structs

from guard.config.suspects import Suspects
from guard.errors import StoreError, UnknownSuspectError
from guard.gateway import protocol
from guard.gateway.keeping import opener
from guard.gateway.server import Running, running
from guard.suspects.record import Filter, Suspect
from guard.testing import (
    FakeUpstream,
    answer_colour,
    clean_images,
    gateway_config,
    suspicious_images,
)
from guard.verdict import Decision
from tests.gateway.setting import BLOCK, counted, until
from tests.gateway.wire import Caller

MIXED = np.concatenate([clean_images([0]), suspicious_images([1]), clean_images([2])])
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Here:
    """A gateway, who calls it, and what it keeps."""

    def __init__(self, gateway: Running, caller: Caller, config: Any) -> None:
        self.gateway, self.caller, self.config = gateway, caller, config

    async def suspects(self, count: int) -> list[Suspect]:
        """So many suspects, once they are kept, oldest first."""
        kept = self.gateway.kept
        assert kept is not None
        await until(lambda: kept.store.counts().total >= count and not kept.capture.waiting)
        rows = kept.store.rows(order="oldest", limit=500).rows
        assert len(rows) == count
        return [kept.store.get(row.id) for row in rows]


@asynccontextmanager
async def keeping(
    pack: Path,
    folder: Path,
    *,
    upstream: FakeUpstream | None = None,
    sample_rate: float = 0.0,
    kept: dict[str, Any] | None = None,
    **model: Any,
) -> AsyncIterator[Here]:
    """A gateway that keeps suspects in this folder; its ensemble answers without an upstream."""
    async with AsyncExitStack() as stack:
        address = ""
        if upstream is not None:
            address = (await stack.enter_async_context(upstream)).address
        config = structs.replace(
            gateway_config(pack, upstream=address, **model),
            suspects=Suspects(
                **{
                    "folder": str(folder / "suspects"),
                    "key_file": str(folder / "keys" / "suspects"),
                    "sample_rate": sample_rate,
                    **(kept or {}),
                }
            ),
        )
        gateway = await stack.enter_async_context(running(config))
        caller = await stack.enter_async_context(Caller(gateway.address))
        yield Here(gateway, caller, config)


def ids_of(answer: Any) -> list[str]:
    """The ids that an answer carries."""
    return str(answer.parameters.get("guard_suspect_ids", "")).split(",")


async def test_what_is_flagged_is_kept_in_full(tiny_pack: Path, tmp_path: Path) -> None:
    """The image, bit for bit, with all it takes to judge it again; the client gets its id."""
    upstream = FakeUpstream()
    async with keeping(tiny_pack, tmp_path, upstream=upstream) as here:
        parent = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
        answer = await here.caller.infer(MIXED, metadata=parent)
        (kept,) = await here.suspects(1)
        assert ids_of(answer) == ["", kept.id, ""]
        assert np.array_equal(kept.image, MIXED[1])
        assert (kept.model, kept.trace, kept.sampled, kept.tenant) == ("tiny", TRACE, False, "")
        assert (kept.verdict.decision, kept.budget) == (Decision.FLAG, 0.01)
        assert "detector" in kept.alarms
        assert kept.upstream is not None and kept.upstream.argmax() == kept.verdict.label
        assert "anonymous" not in kept.client
        assert kept.engine.startswith("guard ") and "CPUExecutionProvider" in kept.engine
        assert (kept.place, kept.judged) == ((1, 3), (1, 3))
        pipeline = here.gateway.servicer.models["tiny"].pipeline
        again = pipeline.evidence(kept.image[None])
        assert np.allclose(again.rows[0], kept.evidence)
        assert kept.noise_index == again.noise_index[0]


async def test_a_request_blocked_as_a_whole_says_which_suspects_it_became(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """ErrorInfo carries the ids, in order, beside the opaque case id."""
    async with keeping(tiny_pack, tmp_path, **BLOCK) as here:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await here.caller.infer(suspicious_images([0, 1]))
        details = dict(refused.value.trailing_metadata() or ())[protocol.STATUS_DETAILS]
        info = protocol.error_info(details)
        assert info is not None
        kept = await here.suspects(2)
        ids = {one.verdict.label: one.id for one in kept}
        assert info.metadata["suspect_id"] == f"{ids[0]},{ids[1]}"
        assert {one.verdict.decision for one in kept} == {Decision.BLOCK}


async def test_the_same_picture_again_is_the_same_suspect(tiny_pack: Path, tmp_path: Path) -> None:
    """One record, seen twice, one id."""
    async with keeping(tiny_pack, tmp_path) as here:
        first = ids_of(await here.caller.infer(suspicious_images([1])))
        await here.suspects(1)
        assert ids_of(await here.caller.infer(suspicious_images([1]))) == first
        kept = here.gateway.kept
        assert kept is not None
        await until(lambda: kept.store.row(first[0]).seen == 2)


async def test_the_sample_is_drawn_whatever_the_verdict(tiny_pack: Path, tmp_path: Path) -> None:
    """At rate 1 everything is kept; the client of an unsuspicious picture is told nothing."""
    async with keeping(tiny_pack, tmp_path, sample_rate=1.0) as here:
        answer = await here.caller.infer(MIXED)
        kept = await here.suspects(3)
        assert all(one.sampled for one in kept)
        decisions = sorted(one.verdict.decision for one in kept)
        assert decisions == [Decision.ALLOW, Decision.ALLOW, Decision.FLAG]
        assert [bool(one) for one in ids_of(answer)] == [False, True, False]


async def test_nobody_is_told_ids_who_may_not_see_decisions(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """expose = "none": kept all the same, and not a word of it."""
    async with keeping(tiny_pack, tmp_path, expose="none") as here:
        answer = await here.caller.infer(MIXED)
        assert "guard_suspect_ids" not in answer.parameters
        assert len(await here.suspects(1)) == 1


async def test_what_cannot_be_judged_again_is_not_kept(tiny_pack: Path, tmp_path: Path) -> None:
    """A number that is not finite makes an ERROR and no suspect, even when drawn; counted."""

    def broken(inputs: Any) -> Any:
        answer = dict(answer_colour(inputs))
        answer["probabilities"] = answer["probabilities"].copy()
        answer["probabilities"][0] = np.nan
        return answer

    before = counted("guard_suspects_dropped_total", reason="unusable")
    upstream = FakeUpstream(broken)
    async with keeping(tiny_pack, tmp_path, upstream=upstream, sample_rate=1.0) as here:
        answer = await here.caller.infer(MIXED)
        assert answer.parameters["guard_decision"].startswith("ERROR,")
        assert len(await here.suspects(2)) == 2
    assert counted("guard_suspects_dropped_total", reason="unusable") == before + 1


async def test_a_gateway_starts_and_serves_without_its_store(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """A folder that cannot be: clients are answered, ids are none, the metric says it, and once
    the store can be opened suspects are kept again."""
    (tmp_path / "suspects").write_text("in the way")
    before = counted("guard_suspects_dropped_total", reason="store")
    async with keeping(tiny_pack, tmp_path) as here:
        answer = await here.caller.infer(MIXED)
        assert answer.parameters["guard_decision"] == "ALLOW,FLAG,ALLOW"
        assert "guard_suspect_ids" not in answer.parameters
        assert counted("guard_suspects_dropped_total", reason="store") == before + 1
        assert counted("guard_suspects_up", store="sqlite") == 0
        (tmp_path / "suspects").unlink()
        kept = here.gateway.kept
        assert kept is not None
        await until(lambda: kept.store.ready, 5)
        await here.caller.infer(MIXED)
        assert len(await here.suspects(1)) == 1


async def test_what_was_queued_is_there_after_a_restart(tiny_pack: Path, tmp_path: Path) -> None:
    """Stopping keeps what waits; the next gateway finds it."""
    images = np.concatenate([suspicious_images([label]) for label in (0, 1, 2)])
    async with keeping(tiny_pack, tmp_path) as here:
        await here.caller.infer(images)
    async with keeping(tiny_pack, tmp_path) as here:
        assert len(await here.suspects(3)) == 3


async def test_without_settings_nothing_is_kept(tiny_pack: Path) -> None:
    """No thread, no parameter, no file."""
    async with running(gateway_config(tiny_pack)) as gateway, Caller(gateway.address) as caller:
        answer = await caller.infer(MIXED)
        assert (gateway.kept, "guard_suspect_ids" in answer.parameters) == (None, False)


def test_a_wrong_key_opens_nothing(tiny_pack: Path, tmp_path: Path) -> None:
    """A store that was made with other keys is refused, and not written over."""
    config = gateway_config(tiny_pack)
    settings = Suspects(folder=str(tmp_path / "s"), key_file=str(tmp_path / "a"))
    opener(structs.replace(config, suspects=settings))().close()
    other = structs.replace(settings, key_file=str(tmp_path / "b"))
    with pytest.raises(StoreError):
        opener(structs.replace(config, suspects=other))()
    opener(structs.replace(config, suspects=settings))().close()


async def test_an_erasure_is_followed_by_a_new_key(tiny_pack: Path, tmp_path: Path) -> None:
    """The gateway rotates by itself, soon, and what was not erased can still be read."""
    before = counted("guard_suspects_rotated_total")
    quick = {"upkeep_seconds": 0.1}
    async with keeping(tiny_pack, tmp_path, kept=quick) as here:
        await here.caller.infer(np.concatenate([suspicious_images([n]) for n in (0, 1)]))
        first, second = await here.suspects(2)
        ring = (tmp_path / "keys" / "suspects").read_bytes()
        kept = here.gateway.kept
        assert kept is not None
        assert kept.store.erase(Filter(ids=(first.id,))) == 1
        await until(lambda: counted("guard_suspects_rotated_total") == before + 1)
        await until(lambda: counted("guard_suspects_rotation_due_timestamp_seconds") == 0)
        assert (tmp_path / "keys" / "suspects").read_bytes() != ring
        assert kept.store.get(second.id).image.tobytes() == second.image.tobytes()
        with pytest.raises(UnknownSuspectError):
            kept.store.get(first.id)


async def test_the_oldest_go_beyond_the_quota(tiny_pack: Path, tmp_path: Path) -> None:
    """Suspects never fill more than they may for long, and the newest are what is left."""
    quick = {"upkeep_seconds": 0.1, "quota_bytes": 12_000}
    async with keeping(tiny_pack, tmp_path, sample_rate=1.0, kept=quick) as here:
        kept = here.gateway.kept
        assert kept is not None
        for level in range(40):
            await here.caller.infer(clean_images([level % 3]) * np.float32(1 - level / 100))
        await until(lambda: not kept.capture.waiting)
        await until(lambda: 0 < kept.store.counts().bytes <= 12_000)
        newest = kept.store.rows(limit=1).rows[0]
        oldest = kept.store.rows(order="oldest", limit=1).rows[0]
        assert newest.taken > oldest.taken > kept.store.get(newest.id).taken - 60


def mounted(folder: Path, size: str) -> bool:
    """Whether a small disk is there now: it takes root and a tmpfs."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


async def test_a_full_disk_costs_no_answer(tiny_pack: Path, tmp_path: Path) -> None:
    """Everybody is answered while the disk is full; what waits is kept once there is room."""
    disk = tmp_path / "disk"
    if not mounted(disk, "1m"):
        pytest.skip("no small disk can be mounted here: needs root")
    try:
        async with keeping(tiny_pack, disk, kept={"key_file": str(tmp_path / "keys")}) as here:
            await here.caller.infer(MIXED)
            await here.suspects(1)
            ballast = disk / "ballast"
            failed = counted("guard_suspects_failures_total", task="put")
            with contextlib.suppress(OSError):
                ballast.write_bytes(bytes(1 << 20))
            ids = []
            for label in (0, 2):
                answer = await here.caller.infer(suspicious_images([label]))
                ids += ids_of(answer)
            await until(lambda: counted("guard_suspects_failures_total", task="put") > failed)
            assert all(ids)
            assert counted("guard_suspects_up", store="sqlite") == 0
            await here.caller.infer(MIXED)
            ballast.unlink()
            kept = await here.suspects(3)
            assert {one.id for one in kept} >= set(ids)
            await until(lambda: counted("guard_suspects_up", store="sqlite") == 1)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
