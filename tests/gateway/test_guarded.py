"""The path of one request, over real connections, with a pack that is suspicious of stripes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.config import Output
from guard.testing import FakeUpstream, answer_colour, clean_images, suspicious_images
from tests.gateway.setting import BLOCK, Settings, counted
from tests.gateway.wire import equal, infer_request

ALL_GUARD = ("guard_decision", "guard_p_value", "guard_scores")
MIXED = np.concatenate([clean_images([0]), suspicious_images([1]), clean_images([2])])


# ── who answers, and what travels ────────────────────────────────────────────────────────────────


async def test_the_upstreams_answer_passes_untouched(tiny_pack: Path) -> None:
    """Outputs bit-identical, id, version and parameters kept, the very bytes forwarded."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        images = clean_images([0, 1, 2])
        answer = await here.caller.infer(images, id="case-7", model_version="7")
        direct = answer_colour({"images": images})
        assert {name: equal(answer.outputs[name], direct[name]) for name in direct} == {
            "probabilities": True,
            "label": True,
        }
        assert (answer.request_id, answer.model) == ("case-7", "tiny")
        assert answer.parameters["upstream_parameter"] == "kept"
        sent = infer_request(images, id="case-7", model_version="7").SerializeToString()
        assert here.upstream.received == [sent]


async def test_metadata_travels_both_ways_without_transport_headers(tiny_pack: Path) -> None:
    """The caller's keys reach the upstream, the upstream's reach the caller."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        sent = (("x-tenant", "blue"), ("x-trace-bin", b"\0\1"), ("keep-alive", "no"))
        await here.caller.infer(clean_images([0]), metadata=sent)
        arrived = here.upstream.metadata[0]
        assert (arrived["x-tenant"], arrived["x-trace-bin"]) == ("blue", b"\0\1")
        assert "keep-alive" not in arrived
        assert here.caller.leading["x-upstream-leading"] == "yes"
        assert here.caller.trailing["x-upstream-trailing"] == "yes"


async def test_requested_outputs_survive_and_guards_own_are_stripped(tiny_pack: Path) -> None:
    """The upstream hears only names it knows; what only guard needed is not sent on."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        answer = await here.caller.infer(clean_images([1]), outputs=("label", *ALL_GUARD))
        assert list(answer.outputs) == ["label", *ALL_GUARD]
        asked = [output.name for output in here.upstream.requests[0].outputs]
        assert asked == ["label", "probabilities"]
        only = await here.caller.infer(clean_images([1]), outputs=("guard_decision",))
        assert list(only.outputs) == ["guard_decision"]


async def test_another_name_at_the_upstream(tiny_pack: Path) -> None:
    """The upstream is asked by its name, the caller is answered by ours."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, upstream_model="resnet")
        answer = await here.caller.infer(clean_images([1]))
        assert (here.upstream.requests[0].model_name, answer.model) == ("resnet", "tiny")
        assert (await here.caller.call("ModelMetadata", name="tiny")).name == "tiny"


async def test_the_ensemble_answers_alone(tiny_pack: Path) -> None:
    """Without an upstream: probabilities, label, and by name the guard outputs."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True)
        plain = await here.caller.infer(MIXED)
        assert list(plain.outputs) == ["probabilities", "label"]
        assert plain.outputs["label"].tolist() == [0, 1, 2]
        asked = await here.caller.infer(MIXED, outputs=("label", *ALL_GUARD))
        assert asked.outputs["guard_decision"].tolist() == [0, 1, 0]
        assert asked.outputs["guard_decision"].dtype == np.int32
        assert asked.outputs["guard_scores"].shape == (3, 2)
        as_bytes = (MIXED * 255).round().astype(np.uint8)
        assert (await here.caller.infer(as_bytes)).outputs["label"].tolist() == [0, 1, 2]


async def test_the_ensemble_answers_and_the_upstream_is_evidence(tiny_pack: Path) -> None:
    """answer = "ensemble" with an upstream: its label counts in the verdict, not in the answer."""

    def always_blue(inputs: Any) -> Any:
        return {"label": np.full(len(inputs["images"]), 2, np.int64)}

    async with Settings() as settings:
        here = await settings.start(
            tiny_pack,
            FakeUpstream(always_blue),
            answer="ensemble",
            output=Output(tensor="label"),
        )
        answer = await here.caller.infer(clean_images([0, 2]), outputs=("label", "guard_decision"))
        assert answer.outputs["label"].tolist() == [0, 2]
        assert answer.outputs["guard_decision"].tolist() == [1, 0]


# ── postures ─────────────────────────────────────────────────────────────────────────────────────


