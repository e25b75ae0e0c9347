"""Own edgeshard_database: a master's id, generation and next row id."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.sqlite import Connection


def next_id(connection: Connection) -> int:
    """The id that the next row gets: ids are given in the order in which rows come."""
    return int(sqlite.scalar(connection, "SELECT next_id FROM main.edgeshard_database"))


def generation(connection: Connection) -> int:
    """How often the master was merged into, or pruned."""
    return int(sqlite.scalar(connection, "SELECT generation FROM main.edgeshard_database"))


def database_id(connection: Connection) -> bytes:
    """Which database the master is."""
    found: bytes = sqlite.scalar(connection, "SELECT database_id FROM main.edgeshard_database")
    return found


def increment_generation(connection: Connection) -> None:
    """Count one more change of the database, in the caller's transaction."""
    connection.execute("UPDATE main.edgeshard_database SET generation = generation + 1")
