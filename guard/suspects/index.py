"""What is known of suspects without opening one: rows, their sealed keys, and the meta data.

One class for every database; reviews and claims are in `reviews.py`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from guard.errors import StoreError
from guard.suspects import queries
from guard.suspects.parts import Database, Session, Value
from guard.suspects.queries import Where
from guard.suspects.record import Counts, Filter, Page, Row, Suspect
from guard.suspects.rows import SELECT, by_number, full, locked, named, one
from guard.suspects.schema import prepare
from guard.suspects.store import Order

INSERT = (
    "INSERT INTO suspects (id, taken, model, pack, tenant, client, sampled, decision, p_value,"
    " predicted, alarms, seen, bytes, state, label, claimed_by, claimed_until)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, 'open', NULL, '', 0)"
    " ON CONFLICT (id) DO UPDATE SET seen = suspects.seen + 1,"
    " sampled = CASE WHEN excluded.sampled = 1 THEN 1 ELSE suspects.sampled END"
    " RETURNING number, seen"
)
SEEN = (
    "UPDATE suspects SET seen = seen + 1, sampled = CASE WHEN ? = 1 THEN 1 ELSE sampled END"
    " WHERE id = ? RETURNING number"
)
ALIKE = 3  # codes that two pictures must share: fewer happen by chance
MOST_ALIKE = 500  # of those that share a code, the newest are looked at


class Sealed(NamedTuple):
    """A sealed record: where it is, and its key under which key-encryption key."""

    blob: str
    size: int
    kek: int
    wrapped: bytes


class Wrapped(NamedTuple):
    """A record's key that is to be wrapped anew."""

    number: int
    id: str
    tenant: str
    kek: int
    wrapped: bytes


class Added(NamedTuple):
    """What came of `Index.add`: all was kept, unless ids are missing or the ring is old."""

    missing: tuple[str, ...] = ()  # were thought to be known, and are not
    stale: bool = False  # a key-encryption key is no longer to be used
    ahead: bool = False  # one is newer than any that was used: `Index.use` it first
    superfluous: tuple[str, ...] = ()  # records that another process had written meanwhile


