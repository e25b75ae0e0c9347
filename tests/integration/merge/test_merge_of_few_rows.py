"""A merge of few rows reads no table of the master from its beginning to its end, however large the master is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard.sqlite import forks
from tests.support.keyed_schema_versions import plain
from tests.support.stores import new_store

SMALL, LARGE = 200, 2_000

#: How many streams bring something from a master with many pruned ranges.
STREAMS = 20

#: How much more a merge may scan in a large master than in a small one, in rows for each row more that it has.
SCANS = {"pruned_ranges": 3}  # of the source: to find what is new there takes time in proportion to its ranges

#: How many rows more it may scan anyway.
MORE_ROWS_MAX = 100

KEYED = plain(None, {"key": "k", "name": "item"}, k=str, v=int)
WITH_HISTORY = plain(None, {"key": "k", "name": "item", "history": True}, k=str, v=int)


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how many rows each statement of a connection that writes has read in full scans."""
    found: Counter[str] = Counter()

    class Counting(apsw.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.trace_v2(apsw.SQLITE_TRACE_PROFILE, count)

    def count(event: dict[str, Any]) -> None:
        found[event["sql"]] += event["stmt_status"]["SQLITE_STMTSTATUS_FULLSCAN_STEP"]

    monkeypatch.setattr(forks, "Connection", Counting)
    return found


def plain_rows(store: edgeshard.Store, hub: edgeshard.Store, size: int) -> Callable[[], Any]:
    """Let an agent bring one row to a master of many plain rows."""
    write(store, "first", *({"n": n} for n in range(size)))
    store.merge()
    write(store, "second", {"n": -1})
    return store.merge


def changes(store: edgeshard.Store, hub: edgeshard.Store, size: int) -> Callable[[], Any]:
    """Let an agent change one row of a large keyed table."""
    write(store, "first", *(KEYED(str(n), n) for n in range(size)))
    store.merge()
    write(store, "second", KEYED("7", -1))
    return store.merge


def changes_with_history(store: edgeshard.Store, hub: edgeshard.Store, size: int) -> Callable[[], Any]:
    """The same with a history, to which the earlier version goes."""
    write(store, "first", *(WITH_HISTORY(str(n), n) for n in range(size)))
    store.merge()
    write(store, "second", WITH_HISTORY("7", -1))
    return store.merge


def deletions(store: edgeshard.Store, hub: edgeshard.Store, size: int) -> Callable[[], Any]:
    """Let an agent delete one row of a large keyed table with a history."""
    write(store, "first", *(WITH_HISTORY(str(n), n) for n in range(size)))
    store.merge()
    with store.shard("second") as shard:
        shard.delete(WITH_HISTORY, "7")
    return store.merge


def transactions_with_holes(store: edgeshard.Store, hub: edgeshard.Store, size: int) -> Callable[[], Any]:
    """Let a hub that holds many transactions merge a few more, of which a part was pruned before."""
    write_transactions(store, "first", size)
    hub.merge([store.master_path])
    write_transactions(store, "second", 3, "pruned")
    store.prune(table="pruned", keep_rows=0)
    return lambda: hub.merge([store.master_path])


def pruned_ranges(store: edgeshard.Store, hub: edgeshard.Store, size: int) -> Callable[[], Any]:
    """Let a hub merge a few streams of a master that has many pruned ranges."""
    write_transactions(store, "first", size, "pruned")
    store.prune(table="pruned", keep_rows=0)
    hub.merge([store.master_path])
    for number in range(STREAMS):
        write_transactions(store, f"agent{number}", 1)
    return lambda: hub.merge([store.master_path])


def write_transactions(store: edgeshard.Store, agent: str, count: int, table: str = "agent_data") -> None:
    """Write transactions whose second row is one of another table, and merge them."""
    with store.shard(agent) as shard:
        for n in range(count):
            with shard.transaction():
                shard.write({"n": n})
                shard.write({"n": n}, table=table)
                shard.write({"n": n})
    store.merge()


def write(store: edgeshard.Store, agent: str, *records: Any) -> None:
    with store.shard(agent) as shard:
        shard.write_many(records)


@pytest.mark.parametrize(
    "prepare",
    [plain_rows, changes, changes_with_history, deletions, transactions_with_holes, pruned_ranges],
    ids=lambda it: it.__name__,
)
def test_a_merge_of_few_rows_scans_no_large_table(
    prepare: Callable[[edgeshard.Store, edgeshard.Store, int], Callable[[], Any]],
    tmp_path: Path,
    scanned: Counter[str],
) -> None:
    rows: list[Counter[str]] = []
    for size in (SMALL, LARGE):
        store, hub = (edgeshard.Store(tmp_path / f"{name}-{size}") for name in ("store", "hub"))
        new_store(hub.root)
        merge = prepare(store, hub, size)
        scanned.clear()
        assert merge().rows
        rows.append(Counter(scanned))
    assert rows[0], "no statement was counted"
    more = {sql: count - rows[0][sql] for sql, count in rows[1].items() if count - rows[0][sql] > 1}
    assert sum(more.values()) <= MORE_ROWS_MAX + SCANS.get(prepare.__name__, 0) * (LARGE - SMALL), more
