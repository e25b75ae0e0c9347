"""Steps of agents that contradict one another, and steps that release what is blocked by that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edgeshard
from tests.support.fleets import disputes
from tests.support.fleets.agents import write_changes
from tests.support.fleets.fleet import AGENTS, DEVICES, Fleet
from tests.support.fleets.shapes import DECK_WITH_DISPUTES, DICT, DISPUTED, EXACT, LWW, Pick, values_for
from tests.support.fleets.steps import step


def _columns(fleet: Fleet, path: Path) -> disputes.Kinds:
    return disputes.kinds(fleet.held[path].schema.columns)


@step(6)
def contradict(fleet: Fleet, pick: Pick) -> Any:
    """Let the agents of a store write classes that contradict one another, with rows of other tables that must be merged."""
    if fleet.deck is not DECK_WITH_DISPUTES:
        return False
    name = pick(DEVICES)
    for agent in AGENTS:
        shapes = (*pick(((), (DICT,), (DICT, LWW))), pick(DISPUTED), *pick(((), (DICT,))))
        for each in (shapes, *pick(((), ((DICT,),)))):
            changes = [(shape, values_for(shape, next(fleet.numbers), pick), False) for shape in each]
            write_changes(fleet, name, agent, changes)
    if pick((True, False)):
        fleet.merge_into(name)
    return None


@step(2)
def drop_table(fleet: Fleet, pick: Pick) -> Any:
    """Drop a table of a master, with its rows, and merge what then fits: another agent decides what the table is."""
    masters = [path for path in fleet.masters() if _columns(fleet, path)]
    blocking = [path for path in masters if any(fleet.blocked(shard, _columns(fleet, path)) for shard in fleet.held)]
    if not blocking or pick((True, False)):
        return False
    path = pick(blocking)
    table = pick(sorted(_columns(fleet, path)))
    fleet.say(f"  {table} of {fleet.name(path)}")
    report = edgeshard.Store(path.parent).prune(table=table, drop_table=True)
    held = fleet.held[path]
    fleet.observe_pruned(path, report.rows)
    assert not any(fleet.written[address].shape.table == table for address in held.visible)
    held.schema = held.schema.without([table])
    fleet.check(path)
    return fleet.merge_into(path.parent.name)


@step(1)
def correct_class(fleet: Fleet, pick: Pick) -> Any:
    """Let an agent declare the type that holds the values of all: its blocked rows of that table are released."""
    blocking = [
        (name, agent)
        for name in DEVICES
        for agent in AGENTS
        if (path := fleet.stores[name].root / "shards" / f"{agent}.db") in fleet.held
        and (master := fleet.stores[name].master_path) in fleet.held
        and path not in fleet.hostile
        and fleet.blocked(path, {"measured": _columns(fleet, master).get("measured", "decimal")})
    ]
    if not blocking:
        return False
    name, agent = pick(blocking)
    if not write_changes(fleet, name, agent, [(EXACT, values_for(EXACT, next(fleet.numbers), pick), False)]):
        return False
    fleet.merge_into(name)
    master = fleet.stores[name].master_path
    assert fleet.held[master].is_tainted or _columns(fleet, master)["measured"] == "decimal"
    fleet.counts["released by a corrected class"] += 1
    return None
