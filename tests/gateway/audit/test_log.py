"""The log on disk: durable, resumed after crashes, kept whole on a full disk, rotated."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import AuditError, ConfigError
from guard.gateway.audit import checkpoints
from guard.gateway.audit import log as log_module
from guard.gateway.audit.keys import load_keys, rotate_keys
from guard.gateway.audit.record import content, entry, take_apart
from guard.gateway.audit.segments import segment_files
from tests.gateway.audit.logs import Place, call, place, written

ROOT = Path(__file__).parents[3]


def events(there: Place) -> list[str]:
    """The events of a log, in order."""
    return [str(content(line)["event"]) for line in there.lines()]


def test_a_record_is_one_line_of_json(tmp_path: Path) -> None:
    """Everything that was said stands in it, and nothing that could break the line."""
    there = place(tmp_path / "log")
    log = there.open()
    details = {"text": 'a"\n\r\u2028\x00é', "n": 7, "yes": True, "list": ["a", "b"], "x" * 99: 1}
    log.write([entry("other", actor=there.keys.actor("alice"), details=details)])
    log.close()
    first, second = there.lines()
    assert content(first)["event"] == "log.begin"
    one = content(second)
    assert one["details"] == {**{k: v for k, v in details.items() if len(k) < 99}, "x" * 40: 1}
    assert (one["seq"], one["key"], one["outcome"]) == (2, 1, "ok")
    assert one["actor"] == there.keys.actor("alice")
    assert take_apart(second) is not None
    assert second.isascii()


def test_pictures_scores_and_long_things_are_not_written() -> None:
    """What is no short plain value is named by its type; what is long is cut."""
    value = entry(
        "other", details={"score": 0.25, "picture": b"abc", "deep": {"a": 1}, "t": "x" * 999}
    )
    details = json.loads(value.details)
    assert details == {"score": "<float>", "picture": "<bytes>", "deep": "<dict>", "t": "x" * 200}
    assert len(json.loads(entry("other", details={str(n): n for n in range(99)}).details)) == 16


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Nobody else may read keys, log or checkpoints."""
    there = written(tmp_path / "log", 3)
    for path in there.root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_log_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Reopened, the chain, the file and the numbers of the checkpoints continue."""
    there = written(tmp_path / "log", 5, tail=2)
    for turn in range(3):
        log = there.open()
        log.write([call(100 + turn)])
        log.sync()
        log.checkpoint()
        log.close()
    report = there.verify()
    assert report.ok
    assert (report.records, report.signed) == (11, 11)
    numbers = [json.loads(line)["checkpoint"] for line in there.exported()]
    assert numbers == [1, 2, 3, 4]


def test_files_are_bounded_and_chained(tmp_path: Path) -> None:
    """A file stays near its bound, and the chain runs through all of them."""
    there = written(tmp_path / "log", 100, segment_bytes=4096)
    files = segment_files(there.folder)
    assert len(files) > 4
    assert all(path.stat().st_size <= 4096 for _, path in files)
    assert there.verify().ok
    assert events(there).count("log.segment") == len(files) - 1


def test_keys_rotate_without_a_break(tmp_path: Path) -> None:
    """After a rotation new records use the new key; the whole log still verifies."""
    there = written(tmp_path / "log", 5)
    new = Place(there.root, rotate_keys(there.root / "keys"))
    log = new.open()
    log.write([call(1)])
    log.sync()
    log.checkpoint()
    log.close()
    report = new.verify()
    assert report.ok
    assert [content(line)["key"] for line in new.lines()] == [1] * 6 + [2]
    assert there.verify().findings[0].kind == "wrong key"
    assert load_keys(there.root / "keys").current.id == 2


def test_one_process_writes_a_log(tmp_path: Path) -> None:
    """A second one is refused in one line."""
    there = place(tmp_path / "log")
    log = there.open()
    with pytest.raises(ConfigError, match="another gateway"):
        there.open()
    log.close()
    there.open().close()


@pytest.mark.parametrize("cut", ["tail", "checkpointed", "edited", "gone"])
def test_a_start_refuses_a_log_that_was_cut_or_changed(tmp_path: Path, cut: str) -> None:
    """What no crash explains stops the gateway, or is recorded where the settings say so."""
    there = written(tmp_path / "log", 40, tail=3)
    path = segment_files(there.folder)[-1][1]
    lines = there.lines()
    if cut == "tail":
        there.rewrite(lambda ls: ls[:30])
    elif cut == "checkpointed":
        (there.folder / checkpoints.NAME).unlink()
        there.rewrite(lambda ls: ls[:30])
    elif cut == "edited":
        there.rewrite(lambda ls: [*ls[:42], ls[42].replace(b"Status", b"Statut"), *ls[43:]])
    else:
        path.unlink()
    with pytest.raises(AuditError, match="altered or cut"):
        there.open()
    log = there.open(damaged="allow")
    log.write([call(7)])
    log.sync()
    log.checkpoint()
    log.close()
    assert "log.damaged" in events(there)
    assert not there.verify().ok
    assert len(lines) == 44
    there.open().close()


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 2000), zeros=st.integers(0, 600), junk=st.booleans())
def test_a_power_cut_takes_nothing_that_was_synced(
    tmp_path_factory: pytest.TempPathFactory, cut: int, zeros: int, junk: bool
) -> None:
    """Whatever part of the unsynced end is lost, torn or zeros: the rest stays, and it is said."""
    there = place(tmp_path_factory.mktemp("power"))
    log = there.open(segment_bytes=1 << 20)
    log.write([call(n) for n in range(5)])
    log.sync()
    log.checkpoint()
    path = segment_files(there.folder)[0][1]
    synced = path.stat().st_size
    log.write([call(n) for n in range(5, 10)])
    log.close()
    data = path.read_bytes()
    kept = data[: min(synced + cut, len(data))]
    whole = kept.endswith(b"\n") and not zeros
    path.write_bytes(kept + bytes(zeros) + (b'junk"}\n' if zeros and junk else b""))
    log = there.open(segment_bytes=1 << 20)
    log.write([call(99)])
    log.sync()
    log.checkpoint()
    log.close()
    report = there.verify()
    assert report.ok
    assert report.records >= 7
    assert ("log.torn" in events(there)) is not whole
    left = list(there.folder.glob("torn-*"))
    assert len(left) == (0 if whole else 1)
    if left:
        (torn,) = [content(ln)["details"] for ln in there.lines() if b"log.torn" in ln]
        assert torn["bytes"] == left[0].stat().st_size


def test_a_crash_while_a_new_file_begins_is_mended(tmp_path: Path) -> None:
    """A new file that holds nothing, or half a line, is set aside and begun again."""
    for content_of_it in (b"", b'{"seq":7,"ke'):
        there = written(tmp_path / f"log{len(content_of_it)}", 5)
        (there.folder / "segment-000000000000007.jsonl").write_bytes(content_of_it)
        log = there.open()
        log.write([call(1)])
        log.sync()
        log.checkpoint()
        log.close()
        assert there.verify().ok
        assert ("log.torn" in events(there)) is bool(content_of_it)


def test_what_could_not_be_exported_is_exported_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full or absent export folder costs no checkpoint, in this run or the next."""
    there = place(tmp_path / "log")
    log = there.open()
    away = there.root / "away"
    for number in range(3):
        there.export.rename(away)
        log.write([call(number)])
        log.sync()
        with pytest.raises(OSError, match="No such file"):
            log.checkpoint()
        away.rename(there.export)
        if number == 1:
            log.checkpoint()
            assert len(there.exported()) == 2
    log.close()
    log = there.open()
    log.checkpoint()
    log.close()
    assert [json.loads(line)["checkpoint"] for line in there.exported()] == [1, 2, 3]


