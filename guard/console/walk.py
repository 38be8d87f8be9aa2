"""The way through some suspects, one after the other: a page of the queue, or a review."""

from dataclasses import dataclass, field
from typing import Literal

Way = Literal["queue", "review"]
LONGEST = 1000  # skipped suspects remembered


@dataclass
class Walk:
    """Ids in order. Of one session; another tab's walk takes its place."""

    ids: list[str] = field(default_factory=list)
    way: Way = "queue"
    query: str = ""  # the filter it goes by, as an address's query
    skipped: dict[str, None] = field(default_factory=dict)  # in this review, the oldest first
    done: set[str] = field(default_factory=set)  # labelled on this walk

    def begin(self, ids: list[str], way: Way, query: str) -> None:
        """Another walk."""
        if way == "review" != self.way or query != self.query:
            self.skipped = {}
        self.ids, self.way, self.query, self.done = ids, way, query, set()

    def beside(self, suspect_id: str) -> tuple[str | None, str | None]:
        """The ids before and after this one, None where there is none."""
        if suspect_id not in self.ids:
            return None, None
        at = self.ids.index(suspect_id)
        before = self.ids[at - 1] if at > 0 else None
        return before, self.ids[at + 1] if at + 1 < len(self.ids) else None

    def place(self, suspect_id: str) -> tuple[int, int] | None:
        """Which of how many this is, from 1."""
        if suspect_id not in self.ids:
            return None
        return self.ids.index(suspect_id) + 1, len(self.ids)

    def leave(self) -> None:
        """At its end: what was not labelled was skipped."""
        for one in self.ids:
            if one not in self.done:
                self.skipped[one] = None
        while len(self.skipped) > LONGEST:
            del self.skipped[next(iter(self.skipped))]
