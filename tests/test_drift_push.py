"""A push follows agents of other versions: columns of PostgreSQL's tables get the new name, or the wider type."""

from __future__ import annotations

import decimal
import uuid
from pathlib import Path
from typing import Any

import pytest
from test_drift import BIG, KEY, merged, version, write

import edgeshard

pytest.importorskip("psycopg")

from postgres import do, fetch


def pushed(store: edgeshard.Store, dsn: str) -> tuple[str, ...]:
    report = store.push(dsn)
    assert report.complete, report.held_back
    return report.statements


def there(dsn: str) -> dict[str, str]:
    listed = fetch(dsn, "select column_name, kind from edgeshard_columns where table_name = 'sample'")
    typed = dict(
        fetch(dsn, "select column_name, data_type from information_schema.columns where table_name = 'sample'")
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


def test_values_by_both_names_are_brought_together_there(tmp_path: Path, pg: str) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(newer, "y", version(b=int, renamed={"a": "b"})(2))
    merged(newer)
    pushed(newer, pg)
    for n in (1, 3):
        write(older, "x", version(a=int)(n))
        merged(older)
        pushed(older, pg)
    write(newer, "y", version(b=int, renamed={"a": "b"})(4))
    merged(newer)
    pushed(newer, pg)
    assert [(1, None), (2, None), (3, None), (4, None)] == fetch(pg, "select b, a from sample order by b")


@pytest.mark.parametrize("value", [1, BIG])
def test_values_by_an_older_name_come_to_a_wider_column_there_or_hold_it_back(
    tmp_path: Path, pg: str, value: int
) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(newer, "y", version(b=float, renamed={"a": "b"})(0.5))
    merged(newer)
    pushed(newer, pg)
    write(older, "x", version(a=int)(value))
    merged(older)
    pushed(older, pg)
    write(newer, "y", version(b=float, renamed={"a": "b"})(1.5))
    merged(newer)
    report = newer.push(pg)
    assert (value == 1) == report.complete
    found = fetch(pg, "select b, a from sample order by b")
    assert ([(0.5, None), (1.0, None), (1.5, None)] if value == 1 else [(0.5, None), (None, BIG)]) == found


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


def test_a_column_that_is_wider_there_holds_back_the_narrower_master_and_stays(tmp_path: Path, pg: str) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(newer, "y", version(v=float)(0.5))
    merged(newer)
    pushed(newer, pg)
    write(older, "x", version(v=int)(1))
    merged(older)
    report = older.push(pg)
    assert (False, 0) == (report.complete, report.rows)
    assert "It never gets narrower: merge what was pushed there from elsewhere" in str(report.held_back[0])
    merged(older, newer)
    pushed(older, pg)
    assert [(0.5,), (1.0,)] == fetch(pg, "select v from sample order by v")


def test_integers_there_that_a_real_would_round_hold_the_column_back(tmp_path: Path, pg: str) -> None:
    older, newer = (edgeshard.Store(tmp_path / name) for name in ("older", "newer"))
    write(older, "x", version(v=int)(BIG))
    merged(older)
    pushed(older, pg)
    write(newer, "y", version(v=float)(0.5))
    merged(newer)
    report = newer.push(pg)
    assert not report.complete
    assert "integers beyond 2^53 in PostgreSQL" in str(report.held_back[0])
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
    assert "view" in str(report.held_back[0])
    do(pg, "drop view seen")
    pushed(store, pg)
    assert [(0.5,), (1.0,), (2.0,)] == fetch(pg, "select b from sample order by b")
