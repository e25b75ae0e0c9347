"""Copy the live master into one file, which appears complete or not at all (see files/atomic_file).

Mergers may write while the copy is made. Their commits stay in the master's WAL until it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeshard import sqlite
from edgeshard.files import atomic_file
from edgeshard.master import database
from edgeshard.retention import by_hand

_ACTION: Final = "snapshot to"


def snapshot(
    master_path: Path,
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy the master into a file of its own; see `Store.snapshot`."""
    path = atomic_file.resolve_target(target)
    by_hand.settle_file(master_path)  # so that those who read the copy find no contradiction
    connection = database.open_master(master_path, writable=False)
    try:
        with (
            sqlite.translate_errors(_ACTION, path),
            atomic_file.staged(path, master_path, _ACTION, force=force) as unfinished,
        ):
            sqlite.back_up(connection, unfinished, progress)
    finally:
        connection.close()
