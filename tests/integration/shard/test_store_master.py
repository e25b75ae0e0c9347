"""A writer learns at its first write what its store's master will not take."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard.errors import SchemaConflictError
from edgeshard.records import declare
from edgeshard.shard import store_master
from tests.support import keyed_model
from tests.support.keyed_schema_versions import plain
from tests.support.processes import sql
from tests.support.schema_versions import VALUES, VERSIONS, merged, version, write
from tests.support.stores import numbers, shard_path, write_apart

NOON = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)

#: A value of each type, by the class of its field.
TYPES: dict[Any, Any] = {
    bool: True, int: 1, float: 1.5, Decimal: Decimal("0.1"), str: "x", uuid.UUID: uuid.UUID(int=7), bytes: b"x",
    datetime.datetime: NOON, datetime.date: NOON.date(), dict: {"x": 1},
}  # fmt: skip


@pytest.mark.parametrize("there", TYPES)
def test_a_class_is_refused_exactly_if_the_merge_would_refuse_its_rows(store: edgeshard.Store, there: Any) -> None:
    write(store, "first", version(v=there)(TYPES[there]))
    merged(store)
    classes = {here: version(v=here) for here in TYPES}
    for here, cls in classes.items():
        write_apart(store, here.__name__.lower(), cls(TYPES[here]))
    reasons = {Path(shard.name).stem: [each.reason for each in shard.blocked] for shard in store.status().shards}
    for here, cls in classes.items():
        path = str(shard_path(store, here.__name__.lower()))
        with pytest.raises(SchemaConflictError) if reasons[Path(path).stem] else contextlib.nullcontext():
            store_master.ensure_fits(store.master_path, path, declare.table_of(cls))
    assert any(reasons.values())
    assert not all(reasons.values())


KEYED = plain(None, {"key": "k", "history": True}, k=str, v=int)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (KEYED("p", 1), plain(k=str, v=int)("p", 1)),
        (plain(k=str, v=int)("p", 1), KEYED("p", 1)),
        (KEYED("p", 1), plain(None, {"key": "k", "conflict": "first"}, k=str, v=int)("p", 1)),
        (KEYED("p", 1), plain(None, {"key": "k"}, k=int, v=int)(1, 1)),
        (KEYED("p", 1), plain(None, {"name": "sample_history"}, k=str)("p")),
        (plain(None, {"name": "sample_history"}, k=str)("p"), KEYED("p", 1)),
        (version(b=int, renamed={"a": "b"})(1), version(c=int, renamed={"a": "c"})(1)),
        (version(b=int, renamed={"a": "b"})(1), version(a=str)("x")),
    ],
)
def test_a_key_a_companion_or_a_rename_that_the_master_contradicts_is_refused_as_well(
    store: edgeshard.Store, first: Any, second: Any
) -> None:
    write(store, "first", first)
    merged(store)
    with store.shard("second") as shard:
        for _ in range(2):
            with pytest.raises(SchemaConflictError, match="in the store's master"):
                shard.write(second)
        with pytest.raises(SchemaConflictError), shard.transaction():
            shard.write({"n": 0})
            shard.write(second)
        shard.write({"n": 1})
        shard.write(first)
    merged(store)
    assert [1] == numbers(store)


def linked_store(tmp_path: Path) -> edgeshard.Store:
    """Return a store whose folder of shards is a link into the folder of another store, which has a table "sample"."""
    other = edgeshard.Store(tmp_path / "other")
    write(other, "first", version(v=str)("x"))
    merged(other)
    target = tmp_path / "other" / "elsewhere"
    target.mkdir()
    store = edgeshard.Store(tmp_path / "linked")
    store.root.mkdir()
    (store.root / "shards").symlink_to(target)
    return store


def test_where_the_folder_of_shards_is_a_link_the_master_of_the_store_counts_and_no_other(tmp_path: Path) -> None:
    store = linked_store(tmp_path)
    write(store, "first", version(v=float)(1.5))  # which the other store's master would not take
    merged(store)
    with store.shard("second") as shard, pytest.raises(SchemaConflictError, match="in the store's master"):
        shard.write(version(v=bytes)(b"x"))


def test_where_the_folder_of_shards_is_a_link_a_later_change_wins_although_its_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = linked_store(tmp_path)
    wall = keyed_model.set_clock(monkeypatch, keyed_model.NOON_US)
    item = plain(None, {"key": "k", "name": "item"}, k=str, v=int)
    write(store, "first", item("x", 1))
    merged(store)
    wall.now_us -= 3_600_000_000
    write(store, "second", item("x", 2))
    merged(store)
    assert [2] == [row.v for row in store.query("select v from item")]


@pytest.mark.parametrize("there", range(len(VERSIONS)))
def test_no_version_that_a_merge_takes_is_refused(store: edgeshard.Store, there: int) -> None:
    name, kind, renamed, more = VERSIONS[there]
    write(store, "first", version(renamed, **{name: kind}, **more)(VALUES[there][0]))
    merged(store)
    for number, (name, kind, renamed, more) in enumerate(VERSIONS):
        write(store, f"agent{number}", version(renamed, **{name: kind}, **more)(VALUES[number][0]))
    merged(store)


def test_a_deletion_is_refused_as_a_write_is(store: edgeshard.Store) -> None:
    write(store, "first", plain(k=str, v=int)("p", 1))
    merged(store)
    with store.shard("second") as shard, pytest.raises(SchemaConflictError, match="in the store's master"):
        shard.delete(KEYED, "p")


@pytest.mark.parametrize("is_fifo", [False, True])
def test_a_master_that_cannot_be_read_keeps_nobody_from_writing(
    is_fifo: bool, store: edgeshard.Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.root.mkdir()
    if is_fifo:  # SQLite would wait for its other end
        os.mkfifo(store.master_path)
    else:
        store.master_path.write_bytes(b"not a database" * 100)
    write(store, "agent", version(v=int)(1))
    assert "whether table sample fits it shows at the next merge" in caplog.text


def test_a_writer_does_not_wait_for_a_master_that_is_locked(
    store: edgeshard.Store, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, "first", KEYED("p", 1))
    merged(store)
    program = apsw.Connection(str(store.master_path))
    program.pragma("locking_mode", "EXCLUSIVE")
    program.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    write(store, "agent", KEYED("p", 2))
    assert time.monotonic() - began < 5
    assert "another process holds it locked" in caplog.text
    program.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE _edgeshard_keys SET columns = 'no JSON'",
        "UPDATE _edgeshard_keys SET columns = '5'",
        "UPDATE _edgeshard_columns SET column_name = CAST(x'ff' AS TEXT) WHERE column_name = 'v'",
        "ALTER TABLE _edgeshard_renames RENAME COLUMN new_name TO name",
    ],
)
def test_a_master_whose_own_tables_are_damaged_keeps_nobody_from_writing(
    store: edgeshard.Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, "first", KEYED("p", 1))
    merged(store)
    sql(store.master_path, damage)
    write(store, "agent", KEYED("p", 2))
    assert "its own tables are not as edgeshard makes them" in caplog.text
