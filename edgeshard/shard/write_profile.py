"""What ``Store(wear=...)`` sets: the page size of shards, and how often a merger works. Pure values, all measured.

Where the bytes go, with rows of 110 B at 10 rows/s per agent (see the guide "flash"): with one agent, two thirds of
them are the master's WAL, because each commit of a merge writes the same seven pages again, whether it brings ten rows
or a thousand. With a hundred agents, three quarters are the shards' WALs: a page for each row. So to write less, merge
rarely and make the pages of shards small. The rest, the databases themselves, is written once per row and cannot
shrink.
"""

from __future__ import annotations

import os
from typing import Final, Literal

import attrs

from edgeshard import format
from edgeshard.errors import ConfigurationError, quoted

WriteProfileName = Literal["normal", "low"]


@attrs.frozen
class WriteProfile:
    """How much a store writes, and how often.

    Attributes:
        page_bytes: page size of new shards, unless their commits are large (see `page_bytes`). A commit writes whole
            pages: with 512 bytes, a third less than with 1024.
        interval_s: time between two merges of a watching merger, in seconds.
        rescan_s: time between two scans of all shards, in seconds.
        waits: whether the first row after a quiet time waits for the interval, to be merged together with others.
        held_s: how long a shard keeps rows that the master holds although its agent pauses, in seconds.
        keeps_wal: whether a watching merger leaves the master's WAL alone while nothing arrives: pages that many merges
            change are then copied into the database once.
        slowness: by which factor to lengthen the pause between two prunes by the store's own rules, each of which
            truncates the WAL.
    """

    page_bytes: int
    interval_s: float
    rescan_s: float
    waits: bool
    held_s: float
    keeps_wal: bool
    slowness: float


NORMAL: Final = WriteProfile(format.SHARD_PAGE_SIZE, 1.0, 30.0, waits=False, held_s=0.0, keeps_wal=False, slowness=1.0)

LOW: Final = WriteProfile(
    format.SHARD_PAGE_SIZE_LOW, 60.0, 600.0, waits=True, held_s=3_600.0, keeps_wal=True, slowness=10.0
)

#: The profiles by the values of ``wear=``.
PROFILES: Final[dict[str, WriteProfile]] = {"normal": NORMAL, "low": LOW}


#: A first transaction that writes as much as this, in bytes, gets a shard large pages. For commits of less, they take
#: more time and write more bytes (measured, for rows of 100 B, 1 KB and 10 KB).
LARGE_COMMIT_BYTES: Final = 64 << 10


def page_bytes(usual_bytes: int, written_bytes: int) -> int:
    """Return the page size of a new shard.

    Args:
        usual_bytes: the page size of the store's profile.
        written_bytes: what the shard's first transaction wrote.
    """
    return format.SHARD_PAGE_SIZE_LARGE if written_bytes >= LARGE_COMMIT_BYTES else usual_bytes


def parse_profile(wear: str, root: str | os.PathLike[str]) -> WriteProfile:
    """Parse the `wear=` argument of a store.

    Args:
        wear: one of `PROFILES`.
        root: the store's folder, for the error.

    Raises:
        ConfigurationError: there is no such profile.
    """
    if not isinstance(wear, str) or wear not in PROFILES:
        raise ConfigurationError("open store", root, f"wear must be 'normal' or 'low', got {quoted(wear)}")
    return PROFILES[wear]
