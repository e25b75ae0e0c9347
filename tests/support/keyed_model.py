"""A model of keyed tables: what merges in any order must leave of a set of changes, by each conflict rule."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
from hypothesis import Phase
from hypothesis import strategies as st

import edgeshard
from edgeshard.records import hlc
from tests.support.clocks import set_machine_clock
from tests.support.stores import new_store

NOON = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
NOON_US = 1_795_608_000_000_000


@edgeshard.table(name="cell", key=("row", "col"))
@attrs.frozen
class Lww:
    row: str
    col: int
    value: int | None


@edgeshard.table(name="cell", key=("row", "col"), conflict="first")
@attrs.frozen
class First:
    row: str
    col: int
    value: int | None


@edgeshard.table(name="cell", key=("row", "col"), conflict="max:value")
@attrs.frozen
class Highest:
    row: str
    col: int
    value: int | None


@edgeshard.table(name="cell", key=("row", "col"), conflict="min:value")
@attrs.frozen
class Lowest:
    row: str
    col: int
    value: int | None


@edgeshard.table(name="cell", key=("row", "col"), conflict="keep-all")
@attrs.frozen
class KeepAll:
    row: str
    col: int
    value: int | None


@edgeshard.table(name="cell", key=("row", "col"), history=True)
@attrs.frozen
class Remembered:
    row: str
    col: int
    value: int | None


Cell = Lww | First | Highest | Lowest | KeepAll | Remembered
CLASSES: tuple[type[Cell], ...] = (Lww, First, Highest, Lowest, KeepAll, Remembered)


@attrs.frozen(order=True)
class Change:
    """One write or deletion; changes sort in the order in which they count."""

    timestamp: int
    stream: str
    seq: int
    key: tuple[str, int] = attrs.field(order=False)
    value: int | None = attrs.field(order=False)
    is_deletion: bool = attrs.field(order=False)


class Recorder:
    """Writes changes to one shard, and records each with its timestamp."""

    def __init__(self, shard: edgeshard.Shard, cls: type[Cell], log: list[Change]) -> None:
        self.shard, self.cls, self.log = shard, cls, log
        self._timestamps: list[int] = []

    def write(self, key: tuple[str, int], value: int | None, *, is_deletion: bool) -> None:
        if self.shard._timestamp is None:
            inner = self.shard._clock()

            def timestamp() -> int:
                self._timestamps.append(inner())
                return self._timestamps[-1]

            self.shard._timestamp = timestamp
        seq = self.shard.delete(self.cls, *key) if is_deletion else self.shard.write(self.cls(*key, value))
        self.log.append(Change(self._timestamps[-1], self.shard.stream, seq, key, value, is_deletion))


class Wall:
    """A wall clock set by hand."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def kept(cls: type[Cell], changes: Iterable[Change]) -> list[tuple[tuple[str, int], int | None, int]]:
    """Return what a master must show of these changes: key, value and timestamp."""
    by_key: dict[tuple[str, int], list[Change]] = {}
    for change in changes:
        by_key.setdefault(change.key, []).append(change)
    return sorted(
        (
            (change.key, change.value, change.timestamp)
            for each in by_key.values()
            for change in _kept(cls, sorted(each))
        ),
        key=repr,
    )


def _kept(cls: type[Cell], changes: list[Change]) -> list[Change]:
    if cls is First:
        return changes[:1]
    if cls is Highest:
        return [max(changes, key=lambda change: (change.value is not None, change.value or 0, change))]
    if cls is Lowest:
        return [max(changes, key=lambda change: (change.value is not None, -(change.value or 0), change))]
    if cls is KeepAll:
        last = max((change for change in changes if change.is_deletion), default=None)
        return [change for change in changes if not change.is_deletion and (last is None or change > last)]
    return [change for change in changes[-1:] if not change.is_deletion]


def state(store: edgeshard.Store) -> list[tuple[tuple[str, int], int | None, int]]:
    """Return key, value and timestamp of the rows that a master has."""
    if not store.query("SELECT 1 FROM _edgeshard_columns WHERE table_name = 'cell' LIMIT 1"):
        return []
    rows = store.query("SELECT row, col, value, _timestamp FROM cell")
    return sorted((((row, col), value, timestamp) for row, col, value, timestamp in rows), key=repr)


