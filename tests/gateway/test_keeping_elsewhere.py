"""A gateway whose suspects are in PostgreSQL and S3: kept there, and served without them."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.testing import clean_images, suspicious_images
from tests.gateway.setting import counted, until
from tests.gateway.test_keeping import Here, ids_of, keeping
from tests.suspects.services import BUCKET, Services, serving


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """PostgreSQL and an S3 service of our own."""
    with serving() as running:
        yield running


def shared(services: Services) -> dict[str, Any]:
    """Settings of a store there, with nothing on this machine."""
    place = services.place()
    return {
        "folder": "",
        "index": services.postgres.url.removesuffix("postgres") + place,
        "objects": f"s3://{BUCKET}/{place}",
        "objects_endpoint": services.s3.endpoint,
        "objects_region": "us-east-1",
        "objects_credentials_file": str(services.credentials),
        "timeout": 0.5,
    }


async def test_suspects_are_kept_there_and_shared(
    services: Services, tiny_pack: Path, tmp_path: Path
) -> None:
    """What one gateway keeps another one with the same keys reads, bit for bit."""
    kept = shared(services)
    async with keeping(tiny_pack, tmp_path, kept=kept) as one:
        await one.caller.infer(suspicious_images([1]))
        (first,) = await one.suspects(1)
        assert counted("guard_suspects_up", store="postgresql") == 1
        async with keeping(tiny_pack, tmp_path, kept=kept) as other:
            (again,) = await other.suspects(1)
    assert (again.id, again.image.tobytes()) == (first.id, first.image.tobytes())
    assert not (tmp_path / "suspects").exists()


async def answered(here: Here, first: int) -> list[str]:
    """Eight requests in a row that are all answered, each with the id of its suspect."""
    ids = []
    for number in range(first, first + 8):
        image = suspicious_images([number % 3]) * np.float32(1 - number / 1000)
        ids += ids_of(await here.caller.infer(image, timeout=2))
        await here.caller.infer(clean_images([0]), timeout=2)
    return ids


@pytest.mark.parametrize("who", ["postgres", "s3"])
async def test_an_outage_leaves_inference_untouched(
    services: Services, tiny_pack: Path, tmp_path: Path, who: str
) -> None:
    """While it hangs everybody is answered in time; afterwards all that was told of is kept."""
    part = getattr(services, who)
    async with keeping(tiny_pack, tmp_path, kept=shared(services)) as here:
        ids = await answered(here, 0)
        await here.suspects(8)
        part.signal(signal.SIGSTOP)
        try:
            ids += await answered(here, 8)
            await until(lambda: counted("guard_suspects_up", store="postgresql") == 0, 15)
            assert all(ids) and len(set(ids)) == 16
        finally:
            part.signal(signal.SIGCONT)
        await until(lambda: here.gateway.kept is not None and not here.gateway.kept.capture.waiting)
        assert {one.id for one in await here.suspects(16)} == set(ids)


async def test_a_gateway_starts_without_them(
    services: Services, tiny_pack: Path, tmp_path: Path
) -> None:
    """PostgreSQL hangs when the gateway starts: it serves, and keeps suspects once it is back."""
    kept = shared(services)
    services.postgres.signal(signal.SIGSTOP)
    try:
        async with keeping(tiny_pack, tmp_path, kept=kept) as here:
            answer = await here.caller.infer(suspicious_images([1]))
            assert answer.parameters["guard_decision"] == "FLAG"
            services.postgres.signal(signal.SIGCONT)
            assert here.gateway.kept is not None
            store = here.gateway.kept.store
            await until(lambda: store.ready, 15)
            await here.caller.infer(suspicious_images([1]))
            assert len(await here.suspects(1)) == 1
    finally:
        services.postgres.signal(signal.SIGCONT)
