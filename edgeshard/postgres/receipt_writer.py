"""Record in the master what PostgreSQL holds: a receipt, which is only written after the commit there.

Nobody needs to confirm the database: who pushes rows to it by its DSN has chosen it.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from edgeshard import sqlite
from edgeshard.errors import StorageError
from edgeshard.format.ranges import Range
from edgeshard.log_fields import fields
from edgeshard.master import database, receipts
from edgeshard.postgres.target import Target

logger = logging.getLogger("edgeshard.push")

#: How often to write a receipt during a push, in seconds.
_INTERVAL_S: Final = 5.0

#: How long to wait for a merger, in seconds; then the next push writes the receipt.
_BUSY_TIMEOUT_S: Final = 1.0


class ReceiptWriter:
    """Writes a database's receipt into a master.

    Args:
        path: the master.
        target: the database.
    """

    def __init__(self, path: Path, target: Target) -> None:
        self._path = path
        self._target = target
        self._written: tuple[bytes, dict[bytes, list[Range]]] | None = None
        self._tried_at = 0.0

    def write_if_due(self) -> None:
        """Write the receipt if that was not tried within the last seconds."""
        if time.monotonic() > self._tried_at + _INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Write the receipt if it changed. If that fails, log it: a push does not fail because of it."""
        held = {stream_id: list(ranges) for stream_id, ranges in self._target.held.items() if ranges}
        receipt = (self._target.database_id, held)
        if not self._target.database_id or receipt == self._written:
            return
        self._tried_at = time.monotonic()
        try:
            _write(self._path, *receipt)
        except StorageError as error:
            logger.warning("%s; the next push tries again", error, extra=fields(error=error))
        else:
            self._written = receipt


def _write(path: Path, database_id: bytes, held: dict[bytes, list[Range]]) -> None:
    connection = database.open_master(path, writable=True)
    try:
        with sqlite.translate_errors("write receipt to", str(path)):
            sqlite.set_busy_timeout(connection, _BUSY_TIMEOUT_S)
            said = (
                (stream_id, [(seqs.first, seqs.last, receipts.HELD) for seqs in held[stream_id]])
                for stream_id in sorted(held)
            )
            receipts.record(connection, database_id, receipts.POSTGRESQL, said)
    finally:
        connection.close()
