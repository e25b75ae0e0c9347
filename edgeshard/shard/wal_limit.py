"""How long the WAL of a shard may become before its writer checkpoints it. With a disk budget, see `quota`.

A merger that truncates a shard before its writer checkpoints it saves one of four writes of each row: to the shard's
WAL, to its database, to the master's WAL, and to its database. So the WAL of an agent that writes much may hold what it
writes in a few seconds. That of an agent that writes little stays short, and all of them together take a small part of
the free space, for there may be a hundred agents and no merger. A longer WAL does not help an agent that commits small
rows one by one either: each commit writes the same page again, and a checkpoint writes it once.
"""

from __future__ import annotations

import os
from typing import Final

from edgeshard import sqlite
from edgeshard.options import Durability
from edgeshard.sqlite import Connection

#: Every WAL may become as long as this, in bytes. A checkpoint takes as long as writing as many bytes to the disk:
#: 8 to 15 ms for 4 MB, 20 to 38 ms for 16 MB (measured).
LEAST_BYTES: Final = 4_096_000

#: At "power" it is less, so that the WAL stays below the size at which a merger truncates the shard.
LEAST_BYTES_AT_POWER: Final = 2_867_200

#: No WAL may become longer than this, in bytes, ...
MOST_BYTES: Final = 64 << 20

#: ... or than this part of the free space.
FREE_PART: Final = 256

#: A WAL may hold what is written in this time, in seconds: a few passes of a merger.
HELD_S: Final = 4.0

#: When a WAL restarts, its file is not cut to less than this, in bytes: overwriting what is there takes half the time
#: of an fsync that makes the file longer (measured).
KEPT_BYTES: Final = 3_000_000

#: A commit of one small row writes less than this, in bytes, ...
_SMALL_COMMIT_BYTES: Final = 2_048

#: ... and at least this part of a page (measured: 1.3 pages for a row of 100 B, with pages of 1 KB; 0.2 pages a row for
#: a hundred of them in a commit, and 12 for a row of 10 KB).
_SMALL_COMMIT_PAGES: Final = 0.5

#: How long after the first measurement the second is due, in seconds; each further one is due after twice the time.
_FIRST_INTERVAL_S: Final = 0.05


def choose_limit(least_bytes: int, bytes_per_s: float, free_bytes: int) -> int:
    """Return how long the WAL may become, in bytes.

    Args:
        least_bytes: how long it may always become.
        bytes_per_s: how much its writer writes to it.
        free_bytes: the free space of its file system.
    """
    return max(least_bytes, min(int(bytes_per_s * HELD_S), MOST_BYTES, free_bytes // FREE_PART))


def are_pages_rewritten(pages: int, rows: int, page_bytes: int) -> bool:
    """Estimate, from the counts, whether most pages that a writer wrote were the same ones, written again."""
    row_pages = pages / max(1, rows)
    return row_pages >= _SMALL_COMMIT_PAGES and row_pages * page_bytes < _SMALL_COMMIT_BYTES


class WalLimit:
    """The limit of one shard's WAL, which follows what its writer writes.

    Args:
        path: the shard.
        durability: what a committed row survives.
    """

    def __init__(self, path: str, durability: Durability) -> None:
        self._path = path
        self._least_bytes = LEAST_BYTES_AT_POWER if durability == "power" else LEAST_BYTES
        self._bytes = 0
        self._pages = self._rows = 0
        self._measured_at = 0.0
        self._interval_s = _FIRST_INTERVAL_S

    def begin(self, connection: Connection) -> None:
        """Set the limit that holds for every WAL."""
        self._page_bytes = int(connection.pragma("page_size"))
        self._measured_at = 0.0
        self._set(connection, self._least_bytes)

    def follow(self, connection: Connection, now: float) -> float:
        """Let the limit follow what was written since the last call.

        Args:
            connection: the shard's.
            now: the time (monotonic, in seconds).

        Returns:
            When to call this again, at the latest.
        """
        pages, rows = sqlite.wal_pages_written(connection), connection.total_changes()
        elapsed_s = now - self._measured_at
        if self._measured_at and elapsed_s > 0:
            new_pages, new_rows = pages - self._pages, rows - self._rows
            pays = not are_pages_rewritten(new_pages, new_rows, self._page_bytes)
            self._adapt(connection, new_pages * self._page_bytes / elapsed_s if pays else 0.0)
            self._interval_s *= 2
        self._pages, self._rows, self._measured_at = pages, rows, now
        return now + self._interval_s

    def _adapt(self, connection: Connection, bytes_per_s: float) -> None:
        if max(self._bytes, bytes_per_s * HELD_S) <= self._least_bytes:
            return
        found = os.statvfs(os.path.dirname(self._path))
        wanted = choose_limit(self._least_bytes, bytes_per_s, found.f_bavail * found.f_frsize)
        if not self._bytes // 2 <= wanted <= self._bytes * 5 // 4:
            self._set(connection, wanted)

    def _set(self, connection: Connection, limit_bytes: int) -> None:
        self._bytes = limit_bytes
        connection.wal_autocheckpoint(limit_bytes // self._page_bytes)
        connection.pragma("journal_size_limit", max(KEPT_BYTES, limit_bytes * 3 // 4))
