"""Versions of one class over the months, written and merged in any order, and the result that must follow."""

from __future__ import annotations

import datetime
import decimal
import os
import random
import signal
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
from hypothesis import strategies as st

import edgeshard
from edgeshard.master import database
from edgeshard.records import renames, types
from tests.support.stores import new_store

NOON = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)


BIG = (1 << 60) + 1


def version(renamed: dict[str, str] | None = None, index: tuple[str, ...] = (), **fields: Any) -> Any:
    """Return a class of records as one version of an agent has it: each field is its type, or (type, default)."""
    types = {name: field[0] if isinstance(field, tuple) else field for name, field in fields.items()}
    defaults = {name: field[1] for name, field in fields.items() if isinstance(field, tuple)}
    cls = type("Sample", (), {"__annotations__": types, **defaults})
    return edgeshard.table(renamed=renamed, index=index)(attrs.frozen(cls))


def write(store: edgeshard.Store, agent: str, *records: Any) -> None:
    with store.shard(agent) as shard:
        shard.write_many(records)


def column(store: edgeshard.Store, name: str) -> list[Any]:
    return [value for (value,) in store.query(f"select {name} from sample order by _id")]


def kinds_of(store: edgeshard.Store) -> dict[str, str]:
    return dict(store.query("select column_name, type from _edgeshard_columns where table_name = 'sample'"))


def merged(store: edgeshard.Store, *sources: edgeshard.Store) -> None:
    report = store.merge([source.master_path for source in sources])
    assert report.complete, report.quarantined


def gathered(folder: Path, stores: Sequence[edgeshard.Store], rng: random.Random) -> edgeshard.Store:
    """A hub of all stores, each merged before, in random orders."""
    for store in rng.sample(stores, len(stores)):
        merged(store)
    hub = new_store(folder / "hub")
    for store in rng.sample(stores, len(stores)):
        merged(hub, store)
    return hub


KEY = uuid.UUID(int=7)


#: Versions of one class over the months: its name for the value, that field's type, the older names, and other fields.
VERSIONS: list[tuple[str, Any, dict[str, str], dict[str, Any]]] = [
    ("a", bool, {}, {}),
    ("a", int, {}, {"key": (uuid.UUID | None, KEY)}),
    ("b", int, {"a": "b"}, {"key": (uuid.UUID | None, KEY), "mine": (int, 1)}),
    ("b", float, {"a": "b"}, {"key": (str | None, "key")}),
    ("c", float, {"b": "c"}, {"mine": (float, 1.5)}),
    ("c", decimal.Decimal, {"a": "c", "b": "c"}, {"key": (str, "key")}),
]


CLASSES = [version(renamed, n=int, **{name: kind}, **more) for name, kind, renamed, more in VERSIONS]


VALUES: list[list[Any]] = [
    [True, False],
    [1, 7, 2**53],
    [0, -3],
    [0.5, 1e22, 3.0],
    [-0.0, 0.1],
    [decimal.Decimal("0.10"), decimal.Decimal(4)],
]


KINDS = ["boolean", "integer", "integer", "real", "real", "decimal"]


#: (which of three stores, which of two agents, which version, which of its values); or (from which, to which) to merge.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.integers(0, 2), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=14,
)


def record_of(number: int, which: int, value: int) -> Any:
    values = VALUES[which]
    return CLASSES[which](number, values[value % len(values)])


def dump(store: edgeshard.Store) -> tuple[dict[str, str], list[dict[str, Any]]]:
    names = sorted(kinds_of(store))
    rows = store.query(f"select {', '.join(names)} from sample order by n")
    return kinds_of(store), [dict(zip(names, map(repr, row), strict=True)) for row in rows]


def expected_of(written: list[Any], classes: Iterable[type] = ()) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Compute, without any merge, the columns and rows that must follow from these records and the use of the classes."""
    tables = [edgeshard.records.declare.table_of(type(record)) for record in written]
    used = [*tables, *map(edgeshard.records.declare.table_of, classes)]
    ends = renames.ends({arrow for table in used for arrow in table.renames})
    columns: dict[str, str] = {}
    rows = []
    for table in used:
        for field in table.columns:
            end = ends.get(field.name, field.name)
            columns[end] = types.widest(columns.get(end, field.type), field.type) or ""
    for record, table in zip(written, tables, strict=True):
        row = dict.fromkeys(columns, "None")
        for field in table.columns:
            value = getattr(record, field.name)
            stored: Any = None if value is None else field.encode(value)
            stored = int(stored) if field.type == "boolean" else stored
            stored = stored + 0.0 if isinstance(stored, float) else stored  # SQLite makes -0.0 0.0
            end = ends.get(field.name, field.name)
            row[end] = repr(types.widened(stored, field.type, columns[end]))
        rows.append(row)
    return columns, rows


def strike_at(statement: int) -> Any:
    """Return a function that opens a master, and kills its process before the nth statement that changes a table."""
    left = [statement]

    def strike(cursor: Any, text: str, bindings: Any) -> bool:
        if text.startswith(CHANGES):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return True

    def opened(path: Path, *, writable: bool) -> Any:
        connection = OPEN_MASTER(path, writable=writable)
        connection.set_exec_trace(strike)
        return connection

    return opened


OPEN_MASTER = database.open_master


CHANGES = ("ALTER", 'UPDATE main."sample"', "UPDATE main._edgeshard_columns", "DROP INDEX", "CREATE INDEX", "COMMIT")
