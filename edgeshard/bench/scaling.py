"""What edgeshard itself costs, and how that grows: each a curve, beside its peer where it has one.

write     a write, against a bare INSERT of apsw, over the size of a row
merge     a merge, against a bare INSERT ... SELECT, over the size of a row
shards    a merge of as many rows, and one that finds nothing, over the number of shards
size      a merge of as many rows, over the size of the master
wake      from a write after a quiet time until the row can be read, over the merger's interval
wear      bytes written for a row, at both levels of `Store(wear=...)`, over the number of agents
turns     how long a process that only computes waits for a processor, over the number of them: no commit's doing
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from edgeshard import format
from edgeshard.bench import peers, turns, wearing
from edgeshard.bench.figures import Figure
from edgeshard.bench.peers import AGENT, Sample
from edgeshard.bench.servers import Server
from edgeshard.bench.systems.sqlite_tuned import FileReader
from edgeshard.files import scan
from edgeshard.shard.shard import Shard
from edgeshard.shard.write_profile import Wear
from edgeshard.store import Store

#: A time in seconds, a number a second, or bytes.
Unit = Literal["s", "1/s", "B"]

_PATIENCE_S: Final = 60.0
_LOOK_S: Final = 0.0005
#: For how long processes compute, in seconds: as long as agents write in the short profile.
_TURNS_S: Final = 0.7
#: Bytes are counted, not timed: they come out the same each time (measured).
_WEAR_ROUNDS: Final = 1


@attrs.frozen
class Curve:
    """How a cost grows.

    Attributes:
        name: which of `CURVES` it is.
        title: what is measured.
        x_title: over what.
        unit: of the figures.
        lines: by name, the figures, each with its x.
    """

    name: str
    title: str
    x_title: str
    unit: Unit
    lines: dict[str, list[tuple[float, Figure]]]


@attrs.frozen
class Scale:
    """How far the curves go.

    Attributes:
        rounds: how often each point is measured.
        payloads: sizes of a row, in bytes.
        row_bytes: how much is written or merged at a time, as bytes of payload.
        shards: numbers of shards.
        master_rows: sizes of the master.
        batch_rows: rows of a merge whose cost is looked at.
        wakes: how often a merger is woken.
        processes: numbers of processes that wait for their turn, and of agents that wear flash.
    """

    rounds: int
    payloads: tuple[int, ...]
    row_bytes: int
    shards: tuple[int, ...]
    master_rows: tuple[int, ...]
    batch_rows: int
    wakes: int
    processes: tuple[int, ...] = (1, 10, 100)


SHORT: Final = Scale(2, (100, 1_000, 10_000), 2_000_000, (1, 10, 100), (10_000, 100_000), 10_000, 3)
FULL: Final = Scale(
    9,
    (100, 1_000, 10_000),
    20_000_000,
    (1, 10, 100, 1_000, 10_000),
    (10_000, 100_000, 1_000_000, 10_000_000),
    10_000,
    50,
)


def write_curve(folder: Path, scale: Scale) -> Curve:
    """A write, a row a commit, against the same INSERT through apsw, on the same settings."""
    lines: dict[str, list[tuple[float, Figure]]] = {"shard.write": [], "bare apsw": []}
    for payload_bytes in scale.payloads:
        rows = max(50, min(5_000, scale.row_bytes // payload_bytes // 4))
        text = "p" * payload_bytes
        with (
            peers.scratch(folder) as root,
            Store(root).shard(AGENT) as shard,
            peers.bare_shard(root / "bare.db", "sample", "source TEXT, value REAL, text TEXT") as cursor,
        ):
            found = peers.alternate(
                scale.rounds,
                {
                    "shard.write": partial(_write_seconds, shard, rows, text),
                    "bare apsw": partial(_execute_seconds, cursor, count(1), rows, text),
                },
            )
        for name, took_s in found.items():
            lines[name].append((payload_bytes, Figure.of(one / rows for one in took_s)))
    return Curve("write", "A write, one row a commit, class process", "payload of a row, bytes", "s", lines)


def _write_seconds(shard: Shard, rows: int, text: str) -> float:
    records = [Sample("inlet", number / 7, text) for number in range(rows)]
    write = shard.write

    def work() -> None:
        for record in records:
            write(record)

    return peers.seconds(work)


def _execute_seconds(cursor: Any, numbers: Iterator[int], rows: int, text: str) -> float:
    values = [(format.row_id(1, next(numbers)), "inlet", number / 7, text) for number in range(rows)]
    execute = cursor.execute

    def work() -> None:
        for one in values:
            execute("INSERT INTO sample VALUES (?, ?, ?, ?)", one)

    return peers.seconds(work)


def merge_curve(folder: Path, scale: Scale) -> Curve:
    """A merge of one shard, with its truncation, against a bare INSERT ... SELECT without any."""
    names = "store.merge", "INSERT ... SELECT"
    lines: dict[str, list[tuple[float, Figure]]] = {name: [] for name in names}
    for payload_bytes in scale.payloads:
        with peers.scratch(folder) as root:
            backlog = peers.Backlog.make(root, 1, scale.row_bytes // payload_bytes, payload_bytes)
            contestants = partial(backlog.ours, folder, truncating=True), partial(backlog.peer, folder)
            found = peers.alternate(scale.rounds, dict(zip(names, contestants, strict=True)))
        for name, took_s in found.items():
            lines[name].append((payload_bytes, Figure.of(backlog.rows / one for one in took_s)))
    return Curve(
        "merge",
        "A merge of one shard that empties it, against copying alone: rows a second",
        "payload of a row, bytes",
        "1/s",
        lines,
    )


def shards_curve(folder: Path, scale: Scale) -> Curve:
    """A merge of as many rows from ever more shards, and one of shards that have no news."""
    rows = max(scale.batch_rows, *scale.shards)
    names = f"a merge of {rows:,} rows", "a merge without news"
    lines: dict[str, list[tuple[float, Figure]]] = {name: [] for name in names}
    with peers.scratch(folder) as root:
        stores = {shards: Store(root / str(shards)) for shards in scale.shards}
        for shards, store in stores.items():
            rounds = scale.rounds if shards < 1_000 else 1
            took_s = [_merge_of_many(store, shards, rows // shards) for _ in range(rounds)]
            lines[names[0]].append((shards, Figure.of(took_s)))
        for shards, store in stores.items():  # by now the first of them have rested for long enough
            lines[names[1]].append((shards, Figure.of(_idle_merges(store, scale.rounds))))
    return Curve("shards", "A merge, over the number of shards", "shards", "s", lines)


def _merge_of_many(store: Store, shards: int, rows: int) -> float:
    for number in range(shards):
        peers.fill(store, f"agent-{number}", rows, 100)
    return peers.checked_merge(store, rows=rows * shards, keep_empty=True)


def _idle_merges(store: Store, rounds: int) -> Iterator[float]:
    """Merges of a store whose shards the merger knows to have nothing new."""
    began = time.monotonic()
    while store.merge(keep_empty=True).shards:
        if time.monotonic() - began > _PATIENCE_S:
            raise RuntimeError("merges go on looking into idle shards")
        time.sleep(scan.FRESH_S + 0.1)
    for _ in range(rounds):
        yield peers.checked_merge(store, rows=0, shards=0, keep_empty=True)


def size_curve(folder: Path, scale: Scale) -> Curve:
    """A merge of as many rows into an ever larger master."""
    batch = scale.batch_rows
    points = []
    with peers.scratch(folder) as root:
        store, held = Store(root), 0
        for rows in scale.master_rows:
            peers.grow(store, max(0, rows - held))
            took_s = []
            for _ in range(scale.rounds):
                peers.fill(store, AGENT, batch, 100)
                took_s.append(peers.checked_merge(store, rows=batch))
            held = max(held, rows) + batch * scale.rounds
            points.append((float(rows), Figure.of(one / batch for one in took_s)))
    title = f"A merge of {batch:,} rows of 100 B, time a row"
    return Curve("size", title, "rows in the master before", "s", {"store.merge": points})


def wake_curve(folder: Path, scale: Scale) -> Curve:
    """From the return of a write after a quiet time until a reader of the master finds the row."""
    lines: dict[str, list[tuple[float, Figure]]] = {"until the row can be read": []}
    for interval_s in (0.1, 1.0):
        with peers.scratch(folder) as root:
            took_s = list(_wakes(root, interval_s, scale.wakes))
        lines["until the row can be read"].append((interval_s, Figure.of(took_s)))
    return Curve("wake", "A row after a quiet time", "the merger's interval, s", "s", lines)


def _wakes(root: Path, interval_s: float, wakes: int) -> Iterator[float]:
    store = Store(root / "store")
    with store.shard(AGENT) as shard:
        shard.write(Sample("first", 0.0, ""))
        store.merge()
        log = root / "merger.log"
        log.touch()
        command = [sys.executable, "-m", "edgeshard.merge", str(store.root), "--watch", "--interval", str(interval_s)]
        merger = Server([*command, "-v"], log)
        try:
            merger.wait_until(lambda: "watching the store" in log.read_text())
            with contextlib.closing(_Counter(store)) as reader:
                for number in range(wakes):
                    time.sleep(interval_s * 1.5 + 0.2 + 0.01 * number)
                    before = reader.rows()
                    shard.write(Sample("inlet", 0.0, ""))
                    yield _wait_for(reader, before + 1)
        finally:
            merger.stop()


class _Counter:
    """Counts the rows of the master."""

    def __init__(self, store: Store) -> None:
        self._reader = FileReader(store.master_path, table="sample", key="_id", value="_seq")
        self._rows = 0

    def rows(self) -> int:
        self._rows += len(self._reader.fresh())
        return self._rows

    def close(self) -> None:
        self._reader.close()


def _wait_for(reader: _Counter, rows: int) -> float:
    began = time.perf_counter()
    while reader.rows() < rows:
        if time.perf_counter() - began > _PATIENCE_S:
            raise RuntimeError(f"a row was not merged in {_PATIENCE_S:g} s")
        time.sleep(_LOOK_S)
    return time.perf_counter() - began


def turns_curve(_: Path, scale: Scale) -> Curve:
    """The longest wait of a process that does nothing but look at the clock, by the number of such processes."""
    lines: dict[str, list[tuple[float, Figure]]] = {"of half of them": [], "of any of them": []}
    for processes in scale.processes:
        rounds = [turns.longest_waits_s(processes, _TURNS_S) for _ in range(scale.rounds)]
        lines["of half of them"].append((processes, Figure.of(sorted(found)[len(found) // 2] for found in rounds)))
        lines["of any of them"].append((processes, Figure.of(map(max, rounds))))
    return Curve("turns", "The longest wait of processes that only compute", "processes", "s", lines)


def wear_curve(folder: Path, scale: Scale) -> Curve:
    """What a row makes edgeshard write, until it is in the master and its agent gone: with what is sparing, first."""
    levels: tuple[Wear, Wear] = ("low", "normal")
    lines: dict[str, list[tuple[float, Figure]]] = {f"wear={level!r}": [] for level in levels}
    for agents in scale.processes:
        for level in levels:
            found = []
            for _ in range(min(scale.rounds, _WEAR_ROUNDS)):
                with peers.scratch(folder) as root:
                    found.append(wearing.bytes_a_row(root, level, agents, scale.payloads[0]))
            lines[f"wear={level!r}"].append((agents, Figure.of(found)))
    title = f"Bytes written for a row of {scale.payloads[0]} B, agents that write 10 a second"
    return Curve("wear", title, "agents", "B", lines)


CURVES: Final[dict[str, Callable[[Path, Scale], Curve]]] = {
    "write": write_curve,
    "merge": merge_curve,
    "shards": shards_curve,
    "size": size_curve,
    "wake": wake_curve,
    "wear": wear_curve,
    "turns": turns_curve,
}
