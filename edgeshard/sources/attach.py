"""Attach the sources of one merge read-only, and record what became of each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import (
    AccessError,
    DamagedError,
    EdgeshardError,
    FormatError,
    OutOfDescriptorsError,
    StorageBusyError,
)
from edgeshard.files import fingerprint, os_errors, paths, scan
from edgeshard.files.fingerprint import State
from edgeshard.files.scan import ShardFile
from edgeshard.format import blocks
from edgeshard.format.ranges import Range
from edgeshard.sources import checksum, identity, readonly_copy
from edgeshard.sources.source import Blocked, Source, SourceTable
from edgeshard.sqlite import Connection

#: How many sources are attached at once. SQLite's limit is 125 here.
GROUP_SIZE = 100

#: Descriptors that an attached source takes (its file, its WAL and its shared memory), ...
_DESCRIPTORS = 3

#: ... and that stay free: for a read-only copy, a truncation, a check, and temporary files of SQLite's.
_SPARE_DESCRIPTORS = 10

#: How long a merge waits for a source that another process holds locked, in seconds. Then it goes on without it.
SOURCE_BUSY_TIMEOUT_S = 0.25


@attrs.frozen
class Quarantine:
    """Why a merge refuses a source.

    Attributes:
        reason: the reason, and what to do.
        is_lasting: whether the reason holds until the file changes, so that it need not be read again before.
        is_masters: whether it is the master that lacks rows.
        is_denied: whether the reason is only that this process has no permission, which says nothing of the source.
    """

    reason: str
    is_lasting: bool = False
    is_masters: bool = False
    is_denied: bool = False


@attrs.define
class CopyProgress:
    """How much of a source the master has.

    Attributes:
        rows: how many of its rows were copied.
        rows_in_source: how many rows were in it when it was last read, truncated ones excepted.
        used_bytes: the size of its pages that are not free.
        durable: for each stream, by its id, the seq up to which a shard may be truncated after the next commit.
        checked: for each stream, by its id, the seqs that are proven; see `merge.apply.OwnShard`.
        unproven: for each stream that has some, by its id, the seqs that can neither be proven nor copied.
        blocked: the rows that do not fit the master's tables, and so are not copied.
        seen: for each stream of a shard, by its id, the last seq that it had when it was read to its end.
        is_finished: whether the master has all of it, except for blocked rows.
    """

    rows: int = 0
    rows_in_source: int = 0
    used_bytes: int = 0
    durable: dict[bytes, int] = attrs.Factory(dict)
    checked: Mapping[bytes, list[Range]] = attrs.Factory(dict)
    unproven: Mapping[bytes, list[Range]] = attrs.Factory(dict)
    blocked: Blocked = attrs.Factory(dict)
    seen: Mapping[bytes, int] = attrs.Factory(dict)
    is_finished: bool = False


@attrs.define
class ShardOutcome:
    """What a merge did with a shard after it had copied its rows.

    Attributes:
        is_removable: whether the shard may be removed once the transaction in which it was read is committed.
        is_removed: whether it was removed.
        has_merged_rows: whether rows that the master holds are still in it.
        state: the state of its file in which it has nothing new; () if the next merge must read it again.
        last_seqs: if it is removable, (id, agent, highest seq) of each stream that has or had rows.
    """

    is_removable: bool = False
    is_removed: bool = False
    has_merged_rows: bool = False
    state: State = ()
    last_seqs: Sequence[tuple[bytes, str, int]] = ()


@attrs.define
class SourceRun:
    """One source of a merge, and how far the merge has come with it.

    Attributes:
        file: the file, as it was before it was opened.
        own: whether it is one of the store's own shards, which is truncated once the master holds its rows.
        copied: how much of it the master has.
        outcome: what the merge did with the shard after that.
        quarantine: why it is refused; None if it is not.
        schema: the name by which it is or was attached; "" before that.
        is_attached: whether it is attached now.
        attached_file: device and inode of the file that is or was attached; None before that.
        had_no_wal: whether it had no WAL before it was attached, so that reading it leaves an empty one.
        is_checksum_verified: whether it is a bundle whose checksum was found to be right.
    """

    file: ShardFile
    own: bool
    copied: CopyProgress = attrs.Factory(CopyProgress)
    outcome: ShardOutcome = attrs.Factory(ShardOutcome)
    quarantine: Quarantine | None = attrs.field()
    schema: str = ""
    is_attached: bool = False
    attached_file: tuple[int, int] | None = None
    had_no_wal: bool = False
    is_checksum_verified: bool = False
    _source: Source | None = attrs.field(default=None, init=False)

    @quarantine.default
    def _from_file(self) -> Quarantine | None:
        return Quarantine(self.file.defect) if self.file.defect else None

    @property
    def source(self) -> Source:
        """Its tables and streams, as last read by `open`."""
        if self._source is None:
            raise AssertionError(f"{self.file.path} was not read")
        return self._source

    @property
    def tables(self) -> tuple[SourceTable, ...]:
        """Its tables, as last read by `open`; () if it was not read."""
        return () if self._source is None else self._source.tables

    def open(self, connection: Connection) -> Source:
        """Read what it is, and refuse a bundle whose checksum is wrong.

        Raises:
            DamagedError, FormatError: it is not one of ours, or its bytes changed.
        """
        source = identity.open_source(connection, self.schema, self.file.path)
        if source.role == format.BUNDLE and not self.is_checksum_verified:
            checksum.verify(connection, self.schema, self.file.path)
            self.is_checksum_verified = True
        self._source = source
        return source

    def quarantine_for(self, error: Exception) -> None:
        """Quarantine the source for an error. Damage is believed until the file changes.

        Raises:
            OutOfDescriptorsError: this process may open no further file, which is not the source's fault.
        """
        ours = error if isinstance(error, EdgeshardError) else sqlite.explain(error, "read database", self.file.path)
        if isinstance(ours, OutOfDescriptorsError):
            raise ours
        is_lasting = isinstance(error, (DamagedError, FormatError)) or sqlite.is_damage(error)
        self.quarantine = Quarantine(ours.cause, is_lasting, is_denied=isinstance(ours, AccessError))

    def was_removed(self) -> bool:
        """Return whether a merger has removed the shard since it was found."""
        return self.own and not self.file.defect and scan.find_database(self.file.path) is None

    def ensure_in_place(self) -> None:
        """Refuse a shard that was replaced after its file was found: it might be read with its replacement's WAL.

        Raises:
            StorageBusyError: it was replaced.
        """
        if (error := self.replacement()) is not None:
            raise error

    def replacement(self) -> StorageBusyError | None:
        """Return the error for a shard that was replaced after its file was found; None if it was not."""
        if not self.own or not self.file.state:
            return None
        found = fingerprint.identity(self.file.path)
        if found is None or found != self.attached_file or found[1] != self.file.state[0]:
            cause = "it was replaced a moment ago; the next merge reads it"
            return StorageBusyError("read database", self.file.path, cause)
        return None


def named_source(path: str | os.PathLike[str]) -> SourceRun:
    """Return the run of a source that the caller names, such as a master, a bundle, or a copy of a shard."""
    real = os.path.realpath(path)  # the name may well be a link
    if os.path.isdir(real):
        cause = f"it is a folder; name the databases in it, such as {paths.master(Path(real))}"
        return SourceRun(ShardFile(real, (), cause), own=False)
    return SourceRun(scan.find_database(real) or ShardFile(real, (), "there is no such file"), own=False)


def named_sources(paths: Iterable[str | os.PathLike[str]]) -> list[SourceRun]:
    """Return the runs of the sources that the caller names, each file once: what it has is counted once."""
    runs = map(named_source, paths)
    return list({run.file.path: run for run in runs}.values())


def groups(runs: list[SourceRun], max_size: Callable[[], int | None] = lambda: None) -> Iterator[list[SourceRun]]:
    """Yield the runs in groups whose sources are attached together; when asked for one, none is to be attached.

    Shards are truncated once their whole group is copied, and a truncation has to keep what their agents wrote in the
    meantime. So that this is little, a group ends once its shards are as large as what one transaction copies.

    Args:
        runs: the sources.
        max_size: called for each group; returns how many may be attached at once, or None for as many as possible.
    """
    left = runs
    while left:
        free = os_errors.free_descriptors()
        fitting = GROUP_SIZE if free is None else (free - _SPARE_DESCRIPTORS) // _DESCRIPTORS
        size = max(1, min(_fitting_into_chunk(left), fitting, max_size() or GROUP_SIZE))
        yield left[:size]
        left = left[size:]


def _fitting_into_chunk(runs: list[SourceRun]) -> int:
    """Return how many of the runs, from the first on, one transaction copies, going by the size of the files."""
    total = 0
    for count, run in enumerate(runs[:GROUP_SIZE]):
        total += run.file.file_bytes + run.file.wal_bytes
        if total > blocks.CHUNK_BYTES:
            return count
    return GROUP_SIZE


@contextlib.contextmanager
def attached(connection: Connection, runs: list[SourceRun]) -> Iterator[list[SourceRun]]:
    """Attach the sources read-only for the block, and yield those that can be attached; quarantine the others.

    The block may detach some of them earlier; see `detach`.
    """
    with contextlib.ExitStack() as copies:
        sqlite.set_busy_timeout(connection, SOURCE_BUSY_TIMEOUT_S)
        try:
            for number, run in enumerate(runs):
                run.schema = f"source{number}"
                run.had_no_wal = not os.path.exists(paths.wal(run.file.path))
                try:
                    run.attached_file = fingerprint.identity(run.file.path)
                    _attach(connection, run, copies)
                    run.is_attached = True
                    if not run.own:
                        # a bundle's checksum is verified before the master is locked: on a slow medium, reading all of
                        # its bytes takes long
                        with sqlite.read_snapshot(connection):
                            run.open(connection)
                except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
                    run.quarantine_for(run.replacement() or error)
            yield [run for run in runs if not run.quarantine]
        finally:
            for run in runs:
                detach(connection, run)
            sqlite.set_busy_timeout(connection, sqlite.BUSY_TIMEOUT_S)


def detach(connection: Connection, run: SourceRun) -> None:
    """Detach a source, if it is attached."""
    if run.is_attached:
        sqlite.detach(connection, run.schema)
        run.is_attached = False


def _attach(connection: Connection, run: SourceRun, copies: contextlib.ExitStack) -> None:
    """Attach a source, or a copy of it if it can only be read so."""
    path = run.file.path
    try:
        sqlite.attach(connection, path, run.schema)
    except sqlite.DATA_ERRORS as error:
        if run.own or not readonly_copy.is_needed(error, path):
            raise
        folder = os.path.dirname(connection.filename)  # the master's; "" if a dry run has no master
        sqlite.attach(connection, copies.enter_context(readonly_copy.copied(path, folder)), run.schema)


def remove_empty_wals(runs: list[SourceRun]) -> None:
    """Remove the empty WALs that our reading left, except those of quarantined sources, which stay as they are."""
    for run in runs:
        if run.had_no_wal and not run.quarantine and not run.outcome.is_removed:
            sqlite.remove_empty_wal(run.file.path)