class Index:
    """Over any `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect

    # ── the store as a whole ─────────────────────────────────────────────────────────────────────

    def prepare(self) -> bool:
        """Make the tables where there are none; whether this store has never been used."""
        return prepare(self._database)

    def claim_store(self, check: str, kek: int) -> tuple[str, int]:
        """Whose store this is (made ours where it is new), and the oldest key it may be given."""
        with self._database.write() as session:
            session.many(
                "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
                [("check", check), ("fence", str(kek))],
            )
            found = dict(session.all("SELECT name, value FROM meta"))
        return found["check"], int(found["fence"])

    def mark(self, name: str, value: str | None) -> None:
        """Write something about the store, or forget it."""
        with self._database.write() as session:
            _mark(session, name, value)

    def marked(self, name: str) -> str | None:
        """What was written."""
        with self._database.read() as session:
            found = session.all("SELECT value FROM meta WHERE name = ?", (name,))
        return str(found[0][0]) if found else None

    # ── records ──────────────────────────────────────────────────────────────────────────────────

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of these that are there."""
        condition, *values = queries.among("id", ids)
        with self._database.read() as session:
            found = session.all(f"SELECT id FROM suspects WHERE {condition}", values)
        return {str(one) for (one,) in found}

    def add(self, entries: Sequence[tuple[Suspect, Sealed | None]]) -> Added:
        """Keep all of these, or none; one that comes without its record is only seen again."""
        try:
            return self._add(entries)
        except _MissingError as error:
            return Added(missing=error.ids)

    def _add(self, entries: Sequence[tuple[Suspect, Sealed | None]]) -> Added:
        with self._database.write() as session:
            fence = _fence(session, self._dialect.share)
            keks = [sealed.kek for _, sealed in entries if sealed]
            if keks and (min(keks) < fence or max(keks) > fence):
                return Added(stale=min(keks) < fence, ahead=max(keks) > fence)
            missing, superfluous = [], []
            for suspect, sealed in sorted(entries, key=lambda entry: entry[0].id):
                if sealed is not None:
                    if not _insert(session, suspect, sealed):
                        superfluous.append(sealed.blob)
                elif not session.all(SEEN, (int(suspect.sampled), suspect.id)):
                    missing.append(suspect.id)
            if missing:
                raise _MissingError(missing)
        return Added(superfluous=tuple(superfluous))

    def sealed(self, suspect_id: str) -> tuple[Row, Sealed]:
        """A row, and how to open its record."""
        with self._database.read() as session:
            number, row = one(session, suspect_id)
            found = session.all(
                "SELECT blob, kek, wrapped FROM sealed WHERE suspect = ?", (number,)
            )
        if not found:
            raise StoreError(f"suspect {suspect_id}: the index lacks its key; it is damaged")
        blob, kek, wrapped = found[0]
        return row, Sealed(blob, row.bytes, kek, bytes(wrapped))

    def blobs(self, names: Sequence[str]) -> set[str]:
        """Those of these records that the index knows; a name begins with its suspect's id."""
        condition, *ids = queries.among("id", sorted({name.partition("-")[0] for name in names}))
        with self._database.read() as session:
            found = session.all(
                f"SELECT blob FROM sealed JOIN suspects ON number = suspect WHERE {condition}",
                ids,
            )
        return {str(one) for (one,) in found}

    def where(self, wanted: Filter) -> Where:
        """What a filter means."""
        return queries.where(wanted, self._dialect)

    def erase(
        self, wanted: Where, *, limit: int, at: float, enough: int | None = None
    ) -> tuple[list[str], int]:
        """Forget the oldest of these, until `enough` bytes are free; records' names, bytes."""
        columns = "number, blob, near, bytes"
        with self._database.write() as session:
            found = session.all(
                f"SELECT {columns} FROM suspects JOIN sealed ON suspect = number"
                f" WHERE {wanted.sql} ORDER BY taken, number LIMIT ?",
                (*wanted.values, limit),
            )
            gone: list[tuple[int, str, str, int]] = []
            for one in found:
                if enough is not None and sum(size for *_, size in gone) >= enough:
                    break
                gone.append(one)
            there = locked(session, self._dialect, "number", [number for number, *_ in gone])
            gone = [one for one in gone if one[0] in there.values()]
            if gone:
                _delete(session, [(number, _codes(near)) for number, _, near, _ in gone])
                _mark_first(session, "erased", at)
        return [blob for _, blob, _, _ in gone], sum(size for *_, size in gone)

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────

    def row(self, suspect_id: str) -> Row:
        """What is known of one."""
        with self._database.read() as session:
            return one(session, suspect_id)[1]

    def rows(self, wanted: Filter, order: Order, after: str | None, limit: int) -> Page:
        """A page of rows."""
        condition = queries.after(queries.where(wanted, self._dialect), order, after)
        end = f"WHERE {condition.sql} {queries.ordered(order)} LIMIT ?"
        with self._database.read() as session:
            found = named(session.all(f"{SELECT} {end}", (*condition.values, limit + 1)))
            rows = full(session, found[:limit])
        more = len(found) > limit
        return Page(tuple(rows), queries.cursor_of(order, found[limit - 1]) if more else None)

    def counts(self, wanted: Filter) -> Counts:
        """How many."""
        condition = queries.where(wanted, self._dialect)
        with self._database.read() as session:
            found = session.all(
                "SELECT state, label, count(*), sum(bytes) FROM suspects"
                f" WHERE {condition.sql} GROUP BY state, label",
                condition.values,
            )
        by_state = {"open": 0, "agreed": 0, "disputed": 0}
        by_label = {"adversarial": 0, "benign": 0, "unsure": 0}
        for state, label, count, _ in found:
            by_state[state] += count
            if label is not None:
                by_label[label] += count
        total, size = sum(one[2] for one in found), sum(int(one[3]) for one in found)
        return Counts(total, size, cast(Any, by_state), cast(Any, by_label))

    def similar(self, suspect_id: str, limit: int, tenant: str | None) -> list[Row]:
        """Those that share most codes with it."""
        with self._database.read() as session:
            number, _ = one(session, suspect_id)
            (codes,) = session.all("SELECT near FROM sealed WHERE suspect = ?", (number,))[0]
            shared: dict[int, int] = {}
            for code in _codes(codes):
                for (other,) in session.all(
                    "SELECT suspect FROM near WHERE code = ? ORDER BY suspect DESC LIMIT ?",
                    (code, MOST_ALIKE),
                ):
                    shared[other] = shared.get(other, 0) + 1
            shared.pop(number, None)
            numbers = [other for other, count in shared.items() if count >= ALIKE]
            numbers.sort(key=lambda other: (-shared[other], -other))
            rows = by_number(session, numbers[: limit if tenant is None else MOST_ALIKE])
        return [row for row in rows if tenant in (None, row.tenant)][:limit]

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────

    def fence(self) -> int:
        """The newest key-encryption key that was ever used; nothing is kept with an older one."""
        with self._database.read() as session:
            return _fence(session)

    def use(self, kek: int, *, rotating: bool = False) -> bool:
        """From now on nothing is kept with an older key. False, and nothing, where it was so.

        rotating: what was erased up to now is unreadable once the older keys are gone.
        """
        with self._database.write() as session:
            if _fence(session, self._dialect.lock) >= kek:
                return False
            _mark(session, "fence", str(kek))
            if rotating:
                found = session.all("SELECT value FROM meta WHERE name = 'erased'")
                for (at,) in found:
                    _mark_first(session, "rotating", float(at))
                _mark(session, "erased", None)
        return True

    def wrapped_before(self, kek: int, after: int, limit: int) -> list[Wrapped]:
        """Keys that are wrapped with an older key, by suspect's number."""
        with self._database.read() as session:
            found = session.all(
                "SELECT number, id, tenant, kek, wrapped FROM sealed"
                " JOIN suspects ON number = suspect"
                " WHERE kek < ? AND suspect > ? ORDER BY suspect LIMIT ?",
                (kek, after, limit),
            )
        return [Wrapped(n, i, tenant, old, bytes(key)) for n, i, tenant, old, key in found]

    def rewrap(self, old: Sequence[Wrapped], new: Sequence[tuple[int, bytes]]) -> None:
        """Put new wrappings in the place of these, where they are still there."""
        rows = [
            (kek, wrapped, one.number, one.kek)
            for one, (kek, wrapped) in zip(old, new, strict=True)
        ]
        with self._database.write() as session:
            session.many(
                "UPDATE sealed SET kek = ?, wrapped = ? WHERE suspect = ? AND kek = ?", rows
            )

    def check(self) -> None:
        """StoreError where the index is damaged."""
        self._database.check()

    def backup(self, path: Path) -> None:
        """A copy of the index."""
        self._database.backup(path)

    def scrub(self) -> None:
        """What was deleted shall not linger."""
        self._database.scrub()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()


