"""Tables and keys of as many columns as may be declared: rows are compared, settled, collected and merged on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.master import versions
from edgeshard.merge import truncate
from edgeshard.shard import truncations
from tests.support.forms import others_slow
from tests.support.last_known import LastKnown
from tests.support.processes import sql
from tests.support.stores import new_store, numbers, shard_path
from tests.support.tombstones import collect
from tests.support.wall_clock import Wall

OPTIONAL: Any = int | None

# -- rows that are compared -------------------------------------------------------------------------------------------


def wide(columns: int, **options: Any) -> Any:
    """Return a class with this many fields, the last of which may be None."""
    fields = {f"c{n}": attrs.field(type=int) for n in range(columns - 1)}
    fields[f"c{columns - 1}"] = attrs.field(type=OPTIONAL)
    return edgeshard.table(name="wide", **options)(attrs.make_class("Wide", fields, frozen=True))


def put_back(store: edgeshard.Store, copy: Path) -> None:
    """Let a shard be as it was before it was merged, as if the merger had been killed before the truncation."""
    shutil.copy(copy, shard_path(store, "a"))


def rows_of(store: edgeshard.Store, columns: int) -> list[tuple[Any, ...]]:
    """Return the rows in the master, without their addresses."""
    names = ", ".join(f"c{n}" for n in range(columns))
    return [tuple(row) for row in store.query(f"SELECT {names} FROM wide ORDER BY _id")]


@pytest.mark.parametrize("columns", others_slow([1, 45, 46, 100, format.COLUMNS_MAX], always=(46, format.COLUMNS_MAX)))
@pytest.mark.parametrize("is_keyed", [False, True], ids=["plain", "keyed"])
def test_rows_that_were_merged_before_the_merger_was_killed_are_found_equal(
    columns: int, is_keyed: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    cls = wide(columns, key="c0") if is_keyed and columns > 1 else wide(columns)
    written = [(*range(n, n + columns - 1), None if n % 2 else n) for n in range(10)]
    with store.shard("a") as shard:
        shard.write_many(cls(*values) for values in written)
    shutil.copy(shard_path(store, "a"), tmp_path / "copy.db")
    store.merge()
    put_back(store, tmp_path / "copy.db")
    report = store.merge()
    assert ((), True, written) == (report.quarantined, report.complete, rows_of(store, columns))
    assert not shard_path(store, "a").exists()  # all of its rows were found equal, so it was removed
    assert store.verify(deep=True).ok


@pytest.mark.parametrize("columns", others_slow([1, 45, 46, 100, format.COLUMNS_MAX], always=(46, format.COLUMNS_MAX)))
@pytest.mark.parametrize("value", ["-1", "NULL"])
def test_a_row_that_differs_in_its_last_column_alone_is_not_truncated(
    columns: int, value: str, store: edgeshard.Store, tmp_path: Path
) -> None:
    cls = wide(columns)
    with store.shard("a") as shard:
        shard.write_many(cls(*range(columns)) for _ in range(3))
    shutil.copy(shard_path(store, "a"), tmp_path / "copy.db")
    sql(tmp_path / "copy.db", f"UPDATE wide SET c{columns - 1} = {value} WHERE _id & 3 = 2")
    store.merge()
    put_back(store, tmp_path / "copy.db")
    (refused,) = store.merge().quarantined
    assert "1 row differs from those that the master holds" in refused.reason
    assert 3 == sql(shard_path(store, "a"), "SELECT count(*) FROM wide")[0][0]


# -- keys -------------------------------------------------------------------------------------------------------------

KEY_COLUMNS = [1, 20, 21, 37, 38, format.COLUMNS_MAX - 1]

RULES = ["lww", "first", "keep-all", "max:value", "min:value"]


def keyed(columns: int, conflict: str, *, history: bool = False) -> Any:
    """Return a class with a key of this many columns, and a value."""
    fields = {f"k{n}": attrs.field(type=int) for n in range(columns)} | {"value": attrs.field(type=int)}
    declare = edgeshard.table(name="wide", key=[f"k{n}" for n in range(columns)], conflict=conflict, history=history)
    return declare(attrs.make_class("Wide", fields, frozen=True))


def last_values(store: edgeshard.Store, table: str = "wide") -> list[tuple[int, int]]:
    """Return the first column of each key that is there, and its value."""
    return [tuple(row) for row in store.query(f"SELECT k0, value FROM {table} ORDER BY k0, value")]


@pytest.mark.parametrize("history", [False, True], ids=["", "history"])
@pytest.mark.parametrize("conflict", others_slow(RULES, always=("lww",)))
@pytest.mark.parametrize("columns", others_slow(KEY_COLUMNS, always=(38,)))
def test_a_key_of_many_columns_keeps_what_its_rule_says_here_and_in_a_hub(
    columns: int, conflict: str, history: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    cls, rest = keyed(columns, conflict, history=history), tuple(range(1, columns))
    with store.shard("a") as shard, store.shard("innocent") as other:
        other.write({"n": 1})
        shard.write_many(cls(n, *rest, value) for n in (0, 1) for value in (2, 1, 3))
        assert () == store.merge().quarantined
        if conflict in ("lww", "keep-all"):
            shard.delete(cls, 1, *rest)
        shard.write_many(cls(0, *rest, value) for value in (5, 0, 4))
        assert () == store.merge().quarantined
    expected = {
        "lww": [(0, 4)],
        "first": [(0, 2), (1, 2)],
        "keep-all": [(0, value) for value in range(6)],
        "max:value": [(0, 5), (1, 3)],
        "min:value": [(0, 0), (1, 1)],
    }
    hub = new_store(tmp_path / "hub")
    assert () == hub.merge([store.master_path]).quarantined
    for each in (store, hub):
        assert (expected[conflict], [1]) == (last_values(each), numbers(each))
        assert () == each.verify(deep=True).errors
    if history:
        written = 6 + 3
        assert written - len(expected[conflict]) == len(last_values(store, "wide_history"))
        assert sorted(last_values(store, "wide_history")) == sorted(last_values(hub, "wide_history"))


@pytest.mark.slow
def test_a_key_of_all_columns_that_a_class_may_have(store: edgeshard.Store, tmp_path: Path) -> None:
    names = [f"k{n}" for n in range(format.COLUMNS_MAX)]
    fields = {name: attrs.field(type=int) for name in names}
    cls: Any = edgeshard.table(name="wide", key=names)(attrs.make_class("Wide", fields, frozen=True))
    values = range(len(names))
    with store.shard("a") as shard:
        shard.write_many([cls(*values), cls(*values)])
        shard.delete(cls, *values)
        shard.write(cls(*values))
    hub = new_store(tmp_path / "hub")
    assert ((), ()) == (store.merge().quarantined, hub.merge([store.master_path]).quarantined)
    assert [1, 1] == [len(each.query("SELECT * FROM wide")) for each in (store, hub)]
    assert [(), ()] == [each.verify(deep=True).errors for each in (store, hub)]


@pytest.mark.parametrize("conflict", others_slow(["lww", "keep-all"], always=("lww",)))
@pytest.mark.parametrize("columns", others_slow(KEY_COLUMNS, always=(38,)))
def test_changes_after_a_tombstone_was_collected_are_merged_whatever_the_key(
    columns: int, conflict: str, store: edgeshard.Store, tmp_path: Path, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    cls, rest = keyed(columns, conflict), tuple(range(1, columns))
    elsewhere, hub = new_store(tmp_path / "other"), new_store(tmp_path / "hub")
    with elsewhere.shard("b") as late:
        late.write(cls(2, *rest, 20))
    elsewhere.merge()
    wall.advance(1)
    with store.shard("a") as shard:
        shard.write(cls(1, *rest, 10))
        shard.delete(cls, 1, *rest)
    store.merge()
    wall.advance(11)
    assert 1 == collect(store).rows
    with store.shard("a") as shard:
        shard.write(cls(3, *rest, 30))
    assert () == store.merge().quarantined
    assert "newer tombstones were collected" not in caplog.text
    assert () == store.merge([elsewhere.master_path]).quarantined
    assert 1 == caplog.text.count("rows of table wide arrived after newer tombstones were collected")
    assert () == hub.merge([store.master_path]).quarantined
    for each in (store, hub):
        assert [(2, 20), (3, 30)] == last_values(each)
        assert () == each.verify(deep=True).errors


def test_only_keyed_tables_that_got_rows_are_settled(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, settled = keyed(20, "lww"), []

    def select(name: str, *arguments: Any) -> str:
        settled.append(name)
        return select_superseded(name, *arguments)

    select_superseded = versions.select_superseded
    with store.shard("a") as shard:
        shard.write(cls(*range(21)))
        store.merge()
        monkeypatch.setattr(versions, "select_superseded", select)
        shard.write(LastKnown("inlet", 1.0))
        store.merge()
        assert {"last_known"} == set(settled)
        settled.clear()
        shard.delete(cls, *range(20))
        store.merge()
        assert {"wide"} == set(settled)
    assert [] == last_values(store)


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_truncation_puts_back_rows_of_many_streams(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 0})
    before, truncations_seen = truncations.delete_all, []

    def delete_all(connection: Any, tables: Any, kept: Any = ()) -> int:
        truncations_seen.append(len(kept))
        return before(connection, tables, kept)

    def open_again(*arguments: Any, **options: Any) -> Any:
        if not truncations_seen:
            for n in range(1, 101):  # each opening writes a stream of its own
                with store.shard("a") as shard:
                    shard.write({"n": n})
        return truncate_shard(*arguments, **options)

    truncate_shard = truncate.truncate
    monkeypatch.setattr(truncations, "delete_all", delete_all)
    monkeypatch.setattr(truncate, "truncate", open_again)
    with monkeypatch.context() as patched:
        patched.setattr("edgeshard.merge.reap.remove", lambda removals, _: len(removals))
        assert () == store.merge().quarantined
    assert 100 in truncations_seen
    store.merge()
    assert [*range(101)] == numbers(store)
    assert store.verify().ok
