"""How far each import has come: rows of the table import_state, written together with the rows that they count.

A state is written in the transaction that writes the rows it counts. So both are in a shard together, reach a master
together, and come back with a snapshot together. Whatever is killed, restored or repeated: a row was imported if and
only if a state counts it. The table has a key, so a prune leaves it alone. Of an import's states, the one that counts
the most rows is kept, not the one with the latest time: a device's clock may be set back between two imports.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import StorageError
from edgeshard.files import fingerprint, paths, store_folder
from edgeshard.master import catalog, database, reading, row_states
from edgeshard.records import declare
from edgeshard.shard import own_rows

#: The name of the table.
TABLE: Final = "import_state"

#: Forms of files.
SQLITE, NDJSON, CSV = "sqlite", "ndjson", "csv"


@declare.table(name=TABLE, key="import_id", conflict="max:rows")
@attrs.frozen
class ImportState:
    """How far the import of one table of a file has come.

    Attributes:
        import_id: its random id.
        agent: the agent as which it is imported.
        source: the name of the file, without its folder.
        table_name: the table that the rows go to.
        form: "sqlite", "ndjson" or "csv".
        rows: how many rows were imported.
        position: the last key or rowid of a SQLite table, or the number of bytes of another file, up to which that is.
        columns: the columns of a SQLite table that the digests cover.
        head: the digest of the first row.
        head_bytes: up to where the first row is, in bytes; 0 of a SQLite table.
        fingerprint: the digest of all that was imported; "" of a table with an INTEGER PRIMARY KEY.
        tail: the last keys of such a table, each with the digest of its row.
    """

    import_id: str
    agent: str
    source: str
    table_name: str
    form: str
    rows: int
    position: int
    columns: list[str]
    head: str
    head_bytes: int
    fingerprint: str
    tail: list[Any]


def begin(agent: str, source: str, table: str, form: str) -> ImportState:
    """Return the state of an import that has not imported anything yet."""
    return ImportState(secrets.token_hex(8), agent, source, table, form, 0, 0, [], "", 0, "", [])


def load(root: Path, agent: str) -> dict[str, ImportState]:
    """Return the states of an agent, by their ids: those in the master, and newer ones that are pending in its shard.

    Raises:
        StorageError: the master or the shard cannot be read.
    """
    # the shard first: what a merge takes out of it meanwhile is in the master then
    pending = _pending(paths.shard(store_folder.resolve_shards(root), paths.shard_stem(agent)))
    found: dict[str, ImportState] = {}
    for state in (*_merged(paths.master(root), agent), *pending):
        known = found.get(state.import_id)
        if known is None or state.rows >= known.rows:
            found[state.import_id] = state
    return found


def _merged(master: Path, agent: str) -> Iterator[ImportState]:
    condition = f"agent = CAST(x'{agent.encode().hex()}' AS TEXT)"  # it takes no bindings
    source = reading.Source(str(master), partial(database.open_to_read, master), "_stream, _seq", condition)
    return reading.read(source, ImportState, "raise")


def _pending(shard: Path) -> list[ImportState]:
    with sqlite.translate_errors("read shard", str(shard)):
        if not fingerprint.exists(shard):
            return []
        try:
            source = own_rows.source(str(shard), partial(own_rows.open_to_read, str(shard), has_file=True))
            return list(reading.read(source, ImportState, "raise"))
        except StorageError:
            if fingerprint.exists(shard):
                raise
            return []  # a merge has just removed it, so the master has its rows


def missing_rows(root: Path, agent: str) -> int:
    """Return how many rows of an agent are known to exist and are missing from the master."""
    connection = database.open_to_read(paths.master(root))
    try:
        with database.translate_errors("import into", paths.master(root)):
            return sum(len(gap) for gap in row_states.gaps(connection) if gap.agent == agent)
    finally:
        connection.close()


def column_types(root: Path, table: str) -> dict[str, str]:
    """Map the names of a table's columns in the master, in lower case, to their types."""
    connection = database.open_to_read(paths.master(root))
    try:
        with database.translate_errors("import into", paths.master(root)):
            return dict(catalog.columns_of_table(connection, table)[1])
    finally:
        connection.close()
