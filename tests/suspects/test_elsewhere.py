"""PostgreSQL and S3 that are away, hang, refuse, or are set up wrongly: a StoreError, in time."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.errors import StoreError
from guard.suspects.objects import ObjectBlobs
from guard.suspects.opening import open_keys, open_store
from guard.suspects.postgres import PostgresDatabase
from tests.suspects.samples import same, suspect
from tests.suspects.services import Services, serving

NOBODY = "127.0.0.1:1"
SECRET = "hunter2"  # noqa: S105


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Servers of our own."""
    with serving() as running:
        yield running


def test_a_database_that_hangs_or_dies_is_away_and_comes_back(
    services: Services, tmp_path: Path
) -> None:
    """One wait of the timeout and a StoreError each; nobody has to throw a connection away."""
    place = services.place()
    keys = open_keys(str(tmp_path / "keys"))
    database = services.database(place, timeout=1)
    store = open_store(keys, database=database, blobs=services.blobs(place))
    kept = suspect(store, 1)
    store.put([kept])
    services.postgres.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreError, match="PostgreSQL"):
        store.counts()
    assert time.monotonic() - began < 5
    services.postgres.signal(signal.SIGCONT)
    assert same(store.get(kept.id), kept)
    services.postgres.end()
    with pytest.raises(StoreError, match="PostgreSQL is away"):
        store.counts()
    services.postgres.__enter__()
    store.put([suspect(store, 2)])
    assert store.counts().total == 2
    store.close()


def test_objects_that_hang_lose_nothing(services: Services, tmp_path: Path) -> None:
    """What could not be written is not in the index; once the service answers, all goes on."""
    place = services.place()
    keys = open_keys(str(tmp_path / "keys"))
    blobs = services.blobs(place, timeout=0.5)
    store = open_store(keys, database=services.database(place), blobs=blobs)
    services.s3.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreError, match="S3"):
        store.put([suspect(store, 1)])
    assert time.monotonic() - began < 10
    services.s3.signal(signal.SIGCONT)
    assert store.counts().total == 0
    store.put([suspect(store, 1)])
    assert same(store.get(suspect(store, 1).id), suspect(store, 1))
    store.close()


def test_nobody_there(tmp_path: Path) -> None:
    """Errors say which of the two it is, and nothing of passwords."""
    password = tmp_path / "password"
    password.write_text(SECRET)
    database = PostgresDatabase(
        f"postgresql://guard@{NOBODY}/db", password_file=str(password), timeout=1
    )
    with pytest.raises(StoreError, match="PostgreSQL is away") as refused, database.read():
        pass
    assert SECRET not in str(refused.value)
    credentials = tmp_path / "credentials"
    credentials.write_text(f"id\n{SECRET}\n")
    blobs = ObjectBlobs(
        "s3://bucket", endpoint=f"http://{NOBODY}", region="r",
        credentials_file=str(credentials), timeout=0.5,
    )  # fmt: skip
    with pytest.raises(StoreError, match="S3") as refused:
        blobs.write([("a", b"b")])
    assert SECRET not in str(refused.value)
    blobs.close()


@pytest.mark.parametrize("content", [None, b"oneword", b"\xff\xfe three words"])
def test_credentials_that_are_none(content: bytes | None, tmp_path: Path) -> None:
    """The setting and the file are named, what is in it is not."""
    path = tmp_path / "credentials"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="objects_credentials_file") as refused:
        ObjectBlobs("s3://bucket", credentials_file=str(path))
    assert "word" not in str(refused.value)


def test_a_record_that_may_be_being_written_is_spared(services: Services) -> None:
    """Only objects that are old enough count as left over."""
    place = services.place()
    young, old = services.blobs(place), services.blobs(place, spared=-60)
    young.write([("one", b"1"), ("two", b"2")])
    with young.leftovers() as names:
        assert list(names) == []
    with old.leftovers() as names:
        assert sorted(names) == ["one", "two"]
    old.delete(["one", "nothing"])
    assert (young.read("one"), young.read("two")) == (None, b"2")
    young.close()
    old.close()
