"""A log's own doings at its ends: what lies in its folder, what is exported, what is counted."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from guard.config.audit import AuditSettings
from guard.errors import AuditError, ConfigError
from guard.gateway.audit import log as log_module
from guard.gateway.audit.checkpoints import NAME
from guard.gateway.audit.keys import make_keys
from guard.gateway.audit.log import AuditLog
from guard.gateway.audit.recorder import open_audit
from guard.gateway.audit.segments import segment_files, segment_name
from tests.gateway.audit.logs import call, place, written
from tests.gateway.setting import counted


def test_a_folder_holds_what_the_document_says(tmp_path: Path) -> None:
    """The lock, the files of the log, its checkpoints; all for the owner alone."""
    there = written(tmp_path / "log")
    assert sorted(path.name for path in there.folder.iterdir()) == [
        NAME, "lock", segment_name(1),
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in there.folder.iterdir()} == {0o600}
    assert there.folder.stat().st_mode & 0o777 == there.export.stat().st_mode & 0o777 == 0o700


def test_the_second_writer_is_told_which_setting(tmp_path: Path) -> None:
    """And the first goes on; when it has let go, the folder is free."""
    there = place(tmp_path)
    log = there.open()
    with pytest.raises(ConfigError, match=r"^gateway\.audit\.folder: another gateway") as caught:
        there.open()
    assert caught.value.key == "gateway.audit.folder"
    log.write([call(1)])
    log.close()
    there.open().close()


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    """Records and checkpoints are counted on; what is signed is known."""
    there = written(tmp_path / "log", count=40, every=20)
    log = there.open(segment_bytes=1 << 20)
    assert (log.seq, log.signed) == (41, 41)
    log.write([call(1)])
    assert (log.seq, log.signed) == (42, 41)
    log.checkpoint()
    assert log.signed == 41  # not durable yet
    log.sync()
    log.checkpoint()
    assert log.signed == 42
    log.close()
    assert there.verify().ok
    assert there.verify().checkpoints == 3


def test_checkpoints_of_other_keys_are_not_believed(tmp_path: Path) -> None:
    """Somebody else's checkpoints beside an empty log do not stop a start; our own do."""
    other = written(tmp_path / "other")
    there = place(tmp_path / "mine")
    there.folder.mkdir()
    (there.folder / NAME).write_bytes((other.folder / NAME).read_bytes())
    there.open().close()
    gone = written(tmp_path / "gone")
    for _, path in segment_files(gone.folder):
        path.unlink()
    with pytest.raises(AuditError, match="there are checkpoints, but not a single record"):
        gone.open()


def test_whatever_damaged_says_but_allow_refuses(tmp_path: Path) -> None:
    """The default refuses, too; "allow" goes on behind everything, and says so in the log."""
    there = written(tmp_path / "log", tail=3)
    path = segment_files(there.folder)[-1][1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:30]))
    with pytest.raises(AuditError, match="it ends at record 30, and record 61 was signed"):
        AuditLog(there.folder, there.keys, export=there.export)
    log = there.open(damaged="allow")
    assert log.signed == 61
    assert segment_files(there.folder)[-1][0] == 62
    assert log.seq == 63  # log.segment, log.damaged
    log.close()


