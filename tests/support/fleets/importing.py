"""Steps that import files of other programs, and steps of agents that write rows from lines.

Each device has a log and a database, which only grow, and imports them as agents of their own. A line is a row of
either file. An import must write exactly the lines whose rows its store has never held, and nothing while rows of its
agent are known to be missing.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import attrs

import edgeshard
from edgeshard.errors import DiskBudgetError, RecordError
from edgeshard.exchange import import_lines, import_tables
from edgeshard.merge import once
from tests.support import ordinary
from tests.support.fleets import contents
from tests.support.fleets.agents import Change, note_schema
from tests.support.fleets.carrying import take_snapshot
from tests.support.fleets.contents import Stored
from tests.support.fleets.fleet import AGENTS, DEVICES, Fleet
from tests.support.fleets.model import Address
from tests.support.fleets.shapes import DICT, EVENTS, IMPORT_STATE, READING, Pick, Shape, values_for
from tests.support.fleets.steps import step
from tests.support.forks import Count
from tests.support.stores import shard_path

#: The names of these steps.
NAMES = ("import_file", "kill_import", "lose_imported", "write_lines")

#: How many rows are committed together.
_BATCH = 3


@attrs.define
class Source:
    """A file that another program writes on a device.

    Attributes:
        store: the name of the device's store.
        path: the file.
        shape: the class of its rows.
        lines: the values of each row that it has.
        rows: the line of each row that was written for one.
        again: the lines that came again, since older copies of files were put back.
    """

    store: str
    path: Path
    shape: Shape
    lines: list[dict[str, Any]] = attrs.Factory(list)
    rows: dict[Address, int] = attrs.Factory(dict)
    again: set[int] = attrs.Factory(set)

    @property
    def agent(self) -> str:
        """The agent as which it is imported."""
        return self.path.stem

    def note(self, fleet: Fleet, address: Address, line: int) -> None:
        """Record which line a row was written for."""
        if line in self.rows.values():
            # nothing says that the older row was there, if an older copy of a file was put back by hand
            assert fleet.counts["put_back"], f"line {line} of {self.path.name} comes again"
            self.again.add(line)
        self.rows[address] = line

    def line_of(self, stored: Stored) -> int:
        """Return which line a row of the file's table was written for."""
        values = json.loads(stored.values["data"]) if self.shape is DICT else stored.values
        (line,) = [line for line, said in enumerate(self.lines) if said.get("data", said)["n"] == values["n"]]
        return line

    def grow(self, fleet: Fleet, pick: Pick, count: int) -> None:
        """Append rows to the file."""
        added = [values_for(self.shape, next(fleet.numbers), pick) for _ in range(count)]
        if self.shape is READING:
            added = [{"id": len(self.lines) + number, **values} for number, values in enumerate(added, 1)]
        self.lines += added
        if self.shape is DICT:
            with self.path.open("a") as file:
                file.writelines(json.dumps(values["data"]) + "\n" for values in added)
        else:
            table = "CREATE TABLE IF NOT EXISTS reading(id INTEGER PRIMARY KEY, n INTEGER, label TEXT)"
            rows = [(values["n"], values["label"]) for values in added]
            ordinary.run(self.path, table, "INSERT INTO reading(n, label) VALUES (?, ?)", rows=rows)


def _source(fleet: Fleet, pick: Pick) -> Source:
    """Return a file of a device that has just grown, or not."""
    name, (ending, shape) = pick(DEVICES), pick((("ndjson", DICT), ("db", READING)))
    path = fleet.folder / f"{name}_{shape.table}.{ending}"
    source = fleet.sources.setdefault(path, Source(name, path, shape))
    source.grow(fleet, pick, pick((1, 2, 4, 8)) if not source.lines else pick((0, 1, 4, 8)))
    fleet.say(f"  {path.name} of {name} has {len(source.lines)} rows")
    return source


