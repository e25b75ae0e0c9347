"""A push to PostgreSQL: every row once, whatever dies, whoever else pushes, and whatever PostgreSQL cannot hold.

What both ways of sending rows must do is tested with both: COPY, and INSERT alone, as other servers get it.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import errors, sqlite
from edgeshard.cli import exits
from edgeshard.format.ranges import Range
from edgeshard.master import database, receipts
from edgeshard.postgres import plan, server, watcher
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.options import Listener
from edgeshard.postgres.pusher import Pusher
from edgeshard.postgres.sender import Sender
from edgeshard.reports import PushReport
from tests.support.processes import command, python, sql
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, shard_path

pytest.importorskip("psycopg")

from tests.support import large_push
from tests.support.forms import others_slow
from tests.support.postgres_server import LOCKED, PASSWORD, PgServer, Proxy, do, fetch, free_port, needs_triggers

WAYS = pytest.mark.parametrize("inserts", [False, True], ids=["copy", "insert"])


@attrs.frozen
class Everything:
    """A column of each kind."""

    flag: bool
    whole: int
    real: float
    words: str
    raw: bytes
    at: datetime.datetime
    day: datetime.date
    amount: decimal.Decimal
    key: uuid.UUID
    data: dict[str, Any]
    maybe: int | None = None


@edgeshard.table(name="reading")
@attrs.frozen
class RoomReading:
    """The README's record, with a field more."""

    sensor: str
    celsius: float
    at: datetime.datetime
    room: str | None = None


@edgeshard.table(name="reading")
@attrs.frozen
class TextReading:
    """Another program's record of the same name, whose column has another type."""

    celsius: str


def write(store: edgeshard.Store, agent: str, *records: Any) -> None:
    """Write records, each in a transaction of its own, and merge."""
    with store.shard(agent) as shard:
        for record in records:
            shard.write(record)
    assert store.merge().complete


def fill(store: edgeshard.Store, agent: str, first: int, count: int) -> None:
    """Dicts that say which they are, in one transaction, and merge."""
    with store.shard(agent) as shard:
        shard.write_many({"n": n} for n in range(first, first + count))
    assert store.merge().complete


def numbers(dsn: str) -> list[int]:
    """The field n of all dicts in PostgreSQL, doubled ones doubled."""
    return [n for (n,) in fetch(dsn, "select (data ->> 'n')::int from agent_data order by 1")]


def addresses(store: edgeshard.Store, table: str) -> list[tuple[str, int]]:
    """The address of each row of a master's table."""
    listed = f"select lower(hex(stream_id)), _seq from {table} join _edgeshard_streams on stream_no = _stream"
    return sorted((stream, seq) for stream, seq in sql(store.master_path, listed))


def addresses_there(dsn: str, table: str) -> list[tuple[str, int]]:
    """The address of each row of PostgreSQL's table."""
    return sorted((stream.hex, seq) for stream, seq in fetch(dsn, f"select _stream, _seq from {table}"))


def ranges_there(dsn: str) -> dict[bytes, list[Range]]:
    """What PostgreSQL's ranges say."""
    found: dict[bytes, list[Range]] = {}
    for stream, first, last in fetch(dsn, "select stream, first, last from edgeshard_ranges order by stream, first"):
        found.setdefault(stream.bytes, []).append(Range(first, last))
    return found


def receipt(store: edgeshard.Store) -> dict[bytes, list[Range]]:
    """What the master notes that PostgreSQL holds."""
    connection = database.open_master(store.master_path, writable=False)
    try:
        return receipts.held_elsewhere(connection, [receipts.POSTGRESQL])
    finally:
        connection.close()


def push(store: edgeshard.Store, dsn: str, *options: str) -> subprocess.CompletedProcess[str]:
    """``edgeshard push``."""
    return command("push", store.root, dsn, *options)


# -- rows and values --------------------------------------------------------------------------------------------------


