"""A console with suspects to look at: procedural signs under three kinds of disturbance.

with stocked(folder, count=40) as stock:
    stock.port.url, stock.store, stock.ids
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from guard.config import Config, Gateway, Model
from guard.config.console import Console
from guard.config.suspects import Suspects
from guard.console import users
from guard.console.serving import Place, Port, opened
from guard.console.users import User, write_users
from guard.data import signs
from guard.gateway.audit.recorder import OFF, Audit
from guard.gateway.identity import Authenticator
from guard.pipeline import Pipeline
from guard.suspects.opening import open_keys, open_store
from guard.suspects.record import Floats, Suspect
from guard.suspects.store import Store

ROOT = Path(__file__).parents[2]
PACK = ROOT / "models" / "signs"
PASSWORD = "correct horse battery"  # noqa: S105 - of nobody
BEGAN = 1_792_000_000.0
SECRET = b"s" * 32


@dataclass
class Stock:
    """A console that runs, and what it stands on."""

    port: Port
    store: Store
    ids: list[str]
    config: Config


@cache
def pipeline() -> Pipeline:
    """The signs' pack, loaded once."""
    return Pipeline.load(PACK, max_false_positive_rate=0.01, secret=SECRET, threads=1)


@cache
def password_hash() -> str:
    """The hash of everybody's password: of the kind that is kept, and quick to compute."""
    salt = bytes(16)
    made = users._scrypt(PASSWORD, salt, log2_n=10)
    return f"10$8$1${users._text(salt)}${users._text(made)}"


def settings(folder: Path, *, reviewers: int = 1, **console: Any) -> Config:
    """Settings of a gateway whose suspects and users lie in this folder."""
    path = folder / "users.json"
    people = {"ada": ("analyst",), "ben": ("analyst",), "olga": ("operator",), "tom": ("trainer",)}
    write_users(path, [User(name, roles, "", password_hash()) for name, roles in people.items()])
    return Config(
        models=[Model(name="signs", pack=str(PACK), answer="ensemble")],
        gateway=Gateway(listen="127.0.0.1:0", metrics="", drain=0.5),
        suspects=Suspects(
            folder=str(folder / "kept"), key_file=str(folder / "keys" / "k"), reviewers=reviewers
        ),
        console=Console(listen="127.0.0.1:0", users_file=str(path), **console),
    )


@contextlib.contextmanager
def stocked(
    folder: Path,
    *,
    count: int = 12,
    reviewers: int = 1,
    audit: Audit = OFF,
    authenticator: Authenticator | None = None,
    **console: Any,
) -> Iterator[Stock]:
    """A console with `count` suspects, answering inside the `with`."""
    config = settings(folder, reviewers=reviewers, **console)
    keys = open_keys(config.suspects.key_file)
    store = open_store(keys, folder=config.suspects.folder)
    try:
        suspects = judged(store, disturbed(count))
        store.put(suspects)
        place = Place(store, audit, authenticator, {"signs": pipeline()})
        with opened(config, place) as port:
            yield Stock(port, store, [one.id for one in suspects], config)
    finally:
        store.close()


def disturbed(count: int, seed: int = 5) -> tuple[Floats, np.ndarray]:
    """Signs (N, C, H, W) under noise, stripes or a sticker, and their classes (N,)."""
    pictures = signs.make(count, seed=seed)
    images, generator = pictures.pixels().copy(), np.random.default_rng(seed)
    for index in range(count):
        image = images[index]
        if index % 3 == 0:
            image += (generator.choice((-1, 1), image.shape) * 12 / 255).astype(np.float32)
        elif index % 3 == 1:
            image[:, :, ::2] += np.float32(0.08)
        else:
            y, x = generator.integers(4, 20, 2)
            image[:, y : y + 7, x : x + 7] = generator.random((3, 7, 7))
    for index in range(count - count // 5, count):  # the last fifth: the first, sent again, darker
        images[index] = images[index % max(1, count // 10)] * np.float32(0.94 + 0.01 * (index % 5))
    levels = np.rint(np.clip(images, 0, 1) * 255) / np.float32(255)
    return levels.astype(np.float32), pictures.labels


def judged(
    store: Store, made: tuple[Floats, np.ndarray], *, model: str = "signs", tenant: str = ""
) -> list[Suspect]:
    """Suspects of these images, as a gateway with the signs' pack would keep them."""
    images, labels = made
    pack = pipeline()
    evidence = pack.evidence(images)
    answer = np.full((len(images), len(pack.classes)), 0.1 / (len(pack.classes) - 1), np.float32)
    answer[
        np.arange(len(images)), np.where(np.arange(len(images)) % 4, labels, (labels + 3) % 18)
    ] = 0.9
    verdicts = pack.judge(evidence, answer).rows()
    found = []
    for index, verdict in enumerate(verdicts):
        marks = {
            "client": store.pseudonym(f"camera-{index % 4}"),
            "tenant": tenant,
            "model": model,
            "pack": pack.pack.digest,
        }
        found.append(
            Suspect(
                id=store.suspect_id(images[index], **marks),
                taken=BEGAN + 60.0 * index,
                near=store.near(images[index]),
                sampled=index % 11 == 10,
                budget=0.01,
                verdict=verdict,
                image=images[index],
                evidence=evidence.rows[index],
                probabilities=evidence.probabilities[index],
                upstream=answer[index],
                noise_index=int(evidence.noise_index[index]),
                trace=f"{index:032x}",
                **marks,
            )
        )
    return found
