"""Play the history of a real store with a small disk budget, in one process, and check what a budget promises.

Agents open, write, stay open, close, are killed, or are started for each row; rows go to plain tables, to tables with
indexes and to keyed ones; a merge comes now and then. The size of all files is checked after each step, and whenever a
WAL is the longest that it will be. In the end two merges must make the store go on, whatever happened before.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

import edgeshard
from edgeshard import sqlite
from edgeshard.budget import policy, usage
from edgeshard.errors import DiskBudgetError
from tests.support.forks import Count, begin
from tests.support.stores import new_store

#: How a trial can end; all but the first are faults.
OK, OVER, STUCK, VAIN, LOST = "ok", "over", "stuck", "dropped in vain", "lost"


@edgeshard.table(index=["a", "b", "c"])
@attrs.frozen
class Indexed:
    """Each row of it changes pages all over the master."""

    a: str
    b: str
    c: str
    text: str


@edgeshard.table(key="name")
@attrs.frozen
class Current:
    """Its rows are never dropped."""

    name: str
    text: str


@attrs.frozen
class Trial:
    """What became of a history.

    Attributes:
        number: its number in the campaign.
        outcome: one of the constants above.
        what: what is wrong, or "".
        max_bytes: the budget.
        on_full: what happens if it is full.
        agents: how many agents there were.
        written: how many rows were acknowledged.
        refused: how often a writer was refused.
        dropped: how many rows were dropped.
        largest: the largest size of all files that was seen.
    """

    number: int
    outcome: str
    what: str
    max_bytes: int
    on_full: str
    agents: int
    written: int
    refused: int
    dropped: int
    largest: int


class _FaultError(Exception):
    def __init__(self, outcome: str, what: str) -> None:
        super().__init__(outcome, what)
        self.outcome = outcome
        self.what = what


class History:
    """One store, and what happens to it."""

    def __init__(self, root: Path, chance: random.Random, agents: int, max_bytes: int, on_full: policy.OnFull) -> None:
        self.chance = chance
        self.store = new_store(root, max_bytes=max_bytes, on_full=on_full)
        self.store.note_budget(max_bytes, on_full)
        self.max_bytes = max_bytes
        self.agents = agents
        self.handles: dict[int, edgeshard.Shard] = {}
        self.written = self.refused = self.dropped = self.largest = self.changed = 0
        self.kinds: list[Callable[[int], Any]] = [lambda size: {"n": self.written, "text": "x" * size}]
        if chance.random() < 0.3:
            self.kinds.append(self._indexed)
        if chance.random() < 0.15:
            self.kinds.append(lambda size: Current(str(chance.randrange(20)), "x" * size))
        self.largest_row = 0

    def _indexed(self, size: int) -> Indexed:
        digest = hashlib.sha256(str(self.written).encode()).hexdigest()
        return Indexed(digest, digest[10:], digest[20:], "x" * size)

    # -- what is checked ----------------------------------------------------------------------------------------------

    def check_size(self) -> None:
        """All files of the store fit into the budget at this moment."""
        size = 0
        for folder, _, names in os.walk(self.store.root):
            for name in names:
                with suppress(FileNotFoundError):
                    size += os.lstat(os.path.join(folder, name)).st_size
        self.largest = max(self.largest, size)
        if size > self.max_bytes:
            raise _FaultError(OVER, f"{size} bytes of {self.max_bytes}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Check the size whenever a WAL is about to be cut: it is never larger."""
        cut = sqlite.shrink_wal

        def shrink_wal(connection: sqlite.Connection) -> bool:
            self.check_size()
            is_cut = cut(connection)
            self.check_size()
            return is_cut

        sqlite.shrink_wal = shrink_wal
        try:
            yield
        finally:
            sqlite.shrink_wal = cut

    # -- what happens -------------------------------------------------------------------------------------------------

    def write(self, agent: int, rows: int, size: int, *, together: bool | None = None) -> bool:
        """Write rows, one by one or in one transaction; return False if that is refused."""
        self.largest_row = max(self.largest_row, size)
        try:
            handle = self.handles.get(agent)
            if handle is None:
                handle = self.handles[agent] = self.store.shard(f"a{agent}")
            make = self.chance.choice(self.kinds)
            if self.chance.random() < 0.3 if together is None else together:
                self.written += handle.write_many(make(size) for _ in range(rows))
            else:
                for _ in range(rows):
                    handle.write(make(size))
                    self.written += 1
        except DiskBudgetError:
            self.refused += 1
            return False
        finally:
            self.check_size()
        return True

    def write_and_die(self, agent: int, rows: int, size: int) -> None:
        """An agent in another process writes rows, and is killed."""
        if agent in self.handles:
            return
        make, self.largest_row = self.kinds[0], max(self.largest_row, size)

        def work(count: Count) -> None:
            with suppress(DiskBudgetError):
                shard = self.store.shard(f"a{agent}")
                for number in range(rows):
                    shard.write(make(size))
                    count(number + 1)
                os._exit(0)  # without closing anything

        life = begin(work)
        life.wait()
        self.written += life.count
        self.check_size()

    def close(self, agent: int) -> None:
        """Close an agent's shard."""
        handle = self.handles.pop(agent, None)
        if handle is not None:
            handle.close()
            self.check_size()

    def merge(self) -> None:
        """Merge; if rows are dropped, that makes space."""
        dropped = 0
        with suppress(DiskBudgetError), self.watched():
            dropped = self.store.merge().dropped
        self.check_size()
        self.dropped += dropped
        budget = usage.load_budget(self.store.root)
        assert budget is not None
        if dropped:
            found = usage.measure(self.store.root, sizes_only=True)
            left = policy.left_for_writers(budget, found)
            if left < policy.needed_left(found):
                raise _FaultError(VAIN, f"{dropped} rows were dropped, and {left} bytes are left")

    def step(self) -> None:
        """Do something."""
        chance = self.chance
        agent = chance.randrange(self.agents)
        size = int(10 ** chance.uniform(1, 3.6))
        what = chance.choice(["write"] * 6 + ["fill", "large", "cron", "close", "die", "merge", "merge"])
        if what == "write":
            self.write(agent, chance.randrange(1, 40), size)
        elif what == "fill":
            rows = max(1, min(200, self.max_bytes // 40 // size))
            for _ in range(60):
                if not self.write(agent, rows, size):
                    break
        elif what == "large":
            rows = max(1, int(self.max_bytes * chance.uniform(0.02, 0.3) / size))
            while not self.write(agent, rows, size, together=True) and rows > 1:
                rows //= 2
        elif what == "cron":
            for _ in range(5):
                self.close(agent)
                self.write(agent, 1, size)
            self.close(agent)
        elif what == "close":
            self.close(agent)
        elif what == "die":
            self.write_and_die(agent, chance.randrange(1, 30), size)
        else:
            self.merge()

    def check_that_it_goes_on(self) -> None:
        """Two merges, and then an agent writes, if rows may be dropped and there are any; no row is lost."""
        for _ in range(2):
            self.merge()
        budget = usage.load_budget(self.store.root)
        assert budget is not None
        found = usage.measure(self.store.root, sizes_only=True)
        pending = self.store.status().pending_rows
        is_keyed = len(self.kinds) > 1 and any(isinstance(make(1), Current) for make in self.kinds)
        if budget.on_full == "drop-oldest" and not is_keyed:
            if pending:
                raise _FaultError(STUCK, f"{pending} rows are pending after two merges: {found}")
            agent = next(iter(self.handles), 0)
            others = len(self.handles) - (agent in self.handles)
            # the least budget leaves no space for rows
            if budget.max_bytes >= 1.25 * policy.least_budget(others + 1) and not self.write(agent, 1, 100):
                raise _FaultError(STUCK, f"no write is accepted after two merges: {found}")
        elif pending and len(self.kinds) == 1 and self.largest_row < 1_000:
            # larger ones may have a page for themselves in the master, and need a prune
            raise _FaultError(STUCK, f"{pending} rows are pending after two merges, and do not grow: {found}")
        elif pending and budget.on_full == "error":
            # the next step that the error names: a prune, which a full store has space for
            self.store.prune(keep_rows=0, shrink=True)
            for _ in range(2):
                self.merge()
            left = self.store.status().pending_rows
            if left == pending:
                raise _FaultError(STUCK, f"{left} rows are pending after a prune: {found}")
        for agent in list(self.handles):
            self.close(agent)
        self._check_rows(is_keyed=is_keyed)

    def _check_rows(self, *, is_keyed: bool) -> None:
        # without the budget all rows can be merged
        (self.store.root / "budget.json").unlink()
        store = edgeshard.Store(self.store.root)
        store.merge()
        report = store.verify()
        known = report.rows + sum(report.pruned.values()) + store.status().master.superseded_rows
        if not report.ok or known != self.written or not set(report.pruned) <= {"budget", "keep rows"}:
            raise _FaultError(LOST, f"{self.written} rows were acknowledged: {report}")
        # a merge that drops rows may still be refused, and then it returns no report
        if not is_keyed and report.pruned.get("budget", 0) < self.dropped:
            raise _FaultError(LOST, f"{self.dropped} rows were reported as dropped: {report}")


def play(seed: int, number: int, steps: int = 14) -> Trial:
    """Play one history."""
    chance = random.Random(f"{seed} {number}")
    agents = chance.choice([1, 1, 2, 4, 8, 20])
    max_bytes = int(10 ** chance.uniform(6, 6.7))
    on_full = chance.choice(policy.ON_FULL)
    folder = Path(tempfile.mkdtemp(prefix="budget-"))
    history = History(folder / "data", chance, agents, max_bytes, on_full)
    outcome, what = OK, ""
    try:
        for _ in range(steps):
            history.step()
        history.check_that_it_goes_on()
    except _FaultError as fault:
        outcome, what = fault.outcome, fault.what
    finally:
        for agent in list(history.handles):
            history.handles.pop(agent).close()
        shutil.rmtree(folder)
    return Trial(
        number,
        outcome,
        what,
        max_bytes,
        on_full,
        agents,
        history.written,
        history.refused,
        history.dropped,
        history.largest,
    )
