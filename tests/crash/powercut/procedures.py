"""The procedures that are cut short: each promises what is left, and what works afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Set
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, Literal

import apsw

import edgeshard
from edgeshard.budget import policy
from edgeshard.errors import DamagedError, DiskBudgetError
from edgeshard.files import paths
from edgeshard.master import pruned_ranges
from edgeshard.merge import accept_loss
from edgeshard.merge.locks import merge_lock
from edgeshard.merge.merger import Merger
from edgeshard.retention import erase
from tests.crash.powercut.contents import (
    ViolationError,
    look,
    read_master,
    read_removed,
    read_shard,
    record_of,
)
from tests.crash.powercut.cuts import Procedure, Work
from tests.support.stores import contradictions


def ensure(is_true: bool, complaint: str) -> None:
    """Complain unless it is true.

    Raises:
        ViolationError: it is not.
    """
    if not is_true:
        raise ViolationError(complaint)


def _write(
    store: edgeshard.Store, agent: str, numbers: Iterable[int], durability: Literal["process", "power"] = "power"
) -> None:
    with store.shard(agent, durability=durability) as shard:
        shard.write_many(map(record_of, numbers))


def _in_master(root: Path) -> set[int]:
    path = paths.master(root)
    return set(read_master(path)) if path.exists() else set()


def _query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs="unix")) as connection:
        return connection.execute(sql).fetchall()


def _change(path: Path, *statements: str) -> None:
    """Execute statements in a database on the simulated disk, as another program would."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        for statement in statements:
            connection.execute(statement)


def _ensure_sound(store: edgeshard.Store) -> edgeshard.VerifyReport:
    report = store.verify(deep=True)
    ensure(not contradictions(report), f"verify finds {contradictions(report)}")
    return report


def _merge_twice(store: edgeshard.Store) -> edgeshard.VerifyReport:
    """Merge, and check that the master is sound and that nothing was left to merge."""
    first, second = store.merge(), store.merge()
    ensure(not first.quarantined and not second.rows, f"{first.quarantined}, {second.rows}")
    return _ensure_sound(store)


# -- a store's first opening ------------------------------------------------------------------------------------------


class FirstOpening(Procedure):
    """An agent, or `init`, makes the store; another agent then relies on the folders that it found."""

    outcomes: tuple[str, ...] = ("nothing", "row 1")

    def prepare(self, store: edgeshard.Store) -> None:
        pass

    def act(self, store: edgeshard.Store) -> None:
        _write(store, "ann", [1])

    def judge(self, root: Path) -> str:
        return "row 1" if self._there(root) else "nothing"

    def afterwards(self, outcome: str) -> list[Work]:
        def write(store: edgeshard.Store) -> None:
            _write(store, "bob", [2])

        def merge(store: edgeshard.Store) -> None:
            store.init()
            _write(store, "bob", [2])
            _merge_twice(store)

        return [write, merge]

    def conclude(self, root: Path, outcome: str) -> None:
        ensure(2 in self._there(root), "row 2 is lost")

    @staticmethod
    def _there(root: Path) -> set[int]:
        found = look(root)
        return {*(found.master or {}), *found.shards}


class Init(FirstOpening):
    """`init` makes the store."""

    outcomes = ("nothing",)

    def act(self, store: edgeshard.Store) -> None:
        store.init()


# -- a shard is removed -----------------------------------------------------------------------------------------------

_OLDER, _REMOVED, _TRUNCATED, _PENDING = range(1, 6), range(6, 12), range(12, 15), range(15, 18)
_KNOWN: Final = {*_OLDER, *_REMOVED, *_TRUNCATED, *_PENDING}


def _merge_and_account(store: edgeshard.Store) -> None:
    """Merge, and check that each row is there or named, and that the master is sound."""
    report = _merge_twice(store)
    held = _in_master(store.root)
    # each agent wrote its rows in order, and all of a stream at once
    of_agent = {"ann": _REMOVED, "bob": [*_TRUNCATED, *_PENDING]}
    ensure(report.states.missing == sum(map(len, report.gaps)), f"{report.states} and {report.gaps}")
    named = {of_agent[gap.agent][seq - 1] for gap in report.gaps for seq in range(gap.first, gap.last + 1)}
    is_accounted_for = report.states.total == len(_KNOWN) and held | named == _KNOWN
    ensure(is_accounted_for, f"the master has {sorted(held)}, and names {report.gaps}")