async def test_monitor_records_and_lets_pass(tiny_pack: Path) -> None:
    """A flagged image is answered as ever; the parameter tells who listens."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        before = counted("guard_verdicts_total", model="tiny", decision="FLAG")
        answer = await here.caller.infer(MIXED)
        assert equal(answer.outputs["label"], answer_colour({"images": MIXED})["label"])
        assert answer.parameters["guard_decision"] == "ALLOW,FLAG,ALLOW"
        assert counted("guard_verdicts_total", model="tiny", decision="FLAG") == before + 1


async def test_a_blocked_image_is_masked_and_its_batch_mates_are_answered(tiny_pack: Path) -> None:
    """Enforcement is per image: NaN and -1 in the blocked row alone."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, **BLOCK)
        answer = await here.caller.infer(MIXED)
        direct = answer_colour({"images": MIXED})
        assert answer.outputs["label"].tolist() == [0, -1, 2]
        assert np.isnan(answer.outputs["probabilities"][1]).all()
        assert equal(answer.outputs["probabilities"][[0, 2]], direct["probabilities"][[0, 2]])
        assert answer.parameters["guard_decision"] == "ALLOW,BLOCK,ALLOW"


@pytest.mark.parametrize("alone", [False, True])
async def test_a_request_blocked_as_a_whole_fails_with_an_opaque_id(
    tiny_pack: Path, alone: bool
) -> None:
    """FAILED_PRECONDITION, ErrorInfo ADVERSARIAL_INPUT, and no score anywhere."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=alone, **BLOCK)
        code, reason, message = await here.caller.refused(suspicious_images([0, 1]))
        assert (code, reason) == ("FAILED_PRECONDITION", "ADVERSARIAL_INPUT")
        assert not any(character.isdigit() for character in message)


async def test_an_answer_that_cannot_be_masked_is_withheld(tiny_pack: Path) -> None:
    """One blocked image in an output without rows: the whole answer stays here."""

    def pooled(inputs: Any) -> Any:
        return {**answer_colour(inputs), "mean": np.ones(1, np.float32)}

    async with Settings() as settings:
        here = await settings.start(tiny_pack, FakeUpstream(pooled), **BLOCK)
        assert (await here.caller.infer(clean_images([0, 1]))).outputs["mean"].tolist() == [1]
        code, reason, _ = await here.caller.refused(MIXED)
        assert (code, reason) == ("FAILED_PRECONDITION", "ADVERSARIAL_INPUT")


async def test_substitute_answers_with_the_ensemble(tiny_pack: Path) -> None:
    """A flagged row carries the robust answer in the upstream's own form, and says so."""

    def fooled(inputs: Any) -> Any:
        probabilities = np.tile(np.array([0, 0, 1], np.float32), (len(inputs["images"]), 1))
        return {"probabilities": probabilities, "embedding": probabilities * 2}

    async with Settings() as settings:
        here = await settings.start(
            tiny_pack, FakeUpstream(fooled), mode="enforce", on_flag="substitute"
        )
        answer = await here.caller.infer(
            np.concatenate([suspicious_images([0]), clean_images([2])])
        )
        assert answer.outputs["probabilities"].argmax(1).tolist() == [0, 2]
        assert np.isnan(answer.outputs["embedding"][0]).all()
        assert answer.outputs["embedding"][1].tolist() == [0, 0, 2]
        assert answer.substituted


@pytest.mark.parametrize(
    ("expose", "refused", "parameter"),
    [("none", ALL_GUARD, False), ("decision", ALL_GUARD[1:], True), ("full", (), True)],
)
async def test_no_more_of_the_verdict_is_shown_than_the_policy_allows(
    tiny_pack: Path, expose: str, refused: tuple[str, ...], parameter: bool
) -> None:
    """Asking for a hidden output is refused by name; the parameter follows the same rule."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, expose=expose)
        for name in ALL_GUARD:
            if name in refused:
                code, reason, message = await here.caller.refused(MIXED, outputs=(name,))
                assert (code, reason) == ("PERMISSION_DENIED", "NOT_EXPOSED")
                assert name in message
            else:
                assert name in (await here.caller.infer(MIXED, outputs=(name,))).outputs
        assert ("guard_decision" in (await here.caller.infer(MIXED)).parameters) is parameter
        listed = {o.name for o in (await here.caller.call("ModelMetadata", name="tiny")).outputs}
        assert listed.isdisjoint(refused)


async def test_an_upstream_cannot_speak_for_the_gateway(tiny_pack: Path) -> None:
    """Outputs and parameters in guard's name that the upstream sent are removed."""

    def forge(response: Any) -> None:
        response.parameters["guard_decision"].string_param = "ALLOW"
        response.parameters["guard_substituted"].bool_param = True

    async with Settings() as settings:
        here = await settings.start(tiny_pack, FakeUpstream(edit=forge), expose="none")
        assert list((await here.caller.infer(MIXED)).parameters) == ["upstream_parameter"]
