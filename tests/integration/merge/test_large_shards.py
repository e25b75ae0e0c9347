"""Shards of agents that write much: truncated before their rows are checkpointed, a chunk at a time, and cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.files import paths, scan
from edgeshard.format import blocks
from edgeshard.merge import chunk, truncate
from edgeshard.merge.merger import Merger
from edgeshard.shard import handle, truncations, wal_limit
from edgeshard.shard import shard as shard_module
from edgeshard.shard.shard import Shard
from edgeshard.sources import attach
from edgeshard.sources.attach import SourceRun
from tests.support.processes import sql

MB = 1_000_000
ROW = {"text": "x" * 10_000}


def write(shard: Shard, megabytes: float) -> None:
    """Write rows of 10 kB, 10 in a transaction."""
    for _ in range(int(megabytes * 10)):
        shard.write_many([ROW] * 10)


def wal_bytes(path: str) -> int:
    return os.stat(paths.wal(path)).st_size


def limit_of(shard: Shard) -> int:
    connection = shard._connection
    return int(connection.pragma("wal_autocheckpoint")) * int(connection.pragma("page_size"))


def count(store: edgeshard.Store) -> int:
    ((rows,),) = sql(store.master_path, "select count(*) from agent_data")
    return int(rows)


class Clock:
    """The monotonic clock of writers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        for module in (handle, shard_module):
            patch.setattr(module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# -- the writer -------------------------------------------------------------------------------------------------------


def test_the_wal_of_an_agent_that_writes_much_may_become_longer_until_it_writes_less(
    store: edgeshard.Store, clock: Clock
) -> None:
    with store.shard("agent") as shard:
        shard.write(ROW)
        assert abs(limit_of(shard) - wal_limit.LEAST_BYTES) < 10_000
        write(shard, 2)
        clock.now += 0.1
        shard.write(ROW)
        assert wal_limit.MOST_BYTES - 10_000 < limit_of(shard) <= wal_limit.MOST_BYTES  # 20 MB/s
        write(shard, 2)
        clock.now += 1
        shard.write(ROW)
        assert 8 * MB < limit_of(shard) < 12 * MB
        write(shard, 0.1)
        clock.now += 1
        shard.write(ROW)
        assert abs(limit_of(shard) - wal_limit.LEAST_BYTES) < 10_000


@pytest.mark.parametrize(
    ("payload", "commit_rows", "grows"),
    [(100, 1, False), (100, 100, True), (1_000, 1, True), (10_000, 1, True), (10_000, 100, True)],
)
def test_the_wal_of_an_agent_that_commits_small_rows_one_by_one_does_not_grow(
    store: edgeshard.Store, clock: Clock, payload: int, commit_rows: int, grows: bool
) -> None:
    row = {"text": "x" * payload}
    with store.shard("agent") as shard:
        for _ in range(1_000 // commit_rows):
            shard.write_many([row] * commit_rows)
        clock.now += 0.06
        shard.write(row)
        assert grows == (limit_of(shard) > 2 * wal_limit.LEAST_BYTES)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_an_agent_that_writes_little_has_a_short_wal(store: edgeshard.Store, clock: Clock, durability: Any) -> None:
    limits = {"process": wal_limit.LEAST_BYTES, "power": wal_limit.LEAST_BYTES_AT_POWER}
    with store.shard("agent", durability=durability) as shard:
        for _ in range(100):
            shard.write({"text": "x" * 100})
            clock.now += 0.1
        assert abs(limit_of(shard) - limits[durability]) < 10_000


def test_a_budget_sets_the_limit_alone(tmp_path: Path, clock: Clock) -> None:
    store = edgeshard.Store(tmp_path / "store", max_bytes=100 * MB)
    longest = 0
    with store.shard("agent") as shard:
        for _ in range(20):
            write(shard, 0.5)
            clock.now += 0.1
            longest = max(longest, wal_bytes(shard.path))
    assert longest < 6 * MB


# -- truncations ------------------------------------------------------------------------------------------------------


def test_rows_that_are_truncated_in_time_never_reach_the_file_of_their_shard(
    store: edgeshard.Store, clock: Clock
) -> None:
    merger = Merger(store.root, watching=True)
    with store.shard("agent") as shard:
        shard.write(ROW)
        write(shard, 1)
        clock.now += 0.1
        for _ in range(3):
            write(shard, 12)
            assert wal_bytes(shard.path) > 12 * MB
            assert 1_200 <= merger.run().truncated <= 1_301
            # its file has none of the rows, and its WAL takes no space
            assert (os.stat(shard.path).st_size < 64 << 10, 0) == (True, wal_bytes(shard.path))
    merger.close()
    assert 3_701 == count(store)
    assert store.verify().ok


def test_a_merge_checkpoints_the_wal_of_a_shard_once_it_is_long(store: edgeshard.Store) -> None:
    merges = 0
    with store.shard("agent") as shard:
        write(shard, 0.3)
        store.merge()
        before = os.stat(shard.path)
        while os.stat(shard.path).st_mtime_ns == before.st_mtime_ns and merges < 10:
            assert wal_bytes(shard.path) < truncate._LONG_WAL_BYTES
            write(shard, 0.3)
            assert 30 == store.merge().truncated
            merges += 1
        assert 2 <= merges <= 4
        # the pages of the truncated rows are not copied into the file
        assert os.stat(shard.path).st_size < 100_000


def test_a_long_wal_is_not_emptied_while_its_agent_writes(
    store: edgeshard.Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    merger = Merger(store.root, watching=True)
    with store.shard("agent") as shard:
        shard.write(ROW)
        write(shard, 1)
        clock.now += 0.1
        write(shard, 12)
        real = sqlite.checkpoint

        def checkpoint(connection: Any) -> None:
            real(connection)
            if connection.filename == shard.path:
                shard.write(ROW)

        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "checkpoint", checkpoint)
            patch.setattr(sqlite, "shrink_wal", None)  # it would be an error to get there
            assert 1_301 == merger.run().truncated
        assert wal_bytes(shard.path) > 12 * MB
        merger.run()
        assert 0 == wal_bytes(shard.path)
    merger.close()


def late(patch: pytest.MonkeyPatch, shard: Shard, count: int) -> None:
    """Let the agent write while the merge is about to truncate its shard."""
    real = truncate.truncate

    def truncate_late(*arguments: Any) -> truncate.Truncated | None:
        if count:
            shard.write_many([ROW] * count)
        return real(*arguments)

    patch.setattr(truncate, "truncate", truncate_late)


@pytest.mark.parametrize(("count", "is_put_back"), [(150, True), (260, False)])
def test_how_much_is_put_back_is_limited_in_bytes_however_many_rows_the_stream_has_had(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, count: int, is_put_back: bool
) -> None:
    merger = Merger(store.root, watching=True)
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(20_000)])
        assert 20_000 == merger.run().rows
        assert 20_000 == merger.run().truncated
        write(shard, 5)
        late(monkeypatch, shard, count)
        monkeypatch.setattr(truncations, "delete_piecewise", None)  # it would be an error to get there
        report = merger.run()
        assert (500, 500 if is_put_back else 0) == (report.rows, report.truncated)
        assert count + (0 if is_put_back else 500) == sql(shard.path, "select count(*) from agent_data")[0][0]
    merger.close()


