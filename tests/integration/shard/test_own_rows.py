"""`Shard.read` and `Shard.query`: the rows that a shard still holds, read next to its writer."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import AgentData
from edgeshard.errors import (
    ConfigurationError,
    QueryError,
    ShardClosedError,
    ShardForkedError,
    ShardPoisonedError,
    UnreadableRowError,
)
from edgeshard.master import reading
from tests.support.last_known import LastKnown
from tests.support.records import NOON, Reading
from tests.support.stores import numbers, shard_path

#: SQL that runs on a master and on a shard.
EVERYWHERE = """
    select streams.agent_id, _seq, data ->> 'n' as n from agent_data join _edgeshard_streams as streams on stream_no = _stream
    order by _id
"""


def own_numbers(shard: edgeshard.Shard) -> list[int]:
    """Return the field n of all dicts that a shard holds."""
    return [record.data["n"] for record in shard.read(AgentData)]


def test_a_shard_reads_what_it_wrote_and_no_merge_has_truncated(store: edgeshard.Store) -> None:
    with store.shard("a") as shard, store.shard("other") as other:
        assert ([], []) == (own_numbers(shard), shard.query("select * from agent_data"))
        other.write({"n": 99})
        for n in (1, 2):
            shard.write({"n": n})
            shard.write(Reading("inlet", n, NOON))
        assert [1, 2] == own_numbers(shard)
        assert [Reading("inlet", 1.0, NOON), Reading("inlet", 2.0, NOON)] == list(shard.read(Reading))
        assert [(1,), (2,)] == shard.query("select data ->> 'n' as n from agent_data where agent_id = ?", ["a"])
        store.merge()
        assert ([], []) == (own_numbers(shard), shard.query("select * from reading"))
        shard.write({"n": 3})
        assert [3] == own_numbers(shard)
    with store.shard("a") as again:  # it still holds the row, in an earlier stream
        again.write({"n": 4})
        assert [3, 4] == own_numbers(again)
    store.merge()
    assert [1, 2, 3, 4, 99] == numbers(store)


def test_rows_that_are_truncated_but_still_in_the_file_do_not_count(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(1, 6))
        shard.write(Reading("inlet", 1.0, NOON))
    connection = apsw.Connection(str(shard_path(store, "a")))
    connection.execute("insert into _edgeshard_truncations values (1, 1, 3, zeroblob(16))")
    connection.close()
    with store.shard("a") as shard:
        assert [4, 5] == own_numbers(shard)
        assert [(4, 4), (5, 5)] == shard.query("select _seq, data ->> 'n' as n from agent_data")
        assert 1 == len(list(shard.read(Reading)))
        shard.write({"n": 7})  # in a stream of its own
        assert [4, 5, 7] == own_numbers(shard)


def test_the_same_sql_runs_on_a_shard_and_on_the_master(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(3))
        before = shard.query(EVERYWHERE)
        assert [("a", 1, 0), ("a", 2, 1), ("a", 3, 2)] == before
        columns = shard.query("select * from agent_data").columns
        store.merge()
    assert (before, columns) == (store.query(EVERYWHERE), store.query("select * from agent_data").columns)


def test_json_is_decoded_in_a_shard_too(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 2**70})
        assert [({"n": 2**70},)] == shard.query("select data as d from agent_data", json=True)


def test_of_a_keyed_table_a_shard_holds_the_changes(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("ada", 1.0))
        shard.write(LastKnown("ada", 2.0))
        shard.delete(LastKnown, "ada")
        assert [LastKnown("ada", 1.0), LastKnown("ada", 2.0)] == list(shard.read(LastKnown))
        assert [(3,)] == shard.query("select _seq from last_known_deleted")


# -- next to the writer -----------------------------------------------------------------------------------------------


def test_an_open_transaction_is_not_seen_and_not_disturbed(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        with shard.transaction():
            assert 2 == shard.write({"n": 2})
            assert [1] == own_numbers(shard)
            with pytest.raises(QueryError):
                shard.query("select * from nowhere")
            with shard.transaction():
                assert 3 == shard.write({"n": 3})
                assert [(1,)] == shard.query("select data ->> 'n' from agent_data")
        assert [1, 2, 3] == own_numbers(shard)
        with pytest.raises(ZeroDivisionError), shard.transaction():
            shard.write({"n": 4})
            own_numbers(shard)
            raise ZeroDivisionError
        assert 4 == shard.write({"n": 5})
    store.merge()
    assert [1, 2, 3, 5] == numbers(store)


def test_other_threads_read_while_a_transaction_is_open(store: edgeshard.Store) -> None:
    found: list[Any] = []
    with store.shard("a") as shard:
        shard.write({"n": 1})
        with shard.transaction():
            shard.write({"n": 2})
            reader = threading.Thread(target=lambda: found.append(own_numbers(shard)))
            reader.start()
            reader.join(30)
    assert [[1]] == found


def test_threads_that_read_and_write_and_a_merger_lose_nothing(store: edgeshard.Store) -> None:
    seen: list[list[int]] = []
    done = threading.Event()

    def look(shard: edgeshard.Shard) -> None:
        while not done.is_set():
            seen.append(own_numbers(shard))
            shard.query("select count(*) from agent_data")

    with store.shard("a") as shard:
        reader = threading.Thread(target=look, args=(shard,))
        reader.start()
        for n in range(300):
            assert n + 1 == shard.write({"n": n})
            if n % 100 == 50:
                store.merge()
        done.set()
        reader.join(30)
    store.merge()
    assert list(range(300)) == numbers(store)
    assert all(list(range(each[0], each[0] + len(each))) == each for each in seen if each)


def test_a_reader_that_stops_midway_holds_no_snapshot(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PORTION_ROWS", 2)
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(10))
        rows = shard.read(AgentData)
        assert [0, 1, 2] == [next(rows).data["n"] for _ in range(3)]
        assert 10 == store.merge().truncated
        connection = apsw.Connection(shard.path)
        connection.execute("select 1 from sqlite_schema").fetchall()
        assert (0, 0) == connection.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_TRUNCATE)[:2]  # no reader is in its way
        connection.close()
        shard.write({"n": 10})
        assert [3, 10] == [row.data["n"] for row in rows]  # the rest of its portion, and what was written meanwhile


@pytest.mark.parametrize(
    "sql",
    [
        "delete from agent_data",
        "delete from main.agent_data",
        "insert into main.agent_data values (1, 2, 3, 4)",
        "create temp table mine(x)",
        "create table mine(x)",
        "drop view agent_data",
        "pragma wal_checkpoint(truncate)",
        "pragma journal_mode = delete",
        "begin immediate",
        "attach 'made.db' as made",
        "vacuum into 'made.db'",
        "select 1; delete from main.agent_data",
    ],
)
def test_a_query_of_a_shard_only_reads(
    store: edgeshard.Store, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with store.shard("a") as shard:
        shard.write({"n": 1})
        with pytest.raises(QueryError):
            shard.query(sql)
        assert [1] == own_numbers(shard)
        assert 2 == shard.write({"n": 2})
    assert not (tmp_path / "made.db").exists()


# -- what cannot be read ----------------------------------------------------------------------------------------------


def test_mistakes_name_the_call_and_the_tables(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(Reading("inlet", 1.0, NOON))
        with pytest.raises(QueryError, match=r"query\(sql, \['one'\]\)"):
            shard.query("select ?", "one")
        with pytest.raises(QueryError, match=r"nowhere\. The shard has the tables agent_data, reading; "):
            shard.query("select * from nowhere")
        for cls in ("reading", 5, dict):
            with pytest.raises(ConfigurationError, match=r"read\("):
                shard.read(cls)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="on_error"):
            shard.read(Reading, on_error="ignore")  # type: ignore[arg-type]


def test_a_row_that_the_class_refuses_has_its_address(store: edgeshard.Store) -> None:
    @edgeshard.table(name="reading")
    @attrs.frozen
    class Cold:
        celsius: float = attrs.field()

        @celsius.validator
        def _(self, _attribute: object, value: float) -> None:
            if value > 0:
                raise ValueError("too warm")

    with store.shard("a") as shard:
        shard.write(Reading("inlet", -1.0, NOON))
        shard.write(Reading("inlet", 1.0, NOON))
        with pytest.raises(UnreadableRowError, match="too warm") as caught:
            list(shard.read(Cold))
        assert ("a", shard.stream, 2) == (caught.value.agent, caught.value.stream, caught.value.seq)
        assert [Cold(-1.0)] == list(shard.read(Cold, on_error="skip"))


def test_a_handle_that_cannot_be_used_does_not_read_either(store: edgeshard.Store) -> None:
    shard = store.shard("a")
    shard.write_many({"n": n} for n in range(3))
    rows = shard.read(AgentData)
    shard.close()
    for call in (lambda: shard.query("select 1"), lambda: shard.read(AgentData), lambda: list(rows)):
        with pytest.raises(ShardClosedError):
            call()


def test_a_handle_after_a_write_of_unknown_outcome_does_not_read_either(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        rows = shard.read(AgentData)
        shard._become_unusable(ShardPoisonedError("use shard", shard.path, "a write failed"))
        for call in (lambda: shard.query("select 1"), lambda: shard.read(AgentData), lambda: list(rows)):
            with pytest.raises(ShardPoisonedError, match="a write failed"):
                call()


def test_ctrl_c_ends_a_query_and_the_open_transaction_goes_on(store: edgeshard.Store) -> None:
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select x from n where x < 0"
    with store.shard("a") as shard:
        with shard.transaction():
            assert 1 == shard.write({"n": 1})
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                shard.query(endless)
            timer.join()
            assert 2 == shard.write({"n": 2})
        assert [1, 2] == own_numbers(shard)


def test_a_child_after_a_fork_does_not_read(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        rows = shard.read(AgentData)

        child = os.fork()
        if child == 0:
            status = 1
            try:
                for call in (lambda: shard.query("select 1"), lambda: shard.read(AgentData), lambda: list(rows)):
                    with pytest.raises(ShardForkedError):
                        call()
                status = 0
            finally:
                os._exit(status)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert [1] == own_numbers(shard)


def test_a_shard_whose_files_were_replaced_is_not_read(store: edgeshard.Store, tmp_path: Path) -> None:
    shard = store.shard("a")
    shard.write({"n": 1})
    path = Path(shard.path)
    path.rename(tmp_path / "moved.db")
    for call in (lambda: shard.query("select 1"), lambda: shard.read(AgentData)):
        with pytest.raises(ShardPoisonedError, match="moved"):
            call()
    with pytest.raises(ShardPoisonedError):
        shard.close()


def test_reading_leaves_no_file_open(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(3))
        own_numbers(shard)
        gc.collect()
        before = len(os.listdir("/dev/fd"))
        for _ in range(5):
            own_numbers(shard)
            shard.query("select * from agent_data")
            with pytest.raises(QueryError):
                shard.query("selec")
        assert before == len(os.listdir("/dev/fd"))


def test_a_shard_has_the_views_that_a_master_has(store: edgeshard.Store) -> None:
    sql = (
        "select agent_id, data ->> 'n' as n from events_with_agent union all select agent_id, 0 from reading_with_agent"
    )
    with store.shard("agent") as shard:
        shard.write({"n": 1}, table="events")
        shard.write(edgeshard.table(name="reading")(attrs.make_class("Reading", {"x": attrs.field(type=int)}))(2))
        expected = shard.query(sql)
        store.merge()
    assert [("agent", 1), ("agent", 0)] == expected == store.query(sql)