def test_a_failed_sync_takes_back_what_it_did_not_make_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync nobody knows what is on the disk: the file returns to what was."""
    there = place(tmp_path / "log")
    log = there.open()
    log.write([call(1)])
    log.sync()
    log.write([call(2)])

    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(log_module.os, "fdatasync", broken)
        with pytest.raises(OSError, match="Input/output"):
            log.sync()
    assert log.seq == 2
    log.write([call(3)])
    log.sync()
    log.close()
    assert [content(ln)["details"].get("n") for ln in there.lines()] == [None, 1, 3]
    assert there.verify_alone().ok


FULL = """
import resource, signal, sys
from pathlib import Path
from guard.gateway.audit.keys import load_keys
from tests.gateway.audit.logs import Place, call
there = Place(Path(sys.argv[1]), load_keys(Path(sys.argv[1]) / "keys"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = there.open(segment_bytes=1 << 20)
done = failed = 0
for limit in (3000, 3000, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for number in range(12):
        try:
            log.write([call(number), call(number)])
            log.sync()
            done += 2
        except OSError as error:
            failed += 1
log.checkpoint()
log.close()
print(done, failed)
"""


def test_a_full_disk_leaves_whole_records_and_heals(tmp_path: Path) -> None:
    """Writes that the system cuts short leave no half record; with space again all goes on."""
    there = place(tmp_path / "log")
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(there.root)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    done, failed = map(int, run.stdout.split())
    assert failed > 10
    assert done >= 24
    assert len(there.lines()) == done + 1
    assert there.verify().ok


KILLED = """
import os, signal, sys
from pathlib import Path
from guard.gateway.audit import log as module
from guard.gateway.audit.keys import load_keys
from tests.gateway.audit.logs import Place, call
there = Place(Path(sys.argv[1]), load_keys(Path(sys.argv[1]) / "keys"))
how, at = sys.argv[2], int(sys.argv[3])
log = there.open(segment_bytes=4096)
real, count = (os.fdatasync, module.write_all), [0]
def sync(descriptor):
    if how == "before-sync" and count[0] >= at:
        os.kill(os.getpid(), signal.SIGKILL)
    real[0](descriptor)
def write(descriptor, data):
    count[0] += 1
    if how == "half-written" and count[0] >= at:
        os.write(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    real[1](descriptor, data)
module.os.fdatasync, module.write_all = sync, write
for number in range(1000):
    log.write([call(number)])
    log.sync()
    print(number, flush=True)
    if number % 10 == 0:
        log.checkpoint()
"""


@pytest.mark.parametrize(("how", "at"), [("before-sync", 7), ("half-written", 9), ("kill", 30)])
def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path, how: str, at: int) -> None:
    """kill -9 between write and fsync, within a write, or anywhere: what was said to be done is."""
    there = place(tmp_path / "log")
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(there.root), how, str(at)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    acknowledged = []
    for line in run.stdout:
        acknowledged.append(int(line))
        if how == "kill" and len(acknowledged) == at:
            run.send_signal(signal.SIGKILL)
            break
    acknowledged += [int(line) for line in run.stdout.read().split()]
    run.stdout.close()
    assert run.wait(30) == -signal.SIGKILL
    log = there.open()
    log.checkpoint()
    log.close()
    kept = {content(line)["details"].get("n") for line in there.lines()}
    assert acknowledged
    assert set(acknowledged) <= kept
    assert ("log.torn" in events(there)) is (how == "half-written")
    assert there.verify().ok


def test_an_acknowledgement_follows_the_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sync` really asks the system to make this file durable, and new names too."""
    asked: list[str] = []
    for name in ("fdatasync", "fsync"):
        real = getattr(os, name)

        def ask(descriptor: int, name: str = name, real: object = real) -> None:
            asked.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            real(descriptor)  # type: ignore[operator]

        monkeypatch.setattr(log_module.os, name, ask)
    there = place(tmp_path / "log")
    log = there.open()
    assert str(there.folder) in asked
    asked.clear()
    log.write([call(1)])
    assert not asked
    log.sync()
    assert asked == [str(segment_files(there.folder)[0][1])]
    log.close()
    shutil.rmtree(there.folder)
