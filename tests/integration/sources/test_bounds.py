"""Bounds of the work that a database takes: no sound one is refused, whatever its shape, and a hostile one delays nobody."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.sources import bounds
from edgeshard.sqlite import guards
from tests.support import hostile_shards
from tests.support.forms import others_slow
from tests.support.last_known import LastKnown
from tests.support.stores import new_store, numbers, shard_path

Writer = Callable[[edgeshard.Shard], object]


def row_of(columns: int, **options: Any) -> Any:
    fields = {f"c{n}": attrs.field(type=int, default=n) for n in range(columns)}
    declare: Any = edgeshard.table(name="shape", **options)
    return declare(attrs.make_class("Shape", fields, frozen=True))


# -- sound databases --------------------------------------------------------------------------------------------------


def tiny_rows_and_later_columns(columns: int) -> Writer:
    def write(shard: edgeshard.Shard) -> None:
        shard.write_many(row_of(1)(n) for n in range(200))
        shard.write(row_of(columns)())

    return write


def wide_rows(columns: int) -> Writer:
    return lambda shard: shard.write_many(row_of(columns)() for _ in range(20))


def wide_json(shard: edgeshard.Shard) -> None:
    shard.write_many({f"field{n}": [n] * 5 for n in range(200)} for _ in range(20))


def many_tables(shard: edgeshard.Shard) -> None:
    for n in range(30):
        declare: Any = edgeshard.table(name=f"shape{n}")
        shard.write(declare(attrs.make_class("Shape", {"x": attrs.field(type=int)}))(n))


def many_transactions(shard: edgeshard.Shard) -> None:
    for n in range(50):
        with shard.transaction():
            shard.write_many({"n": [n, m]} for m in range(3))


def keyed(shard: edgeshard.Shard) -> None:
    shard.write_many(LastKnown(f"sensor{n % 7}", float(n)) for n in range(100))
    shard.delete(LastKnown, "sensor3")


def large_values(shard: edgeshard.Shard) -> None:
    shard.write_many({"text": "x" * size} for size in (1, 1_000, 100_000, 1_000_000))


def nothing(shard: edgeshard.Shard) -> None:
    shard.write({})


SHAPES: dict[str, Writer] = {
    **{f"tiny rows and {n} columns": tiny_rows_and_later_columns(n) for n in (2, 44, format.COLUMNS_MAX)},
    **{f"{n} columns": wide_rows(n) for n in (1, 10, 100, format.COLUMNS_MAX)},
    **{
        made.__name__: made
        for made in (wide_json, many_tables, many_transactions, keyed, large_values, nothing)
    },
}  # fmt: skip


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have every database checked as soon as it is read, and return which were."""
    found: list[str] = []

    def ensure_sound(path: str, **options: Any) -> None:
        found.append(path)
        real(path, **options)

    real = bounds.ensure_sound
    monkeypatch.setattr(bounds, "ensure_sound", ensure_sound)
    monkeypatch.setattr(bounds, "_STEPS", 0)
    monkeypatch.setattr(bounds, "_STEPS_A_BYTE", 0)
    monkeypatch.setattr(guards, "_STEPS_BETWEEN_CHECKS", 50)
    return found


