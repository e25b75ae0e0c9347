"""Agents of different versions: columns that are new, gone, renamed or wider, and what cannot be brought together."""

from __future__ import annotations

from typing import Any

import attrs

import edgeshard


def version(name: str = "sample", renamed: dict[str, str] | None = None, **fields: Any) -> Any:
    """A class of records, as one version of an agent has it."""
    cls = type("Sample", (), {"__annotations__": fields})
    return edgeshard.table(name=name, renamed=renamed)(attrs.frozen(cls))


def test_smoke(store: edgeshard.Store) -> None:
    old = version(a=int)
    new = version(b=float, renamed={"a": "b"})
    with store.shard("x") as s:
        s.write(old(1))
    store.merge(keep_empty=True)
    with store.shard("x") as s:
        s.write(old(2))
        s.write(new(2.5))
    with store.shard("y") as s:
        s.write(old(3))
    r = store.merge()
    assert r.complete, r
    assert [(1.0,), (2.0,), (2.5,), (3.0,)] == sorted(map(tuple, store.query("select b from sample")))
