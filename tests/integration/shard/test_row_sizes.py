"""What rows take in the master is estimated well enough for a merge to have space for a transaction of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.budget import policy
from edgeshard.records import declare
from edgeshard.shard import inserts
from edgeshard.shard.row_sizes import RowSizes
from tests.support.forms import others_slow
from tests.support.stores import shard_path


@edgeshard.table(index=["first", "second"])
@attrs.frozen
class Indexed:
    first: str
    second: int
    text: str


@edgeshard.table(key="name")
@attrs.frozen
class Current:
    name: str
    text: str


@edgeshard.table(key="name", history=True)
@attrs.frozen
class Remembered:
    name: str
    text: str


KINDS: dict[str, tuple[type, Callable[[int, int], Any]]] = {
    "plain": (edgeshard.AgentData, lambda n, size: {"n": n, "x": "x" * size}),
    "mixed": (edgeshard.AgentData, lambda n, size: {"n": n, "x": "x" * (size if n % 3 else 1)}),
    "indexed": (Indexed, lambda n, size: Indexed(f"{n * 7_919 % 100_003:030}", n * 31 % 1_009, "x" * size)),
    "current": (Current, lambda n, size: Current(str(n), "x" * size)),
    "remembered": (Remembered, lambda n, size: Remembered(str(n % 10), "x" * size)),
}


@pytest.mark.parametrize("size", others_slow([1, 100, 900, 1_400, 2_050, 2_800, 4_100, 6_200], [1, 2_050]))
@pytest.mark.parametrize("kind", KINDS)
def test_a_transaction_takes_no_more_in_the_master_than_it_counts(store: edgeshard.Store, kind: str, size: int) -> None:
    cls, make = KINDS[kind]
    records = [make(n, size) for n in range(300_000 // (size + 100))]
    with store.shard("agent") as shard:
        shard.write(records[0])  # so that the tables are there
        store.merge()
        before = sqlite_bytes(store.master_path), sqlite_bytes(shard_path(store, "agent"))
        shard.write_many(records)
        grown_there = sqlite_bytes(shard_path(store, "agent")) - before[1]
        store.merge()
    grown = sqlite_bytes(store.master_path) - before[0]
    table = declare.table_of(cls)
    if cls is edgeshard.AgentData:
        writer = inserts.for_dicts(table, "agent")
    else:
        writer = inserts.for_class(table, (lambda: 1_795_608_000_000_000) if table.is_timestamped else None)
    rows = [writer.encode((1 << 32) + n, record) for n, record in enumerate(records)]
    weight = policy.weight(*RowSizes.of(table).measure(rows))
    # a merge has space besides for what each commit writes
    assert grown <= weight * policy.MASTER_GROWTH * grown_there + policy.COMMIT_BYTES // 4
    assert weight <= 4.0


def test_small_plain_rows_count_as_they_are() -> None:
    sizes = RowSizes.of(declare.table_of(edgeshard.AgentData))
    assert 1.0 == policy.weight(*sizes.measure([(1, "agent", 0.0, "x" * 900)] * 10))
    assert policy.weight(*sizes.measure([(1, "agent", 0.0, "x" * 2_050)])) > 1.5


def test_what_sqlite_does_not_store_has_no_size() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        RowSizes.of(declare.table_of(edgeshard.AgentData)).measure([(object(),)])


def sqlite_bytes(path: Path) -> int:
    """Return the size of a database with what is in its WAL."""
    connection = sqlite.connect(str(path), writable=False)
    try:
        return int(connection.pragma("page_count")) * int(connection.pragma("page_size"))
    finally:
        connection.close()
