"""The times of dicts and of records have one form, which Python and SQLite's date functions read."""

from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path

import pytest

import edgeshard
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, shard_path

#: SQLite's functions for a time, each with what it must return for a time in Python.
FUNCTIONS = {
    "datetime({0})": "%Y-%m-%d %H:%M:%S",
    "date({0})": "%Y-%m-%d",
    "strftime('%H:%M', {0})": "%H:%M",
}


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    return new_store(tmp_path / "data")


def test_sqlite_reads_the_times_of_dicts_and_of_records(store: edgeshard.Store) -> None:
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(milliseconds=2)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard.write({"n": 2}, table="events")
        shard.write(Reading("inlet", 71.5, NOON + datetime.timedelta(microseconds=1)))
        shard.write(Reading("inlet", 71.5, NOON))  # without microseconds, Python leaves them out
    store.merge()
    (found,) = store.read(edgeshard.AgentData)
    assert before <= found.timestamp <= datetime.datetime.now(datetime.UTC)
    assert datetime.UTC == found.timestamp.tzinfo
    for table, column in (("agent_data", "timestamp"), ("events", "timestamp"), ("reading", "at")):
        for (text,) in store.query(f"select {column} from {table}"):
            written = datetime.datetime.fromisoformat(text)
            assert written.isoformat(timespec="milliseconds" if table != "reading" else "auto") == text
            for function, form in FUNCTIONS.items():
                ((result,),) = store.query(f"select {function.format('?')}", (text,))
                assert written.strftime(form) == result
            sql = "select unixepoch(?1), cast(strftime('%s', ?1) as integer), julianday(?1)"
            ((seconds, same, days),) = store.query(sql, (text,))
            assert int(written.timestamp()) == seconds == same
            assert abs((days - 2440587.5) * 86400 - written.timestamp()) < 0.001
    ((recent,),) = store.query("select count(*) from agent_data where unixepoch('now') - unixepoch(timestamp) < 600")
    assert 1 == recent


def test_times_as_text_are_in_the_order_of_the_times(store: edgeshard.Store) -> None:
    moments = [NOON + datetime.timedelta(microseconds=n) for n in (0, 1, 10, 999_999, 1_000_000, 1_000_001)]
    with store.shard("agent") as shard:
        shard.write_many(Reading("inlet", n, at) for n, at in reversed(list(enumerate(moments))))
        shard.write_many({"n": n} for n in range(1000))
    store.merge()
    assert list(range(6)) == [row.celsius for row in store.query("select celsius from reading order by at")]
    assert [] == store.query("select 1 from agent_data a join agent_data b on b._seq = a._seq + 1 "
                             "where b.timestamp < a.timestamp")  # fmt: skip


def test_a_shard_has_the_same_form(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard.write_many([{"n": 2}, {"n": 3}])
    connection = sqlite3.connect(shard_path(store, "agent"))
    lengths = connection.execute("select length(timestamp), typeof(timestamp) from agent_data").fetchall()
    connection.close()
    assert [(29, "text")] * 3 == lengths
