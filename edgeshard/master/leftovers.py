"""Remove what was left in a store's folder when processes were killed while they made a file of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgeshard.files import paths


def remove(root: Path) -> None:
    """Remove unfinished files of the store itself.

    They take space of a disk budget, and one of them may be a second name of the master. The caller holds
    ``merge.lock``, as whoever makes these files does. Unfinished shards, snapshots and bundles are left to those who
    make them again.

    Raises:
        OSError: the folder cannot be read, or a file cannot be removed.
    """
    made = [path(root).name for path in (paths.master, paths.restored, paths.removed_shards, paths.erased)]
    for entry in sorted(os.listdir(root)):
        base = next((entry.removesuffix(suffix) for suffix in paths.SIDE_FILES if entry.endswith(suffix)), entry)
        if any(paths.is_unfinished(base, name) for name in made):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(root / entry)
