"""A shard whose file is made by its first transaction: what is there before, which pages it gets, what may go wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import apsw
import pytest

import edgeshard
from edgeshard import format, sqlite
from edgeshard.errors import (
    DamagedError,
    DiskFullError,
    QueryError,
    RecordError,
    ShardClosedError,
    ShardForkedError,
    ShardPoisonedError,
    StorageError,
    TransactionError,
)
from edgeshard.files import folders
from edgeshard.shard import write_profile
from tests.support.forks import begin
from tests.support.processes import python, sql
from tests.support.recorded_syncs import RECORD_SYNCS
from tests.support.stores import numbers, shard_path

#: About as much as a first transaction may write and still get a shard small pages, and half as much again, in bytes.
LITTLE, MUCH = write_profile.LARGE_COMMIT_BYTES * 2 // 3, write_profile.LARGE_COMMIT_BYTES * 3 // 2


def names(store: edgeshard.Store) -> list[str]:
    return sorted(os.listdir(store.root / "shards"))


def page_bytes(store: edgeshard.Store, agent: str = "agent") -> int:
    size: int = sql(shard_path(store, agent), "pragma page_size")[0][0]
    return size


# -- what is there ----------------------------------------------------------------------------------------------------


def test_the_first_transaction_makes_the_file_and_before_it_there_is_only_a_draft(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        assert "agent.db" not in names(store)
        assert 2 == len(names(store))
        shard.write({"n": 1})
        assert ["agent.db", "agent.db-shm", "agent.db-wal", "agent.lock"] == names(store)
        assert [["wal"]] == sql(shard.path, "pragma journal_mode")
        assert [[1]] == sql(shard.path, "select count(*) from agent_data")
    assert ["agent.db", "agent.lock"] == names(store)


@pytest.mark.parametrize(
    "use",
    [
        lambda shard: None,
        lambda shard: shard.write_many([]),
        lambda shard: shard.sync(),
        lambda shard: list(shard.query("select * from agent_data")) + list(shard.read(edgeshard.AgentData)),
    ],
)
def test_whoever_writes_nothing_leaves_nothing(store: edgeshard.Store, use: Callable[[edgeshard.Shard], Any]) -> None:
    with store.shard("agent") as shard:
        use(shard)
    assert ["agent.lock"] == names(store)
    store.merge()
    assert [] == names(store)


def test_a_shard_without_a_file_is_read_as_an_empty_one(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        with pytest.raises(QueryError, match="no such table"):
            shard.query("select * from reading")
        with shard.transaction():
            shard.write({"n": 1})
            assert [] == list(shard.query("select * from agent_data"))
            assert [] == list(shard.read(edgeshard.AgentData))
        assert [1] == [row.data["n"] for row in shard.read(edgeshard.AgentData)]


def test_a_store_is_used_next_to_a_shard_without_a_file(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("other") as other, store.shard("agent") as shard:
        other.write({"n": 1})
        assert 1 == store.merge().rows
        assert () == store.merge().quarantined
        assert ["other"] == [each.agent for each in store.status().shards]
        store.snapshot(tmp_path / "copy.db")
        shard.write({"n": 2})
        assert 1 == store.merge().rows
    store.merge()
    assert [1, 2] == numbers(store)
    assert [] == names(store)


def test_what_a_failed_first_transaction_wrote_is_not_in_the_file(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        with pytest.raises(KeyError), shard.transaction():
            shard.write({"n": 1, "text": "x" * MUCH})
            raise KeyError
        with pytest.raises(RecordError):
            shard.write_many([{"n": 2}, {"n": object()}])
        with shard.transaction(), pytest.raises(KeyError), shard.transaction():
            shard.write({"n": 3})
            raise KeyError
        assert not shard_path(store, "agent").exists()
        assert 1 == shard.write({"n": 4})
        assert 2 == shard.write({"n": 5})
    assert format.SHARD_PAGE_SIZE == page_bytes(store)
    store.merge()
    assert [4, 5] == numbers(store)
    assert store.verify().ok


def test_a_row_is_never_acknowledged_before_there_is_a_file(store: edgeshard.Store) -> None:
    """A first transaction of which nothing is left but its stream must not let the next row go without one."""
    with store.shard("agent") as shard:
        with shard.transaction(), pytest.raises(RecordError):
            shard.write({"n": object()})
        for n in range(3):
            shard.write({"n": n})
            assert [[n + 1]] == sql(shard.path, "select count(*) from agent_data")


def test_an_awaited_first_write_makes_the_file(store: edgeshard.Store) -> None:
    async def write(shard: edgeshard.Shard) -> list[int]:
        return [
            await shard.awrite({"n": 1}),
            await shard.awrite_many([{"n": 2}, {"n": 3}]),
            await shard.awrite({"n": 4}),
        ]

    with store.shard("agent") as shard:
        assert [1, 2, 4] == asyncio.run(write(shard))
    store.merge()
    assert [1, 2, 3, 4] == numbers(store)


def test_a_fork_leaves_the_draft_to_the_parent(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:

        def use(_: Any) -> None:
            with pytest.raises(ShardForkedError):
                shard.write({"n": 1})
            shard.close()

        begin(use).wait()
        shard.write({"n": 2})
    store.merge()
    assert [2] == numbers(store)


# -- pages ------------------------------------------------------------------------------------------------------------


def _one(shard: edgeshard.Shard, size: int) -> None:
    shard.write({"n": 0, "text": "x" * size})


def _list(shard: edgeshard.Shard, size: int) -> None:
    shard.write_many([{"n": n, "text": "x" * 900} for n in range(max(1, size // 1000))])


def _iterator(shard: edgeshard.Shard, size: int) -> None:
    shard.write_many({"n": n, "text": "x" * 900} for n in range(max(1, size // 1000)))


def _block(shard: edgeshard.Shard, size: int) -> None:
    with shard.transaction():
        for n in range(max(1, size // 1000)):
            with shard.transaction():
                shard.write({"n": n, "text": "x" * 900})


@pytest.mark.parametrize("write", [_one, _list, _iterator, _block])
@pytest.mark.parametrize("wear", ["normal", "low"])
@pytest.mark.parametrize(("size", "is_large"), [(10, False), (LITTLE, False), (MUCH, True), (20 * MUCH, True)])
def test_the_first_transaction_decides_on_the_pages(
    tmp_path: Path, write: Callable[[edgeshard.Shard, int], None], wear: Any, size: int, is_large: bool
) -> None:
    store = edgeshard.Store(tmp_path / "data", wear=wear)
    small = format.SHARD_PAGE_SIZE if wear == "normal" else format.SHARD_PAGE_SIZE_LOW
    with store.shard("agent") as shard:
        write(shard, size)
        assert (format.SHARD_PAGE_SIZE_LARGE if is_large else small) == page_bytes(store)
        shard.write({"n": -1})
        shard.write_many([{"n": -2}, {"n": -3}])
    assert [["ok"]] == sql(shard_path(store, "agent"), "pragma integrity_check")
    written = 1 if write is _one else max(1, size // 1000)
    assert written + 3 == store.merge().rows
    assert store.verify(deep=True).ok
    assert [] == names(store)


def test_a_later_transaction_does_not_change_the_pages_and_the_next_shard_follows(store: edgeshard.Store) -> None:
    for first, later, expected in ((10, MUCH, format.SHARD_PAGE_SIZE), (MUCH, 10, format.SHARD_PAGE_SIZE_LARGE)):
        with store.shard("agent") as shard:
            _one(shard, first)
            _one(shard, later)
            assert expected == page_bytes(store)
        store.merge()  # which removes it
    assert [] == names(store)


def test_within_a_budget_pages_stay_small_because_empty_shards_do(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", max_bytes="20M")
    with store.shard("agent") as shard:
        _list(shard, 3 * MUCH)
        _one(shard, 10)
        assert format.SHARD_PAGE_SIZE == page_bytes(store)
        assert sqlite.is_incremental(shard._connection)
    store.merge()
    assert 3 * MUCH // 1000 + 1 == len(numbers(store))


def test_a_disk_without_space_for_a_copy_leaves_the_draft_as_it_is(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise apsw.FullError

    monkeypatch.setattr(sqlite, "copy_with_pages", fail)
    with store.shard("agent") as shard:
        _list(shard, MUCH)
    assert format.SHARD_PAGE_SIZE == page_bytes(store)
    assert MUCH // 1000 == store.merge().rows
    assert [] == names(store)


# -- what may go wrong ------------------------------------------------------------------------------------------------


def _old_files(store: edgeshard.Store, elsewhere: Path) -> None:
    """Leave a database of the agent, and its WAL with rows in it, elsewhere."""
    with store.shard("agent") as shard:
        for n in range(100):
            shard.write({"n": n})
        for suffix in ("", "-wal"):
            shutil.copy(f"{shard.path}{suffix}", f"{elsewhere}{suffix}")
    store.merge()


@pytest.mark.parametrize("when", ["before it is opened", "before the first row"])
@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_left_over_log_keeps_a_new_shard_from_being_made(
    store: edgeshard.Store, tmp_path: Path, when: str, suffix: str
) -> None:
    """SQLite would copy old pages from it into the new database."""
    _old_files(store, tmp_path / "old.db")
    left = f"{shard_path(store, 'agent')}{suffix}"
    if when == "before it is opened":
        shutil.copy(tmp_path / "old.db-wal", left)
        with pytest.raises(DamagedError, match="its database is missing"):
            store.shard("agent")
    else:
        with store.shard("agent") as shard:
            shutil.copy(tmp_path / "old.db-wal", left)
            with pytest.raises(DamagedError, match="its database is missing"):
                shard.write({"n": 100})
            with pytest.raises(ShardPoisonedError):
                shard.write({"n": 100})
    assert {"agent.lock", os.path.basename(left)} == set(names(store))
    os.unlink(left)
    with store.shard("agent") as shard:
        shard.write({"n": 100})
    store.merge()
    assert list(range(101)) == numbers(store)


def test_a_file_that_comes_before_the_first_row_stays(store: edgeshard.Store, tmp_path: Path) -> None:
    _old_files(store, tmp_path / "old.db")
    with store.shard("agent") as shard:
        shutil.copy(tmp_path / "old.db", shard.path)
        before = Path(shard.path).read_bytes()
        with pytest.raises(ShardPoisonedError, match="another file got its name"):
            shard.write({"n": 100})
        assert before == Path(shard.path).read_bytes()
    assert ["agent.db", "agent.lock"] == names(store)


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("max_bytes", [None, "50M"])
def test_a_full_disk_before_the_file_is_made_leaves_the_handle_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Literal["process", "power"], max_bytes: str | None
) -> None:
    """As of any other transaction, the error says that nothing was written."""
    store = edgeshard.Store(tmp_path / "data", max_bytes=max_bytes)

    def fail(_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.shard("agent", durability=durability) as shard:
        for size in (1, MUCH // 1000):
            with monkeypatch.context() as patch:
                patch.setattr(sqlite, "mark_as_wal", fail)
                with pytest.raises(DiskFullError):
                    shard.write_many([{"n": -1, "text": "x" * 1000}] * size)
        assert not os.path.exists(shard.path)
        assert [1, 2] == [shard.write({"n": 1}), shard.write({"n": 2})]
        assert 2 == len(shard.query("select * from agent_data"))
    assert 2 == store.merge().rows
    assert ([1, 2], []) == (numbers(store), names(store))


def test_a_full_disk_after_the_file_was_made_does_not_say_that_nothing_was_written(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.shard("agent") as shard:
        with monkeypatch.context() as patch:
            patch.setattr(folders, "sync_folder", fail)
            with pytest.raises(StorageError, match="whether it has the first rows is unknown") as failed:
                shard.write({"n": 1})
        assert not isinstance(failed.value, DiskFullError)
        with pytest.raises(ShardPoisonedError):
            shard.write({"n": 2})
    with store.shard("agent") as shard:
        shard.write({"n": 2})
    store.merge()
    assert [1, 2] == numbers(store)


def test_an_error_after_the_file_was_made_says_that_its_rows_are_there(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is told otherwise would write them again."""

    def fail(*_: Any) -> None:
        raise apsw.FullError("a full disk has no space for the WAL")

    with store.shard("agent") as shard:
        with monkeypatch.context() as patch:
            patch.setattr(shard, "_connect", fail)
            with pytest.raises(StorageError, match="with the first rows in it") as failed:
                shard.write({"n": 1})
        assert not isinstance(failed.value, DiskFullError)
        with pytest.raises(ShardPoisonedError, match="with the first rows in it"):
            shard.write({"n": 2})
    store.merge()
    assert [1] == numbers(store)


