"""What the writers of a scenario were told about their rows, and whether the master keeps to it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import attrs

import edgeshard
from edgeshard.errors import DiskFullError, EdgeshardError, ShardPoisonedError, StorageBusyError, StorageError
from edgeshard.options import Durability
from edgeshard.records import hlc, machine_clock

_T = TypeVar("_T")


@edgeshard.table(index=["n"])
@attrs.frozen
class Sample:
    """A row of the second table."""

    n: int
    much: bytes = b""


@attrs.define
class Account:
    """What the writers were told about their rows.

    Attributes:
        root: the store's folder.
        acknowledged: rows that are committed.
        refused: rows that are certainly not there.
        unknown: rows whose fate is unknown, but the same for all rows of a transaction.
        errors: how often errors of each class were raised.
        sources: other databases to merge, below the folder.
        finish: what makes the store whole in the end, as its owner would.
        others: returns the numbers of rows in other tables than the usual two.
    """

    root: Path
    acknowledged: set[int] = attrs.Factory(set)
    refused: set[int] = attrs.Factory(set)
    unknown: list[frozenset[int]] = attrs.Factory(list)
    errors: dict[str, int] = attrs.Factory(dict)
    sources: tuple[str, ...] = ()
    finish: Callable[[edgeshard.Store], object] = lambda _: None
    others: Callable[[edgeshard.Store], Iterable[int]] = lambda _: ()

    def note(self, error: EdgeshardError) -> None:
        """Count an error; check that it is one of ours, tells that storage failed, and names what it concerns."""
        assert isinstance(error, (StorageError, ShardPoisonedError)), f"no error of the storage: {error!r}"
        assert str(self.root) in error.path, f"the error does not name its path: {error}"
        assert error.cause, "the error has no cause"
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1

    def copy(self, root: Path) -> Account:
        """Return the account as it is now, for a copy of the store."""
        return Account(
            root,
            set(self.acknowledged),
            set(self.refused),
            list(self.unknown),
            sources=self.sources,
            finish=self.finish,
            others=self.others,
        )

    def numbers(self, store: edgeshard.Store) -> list[int]:
        """Return the numbers of all rows in the master, including duplicates."""
        of_dicts = [row.data["n"] for row in store.read(edgeshard.AgentData)]
        return [*of_dicts, *(row.n for row in store.read(Sample)), *self.others(store)]

    def doubt(self, *groups: Iterable[int]) -> None:
        """Note rows that may or may not be there from now on: those of each group together."""
        self.unknown += [frozenset(group) for group in groups]
        self.acknowledged.difference_update(*self.unknown)

    def refuse_unknown(self) -> None:
        """Note that none of the rows of unknown fate is there."""
        self.refused.update(*self.unknown)
        self.unknown = []

    def check(self, found: list[int]) -> None:
        """Compare with the numbers that the master has in the end, including duplicates."""
        there = set(found)
        assert len(found) == len(there), f"doubled: {sorted(n for n in there if found.count(n) > 1)}"
        assert self.acknowledged <= there, f"lost: {sorted(self.acknowledged - there)}"
        assert not self.refused & there, f"refused, and there: {sorted(self.refused & there)}"
        for group in self.unknown:
            assert not group & there or group <= there, f"a part of a transaction: {sorted(group & there)}"
        known = self.acknowledged.union(self.refused, *self.unknown)
        assert there <= known, f"never written: {sorted(there - known)}"


@attrs.define
class Writer:
    """An agent that reopens its shard whenever its handle is unusable."""

    store: edgeshard.Store
    agent: str
    account: Account
    handle: edgeshard.Shard | None = None
    durability: Durability = "process"

    def attempt(self, numbers: Iterable[int], action: Callable[[edgeshard.Shard], object]) -> None:
        """Write rows, and record their fate."""
        group = frozenset(numbers)
        if self.handle is None:
            try:
                self.handle = self.store.shard(self.agent, durability=self.durability)
            except EdgeshardError as error:
                self.account.note(error)
                self.account.refused |= group
                return
        try:
            action(self.handle)
        except EdgeshardError as error:
            self._judge(self.handle, error, group)
        else:
            self.account.acknowledged |= group

    def _judge(self, handle: edgeshard.Shard, error: EdgeshardError, group: frozenset[int]) -> None:
        """Check that a failure with an unknown outcome makes the handle unusable, and that no row is there after others."""
        self.account.note(error)
        poisoned = isinstance(handle._unusable, ShardPoisonedError)
        if poisoned:
            assert not isinstance(error, (DiskFullError, StorageBusyError)), f"poisoned by {error!r}"
            self.account.unknown.append(group)
            self._ensure_refuses(handle)
            self.close()
        else:
            self.account.refused |= group

    def _ensure_refuses(self, handle: edgeshard.Shard) -> None:
        for use in (lambda: handle.write({"n": -1}), lambda: handle.write_many([{"n": -2}]), handle.sync):
            try:
                use()
            except ShardPoisonedError as error:
                self.account.note(error)
            else:
                raise AssertionError("a poisoned handle was used")

    def close(self) -> None:
        """Close the handle, even if that fails."""
        handle, self.handle = self.handle, None
        if handle is not None:
            try:
                handle.close()
            except EdgeshardError as error:
                self.account.note(error)
            handle.close()  # of no effect, whatever the first one did


def record(n: int, size: int = 0) -> Any:
    """Return a record of one of the two tables."""
    return {"n": n, "much": "x" * size} if n % 3 else Sample(n, b"x" * size)


def attempt(account: Account, action: Callable[[], _T]) -> _T | None:
    """Return what the action returns, or None if it failed, which is noted."""
    try:
        return action()
    except EdgeshardError as error:
        account.note(error)
        return None


def prepare(account: Account, name: str, make: Callable[[edgeshard.Store], object]) -> edgeshard.Store:
    """Return the account's store, filled by `make`: that is done once, and copied for each run."""
    template = account.root.parent.parent / name
    if not template.exists():
        make(edgeshard.Store(template))
    shutil.copytree(template, account.root, dirs_exist_ok=True)
    return edgeshard.Store(account.root)


@contextlib.contextmanager
def days_ago(days: float, *, as_it_seemed: bool = False) -> Iterator[None]:
    """Let the clocks show an earlier time; or only the wall clock, which then went ahead since."""
    back_s = days * 86_400
    wall_s, boottime_s, now_us = machine_clock.wall_s, machine_clock.boottime_s, hlc.now_us
    with (
        mock.patch.object(machine_clock, "wall_s", side_effect=lambda: wall_s() - back_s),
        mock.patch.object(machine_clock, "boottime_s", side_effect=lambda: boottime_s() - (not as_it_seemed) * back_s),
        mock.patch.object(hlc, "now_us", side_effect=lambda: now_us() - int(back_s * 1_000_000)),
    ):
        yield