@contextmanager
def _small_batches() -> Iterator[None]:
    batches = [reader.batches for reader in (import_lines.LineReader, import_tables.TableReader)]
    with (
        mock.patch.object(batches[0], "__defaults__", (_BATCH,)),
        mock.patch.object(batches[1], "__defaults__", (_BATCH,)),
    ):
        yield


# -- what an import must do -------------------------------------------------------------------------------------------


@attrs.frozen
class _Expected:
    """What an import must do with a file, once the store was merged.

    Attributes:
        lines: those that it must write, in order.
        must_refuse: whether it must write nothing: rows of the agent are certainly known to be missing.
        may_refuse: whether it may write nothing.
    """

    lines: list[int]
    must_refuse: bool
    may_refuse: bool


def _expected(fleet: Fleet, source: Source) -> _Expected:
    store = fleet.stores[source.store]
    master, shard = fleet.held[store.master_path], fleet.held.get(shard_path(store, source.agent))
    there = master.state.keys() | (shard.state.keys() if shard else set())
    known = {line for address, line in source.rows.items() if address in there or address[0] in master.forgotten}
    missing = {address for address in master.missing if fleet.agents[address[0]] == source.agent}
    # of what was pruned elsewhere, or is pending in a shard that is quarantined, a master need not know
    uncertain = fleet.pruned | fleet.pending(source.store)
    # but a state that came without the rows that it counts, because they were pruned, counts them here as well
    counted = range(_counted(store.master_path, source))
    known |= {line for address, line in source.rows.items() if address in fleet.pruned and line in counted}
    lines = [line for line in range(len(source.lines)) if line not in known]
    is_tainted = master.is_tainted
    return _Expected(lines, bool(missing - uncertain) and not is_tainted, bool(missing) or is_tainted)


def _counted(master: Path, source: Source) -> int:
    """Return how many lines of a file the states in a master count."""
    states = [stored.values for stored in contents.read(master).rows.values() if stored.table == IMPORT_STATE.table]
    return max((int(state["rows"]) for state in states if state["source"] == source.path.name), default=0)


def _acknowledge(fleet: Fleet, source: Source, expected: _Expected) -> int:
    """Record the rows that an import has written to its shard; return how many of them are of lines."""
    path = shard_path(fleet.stores[source.store], source.agent)
    if not path.exists():
        return 0
    content = contents.read(path)
    lines: list[int] = []
    changes: list[Change] = []
    for stream, seq in sorted(address for address in content.held if address[0] not in fleet.agents):
        stored = content.rows[stream, seq]
        if stored.table != IMPORT_STATE.table:
            assert len(lines) < len(expected.lines), f"more rows were written than the lines {expected.lines}"
            lines.append(expected.lines[len(lines)])
            source.note(fleet, (stream, seq), lines[-1])
            changes.append((source.shape, source.lines[lines[-1]], False))
            continue
        values = {
            field: json.loads(stored.values[field]) if kind is dict else stored.values[field]
            for field, kind in IMPORT_STATE.fields.items()
        }
        assert values["rows"] == lines[-1] + 1, f"{values['rows']} rows are counted after line {lines[-1]}"
        changes.append((IMPORT_STATE, values, False))
        fleet.acknowledge(path, source.agent, stream, seq - len(changes) + 1, changes)
        changes = []
    assert not changes, f"rows without a state: {changes}"
    assert not (lines and expected.must_refuse), f"lines {lines} were imported, while rows are missing"
    note_schema(fleet, path)
    return len(lines)


@step(4)
def import_file(fleet: Fleet, pick: Pick) -> Any:
    """Let a device import a file, which grew since the last time or not."""
    run_import(fleet, _source(fleet, pick))