def addresses(store: edgeshard.Store, *tables: str) -> list[tuple[str, int]]:
    """Return the addresses of all rows of some tables of a master, by default of all tables."""
    names = [name for (name,) in store.query("SELECT DISTINCT table_name FROM _edgeshard_columns")]
    found: list[tuple[str, int]] = []
    for name in [name for name in names if not tables or name in tables]:
        sql = f"SELECT hex(stream_id), _seq FROM {name} JOIN _edgeshard_streams ON stream_no = _stream"
        found += [(stream.lower(), seq) for stream, seq in store.query(sql)]
    return sorted(found)


def world(folder: Path, count: int) -> list[edgeshard.Store]:
    """Create a world of devices."""
    return [new_store(folder / f"device{number}") for number in range(count)]


def set_clock(monkeypatch: Any, now_us: int) -> Wall:
    """Take all timestamps from a clock that the test sets."""
    wall = Wall(now_us)
    monkeypatch.setattr(hlc, "now_us", wall)
    set_machine_clock(monkeypatch, lambda: wall.now_us / 1e6)
    return wall


# -- devices at random --------------------------------------------------------------------------------------------------

KEYS = st.sampled_from([("p", 1), ("p", 2), ("q", 1)])
WRITE = st.tuples(
    # device, agent, key, value, whether it deletes, how far the clock moves first (also back)
    st.just("write"),
    st.integers(0, 2),
    st.sampled_from("ab"),
    KEYS,
    st.one_of(st.none(), st.integers(-2, 2)),
    st.booleans(),
    st.integers(-3, 5),
)
STEP = st.one_of(
    *[WRITE] * 5,
    st.tuples(st.just("merge"), st.integers(0, 2)),
    st.tuples(st.just("carry"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("bundle"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("reopen"), st.integers(0, 2), st.sampled_from("ab")),
)
STEPS = st.lists(STEP, min_size=4, max_size=30)


#: For mutants: the first failure is enough, and need not be shrunk.
UNSHRUNK = (Phase.generate,)


class World:
    """Three devices, each with two agents, and what is carried between them."""

    def __init__(self, folder: Path, cls: type[Cell], wall: Wall) -> None:
        self.folder, self.cls, self.wall = folder, cls, wall
        self.stores = world(folder, 3)
        self.open: dict[tuple[int, str], Recorder] = {}
        self.log: list[Change] = []
        self.files = 0
        self.push: Callable[[edgeshard.Store], object] = lambda store: None

    def step(self, step: tuple[object, ...]) -> None:
        getattr(self, f"do_{step[0]}")(*step[1:])

    def do_write(
        self, device: int, agent: str, key: tuple[str, int], value: int | None, deletes: bool, moves_us: int
    ) -> None:
        self.wall.now_us += moves_us
        if (device, agent) not in self.open:
            shard = self.stores[device].shard(agent)
            self.open[device, agent] = Recorder(shard, self.cls, self.log)
        deletes = deletes and self.cls in (Lww, KeepAll, Remembered)
        self.open[device, agent].write(key, value, is_deletion=deletes)

    def do_merge(self, device: int) -> None:
        self.stores[device].merge()

    def do_carry(self, one: int, other: int) -> None:
        if one != other and self.stores[one].master_path.exists():
            self.stores[other].merge([self.stores[one].master_path])

    def do_bundle(self, one: int, other: int) -> None:
        if one != other and self.stores[one].master_path.exists():
            self.files += 1
            bundle = self.folder / f"bundle{self.files}.db"
            self.stores[one].export(bundle, ranges=self.stores[other].ranges())
            self.stores[other].merge([bundle])

    def do_push(self, device: int) -> None:
        self.push(self.stores[device])

    def do_reopen(self, device: int, agent: str) -> None:
        recorder = self.open.pop((device, agent), None)
        if recorder is not None:
            recorder.shard.close()

    def close(self) -> None:
        for recorder in self.open.values():
            recorder.shard.close()
