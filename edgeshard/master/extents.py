"""Own edgeshard_ranges, edgeshard_blocks and edgeshard_transactions."""

from __future__ import annotations

from typing import Final

from edgeshard import sqlite
from edgeshard.format.ranges import Range
from edgeshard.sqlite import Connection

#: Records a transaction of several rows; binds its first and last row id.
INSERT_TRANSACTION: Final = "INSERT INTO main.edgeshard_transactions VALUES (?, ?)"


def transaction_at(connection: Connection, row_id: int) -> Range | None:
    """The ids of the transaction that a row belongs to, where it is one of several rows."""
    sql = "SELECT first_id, last_id FROM edgeshard_transactions WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
    found = sqlite.fetch(connection, sql, (row_id,))
    return Range(*found[0]) if found and found[0][1] >= row_id else None
