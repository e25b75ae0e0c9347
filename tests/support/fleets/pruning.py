"""Steps that delete: prunes by each rule, tombstones, store rules, disk budgets, erasures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgeshard
from tests.support.clocks import DAY_S
from tests.support.fleets import contents
from tests.support.fleets.agents import write_changes
from tests.support.fleets.fleet import AGENTS, DEVICES, NOON_US, Fleet
from tests.support.fleets.shapes import DICT, Pick
from tests.support.fleets.steps import Play, step

GRACE = "10d"

#: Prunes a store, and compares what it deleted with the model.
Prune = Callable[[Fleet, Pick, edgeshard.Store, Path], None]


def prune_step(weight: int, *, one_in: int = 1) -> Callable[[Prune], Play]:
    """Register a step that prunes a store that has some rows, and then checks the store.

    Args:
        weight: how often it is chosen.
        one_in: how often it is chosen until it is taken, for a step that takes long.
    """

    def register(prune: Prune) -> Play:
        @functools.wraps(prune)
        def play(fleet: Fleet, pick: Pick) -> Any:
            paths = [path for path in fleet.masters() if len(fleet.held[path].state) > 4]
            if not paths or pick(range(one_in)):
                return False
            path = pick(paths)
            fleet.say(f"  {fleet.name(path)}")
            prune(fleet, pick, edgeshard.Store(path.parent), path)
            return fleet.check(path)

        return step(weight)(play)

    return register


@prune_step(1)
def prune_to_count(fleet: Fleet, pick: Pick, store: edgeshard.Store, path: Path) -> None:
    """Prune all but the newest rows, of one table or of all."""
    held = fleet.held[path]
    before = len(held.visible)
    keep = max(0, before - pick((1, 2, 5)))
    tables = sorted({table for table, _ in held.schema.columns if table not in held.schema.keys})
    table = pick((None, None, pick(tables)))
    report = store.prune(keep_rows=keep, table=table)
    gone = fleet.observe_pruned(path, report.rows)
    assert table or held.is_tainted or len(held.visible) >= min(keep, before)
    assert table is None or all(fleet.written[address].shape.table == table for address in gone)


@prune_step(1)
def prune_by_age(fleet: Fleet, pick: Pick, store: edgeshard.Store, path: Path) -> None:
    """Prune rows that arrived long ago, if a clock says so."""
    report = store.prune(older_than=pick(("1h", "30d")))
    fleet.observe_pruned(path, report.rows)


@prune_step(1, one_in=4)
def prune_by_size(fleet: Fleet, pick: Pick, store: edgeshard.Store, path: Path) -> None:
    """Prune until the file is small; no file is as small as that."""
    report = store.prune(max_bytes=pick((1_000_000, 10_000_000)), shrink=pick((True, False)))
    fleet.observe_pruned(path, report.rows)


@prune_step(1)
def prune_receipted(fleet: Fleet, pick: Pick, store: edgeshard.Store, path: Path) -> None:
    """Prune only what another database has said it holds."""
    said = set().union(*contents.receipts(path).values())
    report = store.prune(keep_rows=0, only_receipted=True)
    gone = fleet.observe_pruned(path, report.rows)
    assert gone <= said, f"rows were pruned that no receipt mentions: {sorted(gone - said)}"


@step(1)
def prune_after_merge(fleet: Fleet, pick: Pick) -> Any:
    """Merge with a store that has rules."""
    name = pick(DEVICES)
    rules = pick(([{"keep_rows": 20}], [{"older_than": "30d"}, {"keep_rows": 15, "table": "agent_data"}]))
    return fleet.merge_into(name, merge=lambda store: edgeshard.Store(store.root, prune=rules).merge())


@prune_step(2)
def collect(fleet: Fleet, pick: Pick, store: edgeshard.Store, path: Path) -> None:
    """Collect tombstones that are old enough, after a while in which all stores hear of each other, or not."""
    if pick((True, True, False)):
        fleet.wall.now_us += 11 * DAY_S * 1_000_000
    report = store.prune(deletions_older_than=GRACE)
    gone = fleet.observe_pruned(path, report.rows, tombstones=True)
    fleet.counts["tombstones collected"] += len(gone)


@prune_step(1)
def kill_pruner(fleet: Fleet, pick: Pick, store: edgeshard.Store, path: Path) -> None:
    """Kill a prune somewhere: what it did is whole, and recorded."""
    keep = max(0, len(fleet.held[path].visible) - 2)
    life = fleet.killed_at(pick(range(3, 80)), lambda _: store.prune(keep_rows=keep, shrink=True))
    fleet.counts["prunes killed"] += life.killed
    fleet.observe_pruned(path, None)


@prune_step(2)
def forget(fleet: Fleet, pick: Pick, store: edgeshard.Store, path: Path) -> None:
    """Forget streams of which all rows were pruned some time ago: copies may bring these rows back."""
    held = fleet.held[path]
    report = store.prune(keep_rows=max(0, len(held.visible) - pick((0, 2, 5))))
    fleet.observe_pruned(path, report.rows)
    fleet.wall.now_us += 2 * DAY_S * 1_000_000
    before = contents.read(path)
    report = store.prune(forget_after="1d")
    gone = before.streams.keys() - contents.read(path).streams.keys()
    assert gone == {stream for stream in gone if not before.streams[stream][1]}, "a stream that had not retired is gone"
    assert len(gone) == report.forgotten_streams
    held.forget(gone & fleet.agents.keys())
    held.noted = contents.noted_as_superseded(path)
    fleet.counts["streams forgotten"] += len(gone)


@step(2)
def erase(fleet: Fleet, pick: Pick) -> Any:
    """Erase rows of a table without a key, merged and pending ones."""
    names = [path.parent.name for path in fleet.masters() if len(fleet.held[path].state) > 4]
    if not names:
        return False
    name = pick(names)
    held = fleet.held[fleet.stores[name].master_path]
    tables = sorted({table for table, _ in held.schema.columns if table not in held.schema.keys})
    table, where = pick(tables), f"_seq % 3 = {pick(range(3))}"
    fleet.say(f"  from {table} of {name} where {where}")

    def erase_and_merge(store: edgeshard.Store) -> Any:
        found = store.query(f'SELECT count(*) AS n FROM "{table}" WHERE {where}')[0].n
        dry = store.erase(table, where, dry_run=True)
        assert found == dry.rows
        report = store.erase(table, where)
        assert report.rows >= dry.rows
        fleet.counts["rows erased"] += report.rows
        return store.merge()

    if pick(range(4)):
        return fleet.merge_into(name, merge=erase_and_merge)
    store = fleet.stores[name]
    life = fleet.killed_at(pick(range(5, 80)), lambda _: store.erase(table, where))
    fleet.counts["erasures killed"] += life.killed
    return fleet.merge_into(name)


@step(1)
def confirm_clock(fleet: Fleet, pick: Pick) -> Any:
    """Confirm that the clock of a store is right, which deletes nothing by itself."""
    paths = fleet.masters()
    if not paths or fleet.wall.now_us < NOON_US - 400 * DAY_S * 1_000_000:
        return False
    path = pick(paths)
    with fleet.unchanged({path}):
        dry = edgeshard.Store(path.parent).confirm_clock(dry_run=True)
    report = edgeshard.Store(path.parent).confirm_clock()
    fleet.say(f"  {fleet.name(path)}: {dry}; {report}")
    return fleet.check(path)


@step(1)
def budget(fleet: Fleet, pick: Pick) -> Any:
    """Give a store a disk budget that is soon used up, and fill it."""
    if pick(range(3)):
        return False
    name, agent = pick(DEVICES), pick(AGENTS)
    on_full = pick(("error", "drop-oldest", "drop-oldest"))
    fleet.say(f"  {name}: {on_full}")
    fleet.budgets.add(name)
    fleet.stores[name].note_budget(1_000_000, on_full)
    path = fleet.stores[name].root / "shards" / f"{agent}.db"
    if path in fleet.open:
        fleet.open.pop(path).close()
    for _ in range(pick((2, 6))):
        row = {"n": next(fleet.numbers), "padding": "x" * 60_000}
        if not write_changes(fleet, name, agent, [(DICT, {"data": row}, False)]):
            break
    return fleet.merge_into(name)


@step(1)
def lift_budget(fleet: Fleet, pick: Pick) -> Any:
    """Remove a store's disk budget."""
    if not fleet.budgets:
        return False
    return fleet.lift_budget(pick(sorted(fleet.budgets)))
