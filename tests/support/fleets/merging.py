"""Steps that merge: anything into anything, by mergers that run once, are killed, or watch."""

from __future__ import annotations

import signal
import time
from typing import Any

import edgeshard
from edgeshard.files import locks
from edgeshard.format import blocks
from edgeshard.merge import merger
from tests.support import merging_processes
from tests.support.fleets.agents import write_changes
from tests.support.fleets.fleet import AGENTS, DEVICES, STORES, Fleet
from tests.support.fleets.shapes import DICT, Pick, values_for
from tests.support.fleets.steps import step


@step(3)
def drain(fleet: Fleet, pick: Pick) -> Any:
    """Merge the own shards of a store."""
    fleet.merge_into(pick(DEVICES), keep_empty=pick((False, True)))


@step(6)
def merge(fleet: Fleet, pick: Pick) -> Any:
    """Merge any databases into any store, even its own master, or one database twice."""
    if not fleet.held:
        return False
    sources = [pick(fleet.databases()) for _ in range(pick((1, 1, 2, 4)))]
    return fleet.merge_into(pick(STORES), sources, chunk_bytes=pick((1, 500, blocks.CHUNK_BYTES)))


@step(1)
def kill_merger(fleet: Fleet, pick: Pick) -> Any:
    """Kill a merger somewhere, and merge again."""
    if not fleet.held:
        return False
    sources = [pick(fleet.databases()) for _ in range(pick((0, 1, 2)))]
    chunk_bytes = pick((500, blocks.CHUNK_BYTES))
    return fleet.merge_into(pick(STORES), sources, kill_at=pick(range(20, 600)), chunk_bytes=chunk_bytes)


@step(1)
def watch(fleet: Fleet, pick: Pick) -> Any:
    """Let a merger watch a store while an agent writes; it dies without closing anything, and another one follows."""
    name, agent = pick(DEVICES), pick(AGENTS)
    for _ in range(2):
        watching = merger.Merger(fleet.stores[name].root, watching=True)
        for _ in range(pick((1, 2))):
            row = values_for(DICT, next(fleet.numbers), pick)
            write_changes(fleet, name, agent, [(DICT, row, False)])

            def one_pass(store: edgeshard.Store, watching: merger.Merger = watching) -> Any:
                store.init()
                held = locks.lock(store.root / "merge.lock", 0.0)
                assert held is not None
                try:
                    return watching.run()
                finally:
                    held.release()

            fleet.merge_into(name, merge=one_pass, is_watching=True)
    fleet.counts["watchers"] += 2


def _open(fleet: Fleet, pick: Pick, name: str, agent: str) -> None:
    """Let an agent open its shard, which a merger then does not remove; remove those of agents that have ended."""
    write_changes(fleet, name, agent, [(DICT, values_for(DICT, next(fleet.numbers), pick), False)])
    fleet.merge_into(name)


@step(1)
def watch_in_thread(fleet: Fleet, pick: Pick) -> Any:
    """Let a thread merge while an agent writes; afterwards all of it is in the master."""
    if pick(range(8)):  # it takes long
        return False
    name, agent = pick(DEVICES), pick(AGENTS)
    _open(fleet, pick, name, agent)
    with fleet.stores[name].watching(interval=0.01):
        for _ in range(3):
            write_changes(fleet, name, agent, [(DICT, values_for(DICT, next(fleet.numbers), pick), False)])
    return fleet.merge_into(name, merge=edgeshard.Store.merge)


@step(1)
def watch_in_process(fleet: Fleet, pick: Pick) -> Any:
    """Let a real process watch a store while an agent writes, kill it, and start another one."""
    if pick(range(60)):  # it takes longest of all
        return False
    name, agent = pick(DEVICES), pick(AGENTS)
    root, scratch = fleet.stores[name].root, fleet.folder / f"watch{next(fleet.names)}"
    scratch.mkdir()
    _open(fleet, pick, name, agent)
    for number in range(2):
        with merging_processes.Merger(root, scratch, "--interval", 0.05, name=str(number)).wait_ready() as watcher:
            for _ in range(3):
                write_changes(fleet, name, agent, [(DICT, values_for(DICT, next(fleet.numbers), pick), False)])
                time.sleep(0.03)
            watcher.end(signal.SIGKILL)
    fleet.counts["watching processes killed"] += 2
    return fleet.merge_into(name, merge=edgeshard.Store.merge)


@step(1)
def preview(fleet: Fleet, pick: Pick) -> Any:
    """Ask what a merge would do: it changes nothing, and refuses nothing honest."""
    if not fleet.held:
        return False
    name, sources = pick(STORES), [pick(fleet.databases()) for _ in range(pick((0, 1, 2)))]
    store = fleet.stores[name]
    own = {path for path in fleet.shards() if path.parent.parent == store.root}
    master = {store.master_path} & fleet.held.keys()
    with fleet.unchanged({*own, *sources, *master}):
        report = store.merge(sources, dry_run=True)
    fleet.check_quarantined(report)
    return None