class _MissingError(Exception):
    """Undoes the transaction."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__()
        self.ids = tuple(ids)


def _insert(session: Session, suspect: Suspect, sealed: Sealed) -> bool:
    """Whether it was new."""
    verdict = suspect.verdict
    values: tuple[Value, ...] = (
        *(suspect.id, suspect.taken, suspect.model, suspect.pack, suspect.tenant, suspect.client),
        *(int(suspect.sampled), int(verdict.decision), queries.p_value_in(verdict.p_value)),
        *(verdict.label, json.dumps(suspect.alarms), sealed.size),
    )
    number, seen = session.all(INSERT, values)[0]
    if seen > 1:
        return False
    near = sorted(set(suspect.near))
    session.all(
        "INSERT INTO sealed (suspect, blob, kek, wrapped, near) VALUES (?, ?, ?, ?, ?)",
        (number, sealed.blob, sealed.kek, sealed.wrapped, json.dumps(near)),
    )
    session.many(
        "INSERT INTO near (code, suspect) VALUES (?, ?)", [(code, number) for code in near]
    )
    return True


def _delete(session: Session, gone: Sequence[tuple[int, set[int]]]) -> None:
    session.many(
        "DELETE FROM near WHERE code = ? AND suspect = ?",
        [(code, number) for number, codes in gone for code in codes],
    )
    for table, column in (("sealed", "suspect"), ("reviews", "suspect"), ("suspects", "number")):
        session.many(
            f"DELETE FROM {table} WHERE {column} = ?",
            sorted((number,) for number, _ in gone),
        )


def _codes(kept: str) -> set[int]:
    """Codes as a row holds them; none where somebody has written what they never are."""
    try:
        return set(map(int, json.loads(kept)))
    except (ValueError, TypeError):
        return set()


def _fence(session: Session, lock: str = "") -> int:
    return int(session.all("SELECT value FROM meta WHERE name = 'fence'" + lock)[0][0])


def _mark(session: Session, name: str, value: str | None) -> None:
    if value is None:
        session.all("DELETE FROM meta WHERE name = ?", (name,))
        return
    session.all(
        "INSERT INTO meta (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def _mark_first(session: Session, name: str, at: float) -> None:
    """The time of the first of its kind stays."""
    session.all(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        (name, repr(at)),
    )
