"""What edgeshard's core costs, as ratios against a named peer in the same run.

    python -m tests.benchmarks.bench_core [--quick] [--only NAME ...] [--dir FOLDER]

A benchmark, not a test: it asserts no times. edgeshard and the peer take turns, and each round swaps who goes first. The
ratio is computed per round, and printed as the median and the quartiles. The peer is plain apsw with the settings that
edgeshard uses, which are read from it. A round begins with a warm interpreter, fresh files (unless a section says
otherwise), and an idle disk (after sync).

    write     Shard.write and write_many, against Cursor.execute and executemany
    merge     Store.merge, against INSERT ... SELECT from an attached database
    size      Store.merge into a large master, against the same into a small one
    news      Store.merge of many idle shards, against stat calls, and against a store of one shard
    layout    how a master keeps its rows: four layouts on plain apsw
    memory    Store.merge of a large backlog in a separate process, against INSERT ... SELECT in one transaction
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import apsw
import attrs

import edgeshard
from edgeshard import format
from edgeshard.bench.costs.backlog import Backlog
from edgeshard.bench.costs.plain_sqlite import bare_master, bare_merge, bare_shard
from edgeshard.bench.costs.sample_rows import AGENT, checked_merge, fill, grow
from edgeshard.bench.costs.timing import alternate, scratch, seconds
from edgeshard.files import scan
from edgeshard.shard import shard

_T = TypeVar("_T")


@attrs.frozen
class Options:
    """Options of the command line."""

    folder: Path
    quick: bool

    def pick(self, quick: _T, full: _T) -> _T:
        return quick if self.quick else full

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """Yield a folder, and delete it afterwards."""
        return scratch(self.folder)


# -- measuring --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Goal:
    """The goal of a ratio."""

    bound: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"

    def met_by(self, ratio: float) -> bool:
        return ratio <= self.bound if self.at_most else ratio >= self.bound


@attrs.frozen
class Comparison:
    """The times of edgeshard and of a peer, in seconds, per round."""

    case: str
    peer_name: str
    ours_s: Sequence[float]
    peer_s: Sequence[float]
    rows: int
    goal: Goal | None = None


Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def cost_table(title: str, comparisons: Iterable[Comparison]) -> Table:
    """Return a table in microseconds per row; the ratio is edgeshard to peer, so less is better."""
    return _comparison_table(title, "cost ratio", comparisons, lambda took_s, rows: f"{took_s / rows * 1e6:.2f} µs/row")


def rate_table(title: str, comparisons: Iterable[Comparison]) -> Table:
    """Return a table in rows per second; the ratio is edgeshard to peer, so more is better."""
    return _comparison_table(title, "rate ratio", comparisons, lambda took_s, rows: f"{rows / took_s:,.0f} rows/s")


def wait_table(title: str, comparisons: Iterable[Comparison]) -> Table:
    """Return a table in milliseconds in all; the ratio is edgeshard to peer, so less is better."""
    return _comparison_table(title, "time ratio", comparisons, lambda took_s, _: f"{took_s * 1e3:.2f} ms")


def _comparison_table(
    title: str, measure: str, comparisons: Iterable[Comparison], show: Callable[[float, int], str]
) -> Table:
    lines = []
    for item in comparisons:
        pairs = zip(item.ours_s, item.peer_s, strict=True)
        ratios = [peer / ours if measure == "rate ratio" else ours / peer for ours, peer in pairs]
        shown = [show(median(times), item.rows) for times in (item.ours_s, item.peer_s)]
        verdict = "" if item.goal is None else f"{item.goal}: {'met' if item.goal.met_by(median(ratios)) else 'MISSED'}"
        lines.append((item.case, item.peer_name, *shown, f"**{median(ratios):.3f}**", spread(ratios), verdict))
    return title, ("case", "peer", "ours", "the peer's", measure, "quartiles", "goal"), lines


def spread(ratios: Sequence[float]) -> str:
    """The quartiles: the middle half lies between them."""
    if len(ratios) < 2:
        return ""
    low, _, high = quantiles(ratios, method="inclusive")
    return f"{low:.2f} to {high:.2f}"


def print_table(table: Table) -> None:
    title, heads, lines = table
    widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads))]
    print(f"\n### {title}\n")
    for line in (heads, ["-" * width for width in widths], *lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    sys.stdout.flush()


# -- write ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Event:
    name: str
    value: float
    count: int
    text: str


@attrs.frozen
class Reading:
    sensor: str
    celsius: float
    at: datetime.datetime


Execute = Callable[[str, tuple[Any, ...]], object]


@attrs.frozen
class Kind:
    """Records of one kind, as edgeshard takes them, and as the peer does.

    Attributes:
        table: the name of their table.
        columns: its columns, as declared after the key.
        record: the nth, for `Shard.write`.
        item: the nth, for `loop` and `values`: its key, and the values as a program has them.
        loop: the peer: a statement for each item, its values converted.
        values: the same, for executemany.
    """

    name: str
    table: str
    columns: str
    record: Callable[[int], Any]
    item: Callable[[int], tuple[Any, ...]]
    loop: Callable[[Execute, str, list[tuple[Any, ...]]], None]
    values: Callable[[list[tuple[Any, ...]]], Iterable[tuple[Any, ...]]]

    @property
    def insert(self) -> str:
        return f"INSERT INTO {self.table} VALUES (?{', ?' * (1 + self.columns.count(','))})"


def write_section(options: Options) -> Iterator[Table]:
    """Measure writes. Both files stay open and grow. Rounds are short, so that few contain a checkpoint, which both need."""
    rounds, rows, many_rows = options.pick(40, 200), 2_000, 10_000
    single, many, waits = [], [], []
    for kind in KINDS:
        ours, peer = _compare_writes(options, kind, rounds, rows, _write_each, _execute_each)
        single.append(Comparison(kind.name, "execute", ours, peer, rows, Goal(1.15)))
        single.append(Comparison(f"{kind.name}, in sum", "execute", [sum(ours)], [sum(peer)], rounds * rows))
        ours, peer = _compare_writes(options, kind, rounds // 4, many_rows, shard.Shard.write_many, _execute_many)
        many.append(Comparison(kind.name, "executemany", ours, peer, many_rows))
        waits.append((kind.name, *_latencies_us(options, kind)))
    yield cost_table(f"write: one row a commit, durability process, {rounds} rounds of {rows:,} rows", single)
    yield cost_table(f"write: {many_rows:,} rows in one transaction, {rounds // 4} rounds", many)
    yield "write: latency of Shard.write, µs", ("case", "p50", "p99", "p99.9", "max"), waits


def _compare_writes(
    options: Options,
    kind: Kind,
    rounds: int,
    rows: int,
    write: Callable[[shard.Shard, list[Any]], object],
    execute: Callable[[apsw.Cursor, Kind, list[Any]], object],
) -> tuple[list[float], list[float]]:
    with (
        options.scratch() as root,
        edgeshard.Store(root).shard(AGENT) as opened,
        bare_shard(root / "bare.db", kind.table, kind.columns) as cursor,
    ):
        contestants = {
            "ours": partial(_write_next, count(0, rows), rows, kind.record, partial(write, opened)),
            "peer": partial(_write_next, count(0, rows), rows, kind.item, partial(execute, cursor, kind)),
        }
        found = alternate(rounds, contestants)
    return found["ours"], found["peer"]


def _write_next(
    starts: Iterator[int], rows: int, make: Callable[[int], Any], write: Callable[[list[Any]], object]
) -> float:
    start = next(starts)
    records = [make(n) for n in range(start, start + rows)]
    return seconds(lambda: write(records))


def _write_each(opened: shard.Shard, records: list[Any]) -> None:
    write = opened.write
    for record in records:
        write(record)


def _execute_each(cursor: apsw.Cursor, kind: Kind, items: list[Any]) -> None:
    kind.loop(cursor.execute, kind.insert, items)


def _execute_many(cursor: apsw.Cursor, kind: Kind, items: list[Any]) -> None:
    cursor.execute("BEGIN IMMEDIATE")
    cursor.executemany(kind.insert, kind.values(items))
    cursor.execute("COMMIT")


def _latencies_us(options: Options, kind: Kind) -> tuple[str, ...]:
    took_ns: list[int] = []
    clock = time.perf_counter_ns
    records = [kind.record(n) for n in range(options.pick(30_000, 200_000))]
    with options.scratch() as root, edgeshard.Store(root).shard(AGENT) as opened:
        write = opened.write
        write(records[0])  # begins the stream and creates the table
        os.sync()
        for record in records:
            began = clock()
            write(record)
            took_ns.append(clock() - began)
    parts = quantiles(took_ns, n=1000)
    return tuple(f"{value / 1e3:.1f}" for value in (parts[499], parts[989], parts[998], max(took_ns)))


def _loop_event(execute: Execute, insert: str, items: list[tuple[Any, ...]]) -> None:
    for values in items:
        execute(insert, values)


def _loop_reading(execute: Execute, insert: str, items: list[tuple[Any, ...]]) -> None:
    for row_id, sensor, celsius, at in items:
        execute(insert, (row_id, sensor, celsius, at.isoformat()))


def _now_text() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


def _loop_dict(execute: Execute, insert: str, items: list[tuple[Any, ...]]) -> None:
    for row_id, record in items:
        execute(insert, (row_id, AGENT, _now_text(), json.dumps(record)))


NOON = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)
TEXT = "t" * 80


def _at(n: int) -> datetime.datetime:
    return NOON + datetime.timedelta(seconds=n, microseconds=n)


def _dict(n: int) -> dict[str, Any]:
    return {"action": "generated_code", "step": n, "score": n / 7, "text": TEXT}


KINDS = (
    Kind(
        "attrs: str, float, int, str of 80",
        "event",
        "name TEXT, value REAL, count INTEGER, text TEXT",
        lambda n: Event("inlet", n / 7, n, TEXT),
        lambda n: (format.row_id(1, n + 1), "inlet", n / 7, n, TEXT),
        _loop_event,
        lambda items: items,
    ),
    Kind(
        "attrs: str, float, datetime",
        "reading",
        "sensor TEXT, celsius REAL, at TEXT",
        lambda n: Reading("inlet", n / 7, _at(n)),
        lambda n: (format.row_id(1, n + 1), "inlet", n / 7, _at(n)),
        _loop_reading,
        lambda items: ((row_id, sensor, celsius, at.isoformat()) for row_id, sensor, celsius, at in items),
    ),
    Kind(
        "dict of 4, as JSON",
        "agent_data",
        "agent_id TEXT, timestamp TEXT, data TEXT",
        _dict,
        lambda n: (format.row_id(1, n + 1), _dict(n)),
        _loop_dict,
        lambda items: ((row_id, AGENT, _now_text(), json.dumps(record)) for row_id, record in items),
    ),
)


# -- merge ------------------------------------------------------------------------------------------------------------


MERGE_GOAL = Goal(0.85, at_most=False)


def merge_section(options: Options) -> Iterator[Table]:
    rounds = options.pick(3, 9)
    sizes = options.pick(
        ((100, 100_000), (1_000, 20_000), (10_000, 3_000)), ((100, 300_000), (1_000, 60_000), (10_000, 10_000))
    )
    found = [
        item
        for payload_bytes, rows in sizes
        for item in _compare_merges(options, rounds, 1, rows, payload_bytes, f"{rows:,} rows of {payload_bytes:,} B")
    ]
    shards, rows = 100, 1_000
    found += _compare_merges(options, rounds, shards, rows, 100, f"{shards} shards, {rows:,} rows of 100 B each")
    yield rate_table(f"merge: Store.merge, {rounds} rounds", found)


def _compare_merges(
    options: Options, rounds: int, shards: int, rows: int, payload_bytes: int, case: str
) -> Iterator[Comparison]:
    with options.scratch() as root:
        backlog = Backlog.make(root, shards, rows, payload_bytes)
        contestants = {
            "copy": partial(backlog.edgeshard_seconds, options.folder, truncating=False),
            "insert": partial(backlog.plain_sql_seconds, options.folder),
            "copy and truncation": partial(backlog.edgeshard_seconds, options.folder, truncating=True),
        }
        if shards == 1:
            contestants["transfer"] = partial(backlog.plain_sql_seconds, options.folder, whole_table=True)
        found = alternate(rounds, contestants)
    for ours, goal in (("copy", MERGE_GOAL), ("copy and truncation", None)):
        for peer, peer_name in (("insert", "INSERT, SELECT columns"), ("transfer", "SELECT *, empty table")):
            if peer in found:
                is_goal = goal if peer == "insert" else None
                yield Comparison(f"{case}: {ours}", peer_name, found[ours], found[peer], shards * rows, is_goal)


# -- size -------------------------------------------------------------------------------------------------------------


def size_section(options: Options) -> Iterator[Table]:
    """Measure merges by size. The large store grows by a batch per round, which hardly matters; the small one is copied anew."""
    rounds, batch, sizes = options.pick(9, 25), 10_000, (10_000, options.pick(1_000_000, 10_000_000))
    with options.scratch() as root:
        small, large = (edgeshard.Store(root / str(rows)) for rows in sizes)
        for store, rows in zip((small, large), sizes, strict=True):
            grow(store, rows)
        found = alternate(
            rounds,
            {
                "large": partial(_batch_merge, large, batch),
                "small": partial(_batch_merge_copy, options, small, batch),
            },
        )
    case, peer = f"into {sizes[1]:,} rows", f"into {sizes[0]:,} rows"
    yield cost_table(
        f"size: Store.merge of {batch:,} rows of 100 B, {rounds} rounds",
        [Comparison(case, peer, found["large"], found["small"], batch, Goal(1.2))],
    )


def _batch_merge(store: edgeshard.Store, batch: int) -> float:
    fill(store, AGENT, batch, 100)
    return checked_merge(store, rows=batch)


def _batch_merge_copy(options: Options, store: edgeshard.Store, batch: int) -> float:
    with options.scratch() as root:
        shutil.copytree(store.root, root / "copy")
        return _batch_merge(edgeshard.Store(root / "copy"), batch)


# -- news -------------------------------------------------------------------------------------------------------------


def news_section(options: Options) -> Iterator[Table]:
    """Measure merges of idle shards. The stores stay the same over all rounds."""
    rounds = options.pick(9, 25)
    found: list[Comparison] = []
    with options.scratch() as root:
        lone = _settled_store(root / "lone", 1)
        for shards in options.pick((1_000,), (1_000, 5_000)):
            store = _settled_store(root / str(shards), shards)
            found += _compare_news(store, lone, shards, rounds)
    yield wait_table(f"news: Store.merge, {rounds} rounds", found)


def _compare_news(store: edgeshard.Store, lone: edgeshard.Store, shards: int, rounds: int) -> Iterator[Comparison]:
    look = partial(_stat_all, store.root / "shards")
    idle = alternate(rounds, {"ours": partial(checked_merge, store, rows=0, shards=0), "peer": partial(seconds, look)})
    yield Comparison(f"{shards:,} shards, no news", "scandir, 2 stats a shard", idle["ours"], idle["peer"], 1)
    busy = alternate(rounds, {"ours": partial(_news_of_one, store), "peer": partial(_news_of_one, lone)})
    yield Comparison(f"{shards:,} shards, news of one", "a store of that shard", busy["ours"], busy["peer"], 1)


def _settled_store(root: Path, shards: int) -> edgeshard.Store:
    """Return a store of merged shards that merges no longer open."""
    store = edgeshard.Store(root)
    for number in range(shards):
        fill(store, f"agent-{number}", 1, 100)
    for _ in range(10):
        if not store.merge().shards:
            return store
        time.sleep(scan.FRESH_S + 0.5)
    raise AssertionError("merges go on looking into idle shards")


def _news_of_one(store: edgeshard.Store) -> float:
    fill(store, "agent-0", 1, 100)
    return checked_merge(store, rows=1, shards=1)


def _stat_all(folder: Path) -> None:
    for entry in list(os.scandir(folder)):
        if entry.name.endswith(".db"):
            for path in (entry.path, entry.path + "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    os.lstat(path)


# -- layout -----------------------------------------------------------------------------------------------------------

STREAMS = 100


@attrs.frozen
class Layout:
    """A way in which a master can store rows.

    Attributes:
        script: its tables.
        inserts: statements that insert the rows of one stream; :seq and :id are those before its first row.
    """

    name: str
    script: str
    inserts: tuple[str, ...]


OURS = "ids in order of arrival, blocks (ours)"
LAYOUTS = (
    Layout(
        "_id = stream * 2^32 + seq",
        "CREATE TABLE t(_id INTEGER PRIMARY KEY, payload TEXT) STRICT",
        ("INSERT INTO t SELECT (:stream << 32) + :seq + n, payload FROM source.rows ORDER BY n",),
    ),
    Layout(
        "WITHOUT ROWID (stream, seq)",
        "CREATE TABLE t(stream INTEGER, seq INTEGER, payload TEXT, PRIMARY KEY(stream, seq)) STRICT, WITHOUT ROWID",
        ("INSERT INTO t SELECT :stream, :seq + n, payload FROM source.rows ORDER BY n",),
    ),
    Layout(
        "rowid, UNIQUE(stream, seq)",
        "CREATE TABLE t(stream INTEGER, seq INTEGER, payload TEXT, UNIQUE(stream, seq)) STRICT",
        ("INSERT INTO t SELECT :stream, :seq + n, payload FROM source.rows ORDER BY n",),
    ),
    Layout(
        OURS,
        "CREATE TABLE t(_id INTEGER PRIMARY KEY, _stream INTEGER NOT NULL, _seq INTEGER NOT NULL, payload TEXT) STRICT;"
        "CREATE TABLE blocks(stream_no INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, "
        "first_id INTEGER NOT NULL, PRIMARY KEY(stream_no, first)) STRICT, WITHOUT ROWID",
        (
            "INSERT INTO t SELECT :id + n, :stream, :seq + n, payload FROM source.rows ORDER BY n",
            "INSERT INTO blocks VALUES (:stream, :seq + 1, :seq + :rows, :id + 1)",
        ),
    ),
)


@attrs.frozen
class Kept:
    """The cost of a layout: seconds, size of the file, and bytes passed to write calls."""

    took_s: float
    disk_bytes: int
    written_bytes: int


def layout_section(options: Options) -> Iterator[Table]:
    rounds = options.pick(2, 5)
    lines: list[tuple[str, ...]] = []
    # payload in bytes, merges, rows of each stream in each merge
    for payload_bytes, merges, rows in options.pick(
        ((100, 10, 100), (1_000, 5, 50), (10_000, 5, 5)), ((100, 40, 100), (1_000, 10, 100), (10_000, 10, 10))
    ):
        contestants = {item.name: partial(_keep, options, item, payload_bytes, merges, rows) for item in LAYOUTS}
        found = alternate(rounds, contestants)
        lines += _layout_lines(found, f"{payload_bytes:,} B, {merges} merges of {rows} x {STREAMS}", merges * rows)
    heads = ("rows", "layout", "rows/s", "ours is", "quartiles", "on disk, B/row", "written, B/row")
    yield f"layout: {STREAMS} streams, each merge one transaction at FULL, {rounds} rounds", heads, lines


def _layout_lines(found: dict[str, list[Kept]], case: str, stream_rows: int) -> Iterator[tuple[str, ...]]:
    rows = stream_rows * STREAMS
    for name, results in found.items():
        ratios = [item.took_s / ours.took_s for item, ours in zip(results, found[OURS], strict=True)]
        yield (
            case,
            name,
            f"{rows / median(item.took_s for item in results):,.0f}",
            f"**{median(ratios):.2f}** x",
            spread(ratios),
            f"{results[0].disk_bytes / rows:,.0f}",
            f"{results[0].written_bytes / rows:,.0f}",
        )


def _keep(options: Options, layout: Layout, payload_bytes: int, merges: int, rows: int) -> Kept:
    with options.scratch() as root:
        path = root / "layout.db"
        with bare_master(path) as connection:
            connection.execute(layout.script)
        before = _written_bytes()
        took_s = seconds(lambda: _merge_all(path, layout, "p" * payload_bytes, merges, rows))
        return Kept(took_s, path.stat().st_size, _written_bytes() - before)


def _merge_all(path: Path, layout: Layout, payload: str, merges: int, rows: int) -> None:
    """Merge equally many rows of each stream, in turn, from a table in memory, so that only the target counts."""
    with bare_master(path) as connection:
        connection.execute("ATTACH ':memory:' AS source")
        connection.execute("CREATE TABLE source.rows(n INTEGER PRIMARY KEY, payload TEXT) STRICT")
        connection.executemany("INSERT INTO source.rows VALUES (?, ?)", ((n, payload) for n in range(1, rows + 1)))
        next_id = 0
        for number in range(merges):
            connection.execute("BEGIN IMMEDIATE")
            for stream in range(1, STREAMS + 1):
                bindings = {"stream": stream, "seq": number * rows, "id": next_id, "rows": rows}
                for sql in layout.inserts:
                    connection.execute(sql, bindings)
                next_id += rows
            connection.execute("COMMIT")


def _written_bytes() -> int:
    """Return how many bytes this process has passed to write calls, or 0 if the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["wchar"])
    return 0


