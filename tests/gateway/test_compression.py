"""Compressed requests: refused unless the settings take them."""

from pathlib import Path

import grpc
import pytest

from guard.config.limits import Limits
from guard.gateway import protocol
from guard.testing import clean_images
from tests.gateway.setting import Settings
from tests.gateway.wire import infer_request


async def _status(pack: Path, *, allowed: bool) -> str:
    """What a request that is compressed with gzip gets."""
    data = infer_request(clean_images([0])).SerializeToString()
    path = protocol.INFERENCE_METHODS["ModelInfer"].path
    async with Settings() as settings:
        limits = {"limits": Limits(compression=allowed)}
        setting = await settings.start(pack, alone=True, gateway=limits)
        call = setting.caller.channel.unary_unary(path)
        try:
            await call(data, timeout=10, compression=grpc.Compression.Gzip)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


@pytest.mark.parametrize(("allowed", "expected"), [(False, "UNIMPLEMENTED"), (True, "OK")])
async def test_compressed_requests(tiny_pack: Path, allowed: bool, expected: str) -> None:
    """By default a few kilobytes cannot unpack to megabytes; the setting allows it."""
    assert await _status(tiny_pack, allowed=allowed) == expected
