"""One writer: what is committed when, and what a handle does when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import (
    ConfigurationError,
    DamagedError,
    DiskFullError,
    FormatError,
    RecordError,
    SchemaConflictError,
    ShardClosedError,
    ShardInUseError,
    ShardPoisonedError,
    StorageBusyError,
    StorageIOError,
    TableError,
    TransactionError,
)
from edgeshard.shard.transaction import Transaction
from tests.support.processes import python, sql
from tests.support.recorded_syncs import RECORD_SYNCS
from tests.support.records import NOON, Reading
from tests.support.stores import numbers, shard_path


def test_a_row_is_committed_when_write_returns_its_seq(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        assert [1, 2, 3] == [shard.write({"n": 1}), shard.write(Reading("inlet", 1.0, NOON)), shard.write({"n": 3})]
        assert [[2]] == sql(shard.path, "select count(*) from agent_data")
        assert [[1]] == sql(shard.path, "select count(*) from reading")


def test_write_many_counts_rows_of_several_classes(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        rows: list[Any] = [{"n": 1}, {"n": 2}, Reading("a", 1, NOON), {"n": 3}]
        assert 4 == shard.write_many(iter(rows))
        assert 0 == shard.write_many([])
        assert 5 == shard.write({"n": 4})
    assert 5 == store.merge().rows


def test_write_many_writes_all_or_none(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        with pytest.raises(RecordError):
            shard.write_many([{"n": 1}, {"n": {2}}, {"n": 3}])
        with pytest.raises(TableError):
            shard.write_many([{"n": 1}, 5])
        assert 1 == shard.write({"n": 4})
    store.merge()
    assert [4] == numbers(store)
    assert store.verify().ok


@pytest.mark.parametrize("make", [list, tuple, iter])
def test_the_record_that_cannot_be_stored_is_named_wherever_it_stands(store: edgeshard.Store, make: Any) -> None:
    records = [Reading(f"sensor-{n}", n, NOON) for n in range(2_500)]
    bad = [*records[:1_700], Reading("a lone \ud800", 1, NOON), *records[1_700:]]
    with store.shard("agent") as shard:
        shard.write(records[0])
        with pytest.raises(RecordError, match="lone"):
            shard.write_many(make(bad))
        assert 2_500 == shard.write_many(make(records))
        assert 2_502 == shard.write(records[0])
    store.merge()
    assert 2_502 == len(list(store.read(Reading)))
    assert store.verify().ok


def test_an_interrupt_in_the_midst_of_many_rows_leaves_none_of_them(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        real = shard._writers[dict].encode

        def interrupted(row_id: int, record: Any) -> Any:
            if record["n"] == 1_500:
                raise KeyboardInterrupt
            return real(row_id, record)

        with monkeypatch.context() as patch:
            patch.setitem(shard._writers, dict, attrs.evolve(shard._writers[dict], encode=interrupted))
            with pytest.raises(KeyboardInterrupt):
                shard.write_many([{"n": n} for n in range(2_000)])
        assert 2 == shard.write({"n": 2})
    store.merge()
    assert [1, 2] == numbers(store)


def test_an_error_of_the_callers_own_iterable_comes_through_as_it_is(store: edgeshard.Store) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        raise ValueError("mine")

    with store.shard("agent") as shard:
        with pytest.raises(ValueError, match="mine"):
            shard.write_many(rows())
        assert 1 == shard.write({"n": 2})
    store.merge()
    assert [2] == numbers(store)


def test_a_transaction_that_raises_leaves_nothing_and_gives_its_seqs_back(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with pytest.raises(KeyError), shard.transaction():
            shard.write({"n": 2})
            shard.write(Reading("a", 1, NOON))
            raise KeyError
        assert 2 == shard.write({"n": 3})
        assert 3 == shard.write(Reading("b", 1, NOON))
    store.merge()
    assert [1, 3] == numbers(store)
    assert ["b"] == [reading.sensor for reading in store.read(Reading)]
    assert store.verify().ok


def test_the_first_transaction_of_a_handle_may_fail(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        with pytest.raises(KeyError), shard.transaction():
            shard.write({"n": 1})
            raise KeyError
        assert "" == shard.stream
        assert 1 == shard.write({"n": 2})
    store.merge()
    assert [2] == numbers(store)
    assert [(1,)] == store.query("select count(*) from _edgeshard_streams")


def test_a_block_inside_a_transaction_can_fail_alone(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        with shard.transaction():
            shard.write({"n": 1})
            with pytest.raises(KeyError), shard.transaction():
                shard.write({"n": 2})
                raise KeyError
            with pytest.raises(RecordError):
                shard.write_many([{"n": 3}, {"n": {4}}])
            with shard.transaction():
                shard.write(Reading("a", 1, NOON))
            shard.write({"n": 5})
        assert 4 == shard.write({"n": 6})
    store.merge()
    assert [1, 5, 6] == numbers(store)
    assert store.verify().ok


def test_a_record_refused_after_a_rollback_leaves_no_hole(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with pytest.raises(KeyError), shard.transaction():
            shard.write({"n": 2})
            raise KeyError
        with pytest.raises(RecordError):
            shard.write({"n": {3}})
        assert 2 == shard.write({"n": 4})
        with shard.transaction():
            with pytest.raises(KeyError), shard.transaction():
                shard.write({"n": 5})
                raise KeyError
            with pytest.raises(RecordError):
                shard.write({"n": {6}})
            assert 3 == shard.write({"n": 7})
    store.merge()
    assert [1, 4, 7] == numbers(store)
    assert store.verify().ok


def test_a_refused_record_inside_a_transaction_does_not_end_it(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard, shard.transaction():
        shard.write({"n": 1})
        with pytest.raises(RecordError):
            shard.write({"n": {2}})
        shard.write({"n": 3})
    store.merge()
    assert [1, 3] == numbers(store)


def test_each_opening_begins_a_stream_at_its_first_write(store: edgeshard.Store) -> None:
    for n in range(3):
        with store.shard("agent") as shard:
            assert 1 == shard.write({"n": n})
            assert 32 == len(shard.stream)
    with store.shard("agent"):
        pass
    assert [[3, 3]] == sql(
        shard_path(store, "agent"), "select count(*), count(distinct stream_id) from _edgeshard_streams"
    )


def test_a_stream_that_used_up_its_seqs_is_succeeded_by_another(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard._next_id = format.row_id(1, format.SEQ_MAX)  # as if four billion rows had been written and truncated
        assert format.SEQ_MAX == shard.write({"n": 2})
        assert 1 == shard.write({"n": 3})
        shard._next_id = format.row_id(2, format.SEQ_MAX - 1)
        assert 2 == shard.write_many([{"n": 4}, {"n": 5}])
        assert 3 == shard.write({"n": 6})
    rows = sql(shard_path(store, "agent"), "select _id >> 32, _id & 4294967295 from agent_data order by _id")
    assert [[1, 1], [1, format.SEQ_MAX], [2, 1], [3, 1], [3, 2], [3, 3]] == rows


def test_only_one_handle_has_a_shard_open(store: edgeshard.Store) -> None:
    with store.shard("agent"):
        with pytest.raises(ShardInUseError, match="agent"):
            store.shard("agent")
        other = python("import edgeshard, sys; edgeshard.Store(sys.argv[1]).shard('agent')", store.root)
        assert "ShardInUseError" in other.stderr
        store.shard("another").close()
    store.shard("agent").close()


def test_a_handle_that_was_dropped_lets_the_next_one_in(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    del shard
    gc.collect()
    with store.shard("agent") as another:
        another.write({"n": 2})
    store.merge()
    assert [1, 2] == numbers(store)


def test_close_is_idempotent_and_a_closed_handle_says_so(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    shard.close()
    shard.close()
    for use in (
        lambda: shard.write({}),
        lambda: shard.write_many([{}]),
        shard.sync,
        lambda: shard.transaction().__enter__(),
    ):
        with pytest.raises(ShardClosedError, match="closed"):
            use()


def test_a_shard_is_not_synced_inside_its_transaction(shard: edgeshard.Shard) -> None:
    with shard.transaction():
        with pytest.raises(TransactionError):
            shard.sync()
        shard.write({"n": 1})
    shard.sync()


def test_a_shard_closed_inside_its_transaction_says_that_its_rows_are_undone(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    with pytest.raises(ShardClosedError), shard.transaction(), shard.transaction():
        shard.write({"n": 2})
        with pytest.raises(TransactionError, match="undone"):
            shard.close()
    thread = threading.Thread(target=shard.close)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "the lock was not given back"
    with store.shard("agent") as again:
        again.write({"n": 3})
    store.merge()
    assert [1, 3] == numbers(store)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_signal_handler_cannot_take_the_seq_of_the_write_it_interrupts(
    store: edgeshard.Store, when: str, inside: bool, first: bool
) -> None:
    with store.shard("agent") as shard:
        shard.write(Reading("0", 1, NOON))  # which makes the file
        if not first:
            shard.write({"n": 0})
        real, refused = shard._execute, []

        def handle() -> None:
            try:
                shard.write(Reading("handler", 1, NOON))
            except TransactionError as error:
                refused.append(error)

        def execute(sql: str, *arguments: Any) -> Any:
            mine = sql.startswith("INSERT INTO") and "agent_data" in sql
            if mine and when == "before":
                handle()
            result = real(sql, *arguments)
            if mine and when == "after":
                handle()
            return result

        shard._execute = execute  # type: ignore[assignment]
        with shard.transaction() if inside else contextlib.nullcontext():
            shard.write({"n": 1})
        shard._execute = real
        shard.write({"n": 2})
    assert 1 == len(refused)
    store.merge()
    assert [1, 2] == numbers(store)[-2:]
    assert store.verify().ok


def test_a_transaction_that_could_not_be_undone_poisons_the_handle(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt  # as Python does at the entry of a function

    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "_undo", interrupted)
            with pytest.raises(KeyboardInterrupt), shard.transaction():
                shard.write({"n": 2})
                raise KeyError
        with pytest.raises(ShardPoisonedError, match="undone"):
            shard.write({"n": 3})
    store.merge()
    assert [1] == numbers(store)


def test_durability_is_named_for_what_it_survives(store: edgeshard.Store) -> None:
    levels = {}
    choices: list[Literal["process", "power"]] = ["process", "power"]
    for durability in choices:
        with store.shard("agent", durability=durability) as shard:
            shard.write({"n": 1})
            shard.sync()
            shard.write({"n": 1})
            levels[durability] = shard._connection.pragma("synchronous")
    assert {"process": 1, "power": 2} == levels
    with pytest.raises(ConfigurationError, match="durability"):
        store.shard("agent", durability="none")  # type: ignore[arg-type]


def test_sync_calls_fsync_on_the_log(store: edgeshard.Store) -> None:
    code = """
