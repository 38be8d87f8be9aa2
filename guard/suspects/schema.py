"""The tables of an index. `number` is a suspect's own, for joins; nobody outside sees it."""

from guard.errors import StoreError
from guard.suspects.parts import Database, Dialect, Session

VERSION = "1"


def statements(dialect: Dialect) -> tuple[str, ...]:
    """What makes the tables."""
    return (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        f"""CREATE TABLE suspects (
            number {dialect.number}, id TEXT NOT NULL UNIQUE, taken DOUBLE PRECISION NOT NULL,
            model TEXT NOT NULL, pack TEXT NOT NULL, tenant TEXT NOT NULL, client TEXT NOT NULL,
            sampled INTEGER NOT NULL, decision INTEGER NOT NULL, p_value DOUBLE PRECISION NOT NULL,
            predicted BIGINT NOT NULL, alarms TEXT NOT NULL, seen BIGINT NOT NULL,
            bytes BIGINT NOT NULL, state TEXT NOT NULL, label TEXT,
            claimed_by TEXT NOT NULL, claimed_until DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX suspects_taken ON suspects (taken, number)",
        "CREATE INDEX suspects_p_value ON suspects (p_value, number)",
        "CREATE INDEX suspects_state ON suspects (state, taken, number)",
        "CREATE INDEX suspects_queue ON suspects (state, p_value, number)",
        "CREATE INDEX suspects_client ON suspects (client, taken)",
        "CREATE INDEX suspects_claimed ON suspects (claimed_by) WHERE claimed_by <> ''",
        # All that a count may ask for, so that it reads this index alone.
        """CREATE INDEX suspects_counted ON suspects (state, label, bytes, model, tenant, predicted,
            decision, sampled, p_value, taken, alarms)""",
        f"""CREATE TABLE sealed (
            suspect BIGINT PRIMARY KEY, blob TEXT NOT NULL, kek BIGINT NOT NULL,
            wrapped {dialect.bytes} NOT NULL, near TEXT NOT NULL)""",
        "CREATE INDEX sealed_kek ON sealed (kek, suspect)",
        "CREATE TABLE near (code BIGINT, suspect BIGINT, PRIMARY KEY (code, suspect))",
        """CREATE TABLE reviews (
            suspect BIGINT, source TEXT, reviewer TEXT, step BIGINT, label TEXT NOT NULL,
            at DOUBLE PRECISION NOT NULL, PRIMARY KEY (suspect, source, reviewer, step))""",
        "CREATE INDEX reviews_step ON reviews (source, reviewer, step)",
        f"CREATE TABLE steps (step {dialect.number}, at DOUBLE PRECISION NOT NULL)",
    )


def prepare(database: Database) -> bool:
    """Make the tables where there are none; whether this store has never been used.

    Raises StoreError for an index that a newer guard made.
    """
    with database.read() as session:
        if "meta" in _tables(session, database.dialect):
            return _checked(session)
    with database.write() as session:
        session.all(database.dialect.alone)
        if "meta" not in _tables(session, database.dialect):
            for statement in statements(database.dialect):
                session.all(statement)
            session.all("INSERT INTO meta (name, value) VALUES ('version', ?)", (VERSION,))
        return _checked(session)


def _tables(session: Session, dialect: Dialect) -> set[str]:
    return {str(name) for (name,) in session.all(dialect.tables)}


def _checked(session: Session) -> bool:
    found = dict(session.all("SELECT name, value FROM meta WHERE name IN ('version', 'check')"))
    if found.get("version") != VERSION:
        raise StoreError(f"the index of suspects has layout {found.get('version')}, not {VERSION}")
    return "check" not in found
