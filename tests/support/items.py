"""A record class, and functions that write its records and read them from PostgreSQL, for tests of rejected rows."""

from __future__ import annotations

from typing import Any

import attrs

import edgeshard
from tests.support.postgres_server import fetch

#: PostgreSQL's text cannot store it.
NUL = "a\0b"


@attrs.frozen
class Item:
    n: int
    text: str = ""


def write(store: edgeshard.Store, agent: str, *records: Any) -> None:
    """Write records, each in a transaction of its own, and merge."""
    with store.shard(agent) as shard:
        for record in records:
            shard.write(record)
    assert store.merge().complete


def items(dsn: str, table: str = "item") -> list[int]:
    """Return the numbers of the items in PostgreSQL."""
    return [n for (n,) in fetch(dsn, f"select n from {table} order by 1")]
