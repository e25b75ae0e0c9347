"""Whose fault it is when a database that a merge or `status` reads cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.merge import blame
from tests.support import hostile_shards
from tests.support.stores import numbers, shard_path


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    return edgeshard.Store(tmp_path / "data")


def write(store: edgeshard.Store, agent: str, n: int) -> None:
    with store.shard(agent) as shard:
        shard.write({"n": n})


@pytest.mark.parametrize("has_master", [True, False])
def test_a_shard_that_takes_too_many_steps_to_read_is_blamed_by_status_and_merge(
    store: edgeshard.Store, has_master: bool
) -> None:
    if has_master:
        store.init()
    write(store, "bad", 1)
    write(store, "good", 2)
    hostile_shards.pages_in_circles(shard_path(store, "bad"))
    reasons = [item.reason for item in store.status().shards if item.reason]
    (item,) = store.merge().quarantined
    assert [item.reason] == reasons
    assert str(shard_path(store, "bad")) == item.path
    assert "SQLite finds in table '_edgeshard_columns'" in item.reason
    assert [2] == numbers(store)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (apsw.InterruptError(), False),  # too many steps
        (apsw.NoMemError(), False),
        (MemoryError(), False),
        (apsw.BusyError(), False),
        (apsw.ConstraintError(), False),
        (ValueError(), False),
        (apsw.CorruptError(), True),
        (apsw.IOError(), True),
        (apsw.FullError(), True),
    ],
)
def test_the_master_is_blamed_only_where_an_attached_database_is_sound(
    store: edgeshard.Store, error: Exception, expected: bool
) -> None:
    store.init()
    for agent in ("sound", "damaged"):
        with store.shard(agent) as shard:
            shard.write_many({"n": n, "text": "x" * 100} for n in range(200))
    with open(shard_path(store, "damaged"), "r+b") as file:
        file.seek(-8192, os.SEEK_END)
        file.write(b"\xff" * 4096)
    connection = sqlite.connect(str(store.master_path), writable=False)
    try:
        sqlite.attach(connection, str(shard_path(store, "sound")), "sound")
        sqlite.attach(connection, str(shard_path(store, "damaged")), "damaged")
        assert expected == blame.is_masters_fault(connection, "sound", error)
        assert not blame.is_masters_fault(connection, "damaged", error)
    finally:
        connection.close()


def test_a_shard_whose_last_page_is_cut_off_is_blamed_for_it(store: edgeshard.Store) -> None:
    # SQLite's check fills the page with zeros; a value that ends there is read directly, and fails (SQLITE_IOERR_SHORT_READ)
    write(store, "good", 2)
    with store.shard("bad") as shard:
        shard.write({"text": "x" * 100_000})
    path = shard_path(store, "bad")
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 300)
    report = store.merge()
    (item,) = report.quarantined
    assert (str(path), 1, [2]) == (item.path, report.rows, numbers(store))


class _BadSectors(apsw.VFS):
    """Lets reading one file fail from some offset on."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__("bad-sectors", "", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FileWithBadSectors(self, name, flags)


class _FileWithBadSectors(apsw.VFSFile):
    def __init__(self, vfs: _BadSectors, name: Any, flags: list[int]) -> None:
        self._vfs, self._path = vfs, name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._path == self._vfs.path and offset > 50_000:
            raise apsw.IOError("bad sector")
        return super().xRead(amount, offset)


def test_a_shard_with_a_bad_sector_keeps_no_other_from_being_merged(store: edgeshard.Store) -> None:
    for agent in ("early", "ill", "late"):
        with store.shard(agent) as shard:
            shard.write_many({"n": n, "text": "x" * 500} for n in range(200))
    vfs = _BadSectors(str(shard_path(store, "ill")))
    try:
        # an insert that cannot read the shard rolls back the transaction, with the rows of "early" in it
        report = store.merge()
    finally:
        vfs.unregister()
    (item,) = report.quarantined
    assert (400, "ill.db") == (report.rows, Path(item.path).name)
    assert "bad sector" in item.reason
    assert 200 == store.merge().rows
    assert sorted([*range(200)] * 3) == numbers(store)
    assert store.verify().ok
