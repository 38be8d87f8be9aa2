"""The suspects of a gateway: their store, what fills it, what looks after it.

A gateway starts without its store, as it goes on without it: what it cannot keep is counted, and
the store is tried again until it is there.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from guard import metrics
from guard.config import Config
from guard.config.suspects import Suspects
from guard.errors import ConfigError, StoreError
from guard.gateway import release
from guard.gateway.catch import Catch
from guard.pipeline import Pipeline
from guard.suspects.capture import Capture
from guard.suspects.health import Health
from guard.suspects.keeper import Keeper
from guard.suspects.keys import Keys
from guard.suspects.late import LateStore
from guard.suspects.opening import open_keys, open_store
from guard.suspects.parts import Blobs, Database
from guard.suspects.store import Store

OPEN_SECONDS = 5.0  # that a start waits for the store
DAY = 86400.0


@dataclass(frozen=True)
class Kept:
    """What a gateway that keeps suspects has more than another."""

    store: LateStore
    capture: Capture
    settings: Suspects

    def catch(self, model: str, pipeline: Pipeline, budget: float) -> Catch:
        """One model's way here."""
        return Catch(
            self.capture,
            self.store,
            model=model,
            pipeline=pipeline,
            budget=budget,
            sample_rate=self.settings.sample_rate,
        )


@contextlib.asynccontextmanager
async def keeping(config: Config) -> AsyncIterator[Kept | None]:
    """The suspects of a gateway with these settings; None where they ask for none."""
    settings = config.suspects
    if not settings.enabled:
        yield None
        return
    kind = kind_of(settings)
    metrics.SUSPECTS_UP.labels(kind).set(0)
    store = LateStore(opener(config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, store.close)
        health = Health(kind)
        capture = Capture(
            store,
            max_queue=settings.max_queue,
            max_bytes=settings.max_queue_bytes,
            health=health,
        )
        stack.push_async_callback(asyncio.to_thread, capture.close)
        keeper = Keeper(
            store,
            keep_seconds=DAY * settings.keep_days,
            quota_bytes=settings.quota_bytes,
            rotate=settings.rotate_after_erase,
            every=settings.upkeep_seconds,
            health=health,
        )
        opening = asyncio.create_task(asyncio.to_thread(_opened, store))
        await asyncio.wait([opening], timeout=OPEN_SECONDS)
        keeper.start()
        stack.push_async_callback(asyncio.to_thread, keeper.close)
        yield Kept(store, capture, settings)


def kind_of(settings: Suspects) -> str:
    """The store's name in a metric."""
    return "postgresql" if settings.index else "sqlite"


def opener(config: Config) -> Callable[[], Store]:
    """What opens the store of these settings; it raises StoreError."""
    settings = config.suspects

    def opening() -> Store:
        with contextlib.ExitStack() as unused:
            database, blobs = database_of(settings), blobs_of(settings)
            for part in (database, blobs):
                if part is not None:
                    unused.callback(part.close)
            keys = keys_of(config)
            store = open_store(keys, folder=settings.folder, database=database, blobs=blobs)
            unused.pop_all()
            return store

    return opening


def database_of(settings: Suspects) -> Database | None:
    """Where the index is, None for the folder."""
    if not settings.index:
        return None
    from guard.suspects.postgres import PostgresDatabase

    password = settings.index_password_file
    return PostgresDatabase(settings.index, password_file=password, timeout=settings.timeout)


def blobs_of(settings: Suspects) -> Blobs | None:
    """Where sealed records are, None for the folder."""
    if not settings.objects:
        return None
    from guard.suspects.objects import ObjectBlobs

    return ObjectBlobs(
        settings.objects,
        endpoint=settings.objects_endpoint,
        region=settings.objects_region,
        credentials_file=settings.objects_credentials_file,
        timeout=settings.timeout,
    )


def keys_of(config: Config) -> Keys:
    """Where the keys of suspects come from."""
    settings = config.suspects
    if "suspects" not in config.gateway.key_release.keys:
        return open_keys(settings.key_file, variable=settings.key_variable)

    def released() -> bytes:
        try:
            return release.released(config.gateway.key_release, "suspects")
        except ConfigError as error:
            raise StoreError(str(error)) from None

    return open_keys(released=released)


def _opened(store: LateStore) -> None:
    """Try once; what goes wrong has been said, and is tried again."""
    with contextlib.suppress(StoreError):
        store.opened()
