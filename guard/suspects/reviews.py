"""What people say of suspects, and who looks at which: labels, their undoing, claims."""

from collections.abc import Sequence
from typing import Any

from guard.errors import UnknownSuspectError
from guard.suspects import queries
from guard.suspects.agreement import latest, settled
from guard.suspects.parts import Database, Session
from guard.suspects.record import Filter, Review, Row
from guard.suspects.rows import by_number, locked, reviews_of

UNSEEN = (
    "NOT EXISTS (SELECT 1 FROM reviews WHERE suspect = number AND source = 'reviewer'"
    " AND reviewer = ?)"
)


class Reviews:
    """Over any `Database`; each of these is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect

    def review(self, ids: Sequence[str], review: Review, required: int) -> list[Row]:
        """See `Store`."""
        if not ids:
            return []
        with self._database.write() as session:
            numbers = self._locked(session, ids)
            if review.source == "client":  # only a client's last word is kept: it may have many
                session.many(
                    "DELETE FROM reviews WHERE suspect = ? AND source = 'client' AND reviewer = ?",
                    [(number, review.reviewer) for number in numbers],
                )
            step = _step(session, review.at)
            session.many(
                "INSERT INTO reviews (suspect, source, reviewer, step, label, at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (number, review.source, review.reviewer, step, review.label, review.at)
                    for number in numbers
                ],
            )
            if review.source == "reviewer":
                session.many(
                    "UPDATE suspects SET claimed_by = '', claimed_until = 0"
                    " WHERE number = ? AND claimed_by = ?",
                    [(number, review.reviewer) for number in numbers],
                )
            return _settle(session, numbers, required)

    def undo(self, reviewer: str, required: int) -> list[Row]:
        """See `Store`."""
        mine = "source = 'reviewer' AND reviewer = ?"
        with self._database.write() as session:
            found = session.all(
                f"SELECT suspect, step FROM reviews WHERE {mine}"
                f" AND step = (SELECT max(step) FROM reviews WHERE {mine}) ORDER BY suspect",
                (reviewer, reviewer),
            )
            there = locked(session, self._dialect, "number", [number for number, _ in found])
            found = [one for one in found if one[0] in there.values()]
            if not found:
                return []
            session.all(
                f"DELETE FROM reviews WHERE {mine} AND step = ?",
                (reviewer, found[0][1]),
            )
            return _settle(session, [number for number, _ in found], required)

    def claim(
        self, reviewer: str, wanted: Filter, *, limit: int, now: float, until: float
    ) -> list[Row]:
        """See `Store`."""
        condition = queries.where(wanted, self._dialect).also(UNSEEN, reviewer)
        if wanted.state is None:
            condition = condition.also("state = ?", "open")
        mine = condition.also("claimed_by = ? AND claimed_until > ?", reviewer, now)
        free = condition.also("claimed_until <= ?", now)
        with self._database.write() as session:
            numbers: list[int] = []
            for one in (mine, free):
                found = session.all(
                    f"SELECT number FROM suspects WHERE {one.sql}"
                    " ORDER BY taken DESC, number DESC LIMIT ?" + self._dialect.skip,
                    (*one.values, limit - len(numbers)),
                )
                numbers += [number for (number,) in found]
            session.many(
                "UPDATE suspects SET claimed_by = ?, claimed_until = ? WHERE number = ?",
                [(reviewer, until, number) for number in numbers],
            )
            return by_number(session, numbers)

    def _locked(self, session: Session, ids: Sequence[str]) -> list[int]:
        """The numbers of these, in this order, so that nobody else settles them meanwhile."""
        found = locked(session, self._dialect, "id", ids)
        for one in ids:
            if one not in found:
                raise UnknownSuspectError(f"no suspect {one!r}")
        return [found[one] for one in dict.fromkeys(ids)]


def _step(session: Session, at: float) -> int:
    """A number above all that there were."""
    step: int = session.all("INSERT INTO steps (at) VALUES (?) RETURNING step", (at,))[0][0]
    session.all("DELETE FROM steps WHERE step < ?", (step,))
    return step


def _settle(session: Session, numbers: Sequence[int], required: int) -> list[Row]:
    """What the reviews of these come to now."""
    given: dict[int, list[Review]] = {number: [] for number in numbers}
    for number, review in reviews_of(session, numbers):
        given[number].append(review)
    outcome: list[tuple[Any, ...]] = [
        (*settled(latest(reviews), required), number) for number, reviews in given.items()
    ]
    session.many("UPDATE suspects SET state = ?, label = ? WHERE number = ?", outcome)
    return by_number(session, numbers)
