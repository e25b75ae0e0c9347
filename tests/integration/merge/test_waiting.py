"""What writes to a master waits while another program holds it locked for a moment, whatever it did before."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.merge.merger import Merger
from tests.support.processes import sql
from tests.support.stores import numbers

#: How long the other program holds the lock, in seconds.
HELD_S = 0.3


@contextlib.contextmanager
def locked_for_a_moment(path: Path) -> Iterator[None]:
    """Hold a database locked for writing when the block begins, and a moment longer."""
    held = threading.Event()

    def hold() -> None:
        program = apsw.Connection(str(path))
        program.execute("BEGIN IMMEDIATE")
        held.set()
        threading.Event().wait(HELD_S)
        program.execute("ROLLBACK")
        program.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def merged(store: edgeshard.Store) -> edgeshard.Store:
    """Return a store with ten merged rows, each from a transaction of its own."""
    write(store, *range(10))
    store.merge()
    return store


def write(store: edgeshard.Store, *values: int) -> None:
    with store.shard("agent") as shard:
        for value in values:
            shard.write({"n": value})


def delete_by_hand(store: edgeshard.Store) -> None:
    sql(store.master_path, "DELETE FROM agent_data WHERE _id = (SELECT min(_id) FROM agent_data)")


def test_emptying_the_wal_does_not_end_the_busy_timeout(merged: edgeshard.Store) -> None:
    connection = sqlite.connect(str(merged.master_path), writable=True)
    sqlite.shrink_wal(connection)
    with locked_for_a_moment(merged.master_path), sqlite.immediate(connection):
        connection.execute("UPDATE _edgeshard_database SET generation = generation + 1")
    connection.close()


def test_emptying_the_wal_does_not_wait_for_a_reader(merged: edgeshard.Store) -> None:
    """It may read for hours."""
    connection = sqlite.connect(str(merged.master_path), writable=True, busy_timeout_s=3_600.0)
    reader = sqlite.connect(str(merged.master_path), writable=False)
    with sqlite.read_snapshot(reader):
        reader.execute("SELECT count(*) FROM agent_data").fetchall()
        with sqlite.immediate(connection):
            connection.execute("UPDATE _edgeshard_database SET generation = generation + 1")
        sqlite.shrink_wal(connection)
    reader.close()
    connection.close()


def test_a_pass_after_an_idle_one_waits(merged: edgeshard.Store) -> None:
    write(merged, 10)
    merger = Merger(merged.root, watching=True)
    assert 1 == merger.run().rows
    merger.run()  # nothing arrives, so it empties the WAL
    delete_by_hand(merged)  # the next pass records that, before it looks at shards
    with locked_for_a_moment(merged.master_path):
        merger.run()
    merger.close()
    assert list(range(1, 11)) == numbers(merged)


def test_a_prune_waits_before_it_records_what_was_deleted_by_hand(merged: edgeshard.Store) -> None:
    delete_by_hand(merged)
    with locked_for_a_moment(merged.master_path):
        assert 5 == merged.prune(keep_rows=4).rows
