"""The work of the actors: agents that write, mergers, snapshots, prunes, and readers that verify."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

import edgeshard
from edgeshard import format, sqlite
from edgeshard.errors import DiskFullError, MergeInProgressError, ShardInUseError, StorageBusyError
from edgeshard.files import folders, locks
from edgeshard.master import database
from edgeshard.merge import apply, chunk, conflicts, merger, once, reap, truncate
from edgeshard.merge.locks import merge_lock
from edgeshard.merge.merger import Merger
from edgeshard.options import Durability
from edgeshard.retention import rules, shrink, window
from edgeshard.shard import truncations
from edgeshard.shard.shard import Shard
from edgeshard.sqlite import maintenance
from tests.crash.powercut.contents import Last, ViolationError, addresses_in, numbers_in, pruned_in, record_of
from tests.crash.powercut.machine import Patch
from tests.crash.powercut.oracle import Oracle, Unit
from tests.crash.powercut.scheduler import Actor, Scheduler
from tests.support.stores import contradictions

AGENTS = ("ann", "bob", "Cy Lin")
#: Errors that can happen to any actor next to others: nothing was done, and trying again is enough.
EXPECTED = (MergeInProgressError, ShardInUseError, StorageBusyError)
#: Between two bursts of work; longer than what a merger takes for fresh.
PAUSE_S = 5.0
#: The grace period of tombstones: longer than any transaction is open.
GRACE_S = 3.0


class UndoneError(Exception):
    """Raised in a transaction to undo it."""


@attrs.define(eq=False)
class Stage:
    """What the actors share from one crash to the next.

    Attributes:
        store: the store, on the simulated machine.
        keep_empty: whether mergers keep the shards of ended agents.
        prune_rng: draws prunes; None: there are none.
        key_rng: draws changes of a keyed table; None: there are none.
        left_open: handles that agents leave open, until the end.
        commits: what mergers saw in the master at their own commits, by actor.
        snapshots: the master's rows that a finished snapshot must hold, by its name.
        pruning: the addresses that a prune is about to commit as pruned, by actor.
    """

    store: edgeshard.Store
    oracle: Oracle
    rng: random.Random
    scheduler: Scheduler
    counts: Counter[str]
    keep_empty: bool
    prune_rng: random.Random | None = None
    key_rng: random.Random | None = None
    left_open: list[Any] = attrs.Factory(list)
    commits: dict[str, set[int]] = attrs.Factory(dict)
    snapshots: dict[str, frozenset[int]] = attrs.Factory(dict)
    pruning: dict[str, frozenset[tuple[str, int]]] = attrs.Factory(dict)

    def may(self, chance: float) -> bool:
        """Decide at random whether something happens."""
        return self.rng.random() < chance

    def pause(self) -> None:
        """Let others continue, for a short or a long while."""
        self.scheduler.sleep(PAUSE_S if self.may(0.2) else 0.01)


# -- agents -----------------------------------------------------------------------------------------------------------


def session(stage: Stage, agent: str) -> None:
    """Let an agent open its shard, write, and close it or not."""
    durability: Durability = stage.rng.choice(("process", "power"))
    shard = stage.store.shard(agent, durability=durability)
    stage.counts["sessions"] += 1
    try:
        for _ in range(stage.rng.randint(1, 5)):
            stage.rng.choice(_WRITES)(stage, shard)
            if stage.key_rng is not None and stage.prune_rng is not None and stage.key_rng.random() < 0.6:
                _transact(stage, shard)  # so that there are deletions to be pruned
            if stage.may(0.2):
                stage.pause()
    except BaseException:
        shard.close()  # of a process that was killed: its locks go, and nothing is written
        raise
    if stage.may(0.3):
        stage.left_open.append(shard)
    else:
        shard.close()


def _write(stage: Stage, shard: Shard) -> None:
    unit = stage.oracle.begin(shard.agent, 1)
    with _refusable(unit):
        seq = shard.write(record_of(unit.numbers[0]))
        _acknowledge(stage, shard, unit, seq)


def _write_many(stage: Stage, shard: Shard) -> None:
    unit = stage.oracle.begin(shard.agent, stage.rng.randint(2, 6))
    with _refusable(unit):
        count = shard.write_many(record_of(number) for number in unit.numbers)
        _acknowledge(stage, shard, unit, format.seq_of(shard._next_id) - count)


def _transact(stage: Stage, shard: Shard) -> None:
    unit = stage.oracle.begin(shard.agent, stage.rng.randint(1, 4))
    undone = stage.oracle.begin(shard.agent, 1) if stage.may(0.3) else None
    keyed = stage.key_rng
    if keyed is not None and keyed.random() < 0.7:
        unit.last = keyed.random() < 0.5
        unit.key = f"{keyed.choice(AGENTS)} {keyed.randrange(2)}"
    with _refusable(unit):
        with shard.transaction():
            seqs = [shard.write(record_of(number)) for number in unit.numbers]
            if unit.last is not None:
                _change_last(shard, unit)
                stage.counts["changes of a key"] += 1
            if undone is not None:
                _undo(shard, undone)
        _acknowledge(stage, shard, unit, seqs[0])


def _change_last(shard: Shard, unit: Unit) -> None:
    """Write or delete the last row of a key, and record its timestamp even if the writer dies."""
    if not isinstance(shard._timestamp, _NotingClock):
        shard._timestamp = _NotingClock(shard._clock())
    shard._timestamp.unit = unit
    if unit.last:
        shard.write(Last(unit.key, unit.numbers[-1]))
    else:
        shard.delete(Last, unit.key)


class _NotingClock:
    """A handle's clock that records each timestamp in a unit, even if the writer dies."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.unit: Unit | None = None

    def __call__(self) -> int:
        timestamp = self._clock()
        assert self.unit is not None
        self.unit.timestamp = timestamp
        return timestamp