with edgeshard.Store(sys.argv[1]).shard("agent") as shard:
    shard.write({"n": 1})
    shard.write({"n": 2})
    synced.clear()
    shard.write({"n": 3})
    print(synced)
    shard.sync()
    print(synced)
    synced.clear()
    shard.write({"n": 4})
    print(synced)
"""
    done = python(RECORD_SYNCS + code, store.root)
    assert ["[]", "['wal']", "[]"] == done.stdout.split("\n")[:3], done.stderr


def test_opening_at_power_makes_durable_what_an_earlier_handle_wrote_at_process(store: edgeshard.Store) -> None:
    code = """
store = edgeshard.Store(sys.argv[1])
with store.shard("agent") as shard:
    shard.write({"n": 1})
synced.clear()
with store.shard("agent") as shard:
    shard.write({"n": 2})
    shard.write({"n": 3})
print(*synced)
with store.shard("agent", durability="power") as shard:
    print(*(name.rsplit("/")[-1] for name in synced))
"""
    done = python(RECORD_SYNCS + code, store.root)
    assert ["", "wal agent.db"] == done.stdout.split("\n")[:2], done.stderr


def test_threads_may_share_a_shard(store: edgeshard.Store) -> None:
    def work(base: int) -> None:
        for n in range(base, base + 200):
            if n % 10:
                shard.write({"n": n})
            else:
                with shard.transaction():
                    shard.write({"n": n})

    with store.shard("agent") as shard:
        threads = [threading.Thread(target=work, args=(base,)) for base in (0, 1000, 2000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    store.merge()
    assert [*range(200), *range(1000, 1200), *range(2000, 2200)] == numbers(store)


def test_another_coroutine_cannot_slip_into_a_transaction(store: edgeshard.Store) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        started, tried = asyncio.Event(), asyncio.Event()

        async def holder() -> None:
            with shard.transaction():
                shard.write({"n": 1})
                started.set()
                await tried.wait()
                raise KeyError

        async def intruder() -> None:
            await started.wait()
            try:
                shard.write({"n": 2})
            except TransactionError as error:
                seen.append(str(error))
            tried.set()

        await asyncio.gather(holder(), intruder(), return_exceptions=True)
        return seen

    with store.shard("agent") as shard:
        (message,) = asyncio.run(main())
        assert "coroutine" in message
        assert 1 == shard.write({"n": 3})
    store.merge()
    assert [3] == numbers(store)


def test_a_forked_child_is_refused_and_the_parent_goes_on(store: edgeshard.Store) -> None:
    code = """
