"""What the gateway tells the audit log: never in the way of a request, never silently lost.

`record` returns at once: one thread writes, from a bounded queue. `act` is for what an
administrator does: it returns when the record is durable. Refusals and failures are counted by
subject and kind: a flood costs two lines a minute, the first at once, the others as one count.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, NamedTuple

from guard import metrics
from guard.config.audit import AuditSettings
from guard.errors import AuditError, ConfigError
from guard.gateway.audit.keys import KeyRing, load_keys, make_keys
from guard.gateway.audit.log import AuditLog
from guard.gateway.audit.record import EVENTS, Entry, details_json, entry, now, utc
from guard.gateway.audit.segments import segment_files

SYNC_SECONDS = 1.0  # after which what nobody waits for is made durable too
RETRY_SECONDS = 0.05  # a full disk is asked again, not hammered
MAX_KINDS = 1024  # of refusals told apart in one minute; the others are counted together
OTHERS = '{"subjects":"others"}'
log = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """An entry in the queue; `done` is told when it is durable."""

    entry: Entry
    done: "Future[None] | None"


class Kind(NamedTuple):
    """What is counted together."""

    event: str
    actor: str
    outcome: str
    details: str


class Audit:
    """The audit log of a gateway that keeps none: takes everything, writes nothing."""

    enabled = False

    def record(self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any) -> None:
        """Something happened; returns at once.

        event: one of `record.EVENTS`. actor: the subject's name, written as a keyed hash only.
        outcome: "ok"; anything else is counted as said above. details: short values.
        """

    async def act(
        self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any
    ) -> None:
        """The same, returning when the record is durable.

        Raises `AuditError` where it cannot be written and `on_error` is "block".
        """

    def close(self) -> None:
        """Write what is left, sign it, stop."""


OFF = Audit()


class Recorder(Audit):
    """The audit log of a gateway, with the thread that writes it."""

    enabled = True

    def __init__(
        self,
        audit: AuditLog,
        keys: KeyRing,
        settings: AuditSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._keys, self._settings, self._clock = audit, keys, settings, clock
        self._wake = threading.Condition()
        self._queue: list[Waiting] = []
        self._refused: dict[Kind, tuple[int, float]] = {}  # how many more, last
        self._lost, self._lost_why, self._lost_since = 0, "", ""
        self._closing = False
        self._sync_at = self._sign_at = 0.0
        self._count_at = clock() + settings.count_seconds
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def record(self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any) -> None:
        """See `Audit`."""
        event = event if event in EVENTS else "other"
        subject = self._keys.actor(actor)
        if outcome == "ok":
            what = entry(event, actor=subject, outcome=outcome, details=details)
            self._put(Waiting(what, None))
            return
        with self._wake:
            key = self._kind(Kind(event, subject, outcome, details_json(details)))
            if key in self._refused:
                self._refused[key] = (self._refused[key][0] + 1, time.time())
                return
            self._refused[key] = (0, 0.0)
        self._put(Waiting(Entry(now(), *key), None))

    async def act(
        self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any
    ) -> None:
        """See `Audit`."""
        event = event if event in EVENTS else "other"
        what = entry(event, actor=self._keys.actor(actor), outcome=outcome, details=details)
        done: Future[None] = Future()
        self._put(Waiting(what, done))
        try:
            async with asyncio.timeout(self._settings.timeout):
                await asyncio.wrap_future(done)
        except (OSError, TimeoutError) as error:  # a time-out is an OSError, too
            if isinstance(error, TimeoutError):
                metrics.AUDIT_FAILURES.labels("late").inc()
            if self._settings.on_error == "block":
                raise AuditError("the audit log cannot be written, so this is not done") from error

    def close(self) -> None:
        """See `Audit`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(2 * self._settings.timeout)
        if self._thread.is_alive():
            log.error("the audit log did not finish: its disk does not answer")
            return
        self._log.close()

    # ── on any thread ────────────────────────────────────────────────────────────────────────────

    def _kind(self, kind: Kind) -> Kind:
        """What a refusal is counted as: where there are too many kinds, with all the others."""
        if kind in self._refused or len(self._refused) < MAX_KINDS:
            return kind
        return kind._replace(actor="", details=OTHERS)

    def _put(self, waiting: Waiting) -> None:
        with self._wake:
            full = len(self._queue) >= self._settings.max_queue
            if not full and not self._closing:
                self._queue.append(waiting)
                if len(self._queue) == 1:
                    self._wake.notify()
                return
            self._lose(1, "queue", "the queue is full" if full else "closing")
        if waiting.done is not None:
            waiting.done.set_exception(OSError("the queue is full"))

    def _lose(self, count: int, reason: str, why: str) -> None:
        metrics.AUDIT_FAILURES.labels(reason).inc(count)
        self._lost_since = self._lost_since if self._lost else now()
        self._lost, self._lost_why = self._lost + count, why

    # ── on the writer's thread ───────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._wake:
                if not self._queue and not self._closing:
                    self._wake.wait(SYNC_SECONDS)
                batch, self._queue = self._queue, []
                closing, lost = self._closing, self._lost
                first = [self._loss()] if lost else []
                if closing or self._clock() >= self._count_at:
                    batch += [Waiting(what, None) for what in self._counted()]
            if self._written(batch, first, final=closing):
                with self._wake:
                    self._lost -= lost
                self._sign(final=closing)

    def _written(self, batch: list[Waiting], first: list[Entry], *, final: bool) -> bool:
        """Whether a batch, and the record of an earlier loss before it, is in the log."""
        entries = [*first, *(waiting.entry for waiting in batch)]
        waiting = [one.done for one in batch if one.done is not None]
        audit, error = self._log, None
        wanted = audit.seq - audit.files_begun + len(batch)
        try:
            audit.write(entries)
            if waiting or first or final or self._clock() >= self._sync_at:
                audit.sync()
                self._sync_at = self._clock() + SYNC_SECONDS
        except Exception as problem:
            error = OSError("not written")
            self._failed(wanted - audit.seq + audit.files_begun, problem)
        for done in waiting:
            _settle(done, error)
        if error is None:
            for one in entries:
                metrics.AUDIT_RECORDS.labels(one.event).inc()
        elif not final:
            time.sleep(RETRY_SECONDS)
        return error is None

    def _sign(self, *, final: bool) -> None:
        audit, every = self._log, self._settings.checkpoint_every
        if not (final or self._clock() >= self._sign_at or audit.seq - audit.signed >= every):
            return
        self._sign_at = self._clock() + self._settings.checkpoint_seconds
        before = audit.seq
        try:
            audit.sync()
        except OSError as problem:
            self._failed(before - audit.seq, problem)
            return
        try:
            audit.checkpoint()
            metrics.AUDIT_CHECKPOINT.set(audit.signed)
        except OSError as problem:
            log.error("an audit checkpoint could not be written: %s", problem)
            metrics.AUDIT_FAILURES.labels("export").inc()

    def _failed(self, missing: int, problem: Exception) -> None:
        why = problem.strerror if isinstance(problem, OSError) else type(problem).__name__
        log.error("%d audit records could not be written: %s", missing, why)
        with self._wake:
            self._lose(missing, "write", why or "unknown")

    def _loss(self) -> Entry:
        """The record of what could not be recorded."""
        details = {"records": self._lost, "why": self._lost_why, "since": self._lost_since}
        return entry("log.lost", outcome="failed", details=details)

    def _counted(self) -> list[Entry]:
        """A record for every kind of refusal of the last minute that came more than once."""
        found = []
        for kind, (count, last) in self._refused.items():
            if count:
                comma = "" if kind.details == "{}" else ","
                more = f'{comma}"count":{count},"until":"{utc(last)}"}}'
                found.append(Entry(now(), *kind._replace(details=kind.details[:-1] + more)))
        self._refused = {}
        self._count_at = self._clock() + self._settings.count_seconds
        return found