def test_an_error_that_left_no_file_says_that_none_of_its_rows_was_written(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if the disk is so full that no draft can be made for another try."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.shard("agent") as shard:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "mark_as_wal", fail)
            patch.setattr(sqlite, "create_without_wal", fail)
            with pytest.raises(StorageError, match="none of its rows was written") as failed:
                shard.write({"n": 1})
        assert not isinstance(failed.value, DiskFullError)  # which says that the handle can still be used
        with pytest.raises(ShardPoisonedError, match="none of its rows was written"):
            shard.write({"n": 2})
    assert ["agent.lock"] == names(store)
    with store.shard("agent") as shard:
        shard.write({"n": 3})
    store.merge()
    assert [3] == numbers(store)


def test_where_a_shard_was_removed_its_folder_is_synced_before_another_is_made(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not bring back a WAL that was moved away just before."""
    synced: list[Path] = []
    monkeypatch.setattr("edgeshard.files.folders.sync_folder", lambda path: synced.append(Path(path)))
    store.shard("other").close()  # which makes the folder
    synced.clear()
    store.shard("new").close()
    assert [] == synced
    store.shard("new").close()
    assert [store.root / "shards"] == synced


KILL = """
import os, sys
import edgeshard
from edgeshard import sqlite
from edgeshard.files import folders
from edgeshard.shard.draft import Draft
owner, name, when = {"commit": (Draft, "publish", "before"), "copy": (sqlite, "copy_with_pages", "after"),
    "mark": (sqlite, "mark_as_wal", "after"), "sync": (os, "fsync", "after"), "link": (os, "link", "after"),
    "name": (folders, "sync_folder", "before"), "publish": (Draft, "publish", "after"), "never": (os, "link", "never")}[sys.argv[2]]
real = getattr(owner, name)
def kill(*arguments, **options):
    if when == "before": os._exit(9)
    result = real(*arguments, **options)
    if when == "after": os._exit(9)
    return result
shard = edgeshard.Store(sys.argv[1]).shard("agent")
setattr(owner, name, kill)
shard.write_many([{"n": n, "text": "x" * 1000} for n in range(100)])
print("acknowledged", flush=True)
os._exit(9)
"""


@pytest.mark.parametrize("step", ["commit", "copy", "mark", "sync", "link", "name", "publish", "never"])
def test_a_kill_leaves_a_whole_shard_or_none(store: edgeshard.Store, tmp_path: Path, step: str) -> None:
    store.init()
    killed = python(KILL, store.root, step)
    assert (9, step == "never") == (killed.returncode, "acknowledged" in killed.stdout), killed.stderr
    is_published = step in ("link", "name", "publish", "never")
    assert is_published == ("agent.db" in names(store))
    shutil.copytree(store.root, tmp_path / "twin")
    twin = edgeshard.Store(tmp_path / "twin")
    with twin.shard("agent") as shard:
        shard.write({"n": 100})
    left = [*range(100 if is_published else 0)]
    for merged, expected in ((store, left), (twin, [*left, 100])):
        merged.merge()
        assert (expected, []) == (numbers(merged), names(merged))
        assert merged.verify().ok


# -- short-lived agents -----------------------------------------------------------------------------------------------

#: As RECORD_SYNCS, and also what edgeshard syncs itself.
COUNT_SYNCS = (
    RECORD_SYNCS
    + """
import os
real = os.fsync
def fsync(handle):
    synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))[:8])
    real(handle)
