"""Versions of one keyed class over the months, written, deleted and merged in any order."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

import edgeshard
from tests.support.processes import sql
from tests.support.schema_versions import (
    VALUES,
    VERSIONS,
    expected_of,
)


def version(renamed: dict[str, str] | None = None, **fields: Any) -> Any:
    """Return the class of one version of an agent, with the key k and a history."""
    return plain(renamed, {"key": "k", "history": True}, **fields)


def plain(renamed: dict[str, str] | None = None, options: dict[str, Any] | None = None, **fields: Any) -> Any:
    """Return a class of the same table, by default without a key: each field is its type, or (type, default)."""
    types = {name: field[0] if isinstance(field, tuple) else field for name, field in fields.items()}
    defaults = {name: field[1] for name, field in fields.items() if isinstance(field, tuple)}
    cls = type("Sample", (), {"__annotations__": types, **defaults})
    return edgeshard.table(renamed=renamed, **options or {})(attrs.frozen(cls))


def columns(store: edgeshard.Store, table: str) -> dict[str, str]:
    """Return the recorded columns of a table; raise if the table itself has others."""
    noted: dict[str, str] = dict(
        store.query("SELECT column_name, type FROM _edgeshard_columns WHERE table_name = ? ORDER BY 1", (table,))
    )
    there = {row[1] for row in sql(store.master_path, f"pragma table_info({table})")}
    assert there == {*noted, "_id", "_stream", "_seq"}
    return noted


def agree(store: edgeshard.Store) -> None:
    """Raise if a history lacks columns or renames of its table."""
    assert {**columns(store, "sample"), "_reason": "reason"} == columns(store, "sample_history")
    sql_ = "SELECT old_name, new_name FROM _edgeshard_renames WHERE table_name = ? ORDER BY 1, 2"
    assert store.query(sql_, ("sample",)) == store.query(sql_, ("sample_history",))
    assert store.verify(deep=True).ok


OLD, NEW = version(k=str, a=int), version(k=str, b=float, renamed={"a": "b"})
#: Versions of one keyed class over the months, like those of the plain one.
CLASSES = [version(renamed, n=int, k=str, **{name: kind}, **more) for name, kind, renamed, more in VERSIONS]


#: (which of three stores, which of two agents, which version, which of its values or None: delete, which key); or what to
#: merge where.
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 1),
            st.integers(0, 5),
            st.sampled_from([0, 0, 1, 1, 2, 2, None]),
            st.sampled_from("pq"),
        ),
        st.tuples(st.integers(0, 2), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=14,
)


class Log:
    """What was written, and the number of the last record of each key, or None if it was deleted since."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.last: dict[str, int | None] = {}
        self.deleted_by: list[Any] = []

    def change(self, store: edgeshard.Store, agent: int, which: int, value: int | None, key: str) -> None:
        with store.shard(str(agent)) as shard:
            if value is None:
                shard.delete(CLASSES[which], key)
                self.last[key] = None
                self.deleted_by.append(CLASSES[which])
            else:
                number, values = len(self.written), VALUES[which]
                self.written.append(CLASSES[which](number, key, values[value % len(values)]))
                shard.write(self.written[-1])
                self.last[key] = number

    @property
    def expected(self) -> tuple[dict[str, str], list[dict[str, Any]]]:
        return expected_of(self.written, self.deleted_by)

    @property
    def kept(self) -> list[int]:
        return sorted(number for number in self.last.values() if number is not None)


def dump(store: edgeshard.Store, expected: dict[str, str]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return all versions, kept or not, and the numbers of those that are kept."""
    names = ", ".join(sorted(expected))
    rows = store.query(f"SELECT {names} FROM sample UNION ALL SELECT {names} FROM sample_history ORDER BY n")
    versions = [dict(zip(sorted(expected), map(repr, row), strict=True)) for row in rows]
    return versions, [n for (n,) in store.query("SELECT n FROM sample ORDER BY n")]
