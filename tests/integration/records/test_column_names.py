"""Columns may have the names of edgeshard's own columns: no statement takes the one for the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import format
from tests.support.stores import new_store

#: The names of all columns of edgeshard's own tables, and names that its statements give to what they compute.
OWN = sorted(
    {name for sql in (format.MASTER_TABLES, format.SHARD_TABLES) for name in re.findall(r"^ {4}([a-z_]+) [A-Z]", sql, re.M)}
    | {"streams", "agent", "rows", "s", "t", "m", "l", "c", "d", "r", "place", "key", "value", "ranked",
       "is_tombstone", "row_id", "was_deleted", "versions", "changed", "judged", "placed", "lost", "kept", "id", "last_tombstone"}
)  # fmt: skip


def of_own_names(name: str, **options: Any) -> type:
    made = attrs.make_class(
        name,
        {"id": attrs.field(type=int)} | {own: attrs.field(type=int, default=0) for own in OWN if own != "id"},
        frozen=True,
    )
    return edgeshard.table(name=name, **options)(made)


Plain = of_own_names("plain", index=["agent_id", ("stream_no", "stream_id")])
Last = of_own_names("last", key=("id", "agent_id"), conflict="lww")
First = of_own_names("first", key="stream_no", conflict="min:last_seq", history=True)


def test_there_are_such_names() -> None:
    assert {"agent_id", "stream_no", "stream_id", "began_at", "last_seq", "first", "last", "role"} <= {*OWN}


@pytest.mark.parametrize("cls", [Plain, Last, First])
def test_columns_with_the_names_of_our_own(tmp_path: Path, cls: type[Any]) -> None:
    store, hub = new_store(tmp_path / "a"), new_store(tmp_path / "hub")
    for agent in ("one", "two"):
        with store.shard(agent) as shard:
            for number in range(3):
                shard.write(cls(number, **{own: number for own in OWN if own != "id"}))
            shard.write({"n": 1})
    store.merge()
    kept = {row.id for row in store.read(cls)}
    assert {0, 1, 2} == kept
    with store.shard("one") as shard:
        if cls is Last:
            shard.delete(cls, 2, 2)
        assert {0, 1, 2} >= {row.id for row in shard.read(cls)}
    store.merge()
    assert store.status().problems == ()
    assert store.verify(deep=True).ok
    assert cls.__name__ in {table.name for table in store.tables().tables}
    hub.merge([store.master_path])
    assert [*map(attrs.astuple, hub.read(cls))] == [*map(attrs.astuple, store.read(cls))]
    store.export(tmp_path / "bundle.db")
    bundles = new_store(tmp_path / "bundles")
    bundles.merge([tmp_path / "bundle.db"])
    other = new_store(tmp_path / "other")
    with other.shard("dicts") as shard:
        shard.write({"n": 1}, table=cls.__name__)
    other.merge()
    report = other.merge([store.master_path])
    assert cls.__name__ in {each.table for each in report.blocked}
    assert not report.quarantined
    assert store.prune(keep_rows=1, dry_run=True).rows == store.prune(keep_rows=1).rows
    assert store.verify(deep=True).ok
    assert len([*store.query(f"select * from {cls.__name__}_with_agent")]) >= 0
    store.erase(cls.__name__, where="agent_id >= 0")
    assert store.verify(deep=True).ok
    assert store.activity() is not None