os.fsync = fsync
store = edgeshard.Store(sys.argv[1])
store.shard("other").close()
for rows in (1, 1, 1, 200, 1):
    synced.clear()
    with store.shard("agent", durability=sys.argv[2]) as shard:
        for n in range(rows):
            shard.write({"n": n})
    print(*synced, sep=",")
"""
)


def test_how_often_a_short_lived_agent_waits_for_the_disk(store: edgeshard.Store) -> None:
    """To make a shard takes two fsyncs; one row more takes none, until the WAL is so long that it is copied."""
    done = python(COUNT_SYNCS, store.root, "process")
    first, second, third, long, last = done.stdout.splitlines()
    assert ["agent.db,shards", "", ""] == [first, second, third], done.stderr
    assert 2 == len(long.split(","))  # the WAL, and the database
    assert "" == last
    store.merge()
    assert 204 == len(numbers(store))


def test_at_power_making_a_shard_syncs_its_file_and_the_folders_above(store: edgeshard.Store) -> None:
    done = python(COUNT_SYNCS, store.root, "power")
    assert "agent.db,shards,data" == done.stdout.splitlines()[0], done.stderr


def test_the_first_commit_to_a_wal_that_another_began_syncs_as_always(store: edgeshard.Store, tmp_path: Path) -> None:
    """Only an empty WAL may be begun without an fsync: in another, old frames could count again after a power cut."""
    path = str(tmp_path / "some.db")
    other = apsw.Connection(path)
    other.pragma("journal_mode", "WAL")
    other.execute("create table t(n)")
    other.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection = sqlite.connect(path, writable=True)
    levels = []
    for _ in range(2):
        sqlite.set_synchronous(connection, "NORMAL")
        must_set_again = sqlite.begin_in_empty_wal(connection)
        levels.append((must_set_again, connection.pragma("synchronous")))
        connection.execute("insert into t values (1)")
        connection.execute("COMMIT")
    assert [(True, 0), (False, 1)] == levels
    connection.close()
    other.close()


def test_another_that_begins_the_wal_meanwhile_is_noticed(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "some.db")
    other = apsw.Connection(path)
    other.pragma("journal_mode", "WAL")
    other.execute("create table t(n)")
    other.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection = sqlite.connect(path, writable=True)
    real = sqlite.connection.set_synchronous

    def set_synchronous(one: apsw.Connection, level: str) -> None:
        if level == "OFF":
            other.execute("insert into t values (1)")
        real(one, level)

    monkeypatch.setattr("edgeshard.sqlite.connection.set_synchronous", set_synchronous)
    must_set_again = sqlite.begin_in_empty_wal(connection)
    assert (1, True) == (connection.pragma("synchronous"), connection.in_transaction)
    assert (True, 0) == (must_set_again, connection.pragma("wal_autocheckpoint"))
    connection.close()
    other.close()


def test_settings_are_back_after_the_transaction_that_began_the_wal(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        expected = [shard._connection.pragma(name) for name in ("synchronous", "wal_autocheckpoint")]
    for fails in (False, True):
        with store.shard("agent") as shard:
            if fails:
                with pytest.raises(KeyError), shard.transaction():
                    shard.write({"n": 1})
                    raise KeyError
            else:
                shard.write({"n": 1})
            assert expected == [shard._connection.pragma(name) for name in ("synchronous", "wal_autocheckpoint")]


def test_a_long_transaction_that_began_the_wal_is_not_checkpointed_before_it_is_synced(
    store: edgeshard.Store,
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 0})
    with store.shard("agent") as shard:
        with shard.transaction():
            for n in range(1, 4):
                shard.write({"n": n})
                shard._upkeep_at = 0.0  # as if the transaction took seconds
                assert 0 == shard._connection.pragma("wal_autocheckpoint")
        assert 0 < shard._connection.pragma("wal_autocheckpoint")
    store.merge()
    assert [0, 1, 2, 3] == numbers(store)


@pytest.mark.parametrize("is_limited", [False, True])
def test_within_a_budget_closing_leaves_no_wal(tmp_path: Path, is_limited: bool) -> None:
    store = edgeshard.Store(tmp_path / "data", max_bytes="20M" if is_limited else None)
    for n in range(2):
        with store.shard("agent") as shard:
            shard.write({"n": n})
    assert is_limited != ("agent.db-wal" in names(store))
    store.merge()
    assert [0, 1] == numbers(store)


def test_a_transaction_that_is_open_when_the_shard_is_closed_leaves_no_unsynced_checkpoint(
    store: edgeshard.Store,
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 0})
    shard = store.shard("agent")
    with pytest.raises(ShardClosedError), shard.transaction():
        shard.write_many([{"n": n, "text": "x" * 1000} for n in range(1, 5_000)])
        with pytest.raises(TransactionError):
            shard.close()
    store.merge()
    assert [0] == numbers(store)


# -- what failed leaves nothing open ----------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("fails", ["sqlite.wal_bytes_written", "sqlite.enable_checkpoint_on_close"])
def test_a_closing_that_fails_closes_the_file_and_releases_the_lock(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def fail(_: apsw.Connection) -> int:
        raise apsw.NoMemError

    before = descriptors()
    shard = store.shard("agent")
    shard.write({"n": 1})
    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(f"edgeshard.master.write_stats.{fails}", fail)
        shard.close()
    with pytest.raises(apsw.ConnectionClosedError):
        shard._connection.execute("select 1")
    assert before == descriptors()
    with store.shard("agent") as again:
        again.write({"n": 2})
    store.merge()
    assert [1, 2] == numbers(store)


def test_a_draft_that_cannot_be_measured_is_closed_and_removed(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    store.shard("other").close()
    before = descriptors()
    with monkeypatch.context() as patch, pytest.raises(StorageError) as caught:
        patch.setattr("edgeshard.shard.draft.fingerprint.size", fail)
        store.shard("agent")
    assert before == descriptors(), caught
    assert ["agent.lock", "other.lock"] == names(store)
