"""Remember what a merger found in each shard's file, so that it opens only those that changed.

This is a cache; losing it costs one rescan. Between processes the master keeps it (``_edgeshard_shards``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Set
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.files import fingerprint
from edgeshard.files.fingerprint import State
from edgeshard.files.scan import ShardFile
from edgeshard.format.ranges import Range
from edgeshard.master import identity, shard_states
from edgeshard.sqlite import Connection

#: What the master records of a file that it does not know: no state, no reason, no denial.
_NOTHING: Final[tuple[State, str, bool]] = ((), "", False)


@attrs.frozen
class CacheEntry:
    """What was found in a shard's file when it was last opened.

    Attributes:
        state: the file's state then; () if it must be opened again in any case.
        reason: why it was quarantined, or "".
        is_denied: whether the reason is only that the merger had no permission.
        lasting: whether the reason holds until the file changes.
        settled: whether any later change is sure to show in the state.
        held_since: since when (monotonic, seconds) it has kept rows that the master holds; None if it keeps none.
        checked: which of its rows were copied from it or found equal: see `apply.copy`.
        blocked_by: the version of the master's schema that blocks rows of it; None if no rows are blocked.
        files: in which files they were found; see `fingerprint.files`.
    """

    state: State
    reason: str = ""
    lasting: bool = False
    settled: bool = False
    held_since: float | None = None
    checked: Mapping[bytes, list[Range]] = attrs.Factory(dict)
    blocked_by: int | None = None
    files: State = ()
    is_denied: bool = False

    @property
    def is_at_rest(self) -> bool:
        """Whether there is nothing to do until the file changes."""
        return self._is_certain and self.held_since is None and self.blocked_by is None

    def is_due_again(self, *, thorough: bool, schema_version: int, held_s: float = 0.0) -> bool:
        """Return whether to open the file although it seems unchanged.

        It is opened when its truncation is due, when its blocked rows may fit because the master's tables changed, and
        now and then to make sure.

        Args:
            thorough: whether it is time to make sure.
            schema_version: the version of the master's schema.
            held_s: for how long a shard should keep rows that the master holds, in seconds.
        """
        is_truncation_due = self.held_since is not None and time.monotonic() >= self.held_since + held_s
        may_fit = self.blocked_by is not None and (thorough or self.blocked_by != schema_version)
        return is_truncation_due or may_fit or (thorough and not self._is_certain)

    @property
    def _is_certain(self) -> bool:
        return self.settled and (self.lasting or not self.reason)


class ShardCache:
    """An entry for each shard, by the name of its file.

    Args:
        held_s: for how long a shard should keep rows that the master holds, in seconds.

    Attributes:
        states: the states of the files that are not quarantined. A quarantined file is left out, so that each scan
            examines it in full: a file with a state here is compared by its WAL alone, if it has one, and a database
            may be repaired next to an unchanged WAL.
        quarantined: the reason for each quarantined file, by name.
        restless: the files that are not at rest.
    """

    def __init__(self, held_s: float = 0.0) -> None:
        self._held_s = held_s
        self._entries: dict[str, CacheEntry] = {}
        self._changed: set[str] = set()
        self._persisted: dict[str, tuple[State, str, bool]] = {}
        self.states: dict[str, State] = {}
        self.quarantined: dict[str, str] = {}
        self.restless: set[str] = set()

    def get(self, name: str) -> CacheEntry | None:
        """Return the entry of a file, or None."""
        return self._entries.get(name)

    def checked(self, file: ShardFile) -> Mapping[bytes, list[Range]]:
        """Return which rows of a file were copied from it or found equal; none if it may have replaced another."""
        entry = self._entries.get(file.name)
        return entry.checked if entry is not None and entry.files == fingerprint.files(file.state) else {}

    def reason_of(self, name: str) -> str:
        """Return why a file was quarantined when this process or another last opened it, or ""."""
        entry = self._entries.get(name)
        return self._persisted.get(name, _NOTHING)[1] if entry is None else entry.reason

    def is_denied(self, name: str) -> bool:
        """Return whether `reason_of` a file is only that the merger had no permission."""
        entry = self._entries.get(name)
        return self._persisted.get(name, _NOTHING)[2] if entry is None else entry.is_denied

    def is_changed(self, file: ShardFile) -> bool:
        """Return whether a file differs from its entry."""
        entry = self._entries.get(file.name)
        return entry is None or file.state != entry.state or (file.defect or entry.reason) != entry.reason

    def remember(self, name: str, entry: CacheEntry) -> None:
        """Set the entry of a file."""
        self.forget(name)
        self._entries[name] = entry
        self._changed.add(name)
        if entry.reason:
            self.quarantined[name] = entry.reason
        else:
            self.states[name] = entry.state
        if not entry.is_at_rest:
            self.restless.add(name)

    def forget(self, name: str) -> None:
        """Forget a file."""
        self._entries.pop(name, None)
        self.states.pop(name, None)
        self.quarantined.pop(name, None)
        self.restless.discard(name)

    def forget_all_but(self, names: Set[str]) -> None:
        """Forget the files that are no longer there."""
        for name in self._entries.keys() - names:
            self.forget(name)

    def due_again(self, *, thorough: bool, schema_version: int) -> Iterator[str]:
        """Yield the files to open although they seem unchanged, except quarantined ones."""
        for name in self.restless - self.quarantined.keys():
            if self._entries[name].is_due_again(thorough=thorough, schema_version=schema_version, held_s=self._held_s):
                yield name

    # -- between processes --------------------------------------------------------------------------------------------

    def recall(self, connection: Connection) -> None:
        """Load what the master keeps into an empty cache."""
        self._persisted = shard_states.load_states(connection)
        for name, (state, reason, _) in self._persisted.items():
            if state:
                self.remember(name, CacheEntry(state, reason, lasting=True, settled=True))
        self._changed.clear()

    def record_rows(self, name: str) -> None:
        """Note that the master has a line for the file, because rows were copied from it."""
        self._persisted.setdefault(name, _NOTHING)

    def persist(
        self, connection: Connection, names: Set[str] | None = None, notes_known: tuple[bytes | None, int] | None = None
    ) -> None:
        """Record in the master which shards need not be opened until they change, and which are quarantined.

        Args:
            connection: the master.
            names: the files that are there; the lines of others are deleted. None if that is not known.
            notes_known: which notes of removed shards the master knows; None if that is recorded already.
        """
        new = {name: _to_persist(self._entries[name]) for name in self._changed & self._entries.keys()}
        changed = {name: line for name, line in new.items() if self._persisted.get(name, _NOTHING) != line}
        removed = set() if names is None else self._persisted.keys() - names
        if changed or removed or notes_known:
            with sqlite.immediate(connection):
                if notes_known:
                    identity.set_notes_known(connection, notes_known)
                shard_states.save_states(connection, [(name, *line) for name, line in changed.items()], removed)
            self._persisted.update(changed)
            for name in removed:
                del self._persisted[name]
        self._changed.clear()


def _to_persist(entry: CacheEntry) -> tuple[State, str, bool]:
    return (entry.state if entry.is_at_rest else (), entry.reason, entry.is_denied)