@WAYS
def test_rows_arrive_once_with_their_addresses_agents_and_ranges(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    write(store, "boiler", *(Reading(f"s{n}", n / 8, NOON) for n in range(50)))
    fill(store, "agent-7", 0, 120)
    report = store.push(pg, inserts=inserts)
    assert (170, 2, {"reading": 50, "agent_data": 120}, 0, True) == (
        report.rows, report.streams, report.tables, report.remaining, report.complete,
    )  # fmt: skip
    assert addresses(store, "reading") == addresses_there(pg, "reading")
    assert addresses(store, "agent_data") == addresses_there(pg, "agent_data")
    assert list(range(120)) == numbers(pg)
    joined = "select agent_id, count(*) from reading join edgeshard_streams on stream = _stream group by 1"
    assert [("boiler", 50)] == fetch(pg, joined)
    assert sorted([[Range(1, 50)], [Range(1, 120)]]) == sorted(ranges_there(pg).values())
    assert ranges_there(pg) == receipt(store)


@WAYS
def test_a_push_without_news_pushes_nothing_and_one_with_news_pushes_that(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    fill(store, "a", 0, 10)
    pushed = [store.push(pg, inserts=inserts).rows, store.push(pg, inserts=inserts).rows]
    fill(store, "a", 10, 5)
    pushed.append(store.push(pg, inserts=inserts).rows)
    assert [10, 0, 5] == pushed
    assert list(range(15)) == numbers(pg)


MOMENTS = [
    NOON,
    datetime.datetime(1, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.UTC),
    datetime.datetime(1999, 12, 31, 23, 59, 59, 123456, tzinfo=datetime.UTC),
]
DECIMALS = ["0", "1.50", "-0.000012345", "123456789012345678901234567890.5", "1E+10", "9999", "10000", "0.0001", "NaN"]


@WAYS
def test_every_kind_of_value_arrives_as_it_is(store: edgeshard.Store, pg: str, inserts: bool) -> None:
    records = [
        Everything(
            flag=n % 2 == 0,
            whole=[0, -1, 2**63 - 1, -(2**63)][n % 4],
            real=[0.1, 0.0, 1.7976931348623157e308, 5e-324, float("inf")][n % 5],
            words=["", "a\tb\n\\N\\", "ß 漢 \U0001f600", "x" * 100_000][n % 4],
            raw=[b"", b"\0\xff\\x", bytes(range(256))][n % 3],
            at=MOMENTS[n % 4],
            day=[datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(2000, 2, 29)][n % 3],
            amount=decimal.Decimal(DECIMALS[n % len(DECIMALS)]),
            key=uuid.UUID(int=n * 7919 << 64 | n),
            data={"a": [1, 2.5, None, True], "ü": {"b": "\\ \"'\n"}},
            maybe=None if n % 2 else n,
        )
        for n in range(20)
    ]
    write(store, "a", *records)
    assert store.push(pg, inserts=inserts).complete
    # PostgreSQL's years go further than Python's, and psycopg shows a time in the server's zone
    names = "flag, whole, real, words, raw, extract(epoch from at), day, amount, key, data, maybe"
    epoch, second = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(microseconds=1)
    expected = [
        tuple(
            str(decimal.Decimal((value - epoch) // second).scaleb(-6)) if value is record.at else str(value)
            for value in attrs.astuple(record, recurse=False)
        )
        for record in records
    ]
    found = fetch(pg, f"select {names} from everything order by _seq")
    assert [tuple(value.replace("1E+10", "10000000000") for value in row) for row in expected] == [
        tuple(map(str, row)) for row in found
    ]


@WAYS
def test_a_column_that_a_newer_agent_brings_is_added(store: edgeshard.Store, pg: str, inserts: bool) -> None:
    write(store, "old", Reading("s", 1.5, NOON))
    assert store.push(pg, inserts=inserts).complete
    write(store, "new", RoomReading("s", 2.5, NOON, "attic"))
    report = store.push(pg, inserts=inserts)
    assert ('ALTER TABLE "reading" ADD COLUMN "room" text',) == report.statements
    assert [(1.5, None), (2.5, "attic")] == fetch(pg, "select celsius, room from reading order by celsius")
    kinds = fetch(pg, "select column_name, type from edgeshard_columns where table_name = 'reading' order by 1")
    assert [("at", "datetime"), ("celsius", "real"), ("room", "text"), ("sensor", "text")] == kinds


def test_the_times_of_dicts_are_times_there(store: edgeshard.Store, pg: str) -> None:
    write(store, "a", {"n": 1})
    store.push(pg)
    (record,) = store.read(edgeshard.AgentData)
    assert [(record.timestamp,)] == fetch(pg, "select timestamp from agent_data where timestamp <= now()")


def test_an_index_is_made_once_and_not_again_where_somebody_drops_it(store: edgeshard.Store, pg: str) -> None:
    write(store, "a", Reading("s", 1.5, NOON))
    store.push(pg)
    made = "select indexname from pg_indexes where tablename = 'reading' and indexname like 'reading by s%'"
    assert [("reading by sensor",)] == fetch(pg, made)
    do(pg, 'drop index "reading by sensor"')
    write(store, "a", Reading("s", 2.5, NOON))
    store.push(pg)
    assert [] == fetch(pg, made)


@WAYS
def test_transactions_stay_whole_in_chunks_that_are_smaller(store: edgeshard.Store, pg: str, inserts: bool) -> None:
    fill(store, "a", 0, 40)
    write(store, "a", *({"n": n} for n in range(40, 60)))
    seen: list[tuple[int, int]] = []
    report = store.push(pg, inserts=inserts, batch=7, progress=lambda done, of: seen.append((done, of)))
    assert (60, [(40, 60), (47, 60), (54, 60), (60, 60)]) == (report.rows, seen)
    assert list(range(60)) == numbers(pg)


def test_what_is_left_of_a_pruned_transaction_stays_whole_in_chunks(store: edgeshard.Store, pg: str) -> None:
    for k in range(2):
        records = ({"n": n} if n % 2 else Reading("s", float(n), NOON) for n in range(20))
        with store.shard("a") as shard:
            shard.write_many(records)
        write(store, "a", *({"n": 100 + 10 * k + n} for n in range(3)))
    store.prune(keep_rows=0, table="reading")
    seen: list[int] = []
    report = store.push(pg, batch=4, progress=lambda done, of: seen.append(done))
    assert (26, [10, 23, 26]) == (report.rows, seen)


# -- who else pushes --------------------------------------------------------------------------------------------------


@WAYS
def test_two_devices_with_the_same_agents_push_at_once(tmp_path: Path, pg: str, inserts: bool) -> None:
    stores = [edgeshard.Store(tmp_path / name) for name in ("one", "two")]
    for k, store in enumerate(stores):
        for agent in ("a", "b"):
            fill(store, agent, 1_000 * k, 300)
            write(store, agent, *(Reading(agent, n, NOON) for n in range(20)))
    together([partial(store.push, pg, inserts=inserts, batch=50) for store in stores])
    assert sorted([*range(300), *range(300), *range(1_000, 1_300), *range(1_000, 1_300)]) == numbers(pg)
    assert [(80,)] == fetch(pg, "select count(*) from reading")
    assert sorted(addresses(stores[0], "reading") + addresses(stores[1], "reading")) == addresses_there(pg, "reading")


@WAYS
def test_a_stream_that_comes_by_two_routes_at_once_arrives_once(tmp_path: Path, pg: str, inserts: bool) -> None:
    device, hub = new_store(tmp_path / "device"), new_store(tmp_path / "hub")
    with device.shard("a") as shard:
        for first in range(0, 2_000, 100):
            shard.write_many({"n": n} for n in range(first, first + 100))
            if first == 1_500:
                device.merge()
                hub.merge([device.master_path])
    device.merge()
    together([partial(store.push, pg, inserts=inserts, batch=100) for store in (device, hub) * 2])
    assert list(range(2_000)) == numbers(pg)
    assert addresses(device, "agent_data") == addresses_there(pg, "agent_data")


class Pushing(threading.Thread):
    """A push of its own thread, from when all of them are started; its error is raised by `finish`."""

    def __init__(self, push: Callable[[], Any], barrier: threading.Barrier | None = None) -> None:
        super().__init__()
        self._push = push
        self._barrier = barrier
        self._failed: BaseException | None = None

    def run(self) -> None:
        try:
            if self._barrier is not None:
                self._barrier.wait()
            self._push()
        except BaseException as error:
            self._failed = error

    def finish(self) -> None:
        self.join()
        if self._failed is not None:
            raise self._failed


def together(pushes: list[Callable[[], Any]]) -> None:
    """Run pushes at the same time; each must succeed."""
    barrier = threading.Barrier(len(pushes))
    threads = [Pushing(push, barrier) for push in pushes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread in threads:
        thread.finish()


def wait_until_locked_out(dsn: str, pushing: threading.Thread) -> None:
    """Wait until the push waits for another one's lock."""
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    while fetch(dsn, waiting) == [(0,)]:
        assert pushing.is_alive()


def test_a_push_waits_for_another_that_has_locked_the_stream(store: edgeshard.Store, pg: str) -> None:
    import psycopg

    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(10))
        store.merge()
        store.push(pg)
        shard.write_many({"n": n} for n in range(10, 15))
        for n in range(15, 20):
            shard.write({"n": n})
        store.merge()
    pushing = Pushing(partial(store.push, pg))
    try:
        with psycopg.connect(pg) as other:
            other.execute("select * from edgeshard_streams for update")
            pushing.start()
            wait_until_locked_out(pg, pushing)
            # it keeps neither a lock nor a snapshot of the master meanwhile: (not busy, nothing in the log)
            fill(store, "b", 100, 1)
            assert [[0, 0, 0]] == sql(store.master_path, "pragma wal_checkpoint(truncate)")
            ((stream, first, last),) = other.execute("select * from edgeshard_ranges").fetchall()
            assert (1, 10) == (first, last)
            # as if the other one had pushed the first five of them
            other.execute("update edgeshard_ranges set last = 15")
            other.execute(
                "insert into agent_data(_stream, _seq, data) select %s, n, jsonb_build_object('n', n - 1) "
                "from generate_series(11, 15) n", (stream,),
            )  # fmt: skip
            other.commit()
    finally:
        pushing.join()
    pushing.finish()
    assert list(range(20)) == numbers(pg)
    assert [[Range(1, 20)]] == list(ranges_there(pg).values())
    assert 1 == store.push(pg).rows


@WAYS
def test_a_server_that_reads_from_one_snapshot_a_transaction_gets_each_row_once(
    tmp_path: Path, pg: str, inserts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ")  # as YugabyteDB does by default
    device, hub = new_store(tmp_path / "device"), new_store(tmp_path / "hub")
    with device.shard("a") as shard:
        shard.write({"n": 0})
        device.merge()
        device.push(pg)  # so that the stream is known there
        for n in range(1, 401):
            shard.write({"n": n})
    device.merge()
    hub.merge([device.master_path])
    first, second = (Pushing(partial(store.push, pg, inserts=inserts, batch=20)) for store in (device, hub))
    has_locked, may_go_on = threading.Event(), threading.Event()

    def send_rows(self: Sender, *arguments: Any) -> dict[str, int]:
        if not has_locked.is_set():
            has_locked.set()
            assert may_go_on.wait(60)
        return real(self, *arguments)

    real = Sender.send_rows
    monkeypatch.setattr(Sender, "send_rows", send_rows)
    first.start()
    has_locked.wait()
    second.start()
    try:
        wait_until_locked_out(pg, second)
    finally:
        may_go_on.set()
        first.join()
        second.join()
    first.finish()
    second.finish()
    assert list(range(401)) == numbers(pg)


@pytest.mark.parametrize("divided_at", [1, 5, 9])
def test_ranges_that_somebody_has_divided_do_not_keep_a_push_from_ending(
    store: edgeshard.Store, pg: str, divided_at: int
) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(10))
        store.merge()
        store.push(pg)
        do(pg, f"insert into edgeshard_ranges select stream, {divided_at + 1}, last from edgeshard_ranges")
        do(pg, f"update edgeshard_ranges set last = {divided_at} where first = 1")
        shard.write_many({"n": n} for n in range(10, 13))
        store.merge()
    assert 3 == store.push(pg).rows
    assert list(range(13)) == numbers(pg)
    assert 0 == store.push(pg).rows
    assert store.verify_against(pg, deep=True).ok


def test_a_row_that_the_ranges_do_not_name_is_loud(store: edgeshard.Store, pg: str) -> None:
    fill(store, "a", 0, 10)
    store.push(pg)
    do(pg, "delete from edgeshard_ranges")
    with pytest.raises(errors.PostgresError, match="the server has a row that edgeshard_ranges does not name"):
        store.push(pg)
    assert list(range(10)) == numbers(pg)


@pytest.mark.slow
def test_a_store_that_lost_its_master_goes_on_without_doubling(store: edgeshard.Store, pg: str, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(100))
        store.merge()
        store.push(pg)
        for file in store.root.glob("master.db*"):
            file.unlink()
        shard.write_many({"n": n} for n in range(100, 150))
        store.merge()
        told = command("ranges", pg)
        (tmp_path / "pg.json").write_text(told.stdout)
        assert (0, "") == (told.returncode, told.stderr)
        assert 3 == command("receipt", store.root, tmp_path / "pg.json").returncode  # nobody pushed from this master
        assert 0 == command("receipt", store.root, tmp_path / "pg.json", "--trust").returncode
        shard.write_many({"n": n} for n in range(150, 200))
        store.merge()
        assert 100 == store.push(pg).rows
    assert list(range(200)) == numbers(pg)
    assert [[Range(1, 200)]] == list(ranges_there(pg).values())


def test_rows_of_a_lost_master_that_come_back_from_a_copy_are_not_pushed_again(
    store: edgeshard.Store, pg: str, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(100))
    copy = tmp_path / "copy.db"
    shutil.copy(shard_path(store, "a"), copy)  # its handle is closed, so that nothing is in its log
    store.merge()
    store.push(pg)
    for file in store.root.glob("master.db*"):
        file.unlink()
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(100, 150))
    (gap,) = store.merge().gaps  # the rows of the shard that was removed: the notes outside the master know of them
    assert (1, 100) == (gap.first, gap.last)
    assert (100, ()) == ((report := store.merge([copy])).rows, report.gaps)
    assert (150, 50, 0) == (store.verify().rows, store.push(pg).rows, store.push(pg).rows)
    assert list(range(150)) == numbers(pg)
    assert ranges_there(pg) == receipt(store)


def test_what_was_pushed_may_be_pruned_and_only_that(store: edgeshard.Store, pg: str) -> None:
    fill(store, "a", 0, 10)
    store.push(pg)
    fill(store, "a", 10, 5)
    report = store.prune(keep_rows=0, only_pushed=True)
    assert (10, 5) == (report.rows, report.kept_back)
    assert (5, list(range(15))) == (store.push(pg).rows, numbers(pg))
    assert (5, 0) == (store.prune(keep_rows=0, only_pushed=True).rows, store.push(pg).rows)
    assert (True, {"keep rows": 15}) == (store.verify().ok, store.verify().pruned)


@pytest.mark.slow
def test_rows_that_are_pruned_while_a_push_goes_on_are_left_out_and_the_others_arrive(
    store: edgeshard.Store, pg: str
) -> None:
    for first in range(0, 400, 4):
        fill(store, "a", first, 4)

    def prune_what_waits(done: int, _: int) -> None:
        if done == 100:
            store.prune(keep_rows=200)

    report = store.push(pg, batch=100, progress=prune_what_waits)
    assert (0, list(range(100)) + list(range(200, 400))) == (report.remaining, numbers(pg))
    assert (0, True) == (store.push(pg).rows, store.verify().ok)


def test_the_ranges_of_a_database_are_what_a_store_says_of_itself(store: edgeshard.Store, pg: str) -> None:
    before = command("ranges", pg)
    assert (78, True) == (before.returncode, "nothing was pushed to this database yet" in before.stderr)
    fill(store, "a", 0, 30)
    store.push(pg)
    said = json.loads(command("ranges", pg).stdout)
    assert json.loads(store.ranges().to_json())["streams"] == said["streams"]
    assert fetch(pg, "select replace(id::text, '-', '') from edgeshard_database") == [(said["database"],)]


# -- what PostgreSQL cannot hold --------------------------------------------------------------------------------------


@WAYS
def test_a_value_that_postgresql_cannot_hold_stays_behind_and_all_others_go(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    write(store, "a", {"n": 0}, {"n": 1, "text": "a\0b"}, {"n": 2})
    write(store, "b", {"n": 3}, Reading("x\0y", 1.5, NOON), {"n": 4})
    report = store.push(pg, inserts=inserts)
    assert (5, 2, False, [0, 2, 3, 4]) == (report.rows + 1, report.remaining, report.complete, numbers(pg))
    held = [(item.agent, item.first, item.last, item.seq, item.table, item.column) for item in report.rejected]
    assert [("a", 2, 2, 2, "agent_data", "data"), ("b", 2, 2, 2, "reading", "sensor")] == held
    assert all("U+0000" in item.reason for item in report.rejected)
    assert receipt(store) == ranges_there(pg)
    fill(store, "a", 5, 3)
    assert 3 == store.push(pg, inserts=inserts).rows


def test_numbers_of_json_that_no_column_of_numbers_holds_arrive_as_they_are(store: edgeshard.Store, pg: str) -> None:
    held = {"big": 2**70, "small": -(10**40), "fine": 1.000000000000001e-9, "half": 0.5}
    write(store, "a", held)
    assert store.push(pg).complete
    assert [(str(2**70), str(-(10**40)), "0.000000001000000000000001", "0.5")] == fetch(
        pg, "select data ->> 'big', data ->> 'small', data ->> 'fine', data ->> 'half' from agent_data"
    )


def test_an_agent_whose_name_no_postgresql_holds_stays_behind_whatever_else_does(
    store: edgeshard.Store, pg: str
) -> None:
    write(store, "a", {"n": 0, "text": "\0"}, {"n": 1})
    pusher = Pusher(store.master_path, parse_dsn(pg))
    pusher.run()
    fill(store, "b", 2, 1)
    sql(store.master_path, "update _edgeshard_streams set agent_id = 'b' || char(0) where agent_id = 'b'")
    report = pusher.run()
    pusher.close()
    assert [("a", 1, 1, "data"), ("b\0", 1, 1, "agent_id")] == [
        (item.agent, item.first, item.last, item.column) for item in report.rejected
    ]
    assert [1] == numbers(pg)


@WAYS
def test_a_transaction_with_a_row_that_cannot_go_stays_behind_whole(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    fill(store, "a", 0, 3)
    with store.shard("a") as shard:
        shard.write_many([{"n": 3}, {"n": 4, "text": "\0"}, {"n": 5}])
    fill(store, "a", 6, 3)
    report = store.push(pg, inserts=inserts)
    assert ([0, 1, 2, 6, 7, 8], 3) == (numbers(pg), report.remaining)


@WAYS
def test_a_row_that_only_the_server_refuses_is_found(store: edgeshard.Store, pg: str, inserts: bool) -> None:
    needs_triggers(pg)
    fill(store, "a", 0, 300)
    store.push(pg, inserts=inserts)
    do(
        pg,
        "alter table agent_data add check ((data ->> 'n')::int <> 437)",
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$",
        "create trigger refusing before insert on agent_data for each row when ((new.data ->> 'n')::int = 351) "
        "execute function refuse()",
    )
    write(store, "a", *({"n": n} for n in range(300, 500)))
    report = store.push(pg, inserts=inserts)
    assert [*range(351), *range(352, 437), *range(438, 500)] == numbers(pg)
    reasons = {(held.table, held.seq): held.reason for held in report.rejected}
    assert [("agent_data", 351 - 300 + 1), ("agent_data", 437 - 300 + 1)] == list(reasons)
    assert all(said in reason for said, reason in zip(("not this one", "check"), reasons.values(), strict=True))


@WAYS
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", '\'{"n": 1, "n": 2}\''),
        ("data", '\'{"n": "\\u0000"}\''),
        ("data", '\'{"n": "\\ud800"}\''),
        ("data", "'{\"n\": NaN}'"),
        ("data", "'{\"n\": 1e999999}'"),
        ("data", "'not json'"),
        ("data", "CAST(x'22ff22' AS TEXT)"),
        ("agent_id", "CAST(x'ff' AS TEXT)"),
    ],
)
def test_json_and_text_that_no_postgresql_holds_stay_behind(
    store: edgeshard.Store, pg: str, column: str, value: str, inserts: bool
) -> None:
    write(store, "a", *({"n": n} for n in range(5)))
    sql(store.master_path, f"update agent_data set {column} = {value} where _seq = 3")
    report = store.push(pg, inserts=inserts)
    assert [0, 1, 3, 4] == numbers(pg)
    assert [(3, "agent_data")] == [(item.seq, item.table) for item in report.rejected]


@WAYS
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "2026-01-02T12:00:00.1234567+00:00"),
        ("at", "2026-01-02T12:00:00.123456789Z"),
        ("at", "2026-01-02T12:00:00"),
        ("at", "2016-12-31T23:59:60+00:00"),
        ("day", "2026-02-30"),
        ("amount", "1E+200000"),
        ("amount", "1E-20000"),
        ("amount", "sNaN"),
        ("amount", "much"),
        ("key", "no-uuid"),
        ("flag", 2),
    ],
)
def test_a_value_that_would_be_changed_stays_behind(
    store: edgeshard.Store, pg: str, column: str, value: object, inserts: bool
) -> None:
    one = Everything(
        True, 1, 1.0, "", b"", NOON, NOON.date(), decimal.Decimal(1), uuid.UUID(int=1), {"a": 1}
    )  # fmt: skip
    write(store, "a", one, one, one)
    sql(store.master_path, f'update everything set "{column}" = {value!r} where _seq = 2')
    report = store.push(pg, inserts=inserts)
    assert [(1,), (3,)] == fetch(pg, "select _seq from everything order by 1")
    assert [(2, "everything", column)] == [(item.seq, item.table, item.column) for item in report.rejected]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("create table reading(id serial primary key, sensor text)", "was not made by a push"),
        ("create view reading as select 1 as one", "was not made by a push"),
        (
            "create table reading(_stream uuid, _seq bigint, celsius text, primary key (_stream, _seq))",
            "column celsius is text in PostgreSQL, and real here",
        ),
        (
            "create table reading(_stream uuid, _seq bigint, at timestamptz(0), primary key (_stream, _seq))",
            "column at is timestamp(0) with time zone in PostgreSQL",
        ),
    ],
)
def test_a_table_that_does_not_fit_holds_back_its_own_rows_alone(
    store: edgeshard.Store, pg: str, made: str, said: str
) -> None:
    do(pg, made)
    fill(store, "a", 0, 10)
    write(store, "b", {"n": 10}, Reading("s", 1.5, NOON), {"n": 11})
    would, done = store.push(pg, dry_run=True), store.push(pg)
    assert list(range(12)) == numbers(pg)
    for report in (would, done):
        (held,) = report.rejected
        assert ("b", 2, "reading", True, 12) == (held.agent, held.seq, held.table, said in held.reason, report.rows)
    printed = push(store, pg)
    assert (3, True) == (printed.returncode, said in printed.stderr)
    do(pg, f"drop {'view' if 'view' in made else 'table'} reading")
    assert (1, True) == (store.push(pg).rows, store.push(pg).complete)


