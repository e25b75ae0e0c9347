"""What the watching merger costs, and how soon it notices rows: figures against goals.

    python -m tests.benchmarks.bench_service [--quick] [--only NAME ...] [--dir FOLDER] [--merges N --rows N]

A benchmark, not a test: it asserts no times. It measures real processes from outside: processor time and memory from
/proc, rows with a reader of the master. Run it on an otherwise idle machine.

    wake      from a write after a quiet time until the row is visible in the master
    idle      processor time of a watcher of shards that no agent writes
    rescan    processor time of a rescan of many idle shards, on SIGHUP
    busy      how much watching slows busy writers down, against a merger that makes the same passes without watching
    memory    resident memory, descriptors and WAL of a watcher over very many merges
    pace      under load: from a write until the row is visible, and the writers' longest waits
    dead      merges that find thousands of shards of ended processes, and the merges after that
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any, TypeVar

import apsw
import attrs

import edgeshard
from edgeshard.bench.costs.sample_rows import fill
from edgeshard.bench.costs.timing import alternate, seconds
from tests.benchmarks.bench_core import Table, print_table, spread
from tests.support.merging_processes import (
    PATIENCE_S,
    Kind,
    Merger,
    cpu_s,
    figures,
    has_option,
    run,
    ticks_s,
    wait_until,
)

_T = TypeVar("_T")
_MS = 1e-3
_NS = 1e-9


@attrs.frozen
class Options:
    """Options of the command line."""

    folder: Path
    quick: bool
    kind: Kind
    merges: int
    rows: int

    def pick(self, quick: _T, full: _T) -> _T:
        return quick if self.quick else full

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder, delete it afterwards, and wait until the disk is idle."""
        os.sync()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)

    def merger(self, scratch: Path, *given: object, kind: Kind | None = None) -> Merger:
        """Yield a merger that is ready, on the store in a scratch folder."""
        return Merger(scratch / "data", scratch, *given, kind=kind or self.kind).wait_ready()


@attrs.frozen
class Line:
    """A figure and its goal."""

    figure: str
    measured: str
    goal: str = ""
    is_met: bool | None = None

    @classmethod
    def bounded(cls, figure: str, value: float, bound: float, unit: str, note: str = "") -> Line:
        return cls(figure, f"{value:.3g} {unit}{note}", f"<= {bound:g} {unit}", value <= bound)


def goals_table(title: str, lines: Sequence[Line]) -> Table:
    verdicts = {True: "met", False: "MISSED", None: ""}
    cells = [(line.figure, line.measured, line.goal, verdicts[line.is_met]) for line in lines]
    return title, ("figure", "measured", "goal", "met"), cells


def quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


# -- children ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def child(work: Callable[..., None], *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start a process that runs one of the functions below, with pipes to and from it."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_service", "--child", work.__name__]
    command.append(json.dumps([_plain(one) for one in arguments]))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            if process.wait(PATIENCE_S):
                raise RuntimeError(f"{work.__name__} ended with {process.returncode}")
        finally:
            process.kill()


def _plain(argument: object) -> object:
    return str(argument) if isinstance(argument, Path) else argument


def pipe_of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def tell(process: subprocess.Popen[str]) -> None:
    """Let a waiting child continue."""
    pipe_of(process.stdin).write("\n")
    pipe_of(process.stdin).flush()


def heard(process: subprocess.Popen[str]) -> Any:
    """Return the next line of a child."""
    line = pipe_of(process.stdout).readline()
    if not line:
        raise RuntimeError("a child ended before it said what it was to say")
    return json.loads(line)


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def await_word() -> None:
    sys.stdin.readline()


# -- the master, as a reader sees it ----------------------------------------------------------------------------------


