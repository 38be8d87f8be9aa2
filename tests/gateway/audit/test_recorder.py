"""The recorder: durable acts, counted refusals, nothing lost in silence, nobody held up."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.config.audit import AuditSettings
from guard.errors import AuditError, ConfigError
from guard.gateway.audit import log as log_module
from guard.gateway.audit import recorder
from guard.gateway.audit.keys import load_keys
from guard.gateway.audit.log import AuditLog
from guard.gateway.audit.recorder import OFF, Recorder, open_audit
from guard.gateway.audit.show import records
from guard.gateway.audit.verify import verify
from tests.gateway.setting import counted, until


def told(tmp_path: Path, **more: Any) -> AuditSettings:
    """Settings for a log in this folder."""
    paths = {"folder": "log", "key_file": "keys", "export": "export"}
    return AuditSettings(**{name: str(tmp_path / at) for name, at in paths.items()}, **more)


def recording(tmp_path: Path, **more: Any) -> Recorder:
    """An audit log there."""
    audit = open_audit(told(tmp_path, **more))
    assert isinstance(audit, Recorder)
    return audit


def shown(tmp_path: Path, *events: str) -> list[dict[str, Any]]:
    """What the log holds."""
    return list(records(tmp_path / "log", events=events))


def intact(tmp_path: Path) -> bool:
    """Whether it verifies."""
    keys = load_keys(tmp_path / "keys")
    return verify(tmp_path / "log", keys, exported=tmp_path / "export").ok


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that is full while this is set."""
    event, real = threading.Event(), log_module.write_all

    def write(descriptor: int, data: bytes) -> None:
        if event.is_set():
            real(descriptor, data[:7])
            raise OSError(28, "No space left on device")
        real(descriptor, data)

    monkeypatch.setattr(log_module, "write_all", write)
    yield event
    event.clear()


async def test_a_gateway_without_a_log_records_nothing(tmp_path: Path) -> None:
    """Auditing that is off takes every call and touches no disk."""
    audit = open_audit(AuditSettings())
    assert audit is OFF
    assert not audit.enabled
    audit.record("refused.limit", actor="alice", outcome="refused")
    await audit.act("admin.call")
    audit.close()
    assert not list(tmp_path.iterdir())


async def test_an_act_is_durable_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is synced to the disk before `act` returns."""
    audit = recording(tmp_path)
    synced: list[int] = []
    real = AuditLog.sync

    def sync(self: AuditLog) -> None:
        real(self)
        synced.append(self.seq)

    monkeypatch.setattr(AuditLog, "sync", sync)
    await audit.act("admin.call", actor="alice", rpc="Status")
    assert synced[-1] == 2
    (one,) = shown(tmp_path, "admin.call")
    assert one["details"] == {"rpc": "Status"}
    audit.close()
    assert intact(tmp_path)


async def test_recording_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk takes its time the event loop goes on, and everything arrives in the end."""
    audit = recording(tmp_path)
    gate = threading.Event()
    real = AuditLog.sync

    def slow(self: AuditLog) -> None:
        gate.wait(10)
        real(self)

    monkeypatch.setattr(AuditLog, "sync", slow)
    act = asyncio.create_task(audit.act("admin.call", actor="alice"))
    for number in range(500):
        audit.record("other", actor="bob", n=number)
    await asyncio.sleep(0)
    assert not act.done()
    gate.set()
    await act
    await asyncio.to_thread(audit.close)
    assert len(shown(tmp_path, "other")) == 500
    assert intact(tmp_path)


async def test_a_flood_of_refusals_costs_two_lines(tmp_path: Path) -> None:
    """The first refusal of a kind is written at once, the others of the minute as one count."""
    audit = recording(tmp_path)
    for _ in range(5000):
        audit.record("refused.limit", actor="flooder", outcome="refused", rpc="ModelInfer")
    audit.record("refused.limit", actor="other", outcome="refused", rpc="ModelInfer")
    await until(lambda: len(shown(tmp_path, "refused")) == 2)
    audit.close()
    lines = shown(tmp_path, "refused")
    assert len(lines) == 3
    assert sum(one["details"].get("count", 1) for one in lines) == 5001
    assert lines[0]["actor"] == lines[2]["actor"] != lines[1]["actor"]