import os, sys
import edgeshard
store = edgeshard.Store(sys.argv[1])
shard = store.shard("agent")
shard.write({"n": 1})
with shard.transaction():
    shard.write({"n": 2})
    child = os.fork()
    if child == 0:
        try:
            shard.write({"n": 99})
        except edgeshard.errors.ShardForkedError as error:
            shard.close()
            del shard
            os._exit(7)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shard.write({"n": 3})
try:
    store.shard("agent")
except edgeshard.ShardInUseError:
    print("still locked")
shard.write({"n": 4})
shard.close()
sys.exit(code)
"""
    done = python(code, store.root)
    assert (7, "still locked") == (done.returncode, done.stdout.strip()), done.stderr
    store.merge()
    assert [1, 2, 3, 4] == numbers(store)


def test_a_commit_with_an_unknown_outcome_poisons_the_handle(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    shard.write({"n": 1})
    fail_with(shard, apsw.IOError)
    with pytest.raises(StorageIOError):
        shard.write({"n": 2})
    with pytest.raises(ShardPoisonedError, match="outcome is unknown"):
        shard.write({"n": 3})
    shard.close()
    with store.shard("agent") as again:
        assert 1 == again.write({"n": 4})
    store.merge()
    assert [1, 4] == numbers(store)


def test_a_full_disk_loses_only_the_row_that_was_refused(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        real = fail_with(shard, apsw.FullError)
        with pytest.raises(DiskFullError, match="free some space"):
            shard.write({"n": 2})
        shard._execute = real
        # whether a torn log could bring the refused row back is unknown, so its address is not used again
        assert 1 == shard.write({"n": 3})
    store.merge()
    assert [1, 3] == numbers(store)
    assert [(2,)] == store.query("select count(*) from _edgeshard_streams")


def test_a_full_disk_inside_a_transaction_undoes_all_of_it(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        pages = shard._connection.pragma("page_count")
        shard._connection.pragma("max_page_count", pages + 2)
        with pytest.raises(DiskFullError), shard.transaction():
            shard.write({"n": 2})
            shard.write({"n": 3, "much": "x" * 10_000})
        shard._connection.pragma("max_page_count", 2**30)
        shard.write({"n": 4})
    store.merge()
    assert [1, 4] == numbers(store)
    assert store.verify().ok


def test_rows_after_the_failure_that_undid_a_transaction_are_refused(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with pytest.raises(TransactionError), shard.transaction():
            shard.write({"n": 2})
            shard._connection.execute("ROLLBACK")  # as SQLite itself does for some errors
            shard._aborted = apsw.FullError()
            shard.write({"n": 3})
        shard.write({"n": 4})
    store.merge()
    assert [1, 4] == numbers(store)
    assert store.verify().ok


def test_an_interrupt_in_a_write_neither_loses_nor_doubles(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        real = shard._execute

        def interrupted(*arguments: Any) -> Any:
            real(*arguments)
            raise KeyboardInterrupt  # the signal came after the commit

        shard._execute = interrupted  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            shard.write({"n": 2})
        shard._execute = real
        shard.write({"n": 3})
    store.merge()
    assert [1, 2, 3] == numbers(store)
    assert store.verify().ok


class Deadline(Exception):
    """What a signal handler raises when time is up."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Deadline, TypeError])
