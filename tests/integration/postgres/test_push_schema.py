"""A push follows agents of other versions: columns of PostgreSQL's tables get the new name, or the wider type."""

from __future__ import annotations

import decimal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgeshard
from edgeshard.postgres import own_tables
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.sender import Sender
from tests.support.keyed_pushes import plainly
from tests.support.keyed_schema_versions import plain
from tests.support.keyed_schema_versions import version as keyed
from tests.support.schema_versions import BIG, KEY, merged, version, write

pytest.importorskip("psycopg")


from tests.support.postgres_server import do, fetch

if TYPE_CHECKING:
    from edgeshard.postgres.schema import Table
    from edgeshard.postgres.server import Server

pytestmark = pytest.mark.slow


def pushed(store: edgeshard.Store, dsn: str) -> tuple[str, ...]:
    report = store.push(dsn)
    assert report.complete, report.rejected
    return report.statements


def there(dsn: str, table: str = "sample") -> dict[str, str]:
    listed = fetch(dsn, f"select column_name, type from edgeshard_columns where table_name = '{table}'")
    typed = dict(
        fetch(dsn, f"select column_name, data_type from information_schema.columns where table_name = '{table}'")
    )
    return {name: f"{kind} {typed[name]}" for name, kind in listed}


def test_a_renamed_column_is_renamed_there(store: edgeshard.Store, pg: str) -> None:
    write(store, "x", version(a=int)(1))
    merged(store)
    pushed(store, pg)
    write(store, "y", version(b=int, renamed={"a": "b"})(2))
    write(store, "x", version(a=int)(3))
    merged(store)
    assert ('ALTER TABLE "sample" RENAME COLUMN "a" TO "b"',) == pushed(store, pg)
    assert ({"b": "integer bigint"}, [(1,), (2,), (3,)]) == (there(pg), fetch(pg, "select b from sample order by b"))
    assert () == pushed(store, pg)


def test_a_master_that_does_not_know_a_rename_fills_the_renamed_column(tmp_path: Path, pg: str) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(newer, "y", version(b=int, renamed={"a": "b"})(2))
    merged(newer)
    pushed(newer, pg)
    for n in (1, 3):
        write(older, "x", version(a=int)(n))
        merged(older)
        pushed(older, pg)
    assert ({"b": "integer bigint"}, [(1,), (2,), (3,)]) == (there(pg), fetch(pg, "select b from sample order by b"))


def test_a_rename_that_a_master_learns_reaches_postgresql_without_a_new_row_of_the_table(
    tmp_path: Path, pg: str
) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(older, "x", version(a=int)(1))
    write(newer, "y", version(b=int, renamed={"a": "b"})(2))
    for store in (older, newer):
        merged(store)
    pushed(older, pg)
    merged(older, newer)
    merged(newer, older)
    assert newer.push(pg, dry_run=True).statements == pushed(newer, pg)
    assert [(1,), (2,)] == fetch(pg, "select b from sample order by b")
    assert ((), ()) == (older.push(pg, dry_run=True).statements, pushed(older, pg))


@pytest.mark.parametrize("value", [1, BIG])
def test_a_value_by_an_older_name_comes_to_the_wider_column_there_or_is_rejected(
    tmp_path: Path, pg: str, value: int
) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(newer, "y", version(b=float, renamed={"a": "b"})(0.5))
    merged(newer)
    pushed(newer, pg)
    write(older, "x", version(a=int)(value))
    write(older, "x", version(a=int)(2))
    merged(older)
    rejected = older.push(pg).rejected
    assert ([] if value == 1 else [("x", "sample", "a")]) == [
        (each.agent, each.table, each.column) for each in rejected
    ]
    assert ([(0.5,), (1.0,), (2.0,)] if value == 1 else [(0.5,), (2.0,)]) == fetch(
        pg, "select b from sample order by b"
    )


@pytest.mark.parametrize("inserts", [True, False])
def test_a_row_with_two_values_for_one_column_is_rejected(tmp_path: Path, pg: str, inserts: bool) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(newer, "y", version(b=int, renamed={"a": "b"})(0))
    merged(newer)
    pushed(newer, pg)
    both = version(a=int | None, b=float | None)
    write(older, "x", both(1, None))
    write(older, "x", both(None, 2.0))
    write(older, "x", both(3, 3.0))
    write(older, "x", both(4, 5.0))
    merged(older)
    (rejected,) = older.push(pg, inserts=inserts).rejected
    assert ("sample", True) == (rejected.table, "b and a have different values" in rejected.reason)
    assert [(0.0,), (1.0,), (2.0,), (3.0,)] == fetch(pg, "select b from sample order by b")


