"""Own _edgeshard_erasures: up to which erasure of the store this master has done all of them.

The store lists what was erased in a file next to the master (`edgeshard.retention.erased_file`). An older master that
is put back has done fewer erasures than that file lists, and so has a master if an erasure was killed: the next merge
does the rest.
"""

from __future__ import annotations

import datetime

from edgeshard import sqlite
from edgeshard.sqlite import Connection


def last_done(connection: Connection) -> int:
    """Return the number of the last erasure that was done in this master; 0 if there was none."""
    return int(sqlite.scalar(connection, "SELECT max(number) FROM main._edgeshard_erasures") or 0)


def record(connection: Connection, number: int) -> None:
    """Record that all erasures up to this one are done."""
    connection.execute("DELETE FROM main._edgeshard_erasures WHERE number < ?", (number,))
    at = datetime.datetime.now(datetime.UTC).isoformat()
    connection.execute("INSERT OR REPLACE INTO main._edgeshard_erasures VALUES (?, ?)", (number, at))
