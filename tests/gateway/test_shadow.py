"""A candidate in shadow: it scores what comes, and changes nothing."""

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from guard.config import Config
from guard.errors import PackError
from guard.gateway.identity import ANONYMOUS
from guard.gateway.server import running
from guard.gateway.shadow import WAITING, Shadow
from guard.pipeline import Pipeline
from guard.testing import FakeUpstream, clean_images, gateway_config, suspicious_images
from guard.verdict import Policy
from tests.gateway.children import make_child
from tests.gateway.setting import counted, until
from tests.gateway.test_promotion import opened
from tests.gateway.wire import Caller

ALLOW, FLAG = 0, 1


@pytest.fixture
def config(tiny_pack: Path, tmp_path: Path) -> Config:
    """Settings with one candidate in shadow that flags nothing."""
    make_child(tiny_pack, tmp_path / "packs" / "blind", factor=0.001, stricter=0.001)
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    return gateway_config(tiny_pack, gateway=folders, shadow="blind")


@pytest.mark.parametrize("asked", [False, True])
async def test_the_candidate_scores_and_only_the_serving_pack_acts(
    tiny_pack: Path, tmp_path: Path, asked: bool
) -> None:
    """Decisions are the serving pack's; what the candidate would have said is counted."""
    make_child(tiny_pack, tmp_path / "packs" / "blind", factor=0.001, stricter=0.001)
    folders = {"packs": str(tmp_path / "packs"), "state": str(tmp_path / "state")}
    labels = {"model": "tiny", "current": "FLAG", "candidate": "ALLOW"}
    before = counted("guard_shadow_decisions_total", **labels)
    async with FakeUpstream() as upstream:
        address = upstream.address if asked else ""
        settings = gateway_config(tiny_pack, upstream=address, gateway=folders, shadow="blind")
        async with running(settings) as gateway, Caller(gateway.address) as caller:
            answer = await caller.infer(
                np.concatenate([clean_images([0, 1]), suspicious_images([2])])
            )
            assert [each.name for each in answer.decisions] == ["ALLOW", "ALLOW", "FLAG"]
            shadow = gateway.servicer.models["tiny"].shadow
            assert shadow is not None
            await until(lambda: sum(shadow.counts.values()) == 3)
            assert shadow.counts == {(ALLOW, ALLOW): 2, (FLAG, ALLOW): 1}
    assert counted("guard_shadow_decisions_total", **labels) == before + 1


async def test_the_candidate_in_shadow_outlives_a_restart_and_ends_when_told(
    tiny_pack: Path, config: Config
) -> None:
    """What was submitted comes before what the settings name; "" ends it; promotion ends it."""
    make_child(tiny_pack, Path(config.gateway.packs) / "tiny-r1")
    async with opened(config) as shop:
        assert shop.model.shadow is not None
        assert shop.model.shadow.pack.name == "blind"
        await shop.changes.shadow(ANONYMOUS, "", "tiny-r1")
    async with opened(config) as shop:
        assert shop.model.shadow is not None
        assert shop.model.shadow.pack.name == "tiny-r1"
        digest = shop.model.shadow.pack.digest
        labels = {"model": "tiny", "pack": "tiny-r1", "digest": digest}
        assert counted("guard_shadow_info", **labels) == 1
        await shop.changes.promote(ANONYMOUS, "", "tiny-r1")
        assert shop.model.shadow is None
        assert REGISTRY.get_sample_value("guard_shadow_info", labels) is None
        _, standing = await shop.changes.shadow(ANONYMOUS, "", "")
        assert standing.shadow is None


async def test_another_graph_cannot_be_watched_and_what_is_gone_stops_no_start(
    tiny_pack: Path, config: Config, tmp_path: Path
) -> None:
    """The evidence is the serving pack's, so the graph must be; a shadow is never worth a start."""
    from guard.testing import make_pack

    other = make_pack(tmp_path / "wide" / "other", shape=(3, 9, 9))
    make_child(other, Path(config.gateway.packs) / "wide")
    async with opened(config) as shop:
        with pytest.raises(PackError, match="another evidence graph"):
            await shop.changes.shadow(ANONYMOUS, "", "wide")
    folder = Path(config.gateway.packs) / "blind"
    (folder / "model.sig").unlink()
    async with opened(config) as shop:
        assert (shop.serving, shop.model.shadow) == ("tiny", None)


async def test_what_goes_wrong_in_shadow_harms_no_request(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate that fails is counted, one that is too slow is left behind."""
    pipeline = Pipeline.load(tiny_pack, max_false_positive_rate=0.01)
    shadow = Shadow("tiny", pipeline, Policy(max_false_positive_rate=0.01))
    evidence = pipeline.evidence(clean_images([0]))
    verdicts = pipeline.judge(evidence)
    failed = counted("guard_errors_total", reason="shadow")
    shadow.take(evidence, np.ones((5, 9), np.float32), verdicts)
    await until(lambda: counted("guard_errors_total", reason="shadow") == failed + 1)
    shadow.take(None, None, verdicts)
    shadow.take(evidence, None, verdicts)
    await until(lambda: sum(shadow.counts.values()) == 1)
    many = pipeline.evidence(clean_images([0] * (WAITING + 1)))
    shadow.take(many, None, pipeline.judge(many))
    assert counted("guard_shadow_dropped_total", model="tiny") >= WAITING + 1
    shadow.close()
