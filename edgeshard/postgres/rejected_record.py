"""Keep the master's record of rejected rows: read it before a push, and add to it what the push finds.

The record is written after the rows that fit are committed in PostgreSQL. If a push is killed before that, the next one
tries the rejected rows again, and records them then.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import StorageError
from edgeshard.exchange.rejected_rows import summarise
from edgeshard.format import ranges
from edgeshard.format.ranges import Range, clip, intersect, subtract
from edgeshard.log_fields import fields
from edgeshard.master import database, rejected
from edgeshard.master.rejected import Listed, Reason, Rejection
from edgeshard.master.streams import Stream
from edgeshard.postgres.plan import RangesByStream
from edgeshard.postgres.reader import MasterReader
from edgeshard.reports import Rejected
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.push")

#: How often to write during a push, in seconds, and how many ranges to keep in memory at most.
_INTERVAL_S: Final = 5.0

_UNSAVED_MAX: Final = 50_000

#: How long to wait for a merger, in seconds.
_BUSY_TIMEOUT_S: Final = 5.0


@attrs.frozen
class Retry:
    """Which of the rejected rows to try again. Dismissed ones are not.

    Attributes:
        everything: all of them.
        kinds: those with a reason of one of these kinds, unless `fixed` names the column that caused it.
        fixed: columns, each with its table, whose characters are never changed.
        tables: those that could not be pushed because one of these tables did not fit.
    """

    everything: bool = False
    kinds: frozenset[str] = frozenset()
    fixed: frozenset[tuple[str, str]] = frozenset()
    tables: frozenset[str] = frozenset()

    def covers(self, reason: Reason) -> bool:
        """Return whether rows with this reason are tried again."""
        is_table = reason.kind == rejected.TABLE and reason.table in self.tables
        is_kind = reason.kind in self.kinds and (reason.table, reason.column) not in self.fixed
        return self.everything or is_kind or is_table


class RejectedRecord:
    """What a database rejected of a master's rows.

    Args:
        path: the master.
        read_only: never write, as for a dry run.

    Attributes:
        ranges: the rows that are not sent, by the id of their stream.
        dismissed: those of them that a user dismissed.
        tables: the tables that did not fit when rows of them were rejected.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.ranges: dict[bytes, list[Range]] = {}
        self.dismissed: dict[bytes, list[Range]] = {}
        self.tables: frozenset[str] = frozenset()
        self._path = path
        self._read_only = read_only
        self._database_id = b""
        self._streams: Mapping[int, Stream] = {}
        self._unsaved: list[Rejection] = []
        self._tried_at = 0.0

    def read(
        self,
        master: MasterReader,
        database_id: bytes,
        streams: Sequence[Stream],
        held: RangesByStream,
        choose: Callable[[frozenset[str]], Retry],
    ) -> None:
        """Read what is recorded, and forget what is to be tried again, what the database holds, and rows that are gone.

        Args:
            master: the master.
            database_id: the database.
            streams: the streams of the master.
            held: what the database holds.
            choose: returns which rows to try again, for the tables that did not fit.
        """
        if database_id != self._database_id:
            self._database_id, self._unsaved = database_id, []
        self.write()
        self._streams = {stream.stream_no: stream for stream in streams}
        reasons = master.rejection_reasons(database_id)
        tables = frozenset(reason.table for reason in reasons if reason.kind == rejected.TABLE)
        retried = choose(tables)
        found: dict[bytes, list[Range]] = {}
        dismissed: dict[bytes, list[Range]] = {}
        for item in master.rejected(database_id):
            if item.dismissed_at is not None:
                dismissed.setdefault(item.stream_id, []).append(item.rejection.seqs)
            elif retried.covers(item.rejection.reason):
                continue
            found.setdefault(item.stream_id, []).append(item.rejection.seqs)
        gone: dict[int, list[Range]] = {}
        for stream in streams:
            listed = found.get(stream.stream_id)
            if listed is not None:
                here = (Range(block.first, block.last) for block in stream.blocks)
                left = subtract(intersect(listed, here), held.get(stream.stream_id, ()))
                gone[stream.stream_no] = subtract(listed, left)
                found[stream.stream_id] = left
        self.ranges, self.dismissed = found, dismissed
        self.tables = frozenset() if retried.everything else tables - retried.tables
        covered = [reason for reason in reasons if retried.covers(reason)]
        if covered or any(gone.values()):
            self._change(lambda connection: self._forget(connection, covered, gone))

    def _forget(self, connection: Connection, covered: Sequence[Reason], gone: Mapping[int, Sequence[Range]]) -> None:
        if covered:
            rejected.forget_reasons(connection, self._database_id, covered)
        rejected.forget_ranges(connection, self._database_id, gone)

    def add(self, rejections: Iterable[Rejection]) -> None:
        """Leave rows out from now on."""
        added: dict[bytes, list[Range]] = {}
        for item in rejected.join(rejections):
            self._unsaved.append(item)
            added.setdefault(self._streams[item.stream_no].stream_id, []).append(item.seqs)
            if item.reason.kind == rejected.TABLE:
                self.tables |= {item.reason.table}
        for stream_id, seqs in added.items():
            ranges.add(self.ranges.setdefault(stream_id, []), seqs)

    def write_if_due(self) -> None:
        """Write what was added if that was not tried within the last seconds, or if it is much."""
        if time.monotonic() > self._tried_at + _INTERVAL_S or len(self._unsaved) > _UNSAVED_MAX:
            self.write()

    def write(self) -> None:
        """Write what was added. If that fails, log it: a push does not fail because of it."""
        if not self._unsaved:
            return
        unsaved = self._unsaved
        if self._change(lambda connection: rejected.record(connection, self._database_id, unsaved)):
            self._unsaved = []

    def _change(self, change: Callable[[Connection], None]) -> bool:
        if self._read_only:
            return False
        self._tried_at = time.monotonic()
        try:
            connection = database.open_master(self._path, writable=True)
            try:
                with sqlite.translate_errors("record rejected rows in", str(self._path)):
                    sqlite.set_busy_timeout(connection, _BUSY_TIMEOUT_S)
                    change(connection)
            finally:
                connection.close()
        except StorageError as error:
            logger.warning("%s; the next push tries these rows again", error, extra=fields(error=error))
            return False
        return True

    def report(self, master: MasterReader) -> tuple[Rejected, ...]:
        """Return why rows are rejected, also those that could not be written; without dismissed rows."""
        unsaved = (
            Listed(self._database_id, stream.agent_id, stream.stream_id, item)
            for item in self._unsaved
            if (stream := self._streams.get(item.stream_no)) is not None
        )
        listed = itertools.chain(filter(self._is_in_force, master.rejected(self._database_id)), unsaved)
        return tuple(item for item in summarise(listed) if not item.dismissed_at)

    def _is_in_force(self, item: Listed) -> bool:
        """Return whether rows are still left out: what could not be written is only known here."""
        return bool(clip(self.ranges.get(item.stream_id, ()), item.rejection.seqs))
