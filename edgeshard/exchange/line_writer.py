"""Write the rows of NDJSON or CSV into a shard, in batches with one commit each, and say exactly what was committed."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from edgeshard.errors import (
    DiskFullError,
    RecordError,
    SchemaConflictError,
    StorageBusyError,
    TableError,
    TransactionError,
)
from edgeshard.exchange import text_rows
from edgeshard.exchange.text_rows import HeaderError, LineError, NumberedRow
from edgeshard.reports import BAD_LINES_MAX, BadLine, WriteReport
from edgeshard.shard.shard import Shard

#: A batch ends early once this much was read for it, in bytes: it is held in memory, and a merge never divides it.
BATCH_BYTES: Final = 64 << 20

#: The errors of a write after which certainly none of its rows is stored; see `Shard.write_many`.
_UNWRITTEN: Final = (
    RecordError,
    TableError,
    SchemaConflictError,
    DiskFullError,
    StorageBusyError,
    TransactionError,
)

#: What a read of `LineWriter` reads with: returns the next piece of a file, or b"" at its end.
Read = Callable[[], bytes]


class _StopError(Exception):
    """The write was asked to stop, and has committed what it had."""


class LineWriter:
    """Writes rows from lines of text into one shard. Use it with ``with``, which closes the shard.

    A batch is committed when it is full, when `flush` is called, and at the end of the input. The rows before a bad
    line are committed as well, so the report is exact, and a later write can go on from that line.

    Args:
        open_shard: opens the shard. It is called once there is something to write, or lines to wait for.
        agent: the shard's agent.
        table: the table of the rows; None for ``agent_data``.
        batch: how many rows are committed together, at least 1.
        on_bad_line: called for each bad line, which is left out. None: the first bad line ends the write.
        should_stop: called after each commit; once it returns True the write ends.
    """

    def __init__(
        self,
        open_shard: Callable[[], Shard],
        agent: str,
        table: str | None,
        batch: int,
        on_bad_line: Callable[[BadLine], None] | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self._open_shard = open_shard
        self._shard: Shard | None = None
        self._name = ""  # of the file
        self._agent, self._table, self._batch = agent, table, batch
        self._on_bad_line, self._should_stop = on_bad_line, should_stop
        self._began = time.monotonic()
        self._rows: list[dict[str, Any]] = []  # those of the open batch
        self._numbers: list[int] = []  # of their lines
        self._bytes = 0  # read since the last commit
        self._line = 0  # the last one that was read, and what it was at the last commit
        self._committed_line = 0
        self._ended = False
        self._committed = self._unknown = self._bad = 0
        self._bad_lines: list[BadLine] = []

    def __enter__(self) -> LineWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._shard is not None:
            self._shard.close()

    @property
    def report(self) -> WriteReport:
        """What was committed so far."""
        return WriteReport(
            agent=self._agent,
            rows=self._committed,
            unknown=self._unknown,
            bad=self._bad,
            bad_lines=tuple(self._bad_lines),
            last_line=self._committed_line,
            ended=self._ended,
            seconds=time.monotonic() - self._began,
        )

    def write_row(self, text: bytes) -> None:
        """Write the row that a JSON text is, which may have several lines.

        Raises:
            RecordError: it is not a JSON object, or cannot be stored exactly.
            As `Shard.write_many`.
        """
        try:
            row = text_rows.json_row(text)
        except LineError as error:
            raise RecordError("read JSON", "", str(error)) from error
        if row is None:
            raise RecordError("read JSON", "", "it is empty, and a row is an object")
        self._write([(1, row)], "")

    def write_ndjson(self, read: Read, name: str) -> None:
        """Write the rows of NDJSON; see `text_rows.ndjson_rows`.

        Args:
            read: returns the next piece of the file. It may call `flush`, also to notice a request to stop.
            name: the file's name, for errors.

        Raises:
            RecordError: a line is bad, and bad lines are not left out.
            As `Shard.write_many`.
        """
        self._write(text_rows.ndjson_rows(self._lines(read)), name)

    def write_csv(self, read: Read, name: str) -> None:
        """Write the rows of CSV; see `text_rows.csv_rows`.

        Args:
            read: see `write_ndjson`.
            name: the file's name, for errors.

        Raises:
            RecordError: the first line does not name the columns; or as `write_ndjson`.
            As `Shard.write_many`.
        """
        try:
            self._write(text_rows.csv_rows(self._lines(read)), name)
        except HeaderError as error:
            raise RecordError("read header of", name, str(error)) from error

    def flush(self) -> None:
        """Commit the rows read so far, and end the write if it shall stop."""
        self._commit()
        if self._should_stop():
            raise _StopError

    # -- the open batch -----------------------------------------------------------------------------------------------

    def _lines(self, read: Read) -> Iterable[bytes]:
        def counted() -> bytes:
            piece = read()
            self._bytes += len(piece)
            return piece

        return text_rows.split_lines(counted)

    def _write(self, rows: Iterable[NumberedRow], name: str) -> None:
        self._shard, self._name = self._open_shard(), name
        try:
            for number, row in rows:
                if isinstance(row, LineError):
                    if self._on_bad_line is None:
                        self._commit()
                    self._note_bad_line(BadLine(number, str(row)))
                else:
                    self._rows.append(row)
                    self._numbers.append(number)
                self._line = number
                if len(self._rows) >= self._batch or self._bytes >= BATCH_BYTES:
                    self.flush()
        except _StopError:
            return
        self._commit()
        self._ended = True

    def _commit(self) -> None:
        """Commit the rows of the open batch that are not bad; if a bad one ends the write, those before it."""
        bad_lines = self._write_batch(self._shard) if self._rows and self._shard is not None else []
        self._committed_line, self._bytes = self._line, 0
        self._rows, self._numbers = [], []
        for bad_line in bad_lines:
            self._note_bad_line(bad_line)

    def _write_batch(self, shard: Shard) -> list[BadLine]:
        bad_lines: list[BadLine] = []
        try:
            try:
                written = shard.write_many(self._rows, table=self._table)
            except RecordError:  # nothing is written
                written = self._write_good_rows(shard, bad_lines)
        except BaseException as error:
            self._unknown = 0 if isinstance(error, _UNWRITTEN) else len(self._rows)
            raise
        self._committed += written
        return bad_lines

    def _write_good_rows(self, shard: Shard, bad_lines: list[BadLine]) -> int:
        written, last_line = 0, self._committed_line
        with shard.transaction():
            for number, row in zip(self._numbers, self._rows, strict=True):
                try:
                    shard.write(row, table=self._table)
                    written += 1
                except RecordError as error:
                    bad_lines.append(BadLine(number, error.cause))
                    if self._on_bad_line is None:
                        self._line = last_line
                        break
                last_line = number
        return written

    def _note_bad_line(self, bad_line: BadLine) -> None:
        """Report a bad line, or end the write.

        Raises:
            RecordError: bad lines are not left out.
        """
        self._bad += 1
        # a row that the shard refuses is known with its batch, after the lines behind it were read
        bisect.insort(self._bad_lines, bad_line, key=lambda line: line.number)
        del self._bad_lines[BAD_LINES_MAX:]
        if self._on_bad_line is not None:
            self._on_bad_line(bad_line)
        elif self._name:
            raise RecordError(f"read line {bad_line.number} of", self._name, bad_line.cause)
        else:
            raise RecordError("read JSON", "", bad_line.cause)
