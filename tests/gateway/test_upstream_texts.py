"""What of an upstream's complaints reaches a client."""

from pathlib import Path

import grpc
import pytest

from guard.testing import FakeUpstream, clean_images
from tests.gateway.setting import Settings

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "text",
    [
        "failed to load /models/secret/3/model.onnx",
        "/opt/server/model.py: bad shape",
        "C:\\models\\secret is missing",
        'Traceback (most recent call last):\n  File "server.py", line 3, in infer',
        "shape mismatch\nat frame 2",
        "<Tensor object at 0x7f3a12345678>",
        "error in weights.plan",
    ],
)
async def test_an_upstreams_inside_stays_there(tiny_pack: Path, text: str) -> None:
    """A complaint that names files, addresses or a stack is replaced by its status alone."""
    async with Settings() as settings:
        setting = await settings.start(tiny_pack, FakeUpstream(error=(INVALID, text)))
        code, _, message = await setting.caller.refused(clean_images([0]))
    assert (code, message) == ("INVALID_ARGUMENT", "the upstream failed with INVALID_ARGUMENT")


async def test_a_plain_complaint_is_handed_on(tiny_pack: Path) -> None:
    """What explains the caller's mistake reaches the caller."""
    text = "unexpected shape for input 'images' for model 'tiny'. Expected [-1,3,8,8], got [1,3]"
    async with Settings() as settings:
        setting = await settings.start(tiny_pack, FakeUpstream(error=(INVALID, text)))
        _, _, message = await setting.caller.refused(clean_images([0]))
    assert message == f"upstream: {text}"


async def test_a_renamed_model_keeps_its_public_name(tiny_pack: Path) -> None:
    """The upstream's own name of a model is replaced by the one that the client used."""
    fake = FakeUpstream(error=(INVALID, "model 'resnet-internal-v7' takes no such input"))
    async with Settings() as settings:
        setting = await settings.start(tiny_pack, fake, upstream_model="resnet-internal-v7")
        _, _, message = await setting.caller.refused(clean_images([0]))
    assert message == "upstream: model 'tiny' takes no such input"
