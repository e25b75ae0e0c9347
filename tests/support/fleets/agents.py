"""Steps of agents: write, delete, close; records that may be refused; writers that are killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeshard.errors import DiskBudgetError, RecordError, SchemaConflictError, TableError
from tests.support.fleets import contents, disputes
from tests.support.fleets.fleet import AGENTS, DEVICES, Fleet
from tests.support.fleets.model import Address
from tests.support.fleets.shapes import DECK, DICT, EVENTS, Pick, Shape, record, strange_records, values_for
from tests.support.fleets.steps import step
from tests.support.forks import Count
from tests.support.stores import shard_path

#: A class, the values of a record of it, and whether they delete a key.
Change = tuple[Shape, dict[str, Any], bool]


def make(fleet: Fleet, pick: Pick, deck: Sequence[Shape]) -> Change:
    """Return a random change."""
    shape = pick([shape for shape in deck if shape.name not in fleet.refused])
    values = values_for(shape, next(fleet.numbers), pick)
    if shape is DICT and values["data"]["n"] % 5 == 0:
        shape = EVENTS
    if shape.deletes and pick((True, False, False)):
        return shape, {field: values[field] for field in shape.key}, True
    return shape, values, False


def put(shard: Any, change: Change) -> int:
    """Write a change; return its seq."""
    shape, values, is_tombstone = change
    if is_tombstone:
        return int(shard.delete(shape.cls, *values.values()))
    return int(shard.write(record(shape, values), table=shape.table_argument))


@step(12)
def write(fleet: Fleet, pick: Pick) -> Any:
    """Let an agent write a row, or several in one transaction, of any tables."""
    name, agent = pick(DEVICES), pick(AGENTS)
    changes = [make(fleet, pick, fleet.deck) for _ in range(pick((1, 1, 2, 3, 5)))]
    return write_changes(fleet, name, agent, changes)


def write_changes(fleet: Fleet, name: str, agent: str, changes: list[Change]) -> bool:
    """Write changes in one transaction; return whether they were accepted."""
    fleet.say(f"  {agent} of {name}: {[(shape.name, values.get('n')) for shape, values, _ in changes]}")
    path, cause = shard_path(fleet.stores[name], agent), ""
    try:
        shard = fleet.shard(name, agent)
        cause = _refusal(fleet, name, path, changes)
        if len(changes) == 1:
            last = put(shard, changes[0])
        else:
            with shard.transaction():
                last = [put(shard, change) for change in changes][-1]
    except DiskBudgetError:
        assert name in fleet.budgets
        fleet.counts["writes refused"] += 1
        return False
    except (RecordError, TableError, SchemaConflictError) as error:
        if cause:
            fleet.say(f"  refused: {cause}")
            fleet.counts["conflicts refused"] += 1
            return False
        # a class at a limit: it is refused the first time, and for ever
        refused = [shape for shape, _, _ in changes if shape.name.startswith("Wide")]
        assert refused, error
        assert not any(row.shape in refused for row in fleet.written.values()), error
        fleet.refused.update(shape.name for shape in refused)
        return False
    assert not cause, f"accepted, although {cause}"
    fleet.acknowledge(path, agent, shard.stream, last - len(changes) + 1, changes)
    return True


def _refusal(fleet: Fleet, name: str, path: Path, changes: list[Change]) -> str:
    """Return why an open shard must refuse changes because of their types, or ""."""
    handle = fleet.open[path]
    if fleet.fitting.get(path, (None,))[0] is not handle:
        fleet.fitting[path] = handle, set()
    master = fleet.held.get(fleet.stores[name].master_path)
    records = [(shape, values) for shape, values, _ in changes]
    return disputes.refusal(records, fleet.held.get(path), master, fleet.fitting[path][1], fleet.written)


@step(1)
def strange(fleet: Fleet, pick: Pick) -> Any:
    """Let an agent write what nobody should: it is refused, and the handle stays usable, or it is stored exactly."""
    name, agent = pick(DEVICES), pick(AGENTS)
    shape, values = pick(strange_records(next(fleet.numbers)))
    fleet.say(f"  {agent} of {name}: {shape.name} {[*values.get('data', values)]}")
    try:
        shard = fleet.shard(name, agent)
        seq = shard.write(record(shape, values), table=shape.table_argument)
    except (RecordError, TableError, SchemaConflictError):
        fleet.counts["records refused"] += 1
    except DiskBudgetError:
        return
    else:
        path = shard_path(fleet.stores[name], agent)
        fleet.acknowledge(path, agent, shard.stream, seq, [(shape, values, False)])
    write_changes(fleet, name, agent, [(DICT, values_for(DICT, next(fleet.numbers), pick), False)])


@step(2)
def close(fleet: Fleet, pick: Pick) -> Any:
    """Let an agent close its shard."""
    if not fleet.open:
        return False
    return fleet.open.pop(pick(sorted(fleet.open))).close()


@step(1)
def kill_writer(fleet: Fleet, pick: Pick) -> Any:
    """Kill an agent's process as it writes: what it acknowledged is there, and at most one transaction more."""
    name, agent = pick(DEVICES), pick(AGENTS)
    if name in fleet.budgets:
        return False
    transactions = [[make(fleet, pick, DECK) for _ in range(pick((1, 1, 3)))] for _ in range(pick((2, 4)))]
    store, path = fleet.stores[name], shard_path(fleet.stores[name], agent)

    def work(count: Count) -> None:
        with store.shard(agent) as shard:
            for number, changes in enumerate(transactions, 1):
                with shard.transaction():
                    for change in changes:
                        put(shard, change)
                count(number)

    usable = all(shape.name not in ("Wide", "WideKeyed") for changes in transactions for shape, _, _ in changes)
    if not usable:
        return False
    life = fleet.killed_at(pick(range(8, 60)), work)
    fleet.counts["writers killed"] += life.killed
    fleet.say(f"  {agent} of {name}: {life.count} of {len(transactions)} transactions before the end")
    _acknowledge_what_is_there(fleet, path, agent, transactions, life.count)
    return None


def _acknowledge_what_is_there(
    fleet: Fleet, path: Path, agent: str, transactions: list[list[Change]], acknowledged: int
) -> None:
    new: set[Address] = set()
    if path.exists():
        new = {address for address in contents.read(path).held if address[0] not in fleet.agents}
    first = 1
    for number, changes in enumerate(transactions, 1):
        seqs = set(range(first, first + len(changes)))
        there = {seq for _, seq in new} & seqs
        assert there in (set(), seqs), f"of a transaction with seqs {sorted(seqs)}, {sorted(there)} are there"
        assert there or number > acknowledged, f"transaction {number} was acknowledged, and is not there"
        if there:
            assert number <= acknowledged + 1
            (stream,) = {stream for stream, _ in new}
            fleet.acknowledge(path, agent, stream, first, changes)
        first += len(changes)
    note_schema(fleet, path)


def note_schema(fleet: Fleet, path: Path) -> None:
    """Record which tables a shard has, if there is one: a writer that was killed may have made some without a row."""
    if path.exists() and path not in fleet.held:
        # a file without a row: a merge may remove it
        fleet.held[path] = contents.as_held(contents.read(path))
    elif path.exists():
        fleet.held[path].schema.add(contents.as_held(contents.read(path)).schema)