@pytest.mark.parametrize("inside", [False, True])
def test_an_interrupt_after_the_insert_comes_through_and_the_account_stays_exact(
    store: edgeshard.Store, error: type[BaseException], inside: bool
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with shard.transaction() if inside else contextlib.nullcontext():
            with interrupting(shard, "INSERT", error), pytest.raises(error):
                shard.write({"n": 2})
            assert 3 == shard.write({"n": 3})
    store.merge()
    assert [1, 2, 3] == numbers(store)
    assert store.verify().ok


@pytest.mark.parametrize("error", [KeyboardInterrupt, Deadline])
@pytest.mark.parametrize("statement", ["BEGIN", "SAVEPOINT", "COMMIT", "RELEASE"])
def test_an_interrupt_at_either_end_of_a_transaction_leaves_none_open(
    store: edgeshard.Store, statement: str, error: type[BaseException]
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with pytest.raises(error), interrupting(shard, statement, error), shard.transaction():
            shard.write({"n": 2})
            with shard.transaction():
                shard.write({"n": 3})
        assert not shard._connection.in_transaction
        shard.write({"n": 4})
        shard.write_many([{"n": 5}, {"n": 6}])
    store.merge()
    assert [1, 4, 5, 6] == [n for n in numbers(store) if n not in (2, 3)]
    assert numbers(store) in ([1, 4, 5, 6], [1, 2, 3, 4, 5, 6])
    assert store.verify().ok


def test_an_interrupt_of_the_rollback_ends_the_stream_at_the_most(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with (
            pytest.raises(KeyboardInterrupt),
            interrupting(shard, "ROLLBACK", KeyboardInterrupt),
            shard.transaction(),
        ):
            shard.write({"n": 2})
            shard.write({"n": 3})
            raise KeyError
        shard.write({"n": 4})
    store.merge()
    assert [1, 4] == numbers(store)
    assert store.verify().ok


def test_an_interrupt_before_the_insert_comes_through_and_the_seq_is_used_again(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        real = fail_with(shard, Deadline)
        with pytest.raises(Deadline):
            shard.write({"n": 2})
        shard._execute = real
        assert 2 == shard.write({"n": 3})
    store.merge()
    assert [1, 3] == numbers(store)


def test_a_child_that_leaves_its_parents_transaction_commits_nothing(store: edgeshard.Store) -> None:
    code = """
import os, subprocess, sys
import edgeshard
shard = edgeshard.Store(sys.argv[1]).shard("agent")
shard.write({"n": 1})
child = 0
try:
    with shard.transaction():
        shard.write({"n": 2})
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            count = "import apsw, sys; print(apsw.Connection(sys.argv[1]).execute('select count(*) from agent_data').fetchall())"
            print(subprocess.run([sys.executable, "-c", count, shard.path], capture_output=True, text=True).stdout.strip())
            shard.write({"n": 3})
except edgeshard.errors.ShardForkedError:
    os._exit(0 if child == 0 else 1)
shard.close()
sys.exit(code)
"""
    done = python(code, store.root)
    assert (0, "[(1,)]") == (done.returncode, done.stdout.strip()), done.stderr
    store.merge()
    assert [1, 2, 3] == numbers(store)


def test_refusing_again_and_again_keeps_nothing_alive(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    shard.close()
    lengths = []
    for _ in range(3):
        try:
            shard.write({"n": 1})
        except ShardClosedError as error:
            lengths.append(len(traceback.extract_tb(error.__traceback__)))
    assert lengths[0] == lengths[-1]


def test_a_sync_that_was_refused_leaves_the_durability_as_it_was(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        real = fail_with(shard, apsw.BusyError)
        with pytest.raises(StorageBusyError):
            shard.sync()
        shard._execute = real
        assert 1 == shard._connection.pragma("synchronous")
        shard.sync()


def test_a_writer_waits_for_a_lock_and_then_says_who_might_hold_it(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeshard.sqlite.connect.__kwdefaults__", {"busy_timeout_s": 0.05})
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        holder = apsw.Connection(shard.path)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageBusyError, match="locked"):
            shard.write({"n": 2})
        holder.execute("ROLLBACK")
        holder.close()
        assert 2 == shard.write({"n": 3})
    store.merge()
    assert [1, 3] == numbers(store)


@pytest.mark.parametrize("what", ["replaced", "deleted", "log deleted"])
def test_a_writer_notices_that_its_files_are_no_longer_the_ones_in_the_folder(
    store: edgeshard.Store, tmp_path: Path, what: str
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        if what == "replaced":
            shutil.copy(shard.path, tmp_path / "copy")
            os.replace(tmp_path / "copy", shard.path)
        elif what == "deleted":
            os.unlink(shard.path)
        else:
            os.unlink(shard.path + "-wal")
        shard._check_at = shard._upkeep_at = 0.0  # a second passes
        with pytest.raises(ShardPoisonedError, match="replaced"):
            shard.write({"n": 2})


def test_a_record_of_a_newer_class_adds_its_columns(store: edgeshard.Store) -> None:
    def version(fields: dict[str, Any]) -> Any:
        return attrs.make_class("Job", {name: attrs.field(type=kind, default=None) for name, kind in fields.items()})

    old, new = version({"name": str | None}), version({"name": str | None, "tries": int | None})
    with store.shard("agent") as shard:
        shard.write(old("a"))
        shard.write(new("b", 2))
        shard.write(old("c"))
    store.merge()
    assert [("a", None), ("b", 2), ("c", None)] == store.query("select name, tries from job order by _id")


def test_a_column_of_another_type_is_refused_at_the_write(store: edgeshard.Store) -> None:
    one, other = (
        attrs.make_class("Job", {"x": attrs.field(type=int)}),
        attrs.make_class("Job", {"x": attrs.field(type=str)}),
    )
    with store.shard("agent") as shard:
        shard.write(one(1))
        with pytest.raises(SchemaConflictError, match=r"job\.x is integer there and text"):
            shard.write(other("x"))
        assert 2 == shard.write(one(2))


def test_a_table_made_in_a_transaction_that_failed_is_made_again(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with pytest.raises(KeyError), shard.transaction():
            shard.write(Reading("a", 1, NOON))
            raise KeyError
        assert 2 == shard.write(Reading("b", 1, NOON))


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_shard_is_not_opened_and_not_touched(store: edgeshard.Store, content: bytes) -> None:
    path = shard_path(store, "agent")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"agent\.db.*edgeshard salvage.*then open the shard again"):
        store.shard("agent")
    assert content == path.read_bytes()


def test_an_empty_shard_with_a_log_is_not_opened_because_sqlite_would_delete_the_log(store: edgeshard.Store) -> None:
    path = shard_path(store, "agent")
    path.parent.mkdir(parents=True)
    for present in (True, False):
        path.write_bytes(b"") if present else path.unlink()
        path.with_name("agent.db-wal").write_bytes(b"rows")
        with pytest.raises(DamagedError, match="log"):
            store.shard("agent")
        assert b"rows" == path.with_name("agent.db-wal").read_bytes()


def test_the_shard_of_another_agent_is_not_opened(store: edgeshard.Store) -> None:
    with store.shard("one") as shard:
        shard.write({"n": 1})
    shutil.copy(shard_path(store, "one"), shard_path(store, "other"))
    with pytest.raises(FormatError, match="belongs to agent 'one'"):
        store.shard("other")


def test_a_master_is_not_opened_as_a_shard(store: edgeshard.Store) -> None:
    store.init()
    shutil.copy(store.master_path, shard_path(store, "agent"))
    with pytest.raises(FormatError, match="not a shard"):
        store.shard("agent")


def test_a_shard_behind_a_symbolic_link_is_refused(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("one") as shard:
        shard.write({"n": 1})
    shard_path(store, "one").rename(tmp_path / "elsewhere.db")
    shard_path(store, "one").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(DamagedError, match="symbolic link"):
        store.shard("one")


def fail_with(shard: edgeshard.Shard, error: type[Exception]) -> Any:
    """Let the shard's next statement fail; the real thing."""
    real = shard._execute

    def failing(*arguments: Any) -> Any:
        raise error("injected")

    shard._execute = failing  # type: ignore[assignment]
    return real


@contextlib.contextmanager
def interrupting(shard: edgeshard.Shard, statement: str, error: type[BaseException]) -> Iterator[None]:
    """Raise when a statement that begins so has been executed, once: as a signal handler would."""
    real, pending = shard._execute, [error]

    def execute(sql: str, *arguments: Any) -> Any:
        result = real(sql, *arguments)
        if sql.startswith(statement) and pending:
            raise pending.pop()
        return result

    shard._execute = execute  # type: ignore[assignment]
    try:
        yield
    finally:
        shard._execute = real
