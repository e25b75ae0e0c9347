"""Choose where a connection keeps what does not fit into its cache: in temporary files, or in memory.

SQLite writes large sorts, the pages that a savepoint may have to restore, and the copy that VACUUM makes to temporary
files, in the first of some folders that it may write to. Where it finds none, as in a container with a read-only root,
every larger statement would fail; and where that folder is full, it would fail although the store has space. Such a
connection keeps them in memory. What the package itself does then takes a bounded amount, see `spills`.

Where the folder is cannot be set from here: SQLite reads the environment once, when it is loaded.
"""

from __future__ import annotations

import functools
import os
import stat
import time
from typing import Final

import apsw

#: Where SQLite looks, in this order (unixTempFileDir in os_unix.c).
_FOLDERS: Final = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108

#: A folder with less space than this, in bytes, is not relied on.
_FREE_BYTES_MIN: Final = 64 << 20

#: PRAGMA temp_store (https://sqlite.org/pragma.html#pragma_temp_store).
_IN_MEMORY: Final = 2


def choose(connection: apsw.Connection) -> None:
    """Let a connection keep temporary data in memory if there is no folder for temporary files with some space."""
    if _is_space_lacking(int(time.monotonic())):
        connection.pragma("temp_store", _IN_MEMORY)


@functools.lru_cache(maxsize=1)
def _is_space_lacking(_second: int) -> bool:
    """Look for space at most once a second: a merge opens thousands of connections."""
    return not _has_space(find_folder())


def spills(connection: apsw.Connection) -> bool:
    """Return whether a connection writes temporary data to files, so that their size is no matter of memory."""
    return int(connection.pragma("temp_store")) != _IN_MEMORY


def find_folder() -> str | None:
    """Return the folder in which SQLite makes temporary files, or None if it finds none."""
    return next((folder for folder in _FOLDERS if folder and _is_usable(folder)), None)


def _is_usable(folder: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(folder).st_mode) and os.access(folder, os.W_OK | os.X_OK)
    except (OSError, ValueError):
        return False


def _has_space(folder: str | None) -> bool:
    if folder is None:
        return False
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return not found.f_blocks or found.f_bavail * found.f_frsize >= _FREE_BYTES_MIN  # no blocks: it has no limit