def test_large_rows_are_deleted_in_pieces_of_limited_size(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    real = truncations.delete_piecewise

    def delete(*arguments: Any) -> Iterator[int]:
        pieces.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(truncations, "delete_piecewise", delete)
    with store.shard("agent") as shard:
        write(shard, 5)
        late(monkeypatch, shard, 260)
        assert 500 == store.merge().truncated
    assert [True] == [90 < rows < 110 for rows in pieces]


# -- groups -----------------------------------------------------------------------------------------------------------


def runs_of(*sizes: tuple[int, int]) -> list[SourceRun]:
    # inode, size, times; then those of the WAL
    states = [(1, file, 0, 0, 1, wal, 0, 0) if wal else (1, file, 0, 0) for file, wal in sizes]
    return [SourceRun(scan.ShardFile(f"/{n}.db", state), own=True) for n, state in enumerate(states)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(1, 0)] * 250, [100, 100, 50]),
        ([(1, 60)] * 4, [1, 1, 1, 1]),
        ([(20, 20)] * 5, [2, 2, 1]),
        ([(200, 0), (50, 50), (101, 0), (1, 1)], [1, 1, 1, 1]),
        ([(1, 1), (99, 0), (1, 0)], [1, 2]),
        ([], []),
    ],
)
def test_a_group_has_no_more_than_one_transaction_copies(
    monkeypatch: pytest.MonkeyPatch, sizes: list[tuple[int, int]], expected: list[int]
) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 100)
    assert expected == [len(group) for group in attach.groups(runs_of(*sizes))]


def test_each_large_shard_is_truncated_before_the_next_one_is_copied(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for module, name in ((chunk, "commit_chunk"), (truncate, "truncate")):
        real = getattr(module, name)

        def step(*arguments: Any, real: Any = real, name: str = name) -> Any:
            steps.append(name)
            return real(*arguments)

        monkeypatch.setattr(module, name, step)
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 2 * MB)
    with store.shard("a") as one, store.shard("b") as other:
        for shard in (one, other):
            write(shard, 1.5)
        assert 300 == store.merge().rows
    assert ["commit_chunk", "truncate"] * 2 == steps


# -- the master's checkpoints -----------------------------------------------------------------------------------------


def test_the_master_is_checkpointed_during_a_long_merge(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeshard.master.database.CHECKPOINT_BYTES", MB)
    monkeypatch.setattr(blocks, "CHUNK_BYTES", MB)
    merger = Merger(store.root, watching=True)
    with store.shard("agent") as shard:
        write(shard, 10)
        assert 1_000 == merger.run().rows
        assert wal_bytes(str(store.master_path)) < 6 * MB
    merger.close()
