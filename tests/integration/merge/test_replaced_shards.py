"""Shards that are replaced while they are merged: what was not read is neither truncated nor removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.files import locks, scan
from edgeshard.merge import reap, truncate
from edgeshard.merge.merger import Merger
from edgeshard.sqlite import connection as connection_module
from tests.support.processes import sql
from tests.support.stores import numbers, shard_path


def write(store: edgeshard.Store, agent: str, *values: int) -> None:
    with store.shard(agent, durability="power") as shard:
        shard.write_many([{"n": n} for n in values])


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, before: Any = None, after: Any = None) -> list[str]:
    """Let something happen before or after the first call of a function; return a list that names it then."""
    real = getattr(owner, name)
    happened: list[str] = []

    def called(*arguments: Any, **options: Any) -> Any:
        is_first = not happened
        happened.append(name)
        if is_first and before:
            before()
        result = real(*arguments, **options)
        if is_first and after:
            after()
        return result

    monkeypatch.setattr(owner, name, called)
    return happened


@pytest.mark.parametrize("moment", ["at the lock", "once held", "after the sync"])
def test_a_new_shard_in_a_folder_that_was_made_again_stays(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def make_folder_again() -> None:
        os.rename(store.root / "shards", tmp_path / "moved")
        write(store, "agent", 2)

    write(store, "agent", 1)
    with monkeypatch.context() as patch:
        if moment == "at the lock":
            happened = once(patch, locks, "lock_at_once", before=make_folder_again)
        elif moment == "once held":
            happened = once(patch, reap, "_hold", after=make_folder_again)
        else:
            happened = once(patch, reap, "_sync_folder", after=make_folder_again)
        report = store.merge()
    assert (1, True, ()) == (report.rows, bool(happened), report.quarantined)
    assert [[2]] == sql(shard_path(store, "agent"), "select data ->> 'n' from agent_data")
    assert (1, 1) == ((report := store.merge()).rows, report.removed)
    assert ([1, 2], True) == (numbers(store), store.verify(deep=True).ok)


@pytest.mark.parametrize("moment", ["_hold", "_sync_folder"])
def test_a_shard_that_was_moved_to_the_place_of_another_stays(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    other = edgeshard.Store(tmp_path / "other")
    write(other, "agent", 2)
    write(store, "agent", 1)
    with monkeypatch.context() as patch:
        once(patch, reap, moment, after=partial(os.replace, shard_path(other, "agent"), shard_path(store, "agent")))
        report = store.merge()
    assert (1, 0, 0, ()) == (report.rows, report.truncated, report.removed, report.quarantined)
    assert [[2]] == sql(shard_path(store, "agent"), "select data ->> 'n' from agent_data")
    assert (1, 1) == ((report := store.merge()).rows, report.removed)
    assert ([1, 2], True) == (numbers(store), store.verify(deep=True).ok)


def test_the_wal_of_a_shard_that_was_moved_to_the_place_of_another_stays(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that takes no lock finds the WAL of the shard that was there, and writes to it."""
    other, path = edgeshard.Store(tmp_path / "other"), shard_path(store, "agent")
    write(other, "agent", 2)
    opened: list[apsw.Connection] = []

    def replace() -> None:
        os.replace(shard_path(other, "agent"), path)
        opened.append(apsw.Connection(str(path)))
        opened[0].execute("insert into agent_data(_id, data) values ((1 << 32) + 2, json_object('n', 3))")

    write(store, "agent", 1)
    with monkeypatch.context() as patch:
        once(patch, reap, "_hold", after=replace)
        assert (1, 0) == ((report := store.merge()).rows, report.removed)
    assert path.with_name("agent.db-wal").stat().st_size > 0
    opened[0].close()
    assert (2, [1, 2, 3]) == (store.merge().rows, numbers(store))