def test_devices_whose_records_contradict_each_other_get_what_fits(tmp_path: Path, pg: str) -> None:
    first, second = edgeshard.Store(tmp_path / "first"), edgeshard.Store(tmp_path / "second")
    write(first, "a", Reading("s", 1.5, NOON))
    write(second, "b", TextReading("warm"))
    fill(second, "c", 0, 5)
    assert first.push(pg).complete
    report = second.push(pg)
    (held,) = report.rejected
    assert ("b", "reading", 5, 1) == (held.agent, held.table, report.rows, report.remaining)
    assert "column celsius is double precision in PostgreSQL, and text here" in held.reason


def test_names_that_differ_in_case_alone_are_one_table(tmp_path: Path, pg: str) -> None:
    for name, agent in (("Sample", "a"), ("SAMPLE", "b")):
        store = edgeshard.Store(tmp_path / agent)
        kind = edgeshard.table(name=name)(attrs.make_class("Sample", {"Value": attrs.field(type=int)}))
        write(store, agent, kind(1))
        assert store.push(pg).complete
    assert [(1,), (1,)] == fetch(pg, "select value from sample")


# -- a dry run --------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(store: edgeshard.Store, pg: str) -> None:
    fill(store, "a", 0, 10)
    write(store, "b", Reading("s", 1.5, NOON))
    report = store.push(pg, dry_run=True)
    assert (11, {"agent_data": 10, "reading": 1}, {}) == (report.rows, report.tables, receipt(store))
    assert [] == fetch(pg, "select 1 from pg_tables where schemaname = 'public'")
    done = store.push(pg)
    assert set(done.statements) < set(report.statements)
    assert (0, ()) == (store.push(pg, dry_run=True).rows, store.push(pg, dry_run=True).statements)