@step(2)
def kill_import(fleet: Fleet, pick: Pick) -> Any:
    """Kill an import somewhere; what it wrote is merged by whoever comes next."""
    source = _source(fleet, pick)
    fleet.merge_into(source.store)
    expected = _expected(fleet, source)

    def work(_: Count) -> None:
        nothing = SimpleNamespace(quarantined=(), blocked=())
        with mock.patch.object(once, "merge", return_value=nothing):
            fleet.stores[source.store].import_(source.path)

    with _small_batches():
        life = fleet.killed_at(pick(range(5, 120)), work)
    fleet.counts["imports killed"] += life.killed
    fleet.say(f"  {_acknowledge(fleet, source, expected)} lines of {len(expected.lines)} before the end")


@step(3)
def lose_imported(fleet: Fleet, pick: Pick) -> Any:
    """Put an older master back, in a copy of a store, and give up what it lacks: the lines that were lost come again."""
    source = _source(fleet, pick)
    run_import(fleet, source)
    master = fleet.stores[source.store].master_path
    if fleet.held[master].is_tainted or fleet.known_outside(source.store).is_tainted:
        return
    image = take_snapshot(fleet, master)
    source.grow(fleet, pick, pick((1, 4, 8)))
    run_import(fleet, source)
    images = [each for each in fleet.images if each.original == master and each.path not in fleet.hostile]
    image = pick((image, *images))
    honest = [path for path in fleet.databases() if path not in fleet.hostile and not fleet.held[path].is_tainted]
    others = pick(([], [], [pick(honest)]))
    fleet.close_all()
    store = edgeshard.Store(shutil.copytree(fleet.stores[source.store].root, fleet.folder / f"lost{next(fleet.names)}"))
    (store.root / "budget.json").unlink(missing_ok=True)
    fleet.say(f"  {source.path.name}, {fleet.name(image.path)}, and {[fleet.name(path) for path in others]}")
    store.restore(image.path)
    store.merge(others)
    counted = _counted(store.master_path, source)
    (file,) = store.import_(source.path).files
    if file.error:
        fleet.counts["imports refused"] += 1
        store.accept_loss(why="the replaced master is lost", agent=source.agent)
        (file,) = store.import_(source.path).files
    assert not file.errors, file.errors
    found = contents.read(store.master_path)
    there = Counter(line for address, line in source.rows.items() if address in found.rows)
    new = [stored for address, stored in found.rows.items() if address[0] not in fleet.agents]
    new = [stored for stored in new if stored.table == source.shape.table]
    there.update(map(source.line_of, new))
    doubled = {line for line, count in there.items() if count > 1} - source.again
    assert not doubled, f"lines {sorted(doubled)} of {source.path.name} are there twice"
    known = {line for address, line in source.rows.items() if address in found.held}
    # an import goes on after the last line that is counted, even if rows of earlier ones were lost
    lost = set(range(counted, len(source.lines))) - known - there.keys()
    assert not lost, f"lines {sorted(lost)} of {source.path.name} did not come again"
    fleet.counts["lines that came again"] += len(new)


def run_import(fleet: Fleet, source: Source) -> bool:
    """Import a file, and compare what is written with the model; return whether all of it was imported."""
    name, real = source.store, once.merge
    has_budget = name in fleet.budgets
    expected: list[_Expected] = []
    written: list[int] = []

    def merge(root: Path, **options: Any) -> Any:
        if expected:
            written.append(_acknowledge(fleet, source, expected[0]))
        report = fleet.merge_into(name, merge=lambda store: real(store.root, **options))
        expected.append(_expected(fleet, source))
        return report

    with _small_batches(), mock.patch.object(once, "merge", merge):
        report = fleet.stores[name].import_(source.path)
    lines, (file,) = expected[0].lines, report.files
    fleet.say(f"  {report.rows} of {len(lines)} lines: {' '.join(file.errors)}")
    if file.error:
        assert expected[0].may_refuse, file.error
        assert not written
        fleet.counts["imports refused"] += 1
        return False
    assert not expected[0].must_refuse, "imported, while rows are missing"
    assert report.rows == sum(written)
    if has_budget and file.errors:
        _acknowledge(fleet, source, expected[0])  # what was written before the disk was full
        return False
    assert not file.errors, file.errors
    assert report.rows == len(lines), f"{report.rows} lines were imported, and {len(lines)} are new: {lines}"
    fleet.counts["lines imported"] += report.rows
    return True


