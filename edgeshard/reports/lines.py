"""What was written from lines of text."""

from __future__ import annotations

import attrs

from edgeshard import units
from edgeshard.reports.base import Report

#: The most bad lines that a report lists. There may be any number.
BAD_LINES_MAX = 10


@attrs.frozen(repr=False)
class BadLine(Report):
    """A line of NDJSON or CSV that is not a row, or whose row cannot be stored exactly.

    Attributes:
        number: the number of the line, from 1.
        cause: why, with the field if one is at fault, and what to write instead.
    """

    number: int
    cause: str

    def _line(self) -> str:
        return f"line {self.number}: {self.cause}"


@attrs.frozen(repr=False)
class WriteReport(Report):
    """What was written of one row, or of the lines of a file.

    Attributes:
        agent: whose shard the rows are in.
        rows: rows committed.
        bad: bad lines, also the one that ended the write.
        bad_lines: the first `BAD_LINES_MAX` of them.
        last_line: the last line whose row is committed, or that is bad and was left out; 0 if there is none.
        ended: whether all lines were read. If not, go on with the lines behind `last_line`.
        unknown: rows behind `last_line` whose commit failed, so that it is unknown whether they are in the shard:
            either all of them are, or none.
        seconds: how long it took.
    """

    _computed = ("complete",)

    agent: str
    rows: int = 0
    bad: int = 0
    bad_lines: tuple[BadLine, ...] = ()
    last_line: int = 0
    ended: bool = True
    unknown: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the row of every line is committed."""
        return self.ended and not self.bad

    def _line(self) -> str:
        rows, unknown = units.count(self.rows, "row"), units.count(self.unknown, "row")
        line = f"{rows} committed to the shard of agent {self.agent!r} in {self.seconds:.3f} s"
        if self.ended and self.bad:
            line += f"; left out {units.count(self.bad, 'bad line')}"
        if not self.ended:
            line += f"; ended after line {self.last_line:,}" if self.last_line else "; ended before the first line"
        if self.unknown:
            line += f"; whether the next {unknown} are committed is unknown: all of them, or none"
        return line
