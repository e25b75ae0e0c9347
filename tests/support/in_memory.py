"""A folder in memory for tests that sync often: there it costs nothing, and power cuts are tested elsewhere."""

from __future__ import annotations

import os
import shutil

#: The folder, or None if there is none: then `tempfile` chooses one on a disk.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

#: What a database server may need, in bytes; containers often have a folder in memory of only 64 MB.
_SERVER_BYTES = 2 << 30


def with_space() -> str | None:
    """Return the folder if a database server fits into it, or else None."""
    return IN_MEMORY if IN_MEMORY and shutil.disk_usage(IN_MEMORY).free >= _SERVER_BYTES else None