def _put_older_back(store: edgeshard.Store) -> None:
    store.restore(store.root / "older.db")


class Removal(Procedure):
    """A merge removes the shard of an agent that has ended, and notes outside the master what it had brought."""

    outcomes = ("shard", "no shard")
    is_durable = False  # the files may be there again, and are then removed again

    def prepare(self, store: edgeshard.Store) -> None:
        _write(store, "ann", _OLDER)
        store.merge(keep_empty=True)
        store.snapshot(store.root / "older.db")
        _write(store, "ann", _REMOVED, "process")  # this handle leaves a WAL
        _write(store, "bob", [*_TRUNCATED, *_PENDING])

    def act(self, store: edgeshard.Store) -> None:
        store.merge()

    def judge(self, root: Path) -> str:
        found = look(root)
        ensure({*(found.master or {}), *found.shards} == _KNOWN, "rows are lost")
        for agent, numbers in (("ann", _REMOVED), ("bob", [*_TRUNCATED, *_PENDING])):
            if not (root / "shards" / f"{agent}.db").exists():
                held = {number: (found.master or {})[number] for number in numbers}
                noted = read_removed(root / "removed-shards.db")
                ensure(set(held.values()) <= noted, f"the shard of {agent} is gone, and was not noted")
        return "shard" if any((root / "shards").glob("*.db")) else "no shard"

    def afterwards(self, outcome: str) -> list[Work]:
        def put_back_and_merge(store: edgeshard.Store) -> None:
            _put_older_back(store)
            _merge_and_account(store)

        return [_merge_and_account, put_back_and_merge]


# -- restoring --------------------------------------------------------------------------------------------------------


class Restore(Procedure):
    """A snapshot is put in the place of a master that has commits in its WAL, as if its merger was killed."""

    outcomes = ("old master", "new master")

    def prepare(self, store: edgeshard.Store) -> None:
        _write(store, "ann", _OLDER)
        store.merge()
        store.snapshot(store.root / "older.db")
        _write(store, "ann", _REMOVED)
        store.merge()
        with store.shard("bob", durability="power") as shard:
            shard.write_many(map(record_of, _TRUNCATED))
            _merge_and_leave_the_wal(store)
            shard.write_many(map(record_of, _PENDING))

    def act(self, store: edgeshard.Store) -> None:
        _put_older_back(store)

    def judge(self, root: Path) -> str:
        found = _in_master(root)
        names = {"old master": {*_OLDER, *_REMOVED, *_TRUNCATED}, "new master": {*_OLDER}}
        return next((name for name, rows in names.items() if found == rows), f"the master has {sorted(found)}")

    def afterwards(self, outcome: str) -> list[Work]:
        def again(store: edgeshard.Store) -> None:
            _put_older_back(store)
            ensure(_in_master(store.root) == {*_OLDER}, "a second restore did not put the snapshot in place")
            _merge_and_account(store)

        return [_merge_and_account, again]


def _merge_and_leave_the_wal(store: edgeshard.Store) -> None:
    held = merge_lock(store.root, 0.0, lambda: False)
    assert held is not None
    merger = Merger(store.root, watching=True)
    merger.run()
    merger.run()
    merger.abandon()
    held.release()


# -- erasing ----------------------------------------------------------------------------------------------------------


