"""Certificates, token keys and the clock they depend on."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.frame import Mode, Play, fault
from tests.faults.stage import Stage, serve_with
from tests.gateway.credentials import Issuer, jwks

UNKNOWN = ("UNAUTHENTICATED UNAUTHENTICATED",)
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
RELOAD = 'guard_reload_failures_total{{what="{}"}}'.format
REFUSED = 'guard_auth_failures_total{{reason="{}"}}'.format


@fault(
    "the gateway's certificate expires",
    Mode.CLOSED,
    sees=("UNAVAILABLE", "DEADLINE_EXCEEDED"),
    metric="guard_certificate_expiry_timestamp_seconds",
    alert="GuardCertificateExpires",
    clears=True,
    secure=True,
    quick=True,
)
async def expired(stage: Stage) -> AsyncIterator[None]:
    """New connections fail until there is a new certificate; it needs no restart."""
    world = stage.world
    await stage.gateway()
    await stage.calls(stage.caller(fresh=True))
    yield
    serve_with(world, world.authority.issue("gateway", dns=("localhost",), hours=(-1, 1 / 3600)))
    time_out = time.monotonic() + 1.1
    await stage.until(lambda: time.monotonic() > time_out)
    yield
    serve_with(world, world.authority.issue("gateway", dns=("localhost",)))


@fault(
    "a new certificate does not fit its key (bad reload)",
    Mode.GOES_ON,
    sees=("OK",),
    metric=RELOAD("certificates"),
    alert="GuardReloadFails",
    secure=True,
)
async def no_pair(stage: Stage) -> AsyncIterator[None]:
    """The last good pair stays."""
    world = stage.world
    good = [world.authority.issue("gateway", dns=("localhost",)) for _ in range(2)]
    await stage.gateway()
    await stage.calls(stage.caller(fresh=True))
    yield
    (world.folder / "cert.pem").write_bytes(good[0].cert)
    yield
    serve_with(world, good[1])


@fault(
    "the new token keys are garbage (bad reload)",
    Mode.GOES_ON,
    sees=("OK",),
    metric=RELOAD("token_keys"),
    alert="GuardReloadFails",
    secure=True,
)
async def no_keys(stage: Stage) -> AsyncIterator[None]:
    """The last good keys stay."""
    world = stage.world
    await stage.gateway()
    await stage.calls(stage.caller(token=world.issuer.token("client")))
    yield
    (world.folder / "keys.json").write_text("{}")
    yield
    (world.folder / "keys.json").write_text(jwks(world.issuer))


@fault(
    "the issuer of tokens changes its key and nobody tells the gateway",
    Mode.CLOSED,
    sees=UNKNOWN,
    metric=REFUSED("unknown_key"),
    alert="GuardCallersRefused",
    secure=True,
)
async def other_key(stage: Stage) -> AsyncIterator[None]:
    """Refused until the key file has the new key; it needs no restart."""
    world, later = stage.world, Issuer("second")
    await stage.gateway()
    calls = await stage.calls(stage.caller(token=world.issuer.token("client")))
    yield
    calls.caller.metadata = (("authorization", f"Bearer {later.token('client')}"),)
    yield
    (world.folder / "keys.json").write_text(jwks(world.issuer, later))


def _no_faketime() -> str:
    return "" if FAKETIME else "no libfaketime: Debian's package libfaketime"


def jumping(offset: str) -> Play:
    """The gateway's wall clock jumps, the monotonic one does not."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        moment = stage.folder / "clock"
        moment.write_text("+0\n")
        environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(moment),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await stage.gateway(environment=environment)
        await stage.calls(stage.caller(token=stage.world.issuer.token("client")))
        yield
        moment.write_text(f"{offset}\n")
        await asyncio.sleep(2)  # libfaketime looks once a second
        yield
        moment.write_text("+0\n")

    play.__module__ = __name__
    return play


fault(
    "the clock jumps an hour ahead", Mode.CLOSED, sees=UNKNOWN, metric=REFUSED("expired"),
    alert="GuardClockOff", clears=True, secure=True, needs=_no_faketime,
)(jumping("+1h"))  # fmt: skip
fault(
    "the clock jumps half an hour back", Mode.GOES_ON, sees=("OK",), metric="guard_clock_seconds",
    alert="GuardClockOff", clears=True, secure=True, needs=_no_faketime,
)(jumping("-30m"))  # fmt: skip
