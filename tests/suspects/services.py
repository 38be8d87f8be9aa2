"""A PostgreSQL and an S3 service of our own, on loopback, which can be taken away."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from guard.suspects.objects import ObjectBlobs
from guard.suspects.postgres import PostgresDatabase

OWNER = "guard"
BUCKET = "suspects"
S3 = """
import sys, time
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False)
server.start()
options = dict(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
boto3.client("s3", endpoint_url=f"http://127.0.0.1:{sys.argv[1]}", **options).create_bucket(
    Bucket="suspects")
print("ready", flush=True)
while True:
    time.sleep(60)
"""


def lacking() -> str:
    """What this machine lacks for them; empty: nothing."""
    if not _programs():
        return "no PostgreSQL: deploy/ci/install services"
    try:
        import moto.server  # noqa: F401
        import psycopg  # noqa: F401
    except ImportError as error:
        return f"no {error.name}: deploy/ci/install dev"
    return ""


def _programs() -> Path | None:
    """PostgreSQL's, which Debian does not put into the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return found[0].parent if found else None


def _port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Postgres:
    """A cluster in a folder; PostgreSQL refuses to run as root, so another user owns it then."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.port, self._folder = port or _port(), folder
        if port:
            return  # somebody else's
        programs = _programs()
        assert programs, lacking()
        self._programs = programs
        folder.mkdir(parents=True)
        self._who: dict[str, str] = {}
        if os.geteuid() == 0:
            self._who = {"user": "postgres", "group": "postgres"}
            shutil.chown(folder, "postgres", "postgres")
        folder.chmod(0o700)
        self._run(
            "initdb", "-D", str(folder), "-U", OWNER, "-A", "trust", "--no-locale", "-E", "UTF8",
            "--no-sync",
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Its first database."""
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        command = [
            str(self._programs / "postgres"), "-D", str(self._folder), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "shared_buffers=16MB", "-c", "max_connections=100",
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._who)  # type: ignore[call-overload]
        _wait(lambda: self.make(""), "PostgreSQL does not start")
        return self

    def __exit__(self, *_error: object) -> None:
        self.end(signal.SIGQUIT)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Gone, with all that it has started."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(20)

    def make(self, name: str) -> str:
        """A new database of this name; its address."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
            if name:
                connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url.removesuffix("postgres") + name

    def signal(self, number: signal.Signals) -> None:
        """To the server and those who serve its connections."""
        children = f"/proc/{self._process.pid}/task/{self._process.pid}/children"
        for one in (self._process.pid, *map(int, Path(children).read_text().split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._who)  # type: ignore[call-overload]


class S3Service:
    """moto's server: S3 over HTTP, kept in memory."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or _port()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        command = [sys.executable, "-W", "ignore", "-c", S3, str(self.port)]
        pipe = subprocess.PIPE
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=pipe, stderr=quiet, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n", "the S3 service does not start"
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def signal(self, number: signal.Signals) -> None:
        """Stop it, or let it go on."""
        self._process.send_signal(number)


class Services:
    """Both; each store gets a database and a prefix of its own."""

    def __init__(self, folder: Path, ports: tuple[int, int] = (0, 0)) -> None:
        self.postgres, self.s3 = Postgres(folder / "postgres", ports[0]), S3Service(ports[1])
        self._folder, self.credentials = folder, folder / "credentials"
        if not any(ports):
            self.credentials.write_text("test\ntest\n")

    @classmethod
    def at(cls, text: str) -> Self:
        """Those that another process has started, and told of with `str`."""
        database, objects, folder = text.split(maxsplit=2)
        return cls(Path(folder), (int(database), int(objects)))

    def __str__(self) -> str:
        return f"{self.postgres.port} {self.s3.port} {self._folder}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.postgres)
            stack.enter_context(self.s3)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def place(self) -> str:
        """A name for a new database and a new prefix."""
        name = f"store{secrets.token_hex(6)}"
        self.postgres.make(name)
        return name

    def ensure(self, name: str) -> None:
        """A database of this name, whoever else makes it at the same moment."""
        import psycopg

        for _ in range(20):
            try:
                self.postgres.make(name)
            except psycopg.errors.DuplicateDatabase:
                return
            except psycopg.Error:
                time.sleep(0.1)
            else:
                return

    def database(self, name: str, timeout: float = 10.0) -> PostgresDatabase:
        """The database of this name."""
        url = self.postgres.url.removesuffix("postgres") + name
        return PostgresDatabase(url, timeout=timeout)

    def blobs(self, name: str, timeout: float = 10.0, spared: float = 3600.0) -> ObjectBlobs:
        """The prefix of this name."""
        return ObjectBlobs(
            f"s3://{BUCKET}/{name}",
            endpoint=self.s3.endpoint,
            region="us-east-1",
            credentials_file=str(self.credentials),
            timeout=timeout,
            spared=spared,
        )


def _wait(attempt: object, complaint: str, seconds: float = 20) -> None:
    import psycopg

    end = time.monotonic() + seconds
    while True:
        try:
            attempt()  # type: ignore[operator]
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise AssertionError(complaint) from None
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def serving() -> Iterator[Services]:
    """Both, for the length of a `with`; the test is skipped where this machine lacks them."""
    if missing := lacking():
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="guard-services-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        with Services(folder) as running:
            yield running
