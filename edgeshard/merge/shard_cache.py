"""What a merger remembers of the shards' files, so that it looks only into those that changed.

It could forget all of it, and would only look again. Between processes the master keeps it (``edgeshard_shards``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Set

import attrs

from edgeshard import sqlite
from edgeshard.files.fingerprint import State
from edgeshard.files.scan import ShardFile
from edgeshard.format.ranges import Range
from edgeshard.master import shard_states
from edgeshard.sqlite import Connection


@attrs.frozen
class CacheEntry:
    """What is known of a shard's file since it was last looked into.

    Attributes:
        state: the file's, then; () where it must be looked into again in any case.
        problem: why it was set aside, or "".
        lasting: whether that stays so until the file changes.
        settled: whether any later change is sure to show in the state.
        checked: which of those were copied from it, or found equal: see `copy.copy`.
        holds_since: since when (monotonic, seconds) it keeps rows that the master holds; None where it keeps none.
    """

    state: State
    problem: str = ""
    lasting: bool = False
    settled: bool = False
    holds_since: float | None = None
    checked: Mapping[bytes, list[Range]] = attrs.Factory(dict)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is to be done until the file changes."""
        return self.settled and self.holds_since is None and (self.lasting or not self.problem)

    def is_due_again(self, *, thorough: bool, held_s: float = 0.0) -> bool:
        """Whether to look into it although it seems unchanged: to truncate it, and now and then to make sure.

        Args:
            thorough: whether it is time to make sure.
            held_s: for how long it should keep rows that the master holds, in seconds.
        """
        is_certain = self.settled and (self.lasting or not self.problem)
        is_due = self.holds_since is not None and time.monotonic() >= self.holds_since + held_s
        return is_due or (thorough and not is_certain)


class ShardCache:
    """What is known of each shard, by the name of its file.

    Args:
        held_s: for how long a shard should keep rows that the master holds, in seconds.

    Attributes:
        states: the states of those that have no problem. Of the others every file counts, and not the log alone: a
            database may be mended beside its log.
        problems: those that were set aside.
        restless: those that are not at rest.
    """

    def __init__(self, held_s: float = 0.0) -> None:
        self._held_s = held_s
        self._clear()

    def _clear(self) -> None:
        self._known: dict[str, CacheEntry] = {}
        self._changed: set[str] = set()
        self._persisted: dict[str, tuple[State, str]] = {}
        self.states: dict[str, State] = {}
        self.problems: dict[str, str] = {}
        self.restless: set[str] = set()

    def get(self, name: str) -> CacheEntry | None:
        """What is known of a file; None where nothing is."""
        return self._known.get(name)

    def checked(self, name: str) -> Mapping[bytes, list[Range]]:
        """Which rows of a file were copied from it, or found equal."""
        known = self._known.get(name)
        return {} if known is None else known.checked

    def problem_of(self, name: str) -> str:
        """Why a file was set aside when it was last looked into, by this process or another; or ""."""
        known = self._known.get(name)
        return self._persisted.get(name, ((), ""))[1] if known is None else known.problem

    def is_news(self, file: ShardFile) -> bool:
        """Whether a file is not as it was known to be."""
        known = self._known.get(file.name)
        return known is None or file.state != known.state or (file.defect or known.problem) != known.problem

    def remember(self, name: str, known: CacheEntry) -> None:
        """Know this of a file from now on."""
        self.forget(name)
        self._known[name] = known
        self._changed.add(name)
        if known.problem:
            self.problems[name] = known.problem
        else:
            self.states[name] = known.state
        if not known.is_at_rest:
            self.restless.add(name)

    def forget(self, name: str) -> None:
        """Know nothing of a file."""
        self._known.pop(name, None)
        self.states.pop(name, None)
        self.problems.pop(name, None)
        self.restless.discard(name)

    def forget_all_but(self, names: Set[str]) -> None:
        """Forget the files that are no longer there."""
        for name in self._known.keys() - names:
            self.forget(name)

    def due_again(self, *, thorough: bool) -> Iterator[str]:
        """The files without a problem that are to be looked into although they seem unchanged."""
        for name in self.restless - self.problems.keys():
            if self._known[name].is_due_again(thorough=thorough, held_s=self._held_s):
                yield name

    # -- between processes --------------------------------------------------------------------------------------------

    def recall(self, connection: Connection) -> None:
        """Know what the master says, and nothing else."""
        self._clear()
        self._persisted = shard_states.load_states(connection)
        for name, (state, problem) in self._persisted.items():
            if state:
                self.remember(name, CacheEntry(state, problem, lasting=True, settled=True))
        self._changed.clear()

    def note_rows(self, name: str) -> None:
        """The master has a line for the file, since rows of it came."""
        self._persisted.setdefault(name, ((), ""))

    def persist(self, connection: Connection, names: Set[str] | None = None) -> None:
        """Note in the master which shards need no look until they change, and what is wrong with which.

        Args:
            connection: the master.
            names: the files that are there; the lines of others go. None: that is not known.
        """
        looks = {name: _to_persist(self._known[name]) for name in self._changed & self._known.keys()}
        changed = {name: look for name, look in looks.items() if self._persisted.get(name, ((), "")) != look}
        gone = set() if names is None else self._persisted.keys() - names
        if changed or gone:
            with sqlite.immediate(connection):
                shard_states.save_states(connection, [(name, *look) for name, look in changed.items()], gone)
            self._persisted.update(changed)
            for name in gone:
                del self._persisted[name]
        self._changed.clear()


def _to_persist(known: CacheEntry) -> tuple[State, str]:
    return (known.state if known.is_at_rest else (), known.problem)
