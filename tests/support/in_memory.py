"""A folder in memory for tests that sync often: there it costs nothing, and power cuts are tested elsewhere."""

from __future__ import annotations

import os

#: The folder, or None if there is none: then `tempfile` chooses one on a disk.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
