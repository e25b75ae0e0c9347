"""Decide whose fault an error is, an attached database's or the master's, and what users put in the way."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.errors import SchemaConflictError
from edgeshard.master import catalog
from edgeshard.records import keys
from edgeshard.sources.attach import SourceRun
from edgeshard.sqlite import Connection


def is_masters_fault(connection: Connection, schema: str, error: Exception) -> bool:
    """Return whether an error is the master's fault, so that it must not quarantine the attached database.

    An attached database is always to blame for impossible data, for a lock on it, and for a read that takes more
    memory, or more steps of SQLite's virtual machine, than a sound database of its size needs; and for the end of a
    file, if it is shorter than it should be. Any other error of SQLite's is the master's fault if SQLite finds the
    attached database sound.

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
        and not (sqlite.is_short_read(error) and sqlite.is_cut_off(connection, schema))
        and sqlite.is_sound(connection, schema)
    )


def explain_with_objects_made_by_hand(connection: Connection, run: SourceRun, error: Exception) -> Exception:
    """Return an error that names what users made in the master, if that may be why rows cannot be merged.

    An index that was made by hand can refuse rows, or have an expression or a collation that only its maker's program
    can compute. A table that was made by hand can have the name of one that the source brings.

    Args:
        connection: the master.
        run: the source.
        error: what was raised, if it is not the master's fault.
    """
    if not isinstance(error, sqlite.DatabaseFailure) or not sqlite.is_bad_data(error):
        return error
    names = [table.name for table in run.tables]
    names += keys.companions({table.name: table.key for table in run.tables if table.key is not None})
    found = catalog.made_by_hand(connection, names)
    if not found:
        return error
    return SchemaConflictError("merge", run.file.path, catalog.explain_made_by_hand(error, found))