def test_a_wal_that_was_put_beside_a_shard_stays(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = shard_path(store, "agent").with_name("agent.db-wal")

    def put() -> None:
        (tmp_path / "wal").write_bytes(b"precious")
        os.replace(tmp_path / "wal", wal)

    write(store, "agent", 1)
    with monkeypatch.context() as patch:
        once(patch, reap, "_hold", after=put)
        assert (1, 0) == ((report := store.merge()).rows, report.removed)
        assert shard_path(store, "agent").exists()
    assert ([1], 1) == (numbers(store), store.merge().removed)


@pytest.mark.parametrize("moment", ["taken", "synced"])
def test_a_lock_file_that_was_made_again_stays(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another agent may have it: then the shard stays as well, unless it was checked before."""
    lock = shard_path(store, "agent").with_name("agent.lock")

    def make_again() -> None:
        lock.rename(lock.with_name("agent.old"))
        lock.touch()

    write(store, "agent", 1)
    with monkeypatch.context() as patch:
        patch.setattr(reap, "remove_leftovers", lambda *_: None)
        owner, name = (locks, "lock_at_once") if moment == "taken" else (reap, "_sync_folder")
        once(patch, owner, name, after=make_again)
        assert (0 if moment == "taken" else 1) == store.merge().removed
    assert (True, moment == "taken") == (lock.exists(), shard_path(store, "agent").exists())


def test_no_database_is_removed_if_the_removal_of_its_wal_is_not_durable(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reap, "_GROUP_S", 60.0)
    for n, agent in enumerate("abc"):
        write(store, agent, n)
    real = os.fsync

    def fail(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), os.stat(store.root / "shards")):
            raise OSError(5, "Input/output error")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        report = store.merge()
    assert (3, 0, 3) == (report.rows, report.removed, len(report.quarantined))
    assert all(shard_path(store, agent).exists() for agent in "abc")
    assert (3, [0, 1, 2]) == (store.merge().removed, numbers(store))


@pytest.fixture
def replace_by_clone(store: edgeshard.Store, tmp_path: Path) -> Callable[[], None]:
    """Write ten rows, and return what puts the shard of a cloned machine in their place, with others from the sixth on.

    The clone's agent went on in the same stream.
    """
    path, clone = shard_path(store, "agent"), tmp_path / "clone.db"
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(5)])
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{clone}{suffix}")
        shard.write_many([{"n": n} for n in range(5, 10)])
    rows = "insert into agent_data(_id, data) select (1 << 32) + value + 1, json_object('n', 100 + value)"
    sql(clone, f"{rows} from json_each('[5,6,7,8,9]')")

    def replace() -> None:
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(f"{path}{suffix}"):
                os.rename(f"{path}{suffix}", tmp_path / f"replaced{suffix}")
        shutil.copyfile(clone, path)

    return replace


@pytest.mark.parametrize("keep_empty", [True, False])
def test_the_shard_of_a_cloned_machine_that_took_its_place_is_compared_before_anything_is_deleted(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, replace_by_clone: Callable[[], None], keep_empty: bool
) -> None:
    with monkeypatch.context() as patch:
        happened = once(patch, Merger, "_truncate_or_remove", before=replace_by_clone)
        report = store.merge(keep_empty=keep_empty)
    assert (10, 0, 0, True) == (report.rows, report.truncated, report.removed, bool(happened))
    count = "select count(*), sum(data ->> 'n' > 99) from agent_data"
    assert [[10, 5]] == sql(shard_path(store, "agent"), count)
    for _ in range(2):
        assert 1 == len(store.merge(keep_empty=keep_empty).quarantined)
    assert [[10, 5]] == sql(shard_path(store, "agent"), count)
    assert [*range(10)] == numbers(store)


@pytest.mark.parametrize("owner", [connection_module, sqlite])
def test_the_shard_of_a_cloned_machine_that_comes_while_it_is_opened_stays_too(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, replace_by_clone: Callable[[], None], owner: Any
) -> None:
    with monkeypatch.context() as patch:
        late = partial(once, patch, owner, "connect", before=replace_by_clone)
        once(patch, Merger, "_truncate_or_remove", before=late)
        report = store.merge(keep_empty=owner is connection_module)
    assert (10, 0, 0) == (report.rows, report.truncated, report.removed)
    assert [[10]] == sql(shard_path(store, "agent"), "select count(*) from agent_data")


def test_a_shard_that_takes_the_place_of_one_that_is_being_truncated_is_read_by_the_next_merge(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)  # as if its last change were long ago
    other = edgeshard.Store(tmp_path / "other")
    write(other, "agent", 2)
    write(store, "agent", 1)

    def replace() -> None:
        for path in (store.root / "shards").glob("agent.db*"):
            path.rename(tmp_path / path.name)
        os.rename(shard_path(other, "agent"), shard_path(store, "agent"))

    merger = Merger(store.root, keep_empty=True)
    with monkeypatch.context() as patch:
        once(patch, truncate, "_truncate", after=replace)
        assert (1, 1) == ((report := merger.run()).rows, report.truncated)
    assert (1, [1, 2]) == (merger.run().rows, numbers(store))
    merger.close()
