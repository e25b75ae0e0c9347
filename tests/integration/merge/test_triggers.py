"""Triggers that users made do not fire when rows are merged: the log says so once, and refresh.sql takes their place."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.errors import StorageIOError
from edgeshard.files import paths
from edgeshard.merge.merger import Merger
from tests.support.processes import command
from tests.support.stores import new_store, numbers

FULL_TEXT = """
create virtual table words using fts5(data, content=agent_data, content_rowid=_id);
create trigger words_in after insert on agent_data begin
    insert into words(rowid, data) values (new._id, new.data); end;
create trigger words_out after delete on agent_data begin
    insert into words(words, rowid, data) values ('delete', old._id, old.data); end;
"""

REBUILD = "insert into words(words) values ('rebuild')"


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    """A store that exists, and is empty."""
    return new_store(tmp_path / "data")


def by_hand(store: edgeshard.Store, script: str) -> None:
    connection = sqlite3.connect(store.master_path)
    connection.executescript(script)
    connection.close()


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the triggers that the log names, once for each line."""
    texts = [record.getMessage() for record in caplog.records]
    return [text.partition("are merged: ")[2].partition(";")[0] for text in texts if "do not fire" in text]


def found(store: edgeshard.Store, word: str) -> int:
    """Return how many rows a search finds, in another program."""
    connection = sqlite3.connect(store.master_path)
    try:
        return int(connection.execute("select count(*) from words where words match ?", (word,)).fetchone()[0])
    finally:
        connection.close()


def write(store: edgeshard.Store, first: int) -> None:
    with store.shard("a") as shard:
        for n in range(first, first + 5):
            shard.write({"n": n, "word": f"word{n}"})


def test_triggers_that_do_not_fire_are_warned_of_once(store: edgeshard.Store, caplog: pytest.LogCaptureFixture) -> None:
    store.merge()
    by_hand(store, FULL_TEXT)
    with caplog.at_level(logging.WARNING, "edgeshard.merge"):
        for first in (0, 5):
            write(store, first)
            store.merge()
    assert ["words_in, words_out"] == warned(caplog)
    assert ("words_in", "words_out") == store.status().master.triggers
    assert "triggers    words_in, words_out: not fired when" in command("status", store.root).stdout
    by_hand(store, "create trigger third after update on agent_data begin select 1; end")
    with caplog.at_level(logging.WARNING, "edgeshard.merge"):
        store.merge()
    assert "third" == warned(caplog)[-1]


def test_a_full_text_index_is_refreshed_after_merges_and_prunes(store: edgeshard.Store) -> None:
    store.merge()
    by_hand(store, FULL_TEXT)
    write(store, 0)
    store.merge()
    assert 0 == found(store, "word3")
    paths.refresh(store.root).write_text(REBUILD)
    write(store, 5)
    assert store.merge().complete
    assert ((1, 1), ()) == ((found(store, "word3"), found(store, "word7")), store.status().master.triggers)
    store.prune(keep_rows=2)
    assert [8, 9] == numbers(store)
    assert (0, 1) == (found(store, "word3"), found(store, "word8"))
    assert store.verify(deep=True).ok


def test_rows_that_came_before_a_merge_failed_are_refreshed(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next merge has no reason to: it brings none of them."""
    store.merge()
    by_hand(store, FULL_TEXT)
    paths.refresh(store.root).write_text(REBUILD)
    write(store, 0)

    def fail(*_: Any) -> None:
        raise StorageIOError("read", store.root, "the medium was removed")

    with monkeypatch.context() as patch:
        patch.setattr(Merger, "_finish", fail)
        with pytest.raises(StorageIOError, match="the medium was removed"):
            store.merge()
    assert (1, 0) == (found(store, "word3"), store.merge().rows)


@pytest.mark.parametrize(
    "sql",
    [
        "no sql",
        "delete from agent_data",
        "update agent_data set data = '{}'",
        "insert into mine values (1); delete from _edgeshard_ranges",
        "drop table agent_data",
        "alter table agent_data drop column data",
        "attach 'other.db' as other",
        "commit; delete from mine; begin",
        "insert into fires values (1)",
        "pragma writable_schema = on",
    ],
)
def test_statements_that_fail_or_touch_our_tables_stop_no_merge_and_change_nothing(
    store: edgeshard.Store, sql: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.merge()
    by_hand(
        store,
        "create table mine(x); create table fires(x);"
        "create trigger bad after insert on fires begin delete from agent_data; end;",
    )
    paths.refresh(store.root).write_text(sql)
    write(store, 0)
    report = store.merge()
    assert (5, False, True) == (report.rows, report.complete, "refresh.sql" in report.refresh_error)
    assert (list(range(5)), True, []) == (numbers(store), store.verify().ok, store.query("select * from mine"))
    write(store, 5)
    assert 3 == command("merge", store.root).returncode
