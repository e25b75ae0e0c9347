"""Decide whether an error while an attached database was read is that database's fault or the master's."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.sqlite import Connection


def is_masters_fault(connection: Connection, schema: str, error: Exception) -> bool:
    """Return whether an error is the master's fault, so that it must not quarantine the attached database.

    An attached database is always to blame for impossible data, for a lock on it, and for a read that takes more
    memory, or more steps of SQLite's virtual machine, than a sound database of its size needs. Any other error of
    SQLite's is the master's fault if SQLite finds the attached database sound.

    Args:
        connection: a connection to the master.
        schema: the name by which the other database is attached.
        error: what was raised.
    """
    return (
        isinstance(error, sqlite.DatabaseFailure)
        and not isinstance(error, sqlite.BUSY)
        and not sqlite.is_bad_data(error)
        and not sqlite.is_exhaustion(error)
        and sqlite.is_sound(connection, schema)
    )
