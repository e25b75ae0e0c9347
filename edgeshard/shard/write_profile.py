"""How sparing a store is with what it writes: the settings behind ``Store(wear=...)``. Pure values, all measured.

Where the bytes go, of rows of 110 B at 10 rows/s an agent (README, "Flash"): with one agent two thirds of them are the
master's log, since each commit of a merge writes the same seven pages again, whether it brings ten rows or a thousand;
with a hundred agents three quarters are the shards' logs, a page for each row. So merges are to be rare, and the pages
of shards small. What is left, the databases themselves, is written once for each row, and cannot be less.
"""

from __future__ import annotations

import os
from typing import Final, Literal

import attrs

from edgeshard import format
from edgeshard.errors import ConfigurationError

Wear = Literal["normal", "low"]


@attrs.frozen
class WriteProfile:
    """How sparing to be.

    Attributes:
        page_bytes: pages of shards that are made. A commit writes whole pages: of 512 bytes a third less than of 1024.
        interval_s: between two merges of a merger that watches, in seconds.
        rescan_s: between two looks at all shards, in seconds.
        waits: whether the first row after a quiet time waits for the interval, so that it is merged with others.
        held_s: for how long a shard keeps rows that the master holds although its agent pauses, in seconds.
        keeps_log: whether a merger that watches leaves the master's log as it is while nothing comes: pages that many
            merges change are then copied into the database once.
        slowness: by how much longer than usual it waits between two prunes by the store's own rules, each of which
            empties the log.
    """

    page_bytes: int
    interval_s: float
    rescan_s: float
    waits: bool
    held_s: float
    keeps_log: bool
    slowness: float


NORMAL: Final = WriteProfile(format.SHARD_PAGE_SIZE, 1.0, 30.0, waits=False, held_s=0.0, keeps_log=False, slowness=1.0)

LOW: Final = WriteProfile(
    min(format.SHARD_PAGE_SIZES), 60.0, 600.0, waits=True, held_s=3_600.0, keeps_log=True, slowness=10.0
)

#: By the name that users give it.
LEVELS: Final[dict[str, WriteProfile]] = {"normal": NORMAL, "low": LOW}


def parse_profile(wear: str, root: str | os.PathLike[str]) -> WriteProfile:
    """What a store was given.

    Args:
        wear: one of `LEVELS`.
        root: the store's folder, for the error.

    Raises:
        ConfigurationError: there is no such level.
    """
    if not isinstance(wear, str) or wear not in LEVELS:
        raise ConfigurationError("open store", root, f"wear is 'normal' or 'low', not {wear!r}")
    return LEVELS[wear]