class Erase(Procedure):
    """Rows are erased, of which some are merged, some are pending, and some are in an older snapshot."""

    outcomes = ("nothing erased", "listed", "erased")
    patches = ((erase, "STEP_ROWS", 2),)

    _MERGED, _PENDING = range(1, 13), range(13, 20)
    _ALL: Final[Set[int]] = {*_MERGED, *_PENDING}
    _ERASED: Final[Set[int]] = {n for n in (*_MERGED, *_PENDING) if n % 3}  # see record_of
    _WHERE = "data ->> '$.n' % 3"

    def prepare(self, store: edgeshard.Store) -> None:
        for numbers in (self._MERGED[:5], self._MERGED[5:]):
            _write(store, "ann", numbers)
            store.merge(keep_empty=True)
        store.snapshot(store.root / "older.db")
        _write(store, "bob", self._PENDING)

    def act(self, store: edgeshard.Store) -> None:
        store.erase("agent_data", self._WHERE)

    def judge(self, root: Path) -> str:
        number, listed = _read_erased(root / "erased.json")
        found = look(root)
        held = {**found.shards, **(found.master or {})}
        sql = (
            "SELECT lower(hex(stream_id)), first, last FROM _edgeshard_pruned_ranges JOIN _edgeshard_streams "
            f"USING(stream_no) WHERE is_own = 1 AND reason = '{pruned_ranges.ERASED}'"
        )
        erased = {
            (stream, seq) for stream, first, last in _query(paths.master(root), sql) for seq in range(first, last + 1)
        }
        ensure(erased <= listed, f"{erased - listed} are erased, and not listed")
        lost = self._ALL - held.keys()
        ensure(lost <= self._ERASED and len(lost) <= len(listed), f"rows {sorted(lost)} are lost")
        if not number:
            return "nothing erased"
        ((done,),) = _query(paths.master(root), "SELECT coalesce(max(number), 0) FROM _edgeshard_erasures")
        is_done = not self._ERASED & (found.master or {}).keys()
        ensure(is_done or done < number, "rows are there, and the master says that they are erased")
        return "erased" if done == number else "listed"

    def afterwards(self, outcome: str) -> list[Work]:
        def merge(store: edgeshard.Store) -> None:
            report = _merge_twice(store)
            expected = self._ALL if outcome == "nothing erased" else self._ALL - self._ERASED
            found = _in_master(store.root)
            ensure((found, report.states.total) == (expected, len(self._ALL)), f"{sorted(found)}: {report.states}")

        def again(store: edgeshard.Store) -> None:
            store.erase("agent_data", self._WHERE)
            report = _merge_twice(store)
            found = _in_master(store.root)
            ensure((found, report.ok) == (self._ALL - self._ERASED, True), f"{sorted(found)}: {report}")

        def put_older_back(store: edgeshard.Store) -> None:
            _put_older_back(store)
            store.merge()  # a shard that was removed may be there again: its rows cannot be compared, and stay in it
            _ensure_sound(store)

        return [merge, again, put_older_back]

    def conclude(self, root: Path, outcome: str) -> None:
        there = _in_master(root) & self._ERASED
        ensure(outcome == "nothing erased" or not there, f"{sorted(there)} are there again")


def _read_erased(path: Path) -> tuple[int, set[tuple[str, int]]]:
    """Return the number of the last erasure, and the addresses that are listed."""
    if not path.exists():
        return 0, set()
    head, _, rest = path.read_bytes().partition(b"\n")
    try:
        said = json.loads(head)
        ensure(said["sha256"] == hashlib.sha256(rest).hexdigest(), "the list of erased rows is not whole")
        streams = [json.loads(line) for line in rest.splitlines()]
    except ValueError as error:
        raise ViolationError(f"the list of erased rows cannot be read: {error}") from error
    listed = {
        (each["stream"], seq) for each in streams for first, last in each["seqs"] for seq in range(first, last + 1)
    }
    return said["number"], listed


# -- accepting a loss -------------------------------------------------------------------------------------------------


