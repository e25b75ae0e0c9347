"""Own _edgeshard_database: what a database is, its id, its generation and its next row id."""

from __future__ import annotations

from typing import Final

from edgeshard import format, sqlite
from edgeshard.sqlite import Connection

#: Inserts the row of a new shard; binds the agent's name.
INSERT_SHARD: Final = (
    f"INSERT INTO _edgeshard_database(database_id, role, agent_id) VALUES (randomblob(16), '{format.SHARD}', ?)"
)

#: Inserts the row of a new master or bundle; binds the role.
INSERT: Final = "INSERT INTO _edgeshard_database(database_id, role) VALUES (randomblob(16), ?)"

#: SQL for the id of the main database.
OWN_ID: Final = "(SELECT database_id FROM main._edgeshard_database)"

#: Counts one more change of the database.
COUNT_CHANGE: Final = "UPDATE main._edgeshard_database SET generation = generation + 1"


def role_and_agent(connection: Connection) -> tuple[str, str | None]:
    """Return what the database is (shard, master or bundle), and a shard's agent; ("", None) if it says nothing."""
    rows = sqlite.fetch(connection, "SELECT role, agent_id FROM main._edgeshard_database LIMIT 1")
    return rows[0] if rows else ("", None)


def insert(connection: Connection, role: str) -> None:
    """Give a new database a random id, and its role: `format.MASTER` or `format.BUNDLE`."""
    connection.execute(INSERT, (role,))


def next_id(connection: Connection) -> int:
    """Return the id that the next row gets: ids are assigned in order of arrival."""
    # without a row: a database in memory, in place of a master that does not exist yet
    return int(sqlite.scalar(connection, "SELECT coalesce(max(next_id), 1) FROM main._edgeshard_database"))


def generation(connection: Connection) -> int:
    """Return how often the master was changed by a merge or a prune."""
    return int(sqlite.scalar(connection, "SELECT generation FROM main._edgeshard_database"))


def database_id(connection: Connection) -> bytes:
    """Return the id of the main database."""
    found: bytes = sqlite.scalar(connection, "SELECT database_id FROM main._edgeshard_database")
    return found


def notes_known(connection: Connection) -> tuple[bytes | None, int]:
    """Return the id of the notes of removed shards, and up to which one the master knows them all."""
    # without a row: a database in memory, in place of a master that does not exist yet
    rows = sqlite.fetch(connection, "SELECT notes_id, notes_known FROM main._edgeshard_database")
    return rows[0] if rows else (None, 0)


def set_notes_known(connection: Connection, known: tuple[bytes | None, int]) -> None:
    """Record what `notes_known` returns, in the caller's transaction."""
    connection.execute("UPDATE main._edgeshard_database SET notes_id = ?, notes_known = ?", known)


def increment_generation(connection: Connection) -> None:
    """Count one more change of the database, in the caller's transaction."""
    connection.execute(COUNT_CHANGE)


def set_next_id(connection: Connection, next_id: int) -> None:
    """Record the id that the next row gets, in the transaction that uses the ids below it."""
    connection.execute("UPDATE main._edgeshard_database SET next_id = ?", (next_id,))
