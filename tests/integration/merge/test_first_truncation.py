"""The first truncation of a new shard, whose WAL is empty, does not wait for the disk; what follows is synced as always."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.files import fingerprint, paths
from tests.support.processes import python
from tests.support.recorded_syncs import RECORD_SYNCS
from tests.support.stores import numbers

PAGES = 7

TRUNCATE = (
    RECORD_SYNCS
    + """
import os
def sync(file, flags):
    synced.append(os.path.basename(file.name))
    return apsw.VFSFile.xSync(file, flags)
File.xSync = sync
store = edgeshard.Store(sys.argv[1])
with store.shard("agent", durability=sys.argv[2]) as shard:
    for n in range(3):
        shard.write({"n": n})
        synced.clear()
        assert 1 == store.merge().truncated
        print(*sorted(name for name in synced if name.startswith("agent")), sep=",")
"""
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the database is."""
    return str(tmp_path / "some.db")


@pytest.fixture
def connection(path: str) -> apsw.Connection:
    """A connection as a truncation has it, to a database with an empty WAL."""
    with_table = apsw.Connection(path)
    with_table.pragma("journal_mode", "WAL")
    with_table.execute("create table t(n)")
    with_table.close()
    found = sqlite.connect_in_place(path, busy_timeout_s=1.0)
    assert found is not None
    found.wal_autocheckpoint(PAGES)
    return found


def insert(connection: apsw.Connection) -> None:
    connection.execute("insert into t values (1)")


def settings(connection: apsw.Connection) -> tuple[int, int]:
    return connection.pragma("synchronous"), connection.pragma("wal_autocheckpoint")


@pytest.mark.parametrize("durability", ["process", "power"])
def test_it_syncs_no_file_of_the_shard(store: edgeshard.Store, durability: str) -> None:
    done = python(TRUNCATE, store.root, durability)
    assert ["", "", ""] == done.stdout.splitlines(), done.stderr
    assert [0, 1, 2] == numbers(store)


def test_the_transaction_that_begins_the_wal_is_not_synced_and_the_settings_are_back_after_it(
    connection: apsw.Connection,
) -> None:
    inside = []
    for _ in range(2):
        with sqlite.immediate_in_empty_wal(connection, PAGES):
            inside.append(settings(connection))
            insert(connection)
        assert (1, PAGES) == settings(connection)
    assert [(0, 0), (1, PAGES)] == inside


def test_the_settings_are_back_after_a_transaction_that_was_rolled_back(connection: apsw.Connection) -> None:
    with pytest.raises(KeyError), sqlite.immediate_in_empty_wal(connection, PAGES):
        insert(connection)
        raise KeyError
    assert ((1, PAGES), False) == (settings(connection), connection.in_transaction)


@pytest.mark.parametrize("fails", [False, True])
def test_closing_makes_no_checkpoint_unless_the_wal_can_be_synced_before(
    connection: apsw.Connection, path: str, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    real = sqlite.connection.set_synchronous

    def set_synchronous(one: apsw.Connection, level: str) -> None:
        if level == "NORMAL":
            raise apsw.NoMemError
        real(one, level)

    if fails:
        monkeypatch.setattr("edgeshard.sqlite.connection.set_synchronous", set_synchronous)
        with pytest.raises(apsw.NoMemError), sqlite.immediate_in_empty_wal(connection, PAGES):
            insert(connection)
    else:
        with sqlite.immediate_in_empty_wal(connection, PAGES):
            insert(connection)
    connection.close()
    assert fails == (fingerprint.size(paths.wal(path)) > 0)
    again = apsw.Connection(path)
    assert [(1,)] == again.execute("select n from t").fetchall()
    again.close()