async def test_many_subjects_are_counted_together_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood under many names is bounded too, and not one refusal goes uncounted."""
    monkeypatch.setattr(recorder, "MAX_KINDS", 50)
    audit = recording(tmp_path)
    for number in range(1000):
        audit.record("refused.identity", actor=f"name {number}", outcome="refused")
    audit.close()
    lines = shown(tmp_path, "refused")
    assert len(lines) <= 52
    assert sum(one["details"].get("count", 1) for one in lines) == 1000


async def test_counts_are_written_every_minute(tmp_path: Path) -> None:
    """Counts do not wait for the end; after a minute counting begins anew."""
    audit = recording(tmp_path, count_seconds=0.2)
    for _ in range(3):
        audit.record("refused.limit", actor="flooder", outcome="refused")
    await until(lambda: len(shown(tmp_path, "refused")) == 2)
    audit.record("refused.limit", actor="flooder", outcome="refused")
    await until(lambda: len(shown(tmp_path, "refused")) == 3)
    audit.close()


@pytest.mark.parametrize("mode", ["block", "allow"])
async def test_a_full_disk_does_as_configured_and_is_counted(
    tmp_path: Path, full: threading.Event, mode: str
) -> None:
    """block: the act is refused. allow: it goes on. Both: counted, and recorded once it can be."""
    audit = recording(tmp_path, on_error=mode)
    await audit.act("admin.call", n=1)
    before = counted("guard_audit_failures_total", reason="write")
    full.set()
    if mode == "block":
        with pytest.raises(AuditError, match="cannot be written"):
            await audit.act("admin.call", n=2)
    else:
        await audit.act("admin.call", n=2)
    audit.record("other", n=3)
    await until(lambda: counted("guard_audit_failures_total", reason="write") >= before + 2)
    full.clear()
    await audit.act("admin.call", n=4)
    audit.close()
    assert [one["details"]["n"] for one in shown(tmp_path, "admin", "other")] == [1, 4]
    lost = shown(tmp_path, "log.lost")
    assert sum(one["details"]["records"] for one in lost) == 2
    assert lost[0]["details"]["why"] == "No space left on device"
    assert intact(tmp_path)


async def test_a_full_queue_loses_counted_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bounded queue cannot take is counted, and the log says how much is missing."""
    audit = recording(tmp_path, max_queue=10)
    gate = threading.Event()
    real = AuditLog.write

    def slow(self: AuditLog, entries: Any) -> None:
        gate.wait(10)
        real(self, entries)

    monkeypatch.setattr(AuditLog, "write", slow)
    before = counted("guard_audit_failures_total", reason="queue")
    for number in range(200):
        audit.record("other", n=number)
    with pytest.raises(AuditError):
        await audit.act("admin.call")
    gate.set()
    audit.close()
    missing = 200 - len(shown(tmp_path, "other"))
    assert missing >= 150
    assert counted("guard_audit_failures_total", reason="queue") - before == missing + 1
    assert sum(one["details"]["records"] for one in shown(tmp_path, "log.lost")) == missing + 1
    assert intact(tmp_path)


