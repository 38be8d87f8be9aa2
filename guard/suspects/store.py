"""What keeps suspects: one interface, for one machine (SQLite and files) and for many
(PostgreSQL and any S3).

Blocking, and safe to use from several threads and processes. Whatever returns is durable.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from guard.suspects.record import Counts, Filter, Floats, Page, Review, Row, Suspect

Order = Literal["newest", "oldest", "most_suspicious"]


class Store(Protocol):
    """Suspects, their reviews, and the keys that make them readable.

    Raises `StoreError` (GuardError family) where the store is away, full or damaged;
    `UnknownSuspectError` for an id that is not there, or was erased.
    """

    def pseudonym(self, name: str) -> str:
        """The keyed hash that stands for a client's name, in `Suspect.client`; never rotates."""

    def suspect_id(self, image: Floats, *, client: str, tenant: str, model: str, pack: str) -> str:
        """What `Suspect.id` must be for this image (C, H, W) from this pseudonym.

        Like `pseudonym` and `near` it asks nobody: it works while the store is away.
        """

    def near(self, image: Floats) -> tuple[int, ...]:
        """What `Suspect.near` must be for this image (C, H, W)."""

    def put(self, suspects: Sequence[Suspect]) -> None:
        """Keep these; a suspect that is there already is only seen once more.

        All or none: nothing counts as kept before this returns.
        """

    def get(self, suspect_id: str) -> Suspect:
        """A suspect in full, opened."""

    def row(self, suspect_id: str) -> Row:
        """What the index knows of it."""

    def rows(
        self,
        wanted: Filter = Filter(),  # noqa: B008 - frozen
        *,
        order: Order = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of rows, 10,000 at most; `after` is the last page's.

        Costs the same however many there are. Raises InputError for an `after` that is none.
        """

    def counts(self, wanted: Filter = Filter()) -> Counts:  # noqa: B008 - frozen
        """How many there are."""

    def similar(self, suspect_id: str, limit: int = 20, *, tenant: str | None = None) -> list[Row]:
        """Those that look like it, most alike first, itself not among them; of one tenant."""

    def claim(
        self, reviewer: str, wanted: Filter, *, limit: int = 1, seconds: float = 300.0
    ) -> list[Row]:
        """Open suspects for this reviewer alone for a while: nobody else is given them meanwhile.

        None that the reviewer has labelled; those already claimed by this reviewer come first.
        """

    def review(self, ids: Sequence[str], review: Review, *, required: int = 1) -> list[Row]:
        """Label these, in one step that `undo` takes back as one.

        required: different reviewers who must agree (adversarial or benign) before it is settled.
        Two who contradict each other make it disputed, until one changes their mind or a third
        gives the majority.
        """

    def undo(self, reviewer: str, *, required: int = 1) -> list[Row]:
        """Take back the reviewer's last labelling; the rows it had changed, if any."""

    def erase(self, wanted: Filter) -> int:
        """Destroy the keys of these, their files and all that is known of them; how many.

        Raises ValueError for a filter that leaves everything out: nobody erases all by accident.
        """

    def rotate(self) -> int:
        """Make a new key-encryption key, wrap every record's key with it, forget the old ones.

        Readers and writers go on meanwhile; the number of records wrapped anew. After it, what was
        erased cannot be read from a backup either.
        """

    def erased_since(self) -> float | None:
        """When (seconds since the epoch) the first was erased since the last rotation, if any.

        It survives a crash: whoever starts next knows that a rotation is due.
        """

    def upkeep(self, *, keep_seconds: float | None, quota_bytes: int | None) -> int:
        """Erase what is too old, and the oldest beyond the quota (labelled ones last); how many."""

    def close(self) -> None:
        """Let go of files and connections."""