@pytest.mark.parametrize(
    ("narrow", "wide", "one", "other"),
    [
        (bool, int, True, 5),
        (bool, float, True, 0.5),
        (bool, decimal.Decimal, True, decimal.Decimal("0.5")),
        (int, float, 3, 0.5),
        (int, decimal.Decimal, BIG, decimal.Decimal("0.10")),
        (float, decimal.Decimal, 0.1 + 0.2, decimal.Decimal("0.10")),
        (uuid.UUID, str, KEY, "any"),
    ],
)
def test_a_column_is_widened_there_without_loss(
    store: edgeshard.Store, pg: str, narrow: Any, wide: Any, one: Any, other: Any
) -> None:
    write(store, "x", version(n=int, v=narrow)(1, one))
    merged(store)
    pushed(store, pg)
    write(store, "y", version(n=int, v=wide)(2, other))
    merged(store)
    assert 1 == len(pushed(store, pg))
    exact = decimal.Decimal(repr(one)) if isinstance(one, float) else wide(one)
    assert [(exact,), (other,)] == fetch(pg, "select v from sample order by n")
    assert () == pushed(store, pg)


@pytest.mark.parametrize("inserts", [True, False])
def test_a_column_that_is_wider_there_takes_the_values_of_a_narrower_master(
    tmp_path: Path, pg: str, inserts: bool
) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(newer, "y", version(v=float)(0.5))
    merged(newer)
    pushed(newer, pg)
    write(older, "x", version(v=int)(1))
    merged(older)
    assert older.push(pg, inserts=inserts).complete
    assert [(0.5,), (1.0,)] == fetch(pg, "select v from sample order by v")
    assert ({"v": "real double precision"}, ()) == (there(pg), pushed(newer, pg))


@pytest.mark.parametrize("inserts", [True, False])
@pytest.mark.parametrize(
    "change",
    [version(v=float)(0.5), version(v=decimal.Decimal)(decimal.Decimal("0.5")), version({"v": "w"}, w=float)(0.5)],
)
def test_a_push_that_another_device_changes_columns_beneath_converts_its_values_too(
    tmp_path: Path, pg: str, monkeypatch: pytest.MonkeyPatch, change: Any, inserts: bool
) -> None:
    """COPY would store the bits of an integer in a double precision, which is another number."""
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(older, "x", version(v=int)(1))
    write(newer, "y", change)
    for store in (older, newer):
        merged(store)
    send, left = Sender.send, [newer]

    def meanwhile(*args: Any) -> Any:
        if left:
            pushed(left.pop(), pg)
        return send(*args)

    monkeypatch.setattr(Sender, "send", meanwhile)
    assert older.push(pg, inserts=inserts).complete
    (name,) = there(pg)
    assert [(decimal.Decimal("0.5"),), (1,)] == fetch(pg, f"select {name} from sample order by 1")


def test_integers_there_that_a_real_would_round_hold_the_column_back(tmp_path: Path, pg: str) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(older, "x", version(v=int)(BIG))
    merged(older)
    pushed(older, pg)
    write(newer, "y", version(v=float)(0.5))
    merged(newer)
    report = newer.push(pg)
    assert not report.complete
    assert "integers beyond 2^53 in PostgreSQL" in str(report.rejected[0])
    assert [(BIG,)] == fetch(pg, "select v from sample")


def test_a_view_of_the_user_follows_a_rename_and_holds_back_a_widening(store: edgeshard.Store, pg: str) -> None:
    write(store, "x", version(a=int)(1))
    merged(store)
    pushed(store, pg)
    do(pg, "create view seen as select a from sample")
    write(store, "y", version(b=int, renamed={"a": "b"})(2))
    merged(store)
    pushed(store, pg)
    assert [(1,), (2,)] == fetch(pg, "select a from seen order by a")
    write(store, "z", version(b=float)(0.5))
    merged(store)
    report = store.push(pg)
    assert not report.complete
    assert "view" in str(report.rejected[0])
    do(pg, "drop view seen")
    pushed(store, pg)
    assert [(0.5,), (1.0,), (2.0,)] == fetch(pg, "select b from sample order by b")


# -- keyed tables -----------------------------------------------------------------------------------------------------


def two(tmp_path: Path) -> tuple[edgeshard.Store, edgeshard.Store]:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    return older, newer


def brought(store: edgeshard.Store, dsn: str, *records: Any) -> None:
    write(store, "x", *records)
    merged(store)
    pushed(store, dsn)


def test_a_history_is_renamed_and_widened_there_with_its_table(store: edgeshard.Store, pg: str) -> None:
    brought(store, pg, keyed(k=str, a=int)("p", 1), keyed(k=str, a=int)("p", 2))
    write(store, "x", keyed({"a": "b"}, k=str, b=float)("p", 0.5), keyed(k=str, a=int)("p", 3))
    merged(store)
    asked = store.push(pg, dry_run=True).statements
    assert asked == pushed(store, pg)
    assert [("p", 3.0)] == fetch(pg, "select k, b from sample")
    assert [("p", 0.5), ("p", 1.0), ("p", 2.0)] == fetch(pg, "select k, b from sample_history order by b")
    assert there(pg) == {name: kind for name, kind in there(pg, "sample_history").items() if name != "_reason"}
    assert () == pushed(store, pg)