class AcceptLoss(Procedure):
    """The loss of two runs of missing rows, and of rows that somebody deleted by hand, is accepted."""

    outcomes = tuple(f"accepted {rows}" for rows in range(11))
    patches = ((accept_loss, "_STEP_RUNS", 1),)

    _HELD, _LOST = range(1, 7), {"ann": range(7, 10), "bob": range(10, 15)}
    _BY_HAND = (2, 5)  # of one table

    def prepare(self, store: edgeshard.Store) -> None:
        _write(store, "ann", self._HELD)
        store.merge()
        store.snapshot(store.root / "older.db")
        for agent, numbers in self._LOST.items():
            _write(store, agent, numbers)
            (store.root / f"{agent}.copy").write_bytes((store.root / "shards" / f"{agent}.db").read_bytes())
        store.merge()
        _put_older_back(store)
        store.merge()
        _change(store.master_path, f"DELETE FROM agent_data WHERE data ->> '$.n' IN {self._BY_HAND}")

    def act(self, store: edgeshard.Store) -> None:
        store.accept_loss(why="the disk broke")

    def judge(self, root: Path) -> str:
        ensure(_in_master(root) == {*self._HELD} - {*self._BY_HAND}, "the master has other rows")
        ((rows,),) = _query(paths.master(root), "SELECT coalesce(sum(last - first + 1), 0) FROM _edgeshard_written_off")
        return f"accepted {rows}"

    def afterwards(self, outcome: str) -> list[Work]:
        accepted = int(outcome.split()[-1])
        lost = sum(map(len, self._LOST.values())) + len(self._BY_HAND)

        def merge(store: edgeshard.Store) -> None:
            store.merge()
            report = store.verify(deep=True)
            left = sum(map(len, (*report.gaps, *report.by_hand)))
            told = sum(len(each.gap) for each in report.accepted)
            ensure((report.errors, left, told) == ((), lost - accepted, accepted), f"{outcome}: {report}")

        def again(store: edgeshard.Store) -> None:
            done = store.accept_loss(why="the disk broke")
            ensure(done.rows == lost - accepted, f"{outcome}, then {done}")
            report = store.verify(deep=True)
            ensure(report.ok and sum(len(each.gap) for each in report.accepted) == lost, f"{report}")
            store.merge()

        return [merge, again]


# -- a damaged master -------------------------------------------------------------------------------------------------


class DamageNote(Procedure):
    """A check finds that the master is damaged, and records it outside of it."""

    outcomes = ("no note", "noted")

    def prepare(self, store: edgeshard.Store) -> None:
        _write(store, "ann", range(1, 6))
        store.merge()
        _write(store, "ann", range(6, 8))
        _change(store.master_path, "UPDATE _edgeshard_ranges SET last = last + 1")

    def act(self, store: edgeshard.Store) -> None:
        ensure(bool(store.verify().errors), "verify finds nothing")

    def judge(self, root: Path) -> str:
        path = root / "master-damaged.json"
        if not path.exists():
            return "no note"
        try:
            json.loads(path.read_text())
        except ValueError as error:
            raise ViolationError(f"half a note is left: {error}") from error
        return "noted"

    def afterwards(self, outcome: str) -> list[Work]:
        def refuse(store: edgeshard.Store) -> None:
            if outcome == "no note":
                self.act(store)
            with suppress(DamagedError):
                store.merge()
                raise ViolationError("rows were merged into a master that is known to be damaged")
            rows, _ = read_shard(store.root / "shards" / "ann.db")
            ensure(rows.keys() == {6, 7}, f"the shard has {sorted(rows)}")
            self._repair(store)

        return [self._repair, refuse]

    @staticmethod
    def _repair(store: edgeshard.Store) -> None:
        _change(store.master_path, "UPDATE _edgeshard_ranges SET last = last - 1")
        ensure(store.verify().ok, "it is not repaired")
        _merge_twice(store)

    def conclude(self, root: Path, outcome: str) -> None:
        ensure(_in_master(root) == {*range(1, 8)}, "rows are lost")


# -- a disk budget ----------------------------------------------------------------------------------------------------


class _Budgeted(Procedure):
    """Something within a disk budget."""

    max_bytes: int
    on_full: policy.OnFull = "error"

    def open(self, store: edgeshard.Store) -> edgeshard.Store:
        """Return the store with its budget."""
        return edgeshard.Store(store.root, max_bytes=self.max_bytes, on_full=self.on_full)

    def fill(self, store: edgeshard.Store, first: int) -> int:
        """Write rows until the budget refuses them; return how many were acknowledged."""
        written = 0
        with suppress(DiskBudgetError):
            while True:
                with store.shard("filler", durability="power") as shard:
                    for _ in range(5):
                        shard.write_many({"n": first + written + k, "x": "x" * 900} for k in range(20))
                        written += 20
        return written

    def ensure_fits(self, root: Path) -> None:
        """Check that the files fit into the budget."""
        size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())
        ensure(size <= self.max_bytes, f"{size} bytes are used")