def rewritten(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("vacuum").fetchall()
    connection.close()


LEFT = {"left as it is": lambda _: None, "vacuumed": rewritten, "sparse": hostile_shards.sparse}


@pytest.mark.parametrize("left", others_slow(LEFT, always=("left as it is",)))
@pytest.mark.parametrize(
    "shape", others_slow(SHAPES, always=("tiny rows and 44 columns", "100 columns", "keyed", "large_values", "nothing"))
)
def test_no_sound_database_is_refused_for_the_work_that_it_takes(
    shape: str, left: str, store: edgeshard.Store, tmp_path: Path, checked: list[str]
) -> None:
    with store.shard("a") as shard:
        SHAPES[shape](shard)
    path, copy = shard_path(store, "a"), tmp_path / "copy.db"
    LEFT[left](path)
    shutil.copy(path, copy)
    assert [""] == [each.reason for each in store.status().shards]
    assert () == store.merge(dry_run=True).quarantined
    assert ((), True) == ((report := store.merge()).quarantined, report.rows > 0)
    shutil.copy(copy, path)  # as if the merger had been killed before it truncated the shard
    assert ((), 0) == ((report := store.merge()).quarantined, report.rows)
    hub = new_store(tmp_path / "hub")
    assert () == hub.merge([store.master_path]).quarantined
    assert store.export(tmp_path / "bundle.db").rows > 0
    assert () == new_store(tmp_path / "other").merge([tmp_path / "bundle.db"]).quarantined
    assert hub.ranges().held == store.ranges().held
    assert {str(path), str(store.master_path)} <= {*checked}


@pytest.mark.slow
def test_a_shard_of_many_tiny_rows_and_44_later_columns_merges(store: edgeshard.Store, tmp_path: Path) -> None:
    cls = row_of(1)
    with store.shard("a") as shard:
        shard.write_many(cls(n & 1) for n in range(600_000))
        shard.write(row_of(45)())
    shutil.copy(shard_path(store, "a"), tmp_path / "copy.db")
    assert () == store.merge().quarantined
    shutil.copy(tmp_path / "copy.db", shard_path(store, "a"))
    assert ((), True) == ((report := store.merge()).quarantined, report.complete)
    assert not shard_path(store, "a").exists()


def test_a_database_that_cannot_be_checked_is_quarantined_and_tried_again(
    store: edgeshard.Store, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> None:
        raise apsw.NoMemError("out of memory")

    with store.shard("a") as shard:
        shard.write({"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "_check", no_memory)
        ((_, reason),) = [(item.path, item.reason) for item in store.merge().quarantined]
    assert "memory" in reason
    assert ((), 1) == ((done := store.merge()).quarantined, done.rows)


# -- hostile databases ------------------------------------------------------------------------------------------------

FIRST_ID = format.row_id(1, 1)

#: Trees that never end, as table, id of the rows on their leaves, id of the row on the last.
ENDLESS: dict[str, tuple[Any, ...]] = {
    "columns": ("_edgeshard_columns",),
    "truncations": ("_edgeshard_truncations",),
    "streams": ("_edgeshard_streams", 1),
    "rows before those that are copied": ("agent_data", FIRST_ID - 1, FIRST_ID + 4),
    "transactions before those that are copied": ("_edgeshard_transactions", FIRST_ID - 1, FIRST_ID + 99),
}


@pytest.mark.parametrize("size_bytes", others_slow([0, 1 << 30, 1 << 41], always=(1 << 30,)))
@pytest.mark.parametrize("name", others_slow(ENDLESS, always=("columns", "rows before those that are copied")))
def test_a_tree_without_an_end_delays_nobody(name: str, size_bytes: int, store: edgeshard.Store) -> None:
    for agent in ("a", "bad", "good"):
        with store.shard(agent) as shard:
            shard.write_many({"n": n} for n in range(5))
    path = shard_path(store, "bad")
    hostile_shards.pages_in_circles(path, *ENDLESS[name])
    if size_bytes:
        hostile_shards.sparse(path, size_bytes)
    began = time.monotonic()
    store.status()
    store.merge(dry_run=True)
    for rows in (10, 0):
        (refused,) = (report := store.merge()).quarantined
        assert (rows, str(path)) == (report.rows, refused.path)
        # each row of the endless streams is wrong by itself, and no stream has so many truncations
        by_itself = {"streams": "its own tables hold", "truncations": "too many truncations"}
        damaged = by_itself.get(name, "SQLite finds in table")
        assert damaged in refused.reason or "transactions" in name or size_bytes > 1 << 40
    assert time.monotonic() - began < 10  # it takes less than a second; without a bound, years
    assert [n for n in range(5) for _ in "ab"] == numbers(store)


def test_a_sound_shard_whose_file_claims_to_be_large_merges(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(5))
    hostile_shards.sparse(shard_path(store, "a"), 1 << 33)
    assert ((), 5) == ((report := store.merge()).quarantined, report.rows)


@pytest.mark.slow
def test_a_table_of_a_shard_that_is_not_ours_is_checked_before_the_shard_is_rewritten(store: edgeshard.Store) -> None:
    with store.shard("bad") as shard:
        shard.write_many({"text": "x" * 1_000} for _ in range(3_000))  # so much that the space is given back
    path = shard_path(store, "bad")
    hostile_shards.edit(path, "create table theirs(x)")
    hostile_shards.pages_in_circles(path, "theirs", 1)
    hostile_shards.edit(path, "pragma journal_mode = wal")
    began = time.monotonic()
    ((_, reason),) = [(item.path, item.reason) for item in store.merge().quarantined]
    assert "cannot be deleted from it: SQLite finds in table 'theirs'" in reason
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("is_held", [True, False], ids=["", "compressed"])
def test_a_file_of_holes_is_copied_in_as_few_transactions_as_any(
    is_held: bool, store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for agent in ("a", "bad"):
        with store.shard(agent) as shard:
            for n in range(100):
                shard.write({"n": n})
    if is_held:
        hostile_shards.sparse(shard_path(store, "bad"), 1 << 40)
    else:  # a file system that holds less than there is
        monkeypatch.setattr(bounds, "_allocated_bytes", lambda _: 512)
    assert ((), 200) == ((report := store.merge()).quarantined, report.rows)
    assert store.ranges().generation <= 3  # not one for each row