# -- memory -----------------------------------------------------------------------------------------------------------


def memory_section(options: Options) -> Iterator[Table]:
    rows = options.pick(500_000, 5_000_000)
    with options.scratch() as root:
        store = edgeshard.Store(root)
        path = fill(store, AGENT, rows, 80)
        target = root / "bare.db"
        with bare_master(target) as connection:
            connection.execute(
                "CREATE TABLE sample(_id INTEGER PRIMARY KEY, source TEXT, value REAL, text TEXT) STRICT"
            )
        # the peer first: edgeshard truncates the shard
        peer = _in_child(target, _bare_child, target, path)
        ours = _in_child(store.master_path, _merge_child, root, rows)
    goal = f"<= 200 MiB: {'met' if ours[1] <= 200 else 'MISSED'}"
    heads = ("case", "peak RSS, MiB", "largest log, MiB", "seconds", "goal")
    lines = [
        (name, *(f"{value:.1f}" for value in (figures[1], figures[2], figures[0])), text)
        for name, figures, text in (("Store.merge", ours, goal), ("INSERT ... SELECT, one transaction", peer, ""))
    ]
    ratios = [one / other for one, other in zip(ours, peer, strict=True)]
    lines.append(("**ratio**", *(f"**{value:.2f}**" for value in (ratios[1], ratios[2], ratios[0])), ""))
    yield f"memory: {rows:,} rows of about 100 B, one run each in a process of its own", heads, lines