def _undo(shard: Shard, undone: Unit) -> None:
    undone.refuse()
    try:
        with shard.transaction():
            shard.write(record_of(undone.numbers[0]))
            raise UndoneError
    except UndoneError:
        pass


def _undo_all(stage: Stage, shard: Shard) -> None:
    _undo(shard, stage.oracle.begin(shard.agent, 1))


def _sync(stage: Stage, shard: Shard) -> None:
    shard.sync()
    stage.oracle.sync(shard.agent)


_WRITES: tuple[Callable[[Stage, Shard], None], ...] = (_write, _write, _write_many, _transact, _undo_all, _sync)


class _refusable:
    """Record the fate of a unit, depending on what the write in the block raises."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, (StorageBusyError, DiskFullError)):
            self._unit.refuse()


def _acknowledge(stage: Stage, shard: Shard, unit: Unit, first: int) -> None:
    stage.oracle.acknowledge(unit, shard.stream, first, durable=shard.durability == "power")


# -- mergers ----------------------------------------------------------------------------------------------------------


def merge(stage: Stage) -> None:
    """Merge now and then, as cron does."""
    for _ in range(stage.rng.randint(1, 3)):
        _forget_commits(stage)
        wait_s = stage.rng.choice((0.0, 0.5))
        should_stop = _soon(stage)
        report = once.merge(stage.store.root, keep_empty=stage.keep_empty, lock_wait_s=wait_s, should_stop=should_stop)
        _report(stage, report)
        stage.pause()


def _soon(stage: Stage) -> Callable[[], bool]:
    """Return a function that sometimes stops a merge early, so that changes stay in shards while tombstones get old."""
    if stage.key_rng is None or stage.prune_rng is None or stage.key_rng.random() < 0.4:
        return lambda: False
    asked, last = itertools.count(1), stage.key_rng.randint(1, 6)
    return lambda: next(asked) > last


def merge_again_and_again(stage: Stage) -> None:
    """Merge in successive passes that share a cache, like a service."""
    folders.make_folder(stage.store.root)
    held = merge_lock(stage.store.root, 0.0, lambda: False)
    assert held is not None
    try:
        merger = Merger(stage.store.root, keep_empty=stage.keep_empty, watching=True)
        for _ in range(stage.rng.randint(2, 4)):
            _forget_commits(stage)
            _report(stage, merger.run(thorough=stage.may(0.5)))
            stage.pause()
        merger.close()
    finally:
        held.release()


def _forget_commits(stage: Stage) -> None:
    stage.commits[stage.scheduler.running.name] = set()


def _report(stage: Stage, report: edgeshard.MergeReport) -> None:
    stage.counts["merges"] += 1
    stage.counts["shards removed"] += report.removed
    stage.oracle.report(stage.commits[stage.scheduler.running.name])


#: Before and after these, others may run for long: (owner, name).
FAILPOINTS: tuple[tuple[Any, str], ...] = (
    (apply, "copy"),
    (chunk, "commit_chunk"),
    (merger.Merger, "_truncate_or_remove"),
    (truncate, "truncate"),
    (truncations, "record"),
    (reap, "remove"),
    (reap, "_is_removable"),
    (sqlite, "connect_in_place"),
    (sqlite, "checkpoint"),
    (sqlite, "truncate_wal"),
    (maintenance, "connect_in_place"),  # as the package itself calls them
    (maintenance, "checkpoint"),
    (maintenance, "truncate_wal"),
    (locks, "lock"),
    (database, "open_master"),
    (window, "select"),
    (shrink, "release"),
    (conflicts, "_settle"),
)


def failpoints(stage: Stage) -> list[Patch]:
    """Return the patches that make these functions failpoints."""

    def pausing(function: Callable[..., Any]) -> Callable[..., Any]:
        def paused(*arguments: Any, **options: Any) -> Any:
            stage.scheduler.failpoint()
            result = function(*arguments, **options)
            stage.scheduler.failpoint()
            return result

        return paused

    return [(owner, name, pausing(getattr(owner, name))) for owner, name in FAILPOINTS]


def collecting(stage: Stage, commit_chunk: Callable[..., None]) -> Callable[..., None]:
    """Record what the master holds after each commit of a merge."""

    def commit(connection: Any, remaining: Any, done: Any) -> None:
        before = done.rows
        commit_chunk(connection, remaining, done)
        if done.rows > before:
            stage.commits[stage.scheduler.running.name].update(numbers_in(connection))

    return commit


class _NoLock:
    """Replaces merge.lock: every promise must hold without it."""

    def release(self) -> None:
        """Do nothing: there is no lock."""


def no_merge_lock(root: Path, wait_s: float, should_stop: Callable[[], bool]) -> _NoLock:
    """Replaces `edgeshard.merge.locks.merge_lock`."""
    return _NoLock()


# -- others -----------------------------------------------------------------------------------------------------------


def snapshot(stage: Stage) -> None:
    """Copy the master."""
    if not stage.store.has_master():
        return
    reported = frozenset(number for unit in stage.oracle.units if unit.reported for number in unit.numbers)
    name = f"copy{stage.rng.randrange(1 << 30)}.db"
    stage.store.snapshot(stage.store.root / name)
    stage.snapshots[name] = reported
    stage.counts["snapshots"] += 1


def prune(stage: Stage) -> None:
    """Prune old rows now and then, and shrink the master."""
    rng = stage.prune_rng
    assert rng is not None
    for _ in range(rng.randint(1, 3)):
        stage.pause()
        if not stage.store.exists():
            continue
        grace_s = None if stage.key_rng is None else GRACE_S
        keep_rows, shrink = rng.choice((0, 2, 6)), rng.random() < 0.5
        report = stage.store.prune(keep_rows=keep_rows, shrink=shrink, deletions_older_than=grace_s)
        stage.counts["prunes"] += 1
        stage.counts["deletions pruned"] += report.by_reason.get(rules.TOMBSTONES, 0)
        stage.counts["deletions kept from pruning"] += report.tombstones_behind


def watching_prunes(stage: Stage) -> list[Patch]:
    """Record where rows are before a step prunes them, and that they are gone once it is committed."""
    apply, go_one_step = window.delete, window.prune_window

    def applied(connection: Any, *arguments: Any) -> None:
        stage.oracle.learn(addresses_in(connection))
        apply(connection, *arguments)
        stage.pruning[stage.scheduler.running.name] = pruned_in(connection)

    def stepped(*arguments: Any) -> Any:
        mine = stage.scheduler.running.name
        stage.pruning.pop(mine, None)
        done = go_one_step(*arguments)
        stage.oracle.prune(stage.pruning.pop(mine, frozenset()))
        return done

    return [(window, "delete", applied), (window, "prune_window", stepped)]


def read(stage: Stage) -> None:
    """Verify the master, and read the status, while others work."""
    stage.pause()
    if not stage.store.has_master():
        return
    errors = contradictions(stage.store.verify())
    if errors:
        raise ViolationError(f"verify finds {errors}")
    stage.store.status()


# -- who is there -----------------------------------------------------------------------------------------------------


def cast(stage: Stage, *, kills: bool) -> list[Actor]:
    """Create the actors of a run."""
    actors = [
        Actor(agent, [_tolerant(session, stage, agent) for _ in range(stage.rng.randint(1, 3))])
        for agent in AGENTS[: stage.rng.randint(1, len(AGENTS))]
    ]
    for number in range(stage.rng.choice((1, 1, 2))):
        work = merge_again_and_again if stage.may(0.3) else merge
        actors.append(Actor(f"merger {number}", [_tolerant(work, stage), _tolerant(merge, stage)]))
    for name, chance, work in (("snapshot", 0.2, snapshot), ("reader", 0.1, read)):
        if stage.may(chance):
            actors.append(Actor(name, [_tolerant(work, stage)]))
    if stage.prune_rng is not None:
        count = stage.prune_rng.choice((0, 1, 1, 2)) if stage.key_rng is None else 2
        actors += [Actor(f"pruner {number}", [_tolerant(prune, stage)]) for number in range(count)]
    for actor in actors:
        if kills and stage.may(0.4):
            actor.fatal_step = stage.rng.randint(1, 400)
    return actors


def _tolerant(work: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    def live() -> None:
        try:
            work(*arguments)
        except EXPECTED:
            arguments[0].counts["busy"] += 1

    return live
