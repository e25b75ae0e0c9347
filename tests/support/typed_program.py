"""A user's program whose types mypy and pyright must find: each `assert_type` is checked by both, in CI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, assert_type

import attrs
import pydantic

import edgeshard


@attrs.frozen
class Reading:
    """An attrs class."""

    sensor: str
    celsius: float


@edgeshard.table(name="doors", key="door")
@dataclass
class Door:
    """A dataclass with options."""

    door: str
    open: bool


@edgeshard.table
class Config(pydantic.BaseModel):
    """A pydantic model."""

    name: str


class Position(NamedTuple):
    """A named tuple."""

    x: int
    y: int


class Event(TypedDict):
    """A dict with certain keys."""

    kind: str


def program(store: edgeshard.Store) -> None:
    """Write and read a record of each form."""
    with store.shard("agent") as shard:
        assert_type(shard, edgeshard.Shard)
        assert_type(shard.write(Reading("inlet", 71.5)), int)
        event: Event = {"kind": "opened"}
        shard.write(event, table=Event)
        shard.write({"kind": "opened"}, table="events")
        shard.write_many([Door("a", open=True), Config(name="x"), Position(1, 2)])
        shard.delete(Door, "a")
    assert_type(store.merge(), edgeshard.MergeReport)
    assert_type(store.read(Reading), Iterator[Reading])
    assert_type(store.read(Door), Iterator[Door])
    assert_type(store.read(Config), Iterator[Config])
    assert_type(store.read(Position), Iterator[Position])
    assert_type(store.read(Event), Iterator[Event])
    assert_type([reading.celsius for reading in store.read(Reading)], list[float])
    assert_type([door.open for door in store.read(Door)], list[bool])
    assert_type([event["kind"] for event in store.read(Event)], list[str])
    rows = store.query("select sensor, count(*) as count from reading", json=["sensor"])
    assert_type(rows, edgeshard.Rows)
    assert_type(rows[0], edgeshard.Row)
    assert_type(rows[:10], edgeshard.Rows)
    assert_type(rows[0].sensor, Any)
    assert_type(rows[0].count, Any)
    assert_type(rows[0]["sensor"], Any)
    assert_type(dict(rows[0]), dict[str, Any])
    with store.shard("agent") as shard:
        assert_type(shard.read(Reading), Iterator[Reading])
        assert_type(shard.query("select :n", {"n": 1}), edgeshard.Rows)