class BudgetMerge(_Budgeted):
    """A full store is merged, which takes the reserve, and makes it whole again."""

    outcomes = ("no row", "some rows", "all rows")
    max_bytes = 1_000_000

    def __init__(self) -> None:
        self._written = 0

    def prepare(self, store: edgeshard.Store) -> None:
        self._written = self.fill(self.open(store), 0)

    def act(self, store: edgeshard.Store) -> None:
        store.merge()

    def judge(self, root: Path) -> str:
        rows = _rows_of(root)  # files that were removed may be there again, so the store may be larger than its budget
        return "all rows" if rows == self._written else "some rows" if rows else "no row"

    def afterwards(self, outcome: str) -> list[Work]:
        def merge(store: edgeshard.Store) -> None:
            report = _merge_twice(store)
            self.ensure_fits(store.root)
            # nor are any dropped: truncating the shard makes enough space
            ensure(report.rows == self._written, f"{self._written} rows were written: {report}")
            budget = policy.Budget(self.max_bytes, self.on_full)
            size = paths.reserve(store.root).stat().st_size
            ensure(size == policy.reserve_bytes(budget), f"the reserve has {size} bytes")
            with store.shard("another") as shard:
                shard.write({"n": -1})

        return [merge]


class BudgetDrop(BudgetMerge):
    """The same where rows may be dropped."""

    max_bytes = 2_000_000  # so that what is left anyway is enough for the writers that were refused
    on_full = "drop-oldest"


class LargeTransaction(_Budgeted):
    """An agent writes a transaction for which the reserve would not do; it can be merged from then on."""

    outcomes = ("no row", "all rows")
    is_durable = False  # nor is the shard's
    max_bytes = 3_000_000

    _ROWS = 400

    def prepare(self, store: edgeshard.Store) -> None:
        pass

    def act(self, store: edgeshard.Store) -> None:
        with self.open(store).shard("large") as shard:
            shard.write_many({"n": n, "x": "x" * 1_000} for n in range(self._ROWS))

    def judge(self, root: Path) -> str:
        rows = _rows_in_shard(root / "shards" / "large.db")
        ensure(rows in (0, self._ROWS), f"{rows} rows of the transaction are there")
        return "all rows" if rows else "no row"

    def afterwards(self, outcome: str) -> list[Work]:
        def fill_and_merge(store: edgeshard.Store) -> None:
            written = self.fill(self.open(store), self._ROWS)
            written += self._ROWS if outcome == "all rows" else 0
            _merge_twice(store)
            ensure(_rows_of(store.root) == written, f"{_rows_of(store.root)} rows of {written} are there")
            self.ensure_fits(store.root)

        return [fill_and_merge]


def _rows_of(root: Path) -> int:
    """Return how many dicts a master has."""
    path = paths.master(root)
    return _query(path, "SELECT count(*) FROM agent_data")[0][0] if path.exists() else 0


def _rows_in_shard(path: Path) -> int:
    """Return how many dicts a shard has."""
    if not path.exists() or not _query(path, "SELECT 1 FROM sqlite_schema WHERE name = 'agent_data'"):
        return 0
    return int(_query(path, "SELECT count(*) FROM agent_data")[0][0])


#: All of them.
PROCEDURES: dict[str, Callable[[], Procedure]] = {
    "first opening": FirstOpening,
    "init": Init,
    "removal": Removal,
    "restore": Restore,
    "erase": Erase,
    "accept loss": AcceptLoss,
    "damage note": DamageNote,
    "budget merge": BudgetMerge,
    "budget drop": BudgetDrop,
    "large transaction": LargeTransaction,
}
