"""The folder as users see it: queries, reading back, verifying."""

from __future__ import annotations

import datetime
import decimal
import os
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import DamagedError, EdgeshardError, FormatError, QueryError, StorageBusyError
from edgeshard.master import reading
from tests.support.processes import python
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers


def test_a_store_touches_nothing_until_it_is_used(tmp_path: Path) -> None:
    edgeshard.Store(tmp_path / "a" / "b")
    assert [] == list(tmp_path.iterdir())


def test_a_query_gives_named_rows_and_takes_parameters(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        for n in range(3):
            shard.write({"n": n})
    store.merge()
    rows = store.query("select agent_id, data ->> 'n' as n from agent_data where n >= ? order by n", (1,))
    assert [("agent", 1), ("agent", 2)] == rows
    assert ("agent", 2) == (rows[1].agent_id, rows[1].n)
    assert [(3,)] == store.query("select :a + 1", {"a": 2})
    elsewhere = NOON.astimezone(datetime.timezone(datetime.timedelta(hours=-3)))
    assert [("2026-01-02T12:00:00+00:00", "1.50")] == store.query("select ?, ?", (elsewhere, decimal.Decimal("1.50")))
    with pytest.raises(QueryError, match="time zone"):
        store.query("select ?", [datetime.datetime(2026, 1, 2)])
    assert [] == store.query("select * from agent_data where 0")


def test_a_fresh_query_sees_what_was_written_a_moment_ago(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        for n in range(3):
            shard.write({"n": n})
            assert [(n + 1,)] == store.query("select count(*) from agent_data", fresh=True)


def test_a_store_without_a_merge_answers_with_no_rows(store: edgeshard.Store) -> None:
    store.init()
    assert [] == store.query("select * from agent_data")
    assert [] == list(store.read(Reading))
    assert store.verify().ok


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select * from nope", "no such table: nope.*tables agent_data"),
        ("select nope from agent_data", "no such column"),
        ("selec 1", "syntax"),
        ("select ?", "1 parameter, but got 0"),
        ("delete from agent_data", "would write.*write rows to a shard"),
        ("create table x(y)", "would write"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(store: edgeshard.Store, sql: str, words: str) -> None:
    store.init()
    with pytest.raises(QueryError, match=f"(?i){words}"):
        store.query(sql)


def test_reading_comes_in_portions_and_holds_no_snapshot(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PORTION_ROWS", 10)
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(25)])
        store.merge()
        rows = iter(store.read(edgeshard.AgentData))
        seen = [next(rows).data["n"]]
        writer = apsw.Connection(str(store.master_path))
        writer.execute("select * from agent_data").fetchall()
        assert (0, 0) <= writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        writer.close()
        shard.write({"n": 25})
        store.merge()
        seen += [row.data["n"] for row in rows]
    assert [*range(26)] == seen


def test_verify_finds_what_does_not_fit(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        for n in range(4):
            shard.write({"n": n})
        shard.write(Reading("a", 1, NOON))
    store.merge()
    assert (5, 1, True) == (store.verify().rows, store.verify().streams, store.verify().ok)
    for statement, words in [
        ("delete from agent_data where _seq = 2", "4 rows where its blocks hold 5"),
        ("update agent_data set _seq = 9 where _seq = 2", "1 row not where the address says"),
        ("update agent_data set _id = 5 where _seq = 2", "share 1 ids"),
        ("insert into agent_data values (99, 7, 1, 'x', 1, '{}')", "stream number 7: 1 row and no block"),
        ("delete from _edgeshard_ranges", "no range"),
        ("insert into _edgeshard_blocks values (1, 2, 3, 900)", "two blocks hold seq"),
        ("insert into _edgeshard_blocks values (1, 6, 7, 2)", "two blocks hold the id"),
    ]:
        connection = apsw.Connection(str(store.master_path))
        connection.execute("BEGIN")
        connection.execute(statement)
        from edgeshard.inspect.verify import _block_errors, _row_errors

        found = [*_block_errors(connection), *_row_errors(connection, ["agent_data", "reading"], absent=())]
        connection.execute("ROLLBACK")
        connection.close()
        assert any(words in error for error in found), (statement, found)


def test_verify_reports_damage_of_the_file(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write_many([{"n": n, "much": "x" * 500} for n in range(100)])
    store.merge()
    page = store.query("select rootpage from sqlite_schema where name = '_edgeshard_streams'")[0][0]
    with open(store.master_path, "r+b") as file:
        file.seek((page - 1) * 4096 + 4000)
        file.write(b"\xff" * 90)
    try:
        assert not store.verify().ok
    except EdgeshardError as error:
        assert isinstance(error, DamagedError)


def test_what_is_no_master_is_not_opened_as_one(store: edgeshard.Store) -> None:
    store.root.mkdir()
    connection = apsw.Connection(str(store.master_path))
    connection.execute("create table t(x)")
    connection.close()
    with pytest.raises(FormatError, match="not an edgeshard database"):
        store.query("select 1")
    with pytest.raises(FormatError, match=r"master\.db"):
        store.merge()
    store.master_path.write_bytes(b"")
    with pytest.raises(DamagedError, match="empty"):
        store.merge()


def test_a_store_below_a_symbolic_link_is_the_same_store(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    (tmp_path / "link").symlink_to(store.root)
    linked = edgeshard.Store(tmp_path / "link")
    assert 1 == linked.merge().rows
    assert [1] == numbers(store)


def test_a_store_may_be_moved_while_closed(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    os.rename(store.root, tmp_path / "moved")
    moved = edgeshard.Store(tmp_path / "moved")
    with moved.shard("agent") as shard:
        shard.write({"n": 2})
    assert 2 == moved.merge().rows


def test_names_of_a_folder_may_be_strange(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "a b?mode=memory&x=%41#'\"é")
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    assert 1 == store.merge().rows
    assert [1] == numbers(store)
    hub = new_store(tmp_path / "hub")
    assert 1 == hub.merge([store.master_path]).rows


def test_importing_edgeshard_loads_nothing_optional() -> None:
    code = "import sys, edgeshard; print([name for name in sys.argv[1:] if name in sys.modules])"
    names = ["watchdog", "argparse", "sqlite3", "asyncio", "multiprocessing", "subprocess", "psycopg", "apsw.ext"]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_at_most_fifteen_public_names_besides_the_errors() -> None:
    assert len([name for name in edgeshard.__all__ if not name.endswith("Error")]) <= 15
    assert sorted(edgeshard.__all__) == edgeshard.__all__


def test_an_error_survives_pickling_and_names_action_path_and_cause() -> None:
    import pickle

    error = sqlite.explain(apsw.FullError("full"), "write to shard", "x.db")
    again = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error)) == (type(again), str(again))
    assert "write to shard x.db: the disk is full" in str(error)
    assert "x" == str(EdgeshardError("x", "", "")).split(":")[0]


def test_a_master_that_was_put_back_and_whose_first_merge_was_interrupted_is_mended_by_the_next(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    """A snapshot is no WAL database until a merge makes it one, and that takes a rollback journal."""
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    store.snapshot(tmp_path / "copy.db")
    for path in store.root.glob("master.db*"):
        path.unlink()
    shutil.copy(tmp_path / "copy.db", store.master_path)
    code = """
import apsw, os, sys
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN; UPDATE _edgeshard_database SET generation = 99; DELETE FROM agent_data")
connection.cache_flush()
os._exit(0)
"""
    assert 0 == python(code, store.master_path).returncode
    with pytest.raises(StorageBusyError, match="merge first"):
        store.query("select * from agent_data")
    store.merge()
    assert [(1,)] == store.query("select data ->> 'n' as n from agent_data")
