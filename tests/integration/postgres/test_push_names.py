"""Whatever a class and its fields are called, their rows reach PostgreSQL, by names that it can have."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeshard
from edgeshard.postgres import names
from tests.support.forms import others_slow
from tests.support.schema_versions import merged, write

pytest.importorskip("psycopg")

from tests.support.postgres_server import fetch

pytestmark = pytest.mark.slow

LONG = "t" * 64
LONGEST = "T" * 92  # with _history it has the 100 characters that a name may have

#: Names of PostgreSQL's own columns, names that are cut off, that would become one when they are, and keywords.
FIELDS = [
    *("xmin", "XMAX", "ctid", "cmin", "cmax", "tableoid", "oid"),
    *("user", "order", "select", "Case", "pg_class"),
    *("f" * 63, "f" * 64, "f" * 63 + "_g", "f" * 63 + "_h", "F" * 100),
]

TABLES = [
    *(
        "pg_class",
        "PG_Type",
        "pg_toast",
        "user",
        "select",
        "table",
        "oid",
        "xmin",
        "int4",
        "text",
        "information_schema",
    ),
    # an index or a primary key of another table might have this name
    *("odd", "odd_pkey", "odd_n_idx", "odd_n_value_idx", "database", "database_pkey"),
    *("t" * 63, LONG, "t" * 63 + "_a", "t" * 63 + "_b", LONGEST),
]


def named(table: str, *fields: str, key: bool = False) -> Any:
    """Return a class with this table and these fields, all of them int."""
    cls = attrs.make_class("Named", {name: attrs.field(type=int, alias=name) for name in fields}, frozen=True)
    options: dict[str, Any] = {"key": fields[0], "history": True} if key else {"index": [fields[:1], fields[:2]]}
    return edgeshard.table(name=table, **options)(cls)


@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("inserts", others_slow([False, True], always=[False]))
def test_any_name_of_a_table_is_pushed(store: edgeshard.Store, pg: str, inserts: bool, key: bool) -> None:
    classes = [named(name, "n", "value", key=key) for name in TABLES]
    for number, cls in enumerate(classes):
        for value in range(2):
            write(store, "x", cls(number, value))
        if key:
            with store.shard("x") as shard:
                shard.delete(cls, 1_000)
    merged(store)
    report = store.push(pg, inserts=inserts)
    assert report.complete, report.rejected
    for number, name in enumerate(TABLES):
        rows = [(number, 1)] if key else [(number, 0), (number, 1)]
        assert rows == fetch(pg, f'select n, value from public."{names.table_name(name)}" order by value')
        if key:
            history, deleted = (names.table_name(f"{name}_{what}") for what in ("history", "deleted"))
            assert [(number, 0)] == fetch(pg, f'select n, value from public."{history}"')
            assert [(1_000,)] == fetch(pg, f'select n from public."{deleted}"')
    ((indexes,),) = fetch(pg, "select count(*) from pg_indexes where schemaname = 'public' and indexname like '% %'")
    assert (5 if key else 3) * len(TABLES) == indexes
    assert () == store.push(pg).statements


@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("inserts", others_slow([False, True], always=[False]))
def test_any_name_of_a_field_is_pushed(store: edgeshard.Store, pg: str, inserts: bool, key: bool) -> None:
    values = tuple(range(len(FIELDS)))
    cls = named("odd", *FIELDS, key=key)
    write(store, "x", cls(*values))
    write(store, "x", cls(*values))
    if key:
        with store.shard("x") as shard:
            shard.delete(cls, 0)
    merged(store)
    report = store.push(pg, inserts=inserts)
    assert report.complete, report.rejected
    columns = ", ".join(f'"{names.column_name(name)}"' for name in FIELDS)
    assert [values, values] == fetch(pg, f"select {columns} from odd{'_history' if key else ''}")
    assert () == store.push(pg).statements


def test_a_field_with_such_a_name_may_be_renamed_and_widened(tmp_path: Path, pg: str) -> None:
    old, new = "f" * 80, "f" * 90
    older = edgeshard.table(name=LONG)(
        attrs.make_class("Older", {old: attrs.field(type=int), "xmin": attrs.field(type=int)})
    )
    newer = edgeshard.table(name=LONG, renamed={old: new, "xmin": "xmax"})(
        attrs.make_class("Newer", {new: attrs.field(type=float), "xmax": attrs.field(type=float)})
    )
    stores = [edgeshard.Store(tmp_path / name) for name in ("older", "newer")]
    for number, record in ((0, older(1, 2)), (1, newer(0.5, 0.5)), (0, older(3, 4))):
        write(stores[number], "x", record)
        merged(stores[number])
        assert stores[number].push(pg).complete
    columns = ", ".join(f'"{names.column_name(name)}"' for name in (new, "xmax"))
    found = fetch(pg, f'select {columns} from "{names.table_name(LONG)}" order by 1')
    assert [(0.5, 0.5), (1.0, 2.0), (3.0, 4.0)] == found


def test_the_rule_is_the_documented_one() -> None:
    digest = hashlib.sha256(("_" + LONG).encode()).hexdigest()[:12]
    assert [f"_{'t' * 49}_{digest}", "t" * 63, "_pg_class", "sample"] == [
        names.table_name(name) for name in (LONG, "T" * 63, "PG_class", "Sample")
    ]
    assert ["_xmin", "pg_class"] == [names.column_name(name) for name in ("Xmin", "pg_class")]


_NAMES = st.from_regex("[a-zA-Z][a-zA-Z0-9_]{0,99}", fullmatch=True)
_CLOSE = st.builds(lambda head, tail: head + tail, st.sampled_from(["t" * 60, "pg_", "x", "t" * 50]), _NAMES)


@given(st.lists(_NAMES | _CLOSE | st.sampled_from(FIELDS + TABLES), unique_by=str.lower))
def test_two_names_never_become_one_and_all_are_short_enough(found: list[str]) -> None:
    for rename in (names.table_name, names.column_name):
        short = [rename(name) for name in found]
        assert len(set(short)) == len(found)
        assert all(len(name.encode()) <= 63 and not name.startswith("pg_") for name in map(names.table_name, found))
