"""The Redis stream that agents append to and the aggregator reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redis import Redis

STREAM: Final = "edgeshard-bench"


def connect(url: str) -> Redis:
    """Connect to the server."""
    import redis

    return redis.Redis.from_url(url)