class Reader:
    """A read-only connection to the master that notices changes at once."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._connection.set_busy_timeout(1_000)

    def close(self) -> None:
        self._connection.close()

    def scalar(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        return self._connection.execute(sql, bindings).fetchone()[0]  # type: ignore[index]  # there is one

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(sql, bindings))

    def changes(self) -> Iterator[int]:
        """Yield the time of each change, in ns of the clock that all processes share, or 0 after some time without one."""
        before, said = -1, time.monotonic()
        while True:
            version = self.scalar("PRAGMA data_version")
            now = time.monotonic_ns()
            if version != before:
                before, said = version, time.monotonic()
                yield now
            elif time.monotonic() - said > PATIENCE_S:
                raise TimeoutError(f"the master did not change for {PATIENCE_S:g} s")
            else:
                time.sleep(0.0002)


def made_store(scratch: Path) -> edgeshard.Store:
    """Create a store with an empty master."""
    store = edgeshard.Store(scratch / "data")
    (store.root / "shards").mkdir(parents=True, mode=0o700)
    store.merge()
    return store


# -- wake -------------------------------------------------------------------------------------------------------------


def wake_section(options: Options) -> Iterator[Table]:
    wakes = options.pick(20, 100)
    lines: list[Line] = []
    # (interval, how long nothing is written): idle is a store in which a pass, an interval later, found no more rows
    for interval_s, quiet_s in ((0.1, (0.3, 0.6)), (1.0, (1.2, 1.6))):
        took_ms = _wakes_ms(options, interval_s, quiet_s, wakes)
        case = f"interval {interval_s:g} s, quiet for {quiet_s[0]:g} to {quiet_s[1]:g} s, {wakes} wakes"
        lines.append(Line.bounded(f"{case}: median", median(took_ms), 10, "ms"))
        lines.append(Line.bounded(f"{case}: worst", max(took_ms), 50, "ms"))
    yield goals_table("wake: from the return of write until the row is visible in the master", lines)


def _wakes_ms(options: Options, interval_s: float, quiet_s: tuple[float, float], wakes: int) -> list[float]:
    with options.scratch() as scratch:
        store = made_store(scratch)
        with (
            options.merger(scratch, "--interval", interval_s),
            contextlib.closing(Reader(store.master_path)) as reader,
            child(write_after_quiet, store.root, wakes + 1, quiet_s) as writer,
        ):
            visible_ns: list[int] = []
            for now_ns in reader.changes():
                rows = reader.scalar("SELECT count(*) FROM agent_data")
                visible_ns += [now_ns] * (rows - len(visible_ns))
                if rows > wakes:
                    break
            written_ns = heard(writer)
    # the first of them made the shard, and the table
    return [(seen - at) * _NS / _MS for seen, at in zip(visible_ns, written_ns, strict=True)][1:]


def write_after_quiet(root: str, rows: int, quiet_s: tuple[float, float]) -> None:
    written_ns = []
    rng = random.Random(1)
    with edgeshard.Store(root).shard("agent") as shard:
        for n in range(rows):
            time.sleep(rng.uniform(*quiet_s))
            shard.write({"n": n})
            written_ns.append(time.monotonic_ns())
    say(written_ns)


# -- idle -------------------------------------------------------------------------------------------------------------


def idle_section(options: Options) -> Iterator[Table]:
    shards, length_s = 300, options.pick(10, 30)
    lines = []
    with options.scratch() as scratch:
        _settled_store(scratch, shards)
        for observer in ("native", "polling") if options.kind == "watch" else ("native",):
            with options.merger(scratch, *_kept(), "--observer", observer) as merger:
                _wait_idle(merger)
                before = ticks_s(merger.pid), cpu_s(merger.pid)
                time.sleep(length_s)
                ticks, exact = ticks_s(merger.pid) - before[0], cpu_s(merger.pid) - before[1]
                note = f" ({exact * 1e3:.2f} ms by the scheduler in {length_s} s; {_seen(merger)})"
                name = f"{shards} shards, observer {observer}"
                # 10 ms, one tick, in 10 s is 0.1 %: with less than half a tick there was none
                goal = 0.05 if observer == "native" else None
                measured = f"{ticks / length_s:.2%}{note}"
                lines.append(
                    Line(name, measured, f"< {goal} %" if goal else "", ticks / length_s < 0.0005 if goal else None)
                )
    yield goals_table(f"idle: processor time over {length_s} s", lines)


def _seen(merger: Merger) -> str:
    found = figures(merger.pid)
    assert found is not None
    return f"RSS {found.rss_kib / 1024:.1f} MiB, {found.descriptors} descriptors, {found.threads} threads"


def _kept() -> list[str]:
    """Return the option that keeps idle shards which no agent has open."""
    return ["--keep-empty"] if has_option("--keep-empty") else []


def _settled_store(scratch: Path, shards: int) -> edgeshard.Store:
    """Create a store of many shards that a merge knows to have nothing new.

    They are copies of one shard whose rows the master has; checking them costs the same as checking others.
    """
    store = made_store(scratch)
    path = fill(store, "agent", 1, 100)
    for number in range(1, shards):
        shutil.copy(path, path.with_name(f"agent-{number}.db"))
    wait_until(lambda: _merged(store.root)["shards"] == 0, "settled", timeout_s=300, every_s=1.0)
    return store


def _merged(root: Path) -> dict[str, Any]:
    """Merge once in a separate process, and return the report."""
    done = run("-m", "edgeshard.merge", root, "--json", *_kept())
    if done.returncode:
        raise RuntimeError(f"a merge ended with {done.returncode}: {done.stdout}{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _wait_idle(merger: Merger) -> None:
    """Wait until the merger has not run for a second, so its first passes are over."""

    def is_idle() -> bool:
        before = cpu_s(merger.pid)
        time.sleep(1.0)
        return cpu_s(merger.pid) - before < 0.001

    with contextlib.suppress(TimeoutError):  # a loop is never idle
        wait_until(is_idle, "idle", timeout_s=30)


# -- rescan -----------------------------------------------------------------------------------------------------------


def rescan_section(options: Options) -> Iterator[Table]:
    shards, rescans = options.pick(2_000, 10_000), 20
    with options.scratch() as scratch:
        store = _settled_store(scratch, shards)
        one_shot_s = [float(_merged(store.root)["seconds"]) for _ in range(5)]
        with options.merger(scratch, *_kept(), "--rescan", 3_600) as merger:
            _wait_idle(merger)
            took_s = [_rescan_s(merger) for _ in range(rescans)]
            seen = _seen(merger)
    measured = f"{median(took_s) / _MS:.1f} ms; {seen}"
    goal = (50, "<= 50 ms") if shards == 10_000 else (0, "")  # what a look costs does not shrink with the shards alone
    yield goals_table(
        f"rescan: {shards:,} idle shards; processor time of the watcher from SIGHUP until it rests",
        [
            Line(f"median of {rescans}", measured, goal[1], median(took_s) / _MS <= goal[0] if goal[1] else None),
            Line(f"worst of {rescans}", f"{max(took_s) / _MS:.1f} ms"),
            Line("a one-shot merge, by its own report, median", f"{median(one_shot_s) / _MS:.1f} ms"),
        ],
    )


def _rescan_s(merger: Merger) -> float:
    before = cpu_s(merger.pid)
    merger.process.send_signal(1)
    now = before
    while True:
        time.sleep(0.3)
        last, now = now, cpu_s(merger.pid)
        if now == last:
            return now - before


# -- busy -------------------------------------------------------------------------------------------------------------


def busy_section(options: Options) -> Iterator[Table]:
    """Measure busy writers. The peer is a merger that makes passes at the same interval, and nothing in between."""
    rounds, length_s, writers = options.pick(3, 9), options.pick(2.0, 4.0), 2
    measure = partial(_busy_rows, options, length_s, writers)
    contestants: dict[str, Callable[[], float]] = {
        "none": partial(measure, None),
        "loop": partial(measure, "loop"),
        "native": partial(measure, options.kind, "--observer", "native"),
        "polling": partial(measure, options.kind, "--observer", "polling"),
    }
    found = alternate(rounds, contestants)
    names = {"none": "no merger, rows/s", "loop": "beside a merger that does not watch, rows/s"}
    lines = [Line(text, f"{median(found[name]) / length_s:,.0f}") for name, text in names.items()]
    for name in ("native", "polling"):
        lost = [1 - rows / peer for rows, peer in zip(found[name], found["loop"], strict=True)]
        text = f"{median(found[name]) / length_s:,.0f}, {median(lost):+.1%} (quartiles {spread(lost)})"
        goal = "<= 3 % lost" if name == "native" else ""
        lines.append(
            Line(f"beside --watch --observer {name}, rows/s, lost", text, goal, median(lost) <= 0.03 if goal else None)
        )
    yield goals_table(f"busy: {writers} writers that do nothing else, {length_s:g} s, {rounds} rounds in turns", lines)


def _busy_rows(options: Options, length_s: float, writers: int, kind: Kind | None, *given: object) -> float:
    with options.scratch() as scratch, contextlib.ExitStack() as stack:
        store = made_store(scratch)
        if kind is not None:
            stack.enter_context(options.merger(scratch, "--interval", 1.0, *given, kind=kind))
        children = [stack.enter_context(child(saturate, store.root, f"agent-{n}", length_s)) for n in range(writers)]
        for one in children:
            heard(one)
        for one in children:
            tell(one)
        return float(sum(heard(one) for one in children))


def saturate(root: str, agent: str, length_s: float) -> None:
    with edgeshard.Store(root).shard(agent) as shard:
        shard.write({"n": 0})
        say("ready")
        await_word()
        write, clock = shard.write, time.perf_counter
        end, rows = clock() + length_s, 0
        while clock() < end:
            write({"n": rows, "text": "what an agent has to say about it"})
            rows += 1
        say(rows)


# -- memory -----------------------------------------------------------------------------------------------------------

MEMORY_POINTS = 10


def memory_section(options: Options) -> Iterator[Table]:
    """Run a writer and the merger in lockstep: some rows, one merge, some rows ..."""
    rows = options.rows
    # about 45 bytes a row in the master, and the log and the shard beside it
    needed_mib = options.merges * rows * 45 / 2**20 + 200
    free_mib = shutil.disk_usage(options.folder).free / 2**20
    print(f"memory: needs about {needed_mib:,.0f} MiB of disk, {free_mib:,.0f} MiB are free", file=sys.stderr)
    if needed_mib > free_mib:
        yield goals_table("memory", [Line("not enough room on the disk", f"{free_mib:,.0f} MiB free")])
        return
    points: list[tuple[str, ...]] = []
    with options.scratch() as scratch:
        store = made_store(scratch)
        began = time.monotonic()
        with (
            options.merger(scratch, "--interval", 0.01) as merger,
            child(feed, store.root, options.merges, rows) as feeder,
        ):
            sizes = []
            for _ in range(MEMORY_POINTS):
                done, generation = heard(feeder)
                found = figures(merger.pid)
                assert found is not None
                sizes.append(found.rss_kib / 1024)
                points.append(_memory_point(merger, store, done, generation, time.monotonic() - began))
    heads = ("merges", "generation", "after", "RSS", "descriptors", "threads", "shards open", "log", "master")
    yield f"memory: merges of {rows:,} rows of 20 B", heads, points
    first = sizes[1 if len(sizes) > 2 else 0]
    yield goals_table(
        "memory: the bounds",
        [
            Line.bounded("RSS at most", max(sizes), 30, "MiB"),
            # the first point fills the caches
            Line.bounded("RSS at the end, above that at the second point", sizes[-1] - first, 1, "MiB"),
        ],
    )


def _memory_point(
    merger: Merger, store: edgeshard.Store, done: int, generation: int, after_s: float
) -> tuple[str, ...]:
    found = figures(merger.pid)
    assert found is not None
    opened = [os.path.basename(path) for path in _open_files(merger.pid)]
    log = Path(f"{store.master_path}-wal").stat().st_size / 2**20
    return (
        f"{done:,}",
        f"{generation:,}",
        f"{after_s:.0f} s",
        f"{found.rss_kib / 1024:.1f} MiB",
        str(found.descriptors),
        str(found.threads),
        str(len({name for name in opened if name.endswith(".db") and name != "master.db"})),
        f"{log:.1f} MiB",
        f"{store.master_path.stat().st_size / 2**20:,.0f} MiB",
    )


def _open_files(pid: int) -> Iterator[str]:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/{pid}/fd/{name}")


@attrs.frozen
class Crumb:
    """A small row."""

    text: str


def feed(root: str, merges: int, rows: int) -> None:
    store = edgeshard.Store(root)
    crumbs = [Crumb(f"{n:020}") for n in range(rows)]
    reader = Reader(store.master_path)
    points = {merges * (n + 1) // MEMORY_POINTS for n in range(MEMORY_POINTS)}
    with store.shard("agent") as shard:
        for number in range(1, merges + 1):
            shard.write_many(crumbs)
            for _ in reader.changes():
                held = reader.scalar("SELECT coalesce(sum(last - first + 1), 0) FROM _edgeshard_ranges")
                if held == number * rows:
                    break
            if number in points:
                say((number, reader.scalar("SELECT generation FROM _edgeshard_database")))
    reader.close()


# -- pace -------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Stamp:
    """A row that holds roughly when its write returned: the clock is read just before."""

    writer: int
    at_ns: int
    text: str


PACED_WRITERS = 3
PACED_RATE = 500.0


def pace_section(options: Options) -> Iterator[Table]:
    length_s = options.pick(8.0, 60.0)
    lines: list[Line] = []
    interval_s = 1.0
    stale_s, waits_s = _pace(options, length_s, interval_s)
    lines.append(Line.bounded("from write to visible, worst", max(stale_s), 2 * interval_s, "s"))
    lines.append(
        Line("from write to visible, median, p99", f"{median(stale_s):.2f} s, {quantile(stale_s, 0.99):.2f} s")
    )
    lines.append(Line.bounded("shard.write beside the merger, worst", max(waits_s) / _MS, 20, "ms"))
    lines.append(Line("shard.write beside the merger", _parts(waits_s)))
    lines.append(Line("shard.write, no merger", _parts(_pace(options, length_s, None)[1])))
    title = f"pace: {PACED_WRITERS} writers of {PACED_RATE:g} rows/s, {length_s:g} s, interval {interval_s:g} s"
    yield goals_table(title, lines)


def _parts(waits_s: Sequence[float]) -> str:
    names = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
    parts = [f"{name} {quantile(waits_s, part) * 1e6:,.0f}" for name, part in names.items()]
    return f"{', '.join(parts)}, worst {max(waits_s) * 1e6:,.0f} µs, of {len(waits_s):,}"


def _pace(options: Options, length_s: float, interval_s: float | None) -> tuple[list[float], list[float]]:
    """Return how long each row took to become visible, and each write to return; no interval means no merger."""
    with options.scratch() as scratch, contextlib.ExitStack() as stack:
        store = made_store(scratch)
        if interval_s is not None:
            stack.enter_context(options.merger(scratch, "--interval", interval_s))
        writers = [
            stack.enter_context(child(write_at_pace, store.root, number, PACED_RATE, length_s))
            for number in range(PACED_WRITERS)
        ]
        stale_s = [] if interval_s is None else list(_staleness_s(store, int(PACED_WRITERS * PACED_RATE * length_s)))
        waits_s = list(itertools.chain.from_iterable(heard(writer) for writer in writers))
    return stale_s, waits_s


def _staleness_s(store: edgeshard.Store, rows: int) -> Iterator[float]:
    with contextlib.closing(Reader(store.master_path)) as reader:
        last = seen = 0
        for now_ns in reader.changes():
            fresh = []
            with contextlib.suppress(apsw.SQLError):  # the table comes with the first rows
                fresh = reader.rows("SELECT _id, at_ns FROM timestamp WHERE _id > ? ORDER BY _id", (last,))
            for _, at_ns in fresh:
                yield (now_ns - at_ns) * _NS
            last = fresh[-1][0] if fresh else last
            seen += len(fresh)
            if seen == rows:
                return


def write_at_pace(root: str, writer: int, rate: float, length_s: float) -> None:
    waits_s = []
    clock = time.perf_counter
    with edgeshard.Store(root).shard(f"agent-{writer}") as shard:
        began = time.monotonic() + writer / PACED_WRITERS / rate
        for n in range(int(rate * length_s)):
            time.sleep(max(0.0, began + n / rate - time.monotonic()))
            timestamp = Stamp(writer, time.monotonic_ns(), "what an agent has to say about it")
            before = clock()
            shard.write(timestamp)
            waits_s.append(clock() - before)
    say(waits_s[1:])  # the first makes the table


# -- dead -------------------------------------------------------------------------------------------------------------


def dead_section(options: Options) -> Iterator[Table]:
    dead, live, merges = options.pick(1_000, 7_000), 20, 20
    with options.scratch() as scratch, contextlib.ExitStack() as stack:
        store, lone = made_store(scratch), edgeshard.Store(scratch / "lone")
        for number in range(dead):
            fill(store, f"job-{number}", 10, 100)
        holders = [stack.enter_context(child(hold, one.root, live)) for one in (store, lone)]
        for holder in holders:
            heard(holder)
        lone.merge()
        first, second = (_timed_merge(store) for _ in range(2))
        for one in (store, lone):
            wait_until(lambda one=one: one.merge().shards == 0, "settled", every_s=1.0)  # type: ignore[misc]
        left = len(list((store.root / "shards").glob("*.db")))
        found = alternate(merges, {"after": partial(seconds, store.merge), "lone": partial(seconds, lone.merge)})
        for holder in holders:
            tell(holder)
    after, alone = (median(found[name]) / _MS for name in ("after", "lone"))
    lines = [
        Line(f"the first merge, of {dead:,} dead and {live} live shards", first),
        Line("the merge after it", second),
        Line("shards left", str(left), str(live), left == live),
        Line("a merge without news then, median", f"{after:.2f} ms"),
        Line(f"a merge without news in a store of {live} live shards only, median", f"{alone:.2f} ms"),
    ]
    yield goals_table(f"dead: one-shot merges of {dead:,} shards of 10 rows whose processes are gone", lines)


def _timed_merge(store: edgeshard.Store) -> str:
    reports: list[edgeshard.MergeReport] = []
    took_s = seconds(lambda: reports.append(store.merge()))
    return f"{took_s:.2f} s, {reports[0].rows:,} rows, {reports[0].removed:,} shards removed"


def hold(root: str, shards: int) -> None:
    """Keep shards open, with a row in each, until told to close them."""
    with contextlib.ExitStack() as stack:
        for number in range(shards):
            stack.enter_context(edgeshard.Store(root).shard(f"agent-{number}")).write({"n": number})
        say("ready")
        await_word()


# -- the command ------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Options], Iterator[Table]]] = {
    "wake": wake_section,
    "idle": idle_section,
    "rescan": rescan_section,
    "busy": busy_section,
    "memory": memory_section,
    "pace": pace_section,
    "dead": dead_section,
}

CHILDREN: dict[str, Callable[..., None]] = {
    work.__name__: work for work in (write_after_quiet, saturate, feed, write_at_pace, hold)
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.child:
        name, values = given.child
        CHILDREN[name](*json.loads(values))
        return 0
    print(
        f"Python {platform.python_version()}, apsw {apsw.apsw_version()}, SQLite {apsw.sqlite_lib_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs{', quick' if given.quick else ''}, "
        f"merger: {given.merger}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=given.dir) as folder:
        merges = given.merges or (2_000 if given.quick else 10_000)
        options = Options(Path(os.path.realpath(folder)), given.quick, given.merger, merges, given.rows)
        for name in given.only:
            began = time.monotonic()
            for table in SECTIONS[name](options):
                print_table(table)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: does it work, and roughly what")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME", help="sections")
    parser.add_argument("--dir", help="measure on the disk of this folder (default: the one for temporary files)")
    parser.add_argument("--merges", type=int, help="memory: how many merges (default: 10,000; quick 2,000)")
    parser.add_argument("--rows", type=int, default=1_000, help="memory: rows of a merge")
    parser.add_argument("--merger", choices=["watch", "loop"], default="watch", help="loop: merges without a watch")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
