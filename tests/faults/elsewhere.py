"""PostgreSQL and S3, where gateways share their suspects, fail: clients must not see any of it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import grpc.aio
import numpy as np

from guard.testing import clean_images
from tests.faults.frame import Mode, Play, fault
from tests.faults.stage import Stage
from tests.faults.suspects import FAILURES
from tests.faults.traffic import PATH
from tests.gateway.wire import infer_request
from tests.suspects.services import BUCKET, Services, lacking

Act = Callable[[Services], object]


def _settings(services: Services) -> str:
    place = services.place()
    index = services.postgres.url.removesuffix("postgres") + place
    return f"""
[suspects]
index = "{index}"
objects = "s3://{BUCKET}/{place}"
objects_endpoint = "{services.s3.endpoint}"
objects_region = "us-east-1"
objects_credentials_file = "{services.credentials}"
key_file = "suspects.key"
timeout = 1.0
sample_rate = 1.0
upkeep_seconds = 0.5
"""


async def _new_pictures(stage: Stage) -> None:
    """The traffic's own picture is known already: it needs no new object."""
    async with grpc.aio.insecure_channel(stage.gateways["a"].address) as channel:
        for number in range(1, 9):
            request = infer_request(clean_images([0]) + np.float32(number / 1000))
            await channel.unary_unary(PATH)(request.SerializeToString(), timeout=5)


def fails(breaks: Act, mends: Act) -> Play:
    """One of the two fails; suspects wait in memory meanwhile."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        stage.folder.parent.chmod(0o755)  # PostgreSQL runs as another user
        services = await asyncio.to_thread(Services(stage.folder).__enter__)
        stage.callback(services.__exit__)
        await stage.gateway(more=_settings(services))
        await stage.calls()
        yield
        await asyncio.to_thread(breaks, services)
        await _new_pictures(stage)
        yield
        await asyncio.to_thread(mends, services)

    play.__module__ = __name__
    return play


for _name, _breaks, _mends in (
    (
        "the suspects' PostgreSQL is down",
        lambda s: s.postgres.end(),
        lambda s: s.postgres.__enter__(),
    ),
    (
        "the suspects' PostgreSQL hangs (SIGSTOP)",
        lambda s: s.postgres.signal(signal.SIGSTOP),
        lambda s: s.postgres.signal(signal.SIGCONT),
    ),
    (
        "the suspects' S3 service hangs (SIGSTOP)",
        lambda s: s.s3.signal(signal.SIGSTOP),
        lambda s: s.s3.signal(signal.SIGCONT),
    ),
):
    fault(
        _name, Mode.GOES_ON, sees=("OK",), metric=FAILURES("put"), alert="GuardSuspectsDown",
        clears=True, needs=lacking,
    )(fails(_breaks, _mends))  # fmt: skip
