"""A copy of the live master, whole or not at all (see publishing).

Mergers write while the copy is made. Their commits stay in the master's log until the copy is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgeshard import sqlite
from edgeshard.files import atomic_file
from edgeshard.master import database

_ACTION = "snapshot to"


def snapshot(
    master_path: Path,
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy the master into a file of its own; see `Store.snapshot`."""
    path = atomic_file.resolve_target(target)
    connection = database.open_master(master_path, writable=False)
    try:
        with (
            sqlite.translate_errors(_ACTION, path),
            atomic_file.staged(path, master_path, _ACTION, force=force) as unfinished,
        ):
            sqlite.back_up(connection, unfinished, progress)
    finally:
        connection.close()