def test_a_version_goes_to_the_history_there_with_columns_that_the_pusher_does_not_know(
    tmp_path: Path, pg: str
) -> None:
    older, newer = two(tmp_path)
    brought(older, pg, keyed(k=str, a=int)("p", 1))
    brought(newer, pg, keyed({"a": "b"}, k=str, b=float, more=str)("p", 0.5, "more"))
    brought(older, pg, keyed(k=str, a=int)("p", 2))
    assert [("p", 2)] == fetch(pg, "select k, b from sample")
    assert [(0.5, "more"), (1.0, None)] == fetch(pg, "select b, more from sample_history order by b")


@pytest.mark.parametrize("history", [True, False])
def test_a_column_that_a_table_gets_between_two_looks_goes_to_the_history_too(
    store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch, history: bool
) -> None:
    brought(store, pg, keyed(k=str, a=int)("p", 1))
    lock, changes = (
        own_tables.lock_keyed_tables,
        ["alter table sample add late text", "update sample set late = 'late'"],
    )
    if history:
        changes.append("alter table sample_history add late uuid")
    left = [changes]

    def meanwhile(server: Server, keyed: list[Table]) -> None:
        if left:
            do(pg, *left.pop())
        lock(server, keyed)

    monkeypatch.setattr(own_tables, "lock_keyed_tables", meanwhile)
    brought(store, pg, keyed(k=str, a=int)("p", 2))
    assert [(1, "late")] == fetch(pg, "select a, late from sample_history")


RULED = plain(None, {"key": "k", "conflict": "max:v"}, k=int, v=int)(1, 1)
WIDENING = [plain(k=float, v=int)(1.0, 2), plain(k=int, v=decimal.Decimal)(1, decimal.Decimal("0.5"))]
RENAMING = [plain({"k": "w"}, w=int, v=int)(1, 2), plain({"v": "w"}, k=int, w=int)(1, 2)]


@pytest.mark.parametrize(
    ("first", "second"),
    [pair for other in (*WIDENING, *RENAMING) for pair in ((RULED, other), (other, RULED))],
)
def test_what_decides_keeps_its_name_and_type_there_and_the_second_master_is_held_back(
    tmp_path: Path, pg: str, first: Any, second: Any
) -> None:
    one, other = two(tmp_path)
    brought(one, pg, first)
    before = there(pg)
    write(other, "x", second)
    write(other, "y", {"n": 1})
    merged(other)
    report = other.push(pg)
    (aside,) = report.rejected
    assert ("x", True) == (aside.agent, "it must keep its name and type" in aside.reason)
    assert (before, 1, 1) == (there(pg), len(fetch(pg, "select 1 from sample")), report.rows)


def test_values_by_two_older_names_get_the_newest_one_with_the_same_push(tmp_path: Path, pg: str) -> None:
    one, other = two(tmp_path)
    third = edgeshard.Store(tmp_path / "third")
    brought(one, pg, version(n=int, b=int)(1, 1))
    brought(other, pg, version(n=int, a=int)(2, 2))
    assert {"a", "b"} < set(there(pg))
    brought(third, pg, version({"a": "c", "b": "c"}, n=int, c=int)(3, 3))
    assert [(1, 1), (2, 2), (3, 3)] == fetch(pg, "select n, c from sample order by n")


@pytest.mark.parametrize("inserts", [True, False])
@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (version(n=int, a=str)(1, "one"), version({"a": "b"}, n=int, b=str)(2, "two")),
        (version(n=int, a=int)(1, 7), version({"a": "b"}, n=int, b=decimal.Decimal)(2, decimal.Decimal("0.5"))),
        (version(n=int, b=int)(1, 7), version(n=int, b=float)(2, 0.5)),
    ],
)
def test_a_push_that_a_merge_changes_columns_beneath_begins_anew(
    store: edgeshard.Store, pg: str, monkeypatch: pytest.MonkeyPatch, older: Any, newer: Any, inserts: bool
) -> None:
    write(store, "x", older)
    merged(store)
    write(store, "y", newer)
    read_batch, left = MasterReader._read_batch, [store.merge]

    def meanwhile(*args: Any) -> Any:
        if left:
            left.pop()()
        return read_batch(*args)

    monkeypatch.setattr(MasterReader, "_read_batch", meanwhile)
    report = store.push(pg, inserts=inserts)
    assert () == report.rejected
    pushed(store, pg)
    assert [tuple(map(plainly, row)) for row in store.query("SELECT b FROM sample ORDER BY n")] == [
        tuple(map(plainly, row)) for row in fetch(pg, "SELECT b FROM sample ORDER BY n")
    ]
