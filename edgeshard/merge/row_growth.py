"""Measure how much larger rows become when they are merged, to predict what the next chunk takes."""

from __future__ import annotations

from typing import Final

from edgeshard import sqlite
from edgeshard.budget import policy
from edgeshard.files import fingerprint, paths
from edgeshard.sqlite import Connection

#: How many times their size rows take in the master before that is measured, and how much more is assumed than was.
_FIRST_GROWTH, _GROWTH_MARGIN = 1.6, 1.2

#: The growth of rows is measured over chunks of at least this many bytes.
_MEASURED_BYTES_MIN: Final = 16 << 10

#: A chunk that outgrew its quota is tried again with the assumption that rows grow by so many times more.
_REFUSED_GROWTH: Final = 2.0


class RowGrowth:
    """How much larger rows become when they are merged.

    Attributes:
        in_file: how much larger rows are in the master's file than in a shard.
        in_wal: the same in the master's WAL.
    """

    def __init__(self) -> None:
        self.reset()
        self._used_bytes = self._wal_bytes = self._wal_pages = 0

    def reset(self) -> None:
        """Assume what is assumed of unknown rows: after many refusals in a row, the next pass would not even try."""
        self.in_file = self.in_wal = _FIRST_GROWTH

    def begin(self, connection: Connection) -> None:
        """Measure the master before a chunk."""
        self._used_bytes, self._wal_pages = sqlite.used_bytes(connection), sqlite.wal_pages_written(connection)
        self._wal_bytes = fingerprint.size(paths.wal(connection.filename))

    def measure(self, connection: Connection, copied_bytes: int) -> None:
        """Measure the master after a chunk of this many bytes."""
        if copied_bytes < _MEASURED_BYTES_MIN:
            # too few rows tell little, but what was assumed after a refusal may be too much by now
            self.in_file = max(_FIRST_GROWTH, self.in_file / _REFUSED_GROWTH)
            self.in_wal = max(_FIRST_GROWTH, self.in_wal / _REFUSED_GROWTH)
            return
        wal_bytes = (sqlite.wal_pages_written(connection) - self._wal_pages) * int(connection.pragma("page_size"))
        if not self._wal_bytes:
            # a page that SQLite writes again before the commit takes the same place
            wal_bytes = min(wal_bytes, fingerprint.size(paths.wal(connection.filename)))
        self.in_file = _smoothed(self.in_file, (sqlite.used_bytes(connection) - self._used_bytes) / copied_bytes)
        self.in_wal = _smoothed(self.in_wal, (wal_bytes - policy.COMMIT_BYTES) / copied_bytes)

    def refuse(self) -> None:
        """Assume more after a chunk that was rolled back."""
        self.in_file, self.in_wal = self.in_file * _REFUSED_GROWTH, self.in_wal * _REFUSED_GROWTH


def _smoothed(known: float, found: float) -> float:
    """Smooth the estimate of row growth: raise it immediately, lower it gradually."""
    found *= _GROWTH_MARGIN
    return max(1.0, found, (known + found) / 2)
