"""The audit log cannot be written: its disk is full, or silent, or its export is gone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from guard.gateway import protocol
from tests.faults.disk import empty, fill, no_disk, small_disk
from tests.faults.frame import Mode, fault
from tests.faults.stage import Stage
from tests.faults.traffic import Caller, Traffic

FAILURES = 'guard_audit_failures_total{{reason="{}"}}'.format
STATUS = protocol.GUARD_METHODS["Status"].path
NOT_AUDITED = "UNAVAILABLE NOT_AUDITED"


def audited(**more: Any) -> dict[str, Any]:
    """Settings of an audit log that notices its troubles quickly."""
    return {
        "folder": "disk/audit",
        "key_file": "audit.key",
        "export": "export",
        "timeout": 0.5,
        "checkpoint_seconds": 0.5,
        **more,
    }


def administrator(stage: Stage) -> Caller:
    """Somebody who asks for the status, which is recorded before it is answered."""
    return Caller(stage.gateways["a"].address, path=STATUS, request=b"")


@fault(
    "the audit log's disk is full: what operators see",
    Mode.CLOSED,
    sees=(NOT_AUDITED,),
    metric=FAILURES("write"),
    alert="GuardAuditFails",
    needs=no_disk,
)
async def full(stage: Stage) -> AsyncIterator[None]:
    """Nothing administrative happens that cannot be recorded."""
    small_disk(stage, "256k")
    await stage.gateway(audit=audited())
    await stage.calls(administrator(stage))
    yield
    fill(stage)
    await asyncio.sleep(0.5)  # what the last block still held
    yield
    empty(stage)


@fault(
    "the audit log's disk is full: what clients see",
    Mode.GOES_ON,
    sees=("OK",),
    metric=FAILURES("write"),
    alert="GuardAuditFails",
    needs=no_disk,
)
async def full_for_clients(stage: Stage) -> AsyncIterator[None]:
    """Inference goes on."""
    small_disk(stage, "256k")
    await stage.gateway(audit=audited())
    yield
    fill(stage)
    async with Traffic(administrator(stage)) as operators:
        await stage.until(lambda: bool(operators.outcomes(0)[NOT_AUDITED]))
    yield
    empty(stage)


@fault(
    "the audit log's disk hangs",
    Mode.CLOSED,
    sees=(NOT_AUDITED,),
    metric=FAILURES("late"),
    alert="GuardAuditFails",
    quick=True,
)
async def hangs(stage: Stage) -> AsyncIterator[None]:
    """An operator waits for `timeout` and is refused; clients are not held up."""
    gateway = await stage.gateway(breakable=True, audit=audited())
    await stage.calls(administrator(stage))
    yield
    await gateway.say("disk-hangs")
    yield
    await gateway.say("mend")


@fault(
    "signed checkpoints cannot be exported",
    Mode.GOES_ON,
    sees=("OK",),
    metric=FAILURES("export"),
    alert="GuardAuditFails",
)
async def export(stage: Stage) -> AsyncIterator[None]:
    """The log goes on; what could not be exported is exported later."""
    await stage.gateway(audit=audited())
    await stage.calls(administrator(stage))
    folder, aside = stage.folder / "export", stage.folder / "aside"
    yield
    folder.rename(aside)
    folder.write_text("no folder")
    yield
    folder.unlink()
    aside.rename(folder)
    signed = folder / "checkpoints.jsonl"
    before = signed.stat().st_size
    await stage.until(lambda: signed.stat().st_size > before)
