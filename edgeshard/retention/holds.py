"""A hold: a stream or shard that may still deliver older changes, so that newer tombstones stay."""

from __future__ import annotations

from typing import Final

import attrs

#: Below all timestamps, which count from 0: no tombstone may be deleted.
NO_TIMESTAMP: Final = -1


@attrs.frozen
class Hold:
    """A source of changes that may be older than a tombstone.

    Attributes:
        timestamp: all that it may still deliver is newer than this, so tombstones up to this may be deleted.
        reason: what it is, and what to do.
    """

    timestamp: int
    reason: str