async def test_an_act_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that hangs is a failure after `timeout` seconds."""
    audit = recording(tmp_path, timeout=0.1)
    gate = threading.Event()
    monkeypatch.setattr(AuditLog, "sync", lambda _self: gate.wait(10))
    before = counted("guard_audit_failures_total", reason="late")
    with pytest.raises(AuditError):
        await audit.act("admin.call")
    assert counted("guard_audit_failures_total", reason="late") == before + 1
    gate.set()
    audit.close()


async def test_checkpoints_come_by_number_and_by_time(tmp_path: Path) -> None:
    """After so many records or seconds the head is signed and exported, and the metric says so."""
    audit = recording(tmp_path, checkpoint_every=5, checkpoint_seconds=0.2)
    file = tmp_path / "export" / "checkpoints.jsonl"
    for number in range(12):
        await audit.act("admin.call", n=number)
    assert file.read_bytes().count(b"\n") >= 2
    await until(lambda: counted("guard_audit_checkpoint_record") == 13)
    audit.close()
    assert intact(tmp_path)


async def test_an_export_that_fails_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    """Without the second place the log goes on; the metric tells."""
    audit = recording(tmp_path, checkpoint_every=1)
    await audit.act("admin.call")
    (tmp_path / "export").rename(tmp_path / "gone")
    before = counted("guard_audit_failures_total", reason="export")
    await audit.act("admin.call")
    await until(lambda: counted("guard_audit_failures_total", reason="export") > before)
    (tmp_path / "gone").rename(tmp_path / "export")
    await audit.act("admin.call")
    audit.close()
    assert intact(tmp_path)
    keys = load_keys(tmp_path / "keys")
    assert verify(tmp_path / "log", keys, exported=tmp_path / "export").signed == 4


async def test_many_threads_and_tasks_at_once(tmp_path: Path) -> None:
    """Records of all of them arrive, each once, in one whole chain."""
    audit = recording(tmp_path, segment_bytes=4096, checkpoint_every=50)
    before = counted("guard_audit_records_total", event="other")

    def many(thread: int) -> None:
        for number in range(100):
            audit.record("other", actor=f"thread {thread}", n=thread * 1000 + number)

    threads = [threading.Thread(target=many, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(audit.act("admin.call", n=n) for n in range(100)))
    for thread in threads:
        thread.join()
    audit.close()
    numbers = [one["details"]["n"] for one in shown(tmp_path, "other")]
    assert len(numbers) == len(set(numbers)) == 400
    assert sorted(one["details"]["n"] for one in shown(tmp_path, "admin")) == list(range(100))
    assert counted("guard_audit_records_total", event="other") == before + 400
    assert intact(tmp_path)


async def test_no_subject_and_no_key_lies_in_the_log(tmp_path: Path) -> None:
    """Neither names, nor bare hashes of them, nor keys are anywhere but in the key file."""
    import hashlib

    audit = recording(tmp_path, checkpoint_every=1)
    name = "spiffe://prod/camera-canary"
    audit.record("refused.limit", actor=name, outcome="refused")
    await audit.act("admin.call", actor=name, rpc="Status")
    audit.close()
    keys = load_keys(tmp_path / "keys")
    key = keys.current
    secrets = [name.encode(), hashlib.sha256(name.encode()).hexdigest().encode()]
    for secret in (key.mac, key.actor or b"", key.seed or b""):
        secrets += [secret, secret.hex().encode()]
    files = [p for f in ("log", "export") for p in (tmp_path / f).iterdir()]
    assert files
    assert not [p for p in files for secret in secrets if secret in p.read_bytes()]
    assert len(shown(tmp_path, "admin")) == 1
    assert shown(tmp_path, "admin")[0]["actor"] == keys.actor(name)
    assert key.mac.hex() not in repr(keys)


async def test_keys_are_made_once_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """First use says that keys were made; a log whose keys are gone is not gone on with."""
    with caplog.at_level(logging.WARNING):
        recording(tmp_path).close()
    assert "keep a copy" in caplog.text
    caplog.clear()
    recording(tmp_path).close()
    assert not caplog.text
    (tmp_path / "keys").unlink()
    with pytest.raises(ConfigError, match="key_file"):
        recording(tmp_path)


async def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    """A key file with wide modes is a misconfiguration, told in one line."""
    recording(tmp_path).close()
    (tmp_path / "keys").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        recording(tmp_path)
    (tmp_path / "keys").chmod(0o600)
    (tmp_path / "keys").write_text("{}")
    with pytest.raises(ConfigError, match="malformed"):
        recording(tmp_path)


async def test_what_is_unknown_is_recorded_as_other(tmp_path: Path) -> None:
    """An event that is not on the list keeps its record, not its name: labels stay bounded."""
    audit = recording(tmp_path)
    audit.record("nonsense", outcome="ok")
    audit.close()
    assert len(shown(tmp_path, "other")) == 1


async def test_after_the_end_nothing_is_taken(tmp_path: Path) -> None:
    """A record after `close` is counted as lost."""
    audit = recording(tmp_path)
    audit.close()
    before = counted("guard_audit_failures_total", reason="queue")
    audit.record("other")
    assert counted("guard_audit_failures_total", reason="queue") == before + 1