def _in_child(target: Path, work: Callable[..., tuple[float, float]], *arguments: Any) -> tuple[float, float, float]:
    """Run `work` in a new process; return its seconds, peak resident memory, and the target's largest WAL, in MiB."""
    os.sync()
    with (
        LargestSize(Path(f"{target}-wal")) as log,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        took_s, peak = pool.submit(work, *arguments).result()
    return took_s, peak, log.found_bytes / 2**20


def _merge_child(root: Path, rows: int) -> tuple[float, float]:
    return checked_merge(edgeshard.Store(root), rows=rows), _peak_mib()


def _bare_child(target: Path, source: Path) -> tuple[float, float]:
    return seconds(lambda: bare_merge(target, [source])), _peak_mib()


def _peak_mib() -> float:
    """Return this process's peak resident memory. (getrusage would include the parent's, from before the exec.)"""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


class LargestSize:
    """Measures the largest size of a file, only by stat: another process has it open."""

    def __init__(self, path: Path) -> None:
        self.found_bytes = 0
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            with contextlib.suppress(FileNotFoundError):
                self.found_bytes = max(self.found_bytes, os.stat(self._path).st_size)

    def __enter__(self) -> LargestSize:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()


# -- the command ------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Options], Iterator[Table]]] = {
    "write": write_section,
    "merge": merge_section,
    "size": size_section,
    "news": news_section,
    "layout": layout_section,
    "memory": memory_section,
}


def main(
    arguments: Sequence[str] | None = None,
    *,
    sections: dict[str, Callable[[Options], Iterator[Table]]] = SECTIONS,
    description: str | None = __doc__,
) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks.{Path(sys.argv[0]).stem}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: does it work, and roughly what")
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections), metavar="NAME", help="sections")
    parser.add_argument("--dir", help="measure on the disk of this folder (default: the one for temporary files)")
    given = parser.parse_args(arguments)
    print(
        f"Python {platform.python_version()}, apsw {apsw.apsw_version()}, SQLite {apsw.sqlite_lib_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs{', quick' if given.quick else ''}"
    )
    with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=given.dir) as folder:
        options = Options(Path(os.path.realpath(folder)), given.quick)
        for name in given.only:
            began = time.monotonic()
            for table in sections[name](options):
                print_table(table)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
