"""A store of suspects with some in it, and the people who come to the desk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from guard.config.access import Role
from guard.gateway.audit.recorder import Audit
from guard.gateway.identity import Identity
from guard.suspects.folder import FolderBlobs
from guard.suspects.keys import KeyFile
from guard.suspects.record import Suspect
from guard.suspects.sqlite import SqliteDatabase
from guard.suspects.store import Store
from guard.suspects.suspect_store import SuspectStore
from guard.testing import clean_images, suspicious_images
from guard.verdict import Decision, Verdict

MODEL, PACK = "tiny", "sha256:" + "0" * 64
MISSING = "a" * 32  # the form of an id, and nobody's


@contextmanager
def swift_folder() -> Iterator[Path]:
    """A folder in memory where there is one: what is tested with it need not survive anything."""
    memory = Path("/dev/shm")  # noqa: S108
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def open_shelf(folder: Path) -> SuspectStore:
    """An embedded store with its keys beside the folder."""
    database = SqliteDatabase(folder / "kept" / "index.sqlite")
    return SuspectStore(database, FolderBlobs(folder / "kept"), KeyFile(folder / "keys"))


def suspect(
    store: Store,
    number: int,
    *,
    client: str = "jwt:camera",
    tenant: str = "",
    p_value: float = 0.002,
    decision: Decision = Decision.BLOCK,
) -> Suspect:
    """A suspect that no other number equals: stripes, with a pixel that tells them apart."""
    images = suspicious_images([number % 3]) if decision else clean_images([number % 3])
    image = images[0].copy()
    image[0, 0, 0] = number / 1000
    sender = store.pseudonym(client)
    verdict = Verdict(
        decision=decision,
        p_value=p_value,
        label=number % 3,
        scores={"stripes": 0.3, "detector": 2.5},
        p_values={"stripes": 0.004, "detector": p_value},
    )
    return Suspect(
        id=store.suspect_id(image, client=sender, tenant=tenant, model=MODEL, pack=PACK),
        taken=1_700_000_000.0 + number,
        model=MODEL,
        pack=PACK,
        tenant=tenant,
        client=sender,
        near=store.near(image),
        sampled=False,
        budget=0.01,
        verdict=verdict,
        image=image,
        evidence=np.array([0.3, number], np.float32),
        probabilities=np.array([0.2, 0.3, 0.5], np.float32),
        upstream=np.array([0.1, 0.8, 0.1], np.float32) if number % 2 else None,
        noise_index=number,
        trace="0af7651916cd43dd8448eb211c80319c",
    )


def filled(store: Store, count: int = 5, **differs: object) -> list[Suspect]:
    """So many in it, oldest first."""
    kept = [suspect(store, number, **differs) for number in range(count)]  # type: ignore[arg-type]
    store.put(kept)
    return kept


def person(name: str, *roles: Role, scope: str = "") -> Identity:
    """Somebody with these roles; of a tenant where `scope` names one."""
    return Identity(f"jwt:{name}", frozenset(roles), scope or f"jwt:{name}", "token", scope)


class Notes(Audit):
    """An audit log that only remembers; `full`: it can write nothing."""

    enabled = True

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str, dict[str, object]]] = []
        self.full = False

    def record(
        self, event: str, *, actor: str = "", outcome: str = "ok", **details: object
    ) -> None:
        """See `Audit`."""
        self.lines.append((event, actor, outcome, details))

    async def act(
        self, event: str, *, actor: str = "", outcome: str = "ok", **details: object
    ) -> None:
        """See `Audit`."""
        from guard.errors import AuditError

        if self.full:
            raise AuditError("the audit log cannot be written, so this is not done")
        self.record(event, actor=actor, outcome=outcome, **details)