def _settle(done: "Future[None]", error: OSError | None) -> None:
    """Tell who waits; whoever gave up is past telling."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def open_audit(settings: AuditSettings, released: KeyRing | None = None) -> Audit:
    """The audit log that the settings ask for; `OFF` where they ask for none.

    released: keys that came from elsewhere; otherwise they are in the key file, which is made on
    first use. Raises `ConfigError` or `AuditError` before anything listens.
    """
    if not settings.folder:
        return OFF
    folder, path = Path(settings.folder), Path(settings.key_file)
    try:
        keys = released or _keys(folder, path)
        audit = AuditLog(
            folder,
            keys,
            export=Path(settings.export) if settings.export else None,
            segment_bytes=settings.segment_bytes,
            damaged=settings.on_error,
        )
    except OSError as error:
        message = f"gateway.audit: {error.filename or folder}: {error.strerror}"
        raise ConfigError(message, key="gateway.audit") from error
    return Recorder(audit, keys, settings)


def _keys(folder: Path, path: Path) -> KeyRing:
    """The keys, made where there are none yet and no log was written with others."""
    if path.exists():
        return load_keys(path)
    if folder.is_dir() and segment_files(folder):
        raise ConfigError(
            f"gateway.audit.key_file: {path} is missing, and {folder} holds a log that was written"
            " with it; restore it, or begin a log in another folder",
            key="gateway.audit.key_file",
        )
    keys = make_keys(path)
    log.warning(
        "made the audit keys %s; keep a copy elsewhere, the log cannot be verified without", path
    )
    return keys