async def test_a_failed_write_after_a_new_file_is_counted_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first record of a new file is nobody's: what is lost are the callers' records alone."""
    settings = AuditSettings(
        folder=str(tmp_path / "log"), key_file=str(tmp_path / "keys"), segment_bytes=4096
    )
    audit = open_audit(settings)
    for number in range(15):
        await audit.act("admin.call", n=number, rpc="Status")
    real, failed = log_module.write_all, threading.Event()

    def full(descriptor: int, data: bytes) -> None:
        begun = len(segment_files(tmp_path / "log")) > 1
        if begun and b"log.segment" not in data and not failed.is_set():
            failed.set()
            raise OSError(28, "No space left on device")
        real(descriptor, data)

    monkeypatch.setattr(log_module, "write_all", full)
    before = counted("guard_audit_failures_total", reason="write")
    with audit._wake:  # one batch for all of them
        for number in range(20):
            audit.record("other", n=number)
    assert await asyncio.to_thread(failed.wait, 10)
    await audit.act("admin.call")
    audit.close()
    lost = counted("guard_audit_failures_total", reason="write") - before
    text = b"".join(path.read_bytes() for _, path in segment_files(tmp_path / "log"))
    assert text.count(b'"event":"other"') == 20 - lost
    assert 0 < lost <= 20
    assert f'"records":{int(lost)},'.encode() in text


async def test_a_full_queue_refuses_an_act_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after `timeout` seconds: the caller hears at once that it cannot be recorded."""
    settings = AuditSettings(
        folder=str(tmp_path / "log"), key_file=str(tmp_path / "keys"), max_queue=1, timeout=8
    )
    audit = open_audit(settings)
    gate, writing = threading.Event(), threading.Event()
    real = AuditLog.write

    def slow(self: AuditLog, entries: object) -> None:
        writing.set()
        gate.wait(20)
        real(self, entries)  # type: ignore[arg-type]

    monkeypatch.setattr(AuditLog, "write", slow)
    audit.record("other")
    assert await asyncio.to_thread(writing.wait, 10)
    audit.record("other")
    start = time.monotonic()
    with pytest.raises(AuditError):
        await audit.act("admin.call")
    assert time.monotonic() - start < 4
    gate.set()
    audit.close()


async def test_a_disk_that_never_answers_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`close` waits for twice the time-out, says so, and ends."""
    settings = AuditSettings(
        folder=str(tmp_path / "log"), key_file=str(tmp_path / "keys"), timeout=0.1
    )
    audit = open_audit(settings)
    gate = threading.Event()
    monkeypatch.setattr(AuditLog, "write", lambda _self, _entries: gate.wait(20))
    audit.record("other")
    await asyncio.to_thread(audit.close)
    assert "the audit log did not finish" in caplog.text
    gate.set()
    audit._thread.join(10)
    audit._log.close()


async def test_a_checkpoint_whose_sync_fails_loses_nothing_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not durable yet is taken back and counted, and the log goes on."""
    settings = AuditSettings(
        folder=str(tmp_path / "log"), key_file=str(tmp_path / "keys"), checkpoint_seconds=0.01
    )
    audit = open_audit(settings)
    await audit.act("admin.call", n=1)
    before = counted("guard_audit_failures_total", reason="write")
    failed = threading.Event()
    real = log_module.os.fdatasync

    def broken(descriptor: int) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(log_module.os, "fdatasync", broken)
    await asyncio.sleep(0.05)  # a signature is due, a sync is not
    audit.record("other", n=2)
    assert await asyncio.to_thread(failed.wait, 10)
    await audit.act("admin.call", n=3)
    audit.close()
    assert counted("guard_audit_failures_total", reason="write") == before + 1
    text = segment_files(tmp_path / "log")[0][1].read_bytes()
    assert b'"n":3' in text
    assert b'"event":"log.lost"' in text
    assert b'"why":"Input/output error"' in text


def test_what_cannot_be_opened_names_the_setting(tmp_path: Path) -> None:
    """A file where the folder should be: one line, before anything listens."""
    (tmp_path / "log").write_text("")
    make_keys(tmp_path / "keys")
    settings = AuditSettings(folder=str(tmp_path / "log"), key_file=str(tmp_path / "keys"))
    with pytest.raises(ConfigError, match=r"^gateway\.audit: .*log: File exists") as caught:
        open_audit(settings)
    assert caught.value.key == "gateway.audit"


async def test_a_record_of_nobody_names_nobody(tmp_path: Path) -> None:
    """What the gateway itself did has no subject and went well, unless something else is said."""
    settings = AuditSettings(folder=str(tmp_path / "log"), key_file=str(tmp_path / "keys"))
    audit = open_audit(settings)
    audit.record("gateway.stop")
    await audit.act("admin.call")
    audit.close()
    text = segment_files(tmp_path / "log")[0][1].read_bytes()
    assert text.count(b'"actor":"","outcome":"ok"') == 3