def test_a_dry_run_leaves_out_the_same_rows_as_the_push(store: edgeshard.Store, pg: str) -> None:
    do(pg, "create table reading(id serial primary key)", "create table everything(id serial primary key)")
    every = Everything(True, 1, 1.0, "", b"", NOON, NOON.date(), decimal.Decimal(1), uuid.UUID(int=1), {"a": 1})
    write(store, "a", {"n": 0}, Reading("s", 1.5, NOON), every, {"n": 1})
    write(store, "b", every, Reading("s", 1.5, NOON))
    fill(store, "c", 10, 5)
    would, done = store.push(pg, dry_run=True), store.push(pg)
    assert [("a", 2, 2), ("a", 3, 2)] == [(item.agent, item.first, item.rows) for item in done.rejected]
    assert would.rejected == tuple(attrs.evolve(item, database="") for item in done.rejected)
    assert (7, {"agent_data": 7}) == (would.rows, would.tables) == (done.rows, done.tables)


# -- the network ------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(pg_server: PgServer) -> Iterator[Proxy]:
    made = Proxy(pg_server.port)
    yield made
    made.close()


@pytest.mark.parametrize(
    "inserts", [pytest.param(False, id="copy"), pytest.param(True, id="insert", marks=pytest.mark.slow)]
)
def test_a_connection_that_is_cut_after_any_byte_loses_and_doubles_nothing(
    store: edgeshard.Store, pg_server: PgServer, proxy: Proxy, inserts: bool
) -> None:
    name = pg_server.make_database()
    dsn = pg_server.dsn(name, port=proxy.port)
    fill(store, "a", 0, 20)
    assert 20 == store.push(dsn, inserts=inserts).rows
    before = proxy.seen
    fill(store, "a", 20, 20)
    assert 20 == store.push(dsn, inserts=inserts).rows
    length, rows = proxy.seen - before, 40
    for at in (*range(0, length, max(1, length // 7)), *range(length - 120, length + 1, 30)):
        fill(store, "a", rows, 20)
        rows += 20
        proxy.cut_after, proxy.cuts = at, 1
        try:
            store.push(dsn, inserts=inserts)
        except errors.PostgresUnavailableError:  # the very first connection failed
            store.push(dsn, inserts=inserts)
        assert list(range(rows)) == numbers(pg_server.dsn(name)), at
        assert receipt(store) == ranges_there(pg_server.dsn(name)), at
    assert proxy.cut > 8


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_answer_to_commit_that_never_comes_loses_and_doubles_nothing(
    store: edgeshard.Store, pg_server: PgServer, proxy: Proxy, moment: str, inserts: bool
) -> None:
    name = pg_server.make_database()
    fill(store, "a", 0, 100)
    write(store, "a", *({"n": n} for n in range(100, 130)))
    proxy.on_commit, proxy.cuts = moment, 4  # of the table, and of rows
    report = store.push(pg_server.dsn(name, port=proxy.port), inserts=inserts, batch=3)
    assert (4, list(range(130)), True) == (proxy.cut, numbers(pg_server.dsn(name)), report.complete)
    assert receipt(store) == ranges_there(pg_server.dsn(name))


def test_a_slow_network_keeps_no_writer_and_no_merger_waiting(
    store: edgeshard.Store, pg_server: PgServer, proxy: Proxy
) -> None:
    name = pg_server.make_database()
    fill(store, "a", 0, 50)
    proxy.delay_s = 0.05
    pushing = threading.Thread(target=store.push, args=(pg_server.dsn(name, port=proxy.port),), kwargs={"batch": 5})
    pushing.start()
    merged = 0
    while pushing.is_alive() and merged < 10:
        fill(store, "b", 100 + merged, 1)
        merged += 1
    assert (10, True) == (merged, pushing.is_alive())
    pushing.join()
    proxy.delay_s = 0.0
    store.push(pg_server.dsn(name))
    assert [*range(50), *range(100, 110)] == numbers(pg_server.dsn(name))


# -- many rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inserts", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["copy", "insert"])
@pytest.mark.parametrize("kind", others_slow(large_push.KINDS, ["dicts"]))
def test_a_large_push_brings_each_row_once(tmp_path: Path, pg: str, kind: str, inserts: bool) -> None:
    store = large_push.prepare(tmp_path / "data", kind, 50_000)
    assert large_push.push(store, pg, kind, 50_000, inserts=inserts) > 0


# -- failures, each with its error, and no secret in any output -------------------------------------------------------


def run_push(store: edgeshard.Store, dsn: str) -> tuple[int, str]:
    """The exit code of a push that fails, and all that it prints; a password is in none of it."""
    with pytest.raises(errors.EdgeshardError) as raised:
        store.push(dsn)
    assert PASSWORD not in "".join(traceback.format_exception(raised.value)) + repr(raised.value.__dict__)
    done = command("push", store.root, dsn, "-v", "--log-format", "json")
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def locked(
    pg_server: PgServer, *, password: str = PASSWORD, database: str = "postgres", port: int | None = None
) -> str:
    return f"postgresql://{LOCKED}:{password}@127.0.0.1:{port or pg_server.port}/{database}"


@pytest.mark.slow
def test_each_failure_has_its_exit_code_and_shows_no_password(store: edgeshard.Store, pg_server: PgServer) -> None:
    fill(store, "a", 0, 10)
    name = pg_server.make_database()
    do(pg_server.dsn(name), "revoke create on schema public from public")
    wrong = PASSWORD[::-1]
    cases = {
        "cannot connect": (locked(pg_server, port=free_port()), 69, "connection"),
        "wrong password": (locked(pg_server, password=wrong), 77, "28P01"),
        "no password": (f"postgresql://{LOCKED}@127.0.0.1:{pg_server.port}/postgres", 77, "password"),
        "no such user": (f"postgresql://nobody:{PASSWORD}@127.0.0.1:{pg_server.port}/postgres", 77, "28000"),
        "no such database": (locked(pg_server, database="nowhere"), 78, "3D000"),
        "no permission": (locked(pg_server, database=name), 77, "42501"),
        "no DSN": (f"postgresql://u:{PASSWORD}@[h/d", 78, "libpq cannot read this DSN"),
        "an @ in it": (f"postgresql://u:x@{PASSWORD}@h/d", 78, "%40"),
        "a / in it": (f"postgresql://u:{PASSWORD}/x@h:80", 78, "%2F"),
        "a / in it, after digits": (f"postgresql://u:12/{PASSWORD}@h/d", 78, "%2F"),
        "no such option": (f"postgresql://u:{PASSWORD}@h/d?pasword={PASSWORD}", 78, "libpq cannot read this DSN"),
        "a query's password": (f"postgresql://127.0.0.1:1/d?user=u&password={PASSWORD}", 69, "u@127.0.0.1:1/d"),
        "another schema": (locked(pg_server) + "?options=-csearch_path%3Dnowhere", 78, "3F000"),
    }
    for case, (dsn, code, said) in cases.items():
        found, printed = run_push(store, dsn)
        assert (code, True) == (found, said in printed), (case, printed)
        assert wrong not in printed, case
    assert 10 == store.push(pg_server.dsn(name)).rows


def test_a_server_without_connections_is_unavailable(store: edgeshard.Store, pg_server: PgServer) -> None:
    fill(store, "a", 0, 10)
    name = pg_server.make_database()
    do(pg_server.dsn(name), f"grant all on schema public to {LOCKED}", f"alter database {name} connection limit 0")
    code, printed = run_push(store, locked(pg_server, database=name))
    assert (69, True) == (code, "it has no connection left" in printed), printed


def test_a_database_that_only_reads_is_unavailable(store: edgeshard.Store, pg_server: PgServer) -> None:
    fill(store, "a", 0, 10)
    name = pg_server.make_database()
    do(pg_server.dsn(name), f"alter database {name} set default_transaction_read_only = on")
    code, printed = run_push(store, pg_server.dsn(name))
    assert (69, True) == (code, "25006" in printed), printed


@pytest.mark.slow
def test_a_disk_that_is_full_is_unavailable(store: edgeshard.Store, pg_server: PgServer, small_disk: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(small_disk, "nobody")
    for folder in small_disk.parents:
        if folder.stat().st_uid == os.geteuid() and str(folder).count("/") > 1:
            folder.chmod(folder.stat().st_mode | 0o011)
    name = pg_server.make_database()
    do(pg_server.dsn(), f"create tablespace small_{name} location '{small_disk}'")
    try:
        do(
            pg_server.dsn(name),
            f"set default_tablespace = small_{name}; alter database {name} set default_tablespace = small_{name}",
        )
        for n in range(40):
            with store.shard("a") as shard:
                shard.write_many({"n": 1_000 * n + k, "text": os.urandom(40).hex()} for k in range(200))
        store.merge()
        code, printed = run_push(store, pg_server.dsn(name) + "?application_name=x")
        assert (69, True) == (code, "its disk is full" in printed), printed
        do(
            pg_server.dsn(name),
            f"alter database {name} set default_tablespace = pg_default",
            "alter table agent_data set tablespace pg_default",
        )
        assert store.push(pg_server.dsn(name)).remaining == 0
        assert 8_000 == len(numbers(pg_server.dsn(name)))
    finally:
        do(pg_server.dsn(), f"drop database {name} with (force)", f"drop tablespace small_{name}")


STATES = {"53100": 69, "53200": 69, "57014": 69, "58030": 69, "42501": 77, "0A000": 78, "XX000": 1}


@WAYS
def test_a_state_of_the_server_in_mid_push_has_its_exit_code_and_the_next_push_goes_on(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    needs_triggers(pg)
    do(
        pg,
        "create table agent_data(_stream uuid not null, _seq bigint not null, agent_id text, data jsonb, "
        "timestamp timestamptz, primary key (_stream, _seq))",
    )
    for start, (state, code) in zip(range(0, 20 * len(STATES), 20), STATES.items(), strict=True):
        fill(store, "a", start, 10)
        write(store, "a", *({"n": n} for n in range(start + 10, start + 20)))
        do(
            pg,
            "create or replace function refuse() returns trigger language plpgsql as "
            f"$$ begin raise 'as if' using errcode = '{state}'; end $$",
            f"create trigger refusing before insert on agent_data for each row when ((new.data ->> 'n')::int > {start + 14}) "
            "execute function refuse()",
        )
        with pytest.raises(errors.PostgresError, match=state) as raised:
            store.push(pg, batch=10, inserts=inserts)
        assert (code, list(range(start + 10))) == (exits.exit_code(raised.value), numbers(pg)), state
        assert receipt(store) == ranges_there(pg)
        do(pg, "drop trigger refusing on agent_data")
        assert 10 == store.push(pg, inserts=inserts).rows
        assert list(range(start + 20)) == numbers(pg)


def test_a_database_of_a_later_edgeshard_is_refused(store: edgeshard.Store, pg: str) -> None:
    fill(store, "a", 0, 10)
    store.push(pg)
    do(pg, "update edgeshard_database set format = 2")
    done = push(store, pg)
    assert (78, True) == (done.returncode, "it has format 2" in done.stderr), done.stderr


@pytest.mark.slow
def test_credentials_come_from_the_environment_and_files(
    store: edgeshard.Store, pg_server: PgServer, tmp_path: Path
) -> None:
    name = pg_server.make_database()
    do(pg_server.dsn(name), f"grant all on schema public to {LOCKED}")
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(pg_server.port), "PGUSER": LOCKED, "PGDATABASE": name}
    passfile, services = tmp_path / "pgpass", tmp_path / "services"
    passfile.write_text(f"*:*:*:{LOCKED}:{PASSWORD}\n")
    passfile.chmod(0o600)
    services.write_text(
        f"[fleet]\nhost=127.0.0.1\nport={pg_server.port}\nuser={LOCKED}\ndbname={name}\npassword={PASSWORD}\n"
    )
    ways = [
        ("postgresql://", {**where, "PGPASSWORD": PASSWORD}),
        ("postgresql://", {**where, "PGPASSFILE": str(passfile)}),
        ("service=fleet", {"PGSERVICEFILE": str(services)}),
    ]
    for n, (dsn, environment) in enumerate(ways):
        fill(store, "a", n, 1)
        code, printed = run_push_ok(store, dsn, environment)
        assert (0, True) == (code, "pushed 1 row" in printed), printed


def test_a_user_who_may_make_nothing_pushes_into_tables_that_are_there(
    store: edgeshard.Store, pg_server: PgServer
) -> None:
    with pg_server.database() as name:
        fill(store, "a", 0, 10)
        write(store, "b", Reading("s", 1.5, NOON))
        store.push(pg_server.dsn(name))
        do(
            pg_server.dsn(name),
            "revoke create on schema public from public",
            f"grant select, insert, update, delete on all tables in schema public to {LOCKED}",
        )
        fill(store, "a", 10, 10)
        write(store, "b", Reading("s", 2.5, NOON))
        assert 11 == store.push(locked(pg_server, database=name)).rows
        assert list(range(20)) == numbers(pg_server.dsn(name))


def run_push_ok(store: edgeshard.Store, dsn: str, environment: dict[str, str]) -> tuple[int, str]:
    done = command("push", store.root, dsn, "-v", env={**os.environ, **environment})
    assert PASSWORD not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_without_psycopg_it_says_what_to_install(store: edgeshard.Store) -> None:
    fill(store, "a", 0, 1)
    code = "import sys; sys.modules['psycopg'] = None; from edgeshard.cli import main; sys.exit(main(sys.argv[1:]))"
    done = python(code, "push", store.root, "postgresql://h/d")
    assert (78, True) == (done.returncode, "pip install 'edgeshard[postgres]'" in done.stderr), done.stderr


def test_nothing_else_imports_psycopg() -> None:
    code = "import sys, edgeshard, edgeshard.cli, edgeshard.postgres.watcher; print('psycopg' in sys.modules)"
    assert "False\n" == python(code).stdout


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prints_a_line_or_an_object_or_nothing(store: edgeshard.Store, pg: str) -> None:
    fill(store, "a", 0, 10)
    told = json.loads(push(store, pg, "--json").stdout)
    assert (10, 1, {"agent_data": 10}, True, 0) == (
        told["rows"], told["streams"], told["tables"], told["complete"], told["remaining"],
    )  # fmt: skip
    assert [0, "", ""] == [*attrs_of(push(store, pg, "-q"))]
    fill(store, "a", 10, 1)
    assert push(store, pg).stdout.startswith("pushed 1 row of 1 stream to ")
    assert 2 == push(store, pg, "--interval", "1").returncode
    assert 2 == push(store, pg, "--batch", "0").returncode
    assert 78 == command("push", store.root / "nowhere", pg).returncode


def attrs_of(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_master_that_somebody_else_writes_is_pushed_and_the_receipt_comes_later(
    store: edgeshard.Store, pg: str
) -> None:
    fill(store, "a", 0, 10)
    other = database.open_master(store.master_path, writable=True)
    with sqlite.immediate(other):
        done = push(store, pg)
        assert (0, True) == (done.returncode, "the next push tries again" in done.stderr), done.stderr
    other.close()
    assert (list(range(10)), {}) == (numbers(pg), receipt(store))
    assert 0 == store.push(pg).rows
    assert ranges_there(pg) == receipt(store)


def watching(store: edgeshard.Store, dsn: str, *options: str) -> subprocess.Popen[str]:
    started = [
        sys.executable,
        "-m",
        "edgeshard",
        "push",
        str(store.root),
        dsn,
        "--watch",
        "--interval",
        "0.05",
        *options,
    ]
    return subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str], stream: str = "stdout") -> str:
    line: str = getattr(process, stream).readline()
    assert line, "it ended"
    return line


@pytest.mark.parametrize("number", others_slow([signal.SIGTERM, signal.SIGINT], always=(signal.SIGTERM,)))
def test_a_watch_pushes_what_merges_bring_until_it_is_told_to_stop(
    store: edgeshard.Store, pg: str, number: signal.Signals
) -> None:
    (store.root / "shards").mkdir(parents=True)
    process = watching(store, pg, "--json")
    for first in (0, 10):
        fill(store, "a", first, 10)  # the first makes the master
        assert 10 == json.loads(line_of(process))["rows"]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (0, 1, list(range(20))) == (process.returncode, len(said.splitlines()), numbers(pg)), said
    assert f" pushes what merges bring to {store.root}: " in said


@pytest.mark.slow
def test_a_watch_goes_on_once_the_server_is_back(store: edgeshard.Store, pg_server: PgServer) -> None:
    name = pg_server.make_database()
    fill(store, "a", 0, 10)
    process = watching(store, pg_server.dsn(name), "--json")
    assert 10 == json.loads(line_of(process))["rows"]
    assert " pushes what merges bring to " in line_of(process, "stderr")
    pg_server.kill()
    try:
        fill(store, "a", 10, 10)
        assert "trying again in" in line_of(process, "stderr")
    finally:
        pg_server.start()
    assert 10 == json.loads(line_of(process))["rows"]
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert (0, True, list(range(20))) == (process.returncode, "works again" in said, numbers(pg_server.dsn(name)))


def test_a_table_that_somebody_dropped_is_made_again(store: edgeshard.Store, pg: str) -> None:
    pusher = Pusher(store.master_path, parse_dsn(pg))
    fill(store, "a", 0, 10)
    pusher.run()
    do(pg, "drop table agent_data")
    fill(store, "a", 10, 10)
    assert (10, list(range(10, 20))) == (pusher.run().rows, numbers(pg))
    pusher.close()


@pytest.mark.slow
def test_a_server_that_is_away_does_not_make_the_master_forget_what_it_holds(
    store: edgeshard.Store, pg_server: PgServer, proxy: Proxy
) -> None:
    with pg_server.database() as name:
        pusher = Pusher(store.master_path, parse_dsn(pg_server.dsn(name, port=proxy.port)))
        fill(store, "a", 0, 10)
        pusher.run()
        before = receipt(store)
        fill(store, "a", 10, 10)
        for at in (0, 50, 400):  # as it connects, and as it asks what is there
            proxy.cut_after, proxy.cuts = at, 99
            pusher.close()
            with pytest.raises(errors.PostgresUnavailableError):
                pusher.run()
            assert [[Range(1, 10)]] == list(before.values()) == list(receipt(store).values())
        proxy.cuts = 0
        assert 10 == pusher.run().rows
        pusher.close()
        assert ranges_there(pg_server.dsn(name)) == receipt(store)


def test_a_watch_without_news_gives_its_connection_back(
    store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "IDLE_S", 0.0)
    fill(store, "a", 0, 10)
    pushed: queue.SimpleQueue[int] = queue.SimpleQueue()

    class Heard(Listener):
        def pushed(self, report: PushReport) -> None:
            pushed.put(report.rows)

    watching = watcher.PushWatcher(store.master_path, pg, interval_s=0.01, listener=Heard())
    thread = threading.Thread(target=watching.run)
    thread.start()
    there = (
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'edgeshard'"
    )
    try:
        assert 10 == pushed.get(timeout=60)
        while fetch(pg, there) != [(0,)]:
            assert thread.is_alive()
        fill(store, "a", 10, 5)
        assert 5 == pushed.get(timeout=60)
    finally:
        watching.stop()
        thread.join()


def test_waits_after_failures_get_longer_and_differ_between_devices() -> None:
    longest = [plan.back_off_s(failures, 1.0) for failures in range(1, 10)]
    assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == longest
    assert [wait_s / 2 for wait_s in longest] == [plan.back_off_s(failures, 0.0) for failures in range(1, 10)]


def test_a_watch_that_can_never_work_ends_at_once(store: edgeshard.Store, pg_server: PgServer) -> None:
    fill(store, "a", 0, 10)
    process = watching(store, pg_server.dsn("nowhere"))
    _, said = process.communicate(timeout=60)
    assert (78, True) == (process.returncode, "there is no such database" in said)
