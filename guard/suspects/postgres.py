"""The index in PostgreSQL, for gateways on several machines.

Every answer has its time: a server that hangs, or a network that swallows everything, is away.
Error texts name what kind of error it was, never what the server quotes of a row.
"""

import contextlib
import logging
import select
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.errors import StoreError
from guard.suspects.parts import Dialect, Session, Value

if TYPE_CHECKING:
    import psycopg

IDLE = 8  # connections that are kept open
LOOK = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
CHANGE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
LOCK = 0x47535553  # of those who make tables
# What is acknowledged is on the server's disk, whatever its default; more (a standby) stays.
DURABLE = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
log = logging.getLogger(__name__)


class PostgresDatabase:
    """See `Database`; `url`: postgresql://USER@HOST:PORT/DATABASE, `timeout`: seconds."""

    dialect = Dialect(
        tables="SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
        alone=f"SELECT pg_advisory_xact_lock({LOCK})",
        number="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        bytes="BYTEA",
        find="strpos",
        share=" FOR SHARE",
        lock=" FOR UPDATE",
        skip=" FOR UPDATE SKIP LOCKED",
    )

    def __init__(self, url: str, *, password_file: str = "", timeout: float = 10.0) -> None:
        self._url, self._password_file, self._timeout = url, password_file, timeout
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock, self._closed = threading.Lock(), False
        self._library = _library()

    def read(self) -> contextlib.AbstractContextManager[Session]:
        """See `Database`."""
        return self._transaction(LOOK)

    def write(self) -> contextlib.AbstractContextManager[Session]:
        """See `Database`."""
        return self._transaction(CHANGE)

    def check(self) -> None:
        """See `Database`: that it answers; PostgreSQL has its own checksums."""
        with self.read() as session:
            session.all("SELECT 1")

    def backup(self, path: Path) -> None:
        """See `Database`."""
        raise StoreError(f"{path}: an index in PostgreSQL is backed up with pg_dump")

    def scrub(self) -> None:
        """See `Database`: only its keys' end makes old pages, logs and standbys unreadable."""

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Session]:
        with self._errors():
            connection = self._begun(begin)
            try:
                yield PostgresSession(connection)
                connection.execute("COMMIT")
            except self._library.Error:
                connection.close()  # its transaction ends with it, whatever state it is in
                raise
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            finally:
                self._give(connection)

    def _begun(self, begin: str) -> "psycopg.Connection[Any]":
        """A connection in a new transaction; those that died while they were idle are let go."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._connected()
                connection.execute(begin)
                return connection
            try:
                connection.execute(begin)
            except self._library.Error:
                connection.close()
            else:
                return connection

    def _connected(self) -> "psycopg.Connection[Any]":
        options: dict[str, Any] = {}
        if self._password_file:
            options["password"] = _password(self._password_file)
        try:
            connection = _patient(self._timeout).connect(
                self._url,
                autocommit=True,
                connect_timeout=max(2, round(self._timeout)),
                options=f"-c statement_timeout={round(1000 * self._timeout)}",
                application_name="guard",
                **options,
            )
        except self._library.Error as error:
            why = str(error).strip().splitlines() or [type(error).__name__]
            raise StoreError(f"PostgreSQL is away: {why[0]}") from None
        try:
            connection.execute(DURABLE)
        except self._library.Error:
            connection.close()
            raise
        return connection

    def _give(self, connection: "psycopg.Connection[Any]") -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < IDLE and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """PostgreSQL's errors as ours."""
        library = self._library
        try:
            yield
        except library.errors.DiskFull:
            raise StoreError(
                "the index of suspects cannot grow: PostgreSQL's disk is full"
            ) from None
        except library.Error as error:
            state = f" {error.sqlstate}" if error.sqlstate else ""
            raise StoreError(
                f"the index of suspects: PostgreSQL: {type(error).__name__}{state}"
            ) from None


class PostgresSession:
    """See `Session`."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection

    def all(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """See `Session`."""
        cursor = self._connection.execute(_own(sql), values)
        return cursor.fetchall() if cursor.description else []

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """See `Session`."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_own(sql), rows)


def _own(sql: str) -> Any:
    """With placeholders as psycopg has them."""
    return sql.replace("%", "%%").replace("?", "%s")


def _library() -> Any:
    try:
        import psycopg
    except ImportError:
        raise StoreError(
            "suspects.index: needs the package `psycopg`: pip install 'guard[scale]'"
        ) from None
    return psycopg


def _patient(seconds: float) -> "type[psycopg.Connection[Any]]":
    """Connections that wait so long for an answer and no longer."""
    import psycopg

    class Patient(psycopg.Connection[Any]):
        """See above."""

        def wait(self, gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
            """Run one exchange with the server."""
            del interval, timeout
            poll = select.poll()
            try:
                wanted = next(gen)
                while True:
                    events = select.POLLIN * bool(wanted & 1) | select.POLLOUT * bool(wanted & 2)
                    poll.register(self.pgconn.socket, events)
                    if not (found := poll.poll(1000 * seconds)):
                        raise psycopg.OperationalError(f"no answer within {seconds:g} s")
                    seen = found[0][1]
                    gone = bool(seen & (select.POLLHUP | select.POLLERR | select.POLLNVAL))
                    ready = (1 if seen & select.POLLIN or gone else 0) | (
                        2 if seen & select.POLLOUT or gone else 0
                    )
                    wanted = gen.send(ready & wanted or wanted)
            except StopIteration as done:
                return done.value
            except psycopg.OperationalError:
                self.pgconn.finish()
                raise

    return Patient


def _password(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise StoreError(f"suspects.index_password_file: {path}: {reason}") from None
