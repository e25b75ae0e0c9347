"""No transaction of a prune locks the master longer because it has a long history."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeshard
from edgeshard.format.ranges import Range
from edgeshard.retention import plan
from tests.support import history
from tests.support.hostile_shards import edit
from tests.support.last_known import LastKnown
from tests.support.pruning import add, note
from tests.support.tombstones import collect
from tests.support.wall_clock import Wall

FEW, MANY = 200, 2_000

#: By how much the counts of equal work differ: a search in a larger tree takes a step or two more.
TOLERANCE = 1.1


def make_store(folder: Path, kind: str, size: int, wall: Wall) -> edgeshard.Store:
    """A store with a history, ten tombstones, and rows of a table without a key, all of them old."""
    store = edgeshard.Store(folder)
    history.grow(store, kind, size)
    with store.shard("agent") as shard:
        for number in range(10):
            shard.write(LastKnown(f"sensor {number}", 1.0))
            shard.delete(LastKnown, f"sensor {number}")
    add(store, "other", *range(20))
    wall.advance(20)
    return store


def peer_with_gaps(store: edgeshard.Store, size: int) -> None:
    """Record that a peer has all rows, with as many gaps in the stream of the history as that has seqs."""
    streams = store.query("SELECT stream_id, max(last_seq, 1) FROM _edgeshard_streams")
    held = {
        bytes(stream_id): [Range(seq, seq) for seq in range(1, min(last_seq, size), 2)]
        for stream_id, last_seq in streams
    }
    note(store, held)


@pytest.mark.parametrize("kind", history.KINDS)
def test_a_collection_of_tombstones_locks_the_master_no_longer_after_a_long_history(
    kind: str, tmp_path: Path, wall: Wall
) -> None:
    longest = []
    for size in (FEW, MANY):
        store = make_store(tmp_path / str(size), kind, size, wall)
        peer_with_gaps(store, size)
        with history.counted_transactions() as work:
            collect(store)
        longest.append(max(work))
    assert longest[1] < TOLERANCE * longest[0]


@pytest.mark.parametrize("only_receipted", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", history.KINDS)
def test_a_prune_locks_the_master_no_longer_after_a_long_history(
    kind: str, only_receipted: bool, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_ROWS", "MIN_ROWS", "MAX_ROWS"):  # else the number of rows follows the time that it takes
        monkeypatch.setattr(plan, name, 50)
    longest = []
    for size in (FEW, MANY):
        store = make_store(tmp_path / str(size), kind, size, wall)
        peer_with_gaps(store, size)
        ((rows,),) = store.query("SELECT count(*) FROM agent_data")
        with history.counted_transactions() as work:
            report = store.prune(keep_rows=max(0, rows - 100), only_receipted=only_receipted)
        assert only_receipted or report.rows == min(100, rows)
        longest.append(max(work))
    assert longest[1] < TOLERANCE * longest[0]


def test_a_prune_forgets_a_year_of_arrivals_in_short_transactions(tmp_path: Path, wall: Wall) -> None:
    longest = []
    for size in (15_000, 60_000):
        store = edgeshard.Store(tmp_path / str(size))
        add(store, "agent", *range(20))
        wall.advance(1)
        add(store, "agent", *range(20))
        sql = (
            "INSERT INTO _edgeshard_arrivals WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < ?) "
            "SELECT -k, 0 FROM n"
        )
        edit(store.master_path, sql.replace("?", str(size)))
        with history.counted_transactions() as work:
            assert 30 == store.prune(keep_rows=10).rows
        assert 1 == store.query("SELECT count(*) FROM _edgeshard_arrivals")[0][0]
        longest.append(max(work))
    assert longest[1] < TOLERANCE * longest[0]