def check_once(fleet: Fleet, path: Path) -> None:
    """Check that a database has the row of each line once."""
    held = fleet.held[path]
    visible = held.visible
    for source in fleet.sources.values():
        there = Counter(line for address, line in source.rows.items() if address in visible)
        doubled = {line for line, count in there.items() if count > 1} - source.again
        assert not doubled, f"lines {sorted(doubled)} of {source.path.name} are there twice"


# -- agents that write rows from lines --------------------------------------------------------------------------------


@step(3)
def write_lines(fleet: Fleet, pick: Pick) -> Any:
    """Let an agent write rows from lines, some of which may be bad; it may be killed."""
    name, agent, shape = pick(DEVICES), pick(AGENTS), pick((DICT, EVENTS))
    store, path = fleet.stores[name], shard_path(fleet.stores[name], agent)
    rows = [values_for(shape, next(fleet.numbers), pick) for _ in range(pick((1, 3, 8)))]
    lines = [json.dumps(values["data"]) for values in rows]
    bad, leaves_out = pick((len(lines), len(lines), 0, len(lines) // 2)), pick((True, False))
    if bad < len(lines):
        lines.insert(bad, '{"n": ')
    whole = rows if leaves_out else rows[:bad]
    text = "\n".join(lines).encode()
    on_bad_line = (lambda _: None) if leaves_out else None
    kill_at = pick((0, 0, *range(5, 60, 5)))
    fleet.say(f"  {agent} of {name}: {[values['data']['n'] for values in rows]}, a bad line {bad}, killed at {kill_at}")

    def work(count: Count) -> None:
        def has_committed() -> bool:
            count(writer.report.rows)
            return False

        writer = store.line_writer(
            agent, table=shape.table_argument, batch=_BATCH, on_bad_line=on_bad_line, should_stop=has_committed
        )
        pieces = iter((text, b""))
        with writer:
            try:
                writer.write_ndjson(lambda: next(pieces), "lines")
            except RecordError:
                assert bad < len(rows)
                assert not leaves_out
            except DiskBudgetError:
                assert name in fleet.budgets
                return
            count(writer.report.rows)

    if kill_at:
        life = fleet.killed_at(kill_at, work)
        fleet.counts["line writers killed"] += life.killed
        is_whole, acknowledged = not life.killed, life.count
    else:
        if path in fleet.open:
            fleet.open.pop(path).close()
        counted = [0]
        work(lambda number: counted.append(number))
        is_whole, acknowledged = True, counted[-1]
    written = _acknowledge_lines(fleet, path, agent, shape, whole)
    assert written == len(whole) or not is_whole or name in fleet.budgets, f"{written} of {len(whole)} lines are there"
    assert acknowledged <= written <= (acknowledged if is_whole else acknowledged + _BATCH), (
        f"{acknowledged}, {written}"
    )


def _acknowledge_lines(fleet: Fleet, path: Path, agent: str, shape: Shape, rows: list[dict[str, Any]]) -> int:
    """Record the rows of a new stream of a shard, which must be the first of these, in whole batches; return how many."""
    if not path.exists():
        return 0
    new = sorted(address for address in contents.read(path).held if address[0] not in fleet.agents)
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    first = 1
    for batch in batches:
        if first > len(new):
            break
        fleet.acknowledge(path, agent, new[0][0], first, [(shape, values, False) for values in batch])
        first += len(batch)
    assert len(new) == first - 1, f"{len(new)} rows are there, and {first - 1} are those of whole batches"
    note_schema(fleet, path)
    return len(new)
