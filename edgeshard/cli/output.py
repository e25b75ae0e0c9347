"""What the verbs write: reports, tables and progress, and what a terminal can show."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

from edgeshard.errors import printable
from edgeshard.reports import Report
from edgeshard.store import draw_rows

#: Wide enough for any line. A program that reads a pipe wraps lines itself, or does not want them wrapped.
_UNLIMITED = 1 << 20

# -- reports ----------------------------------------------------------------------------------------------------------


def print_report(report: Report, text: str, *, as_json: bool, quiet: bool = False) -> None:
    """Print a report as one JSON object, or as `text`, which is printable; if quiet, print no text."""
    if as_json:
        print(to_json(report.as_dict()))
    elif not quiet:
        print(text)


# -- terminals --------------------------------------------------------------------------------------------------------


def is_coloured(stream: TextIO) -> bool:
    """Return whether to write colours: on a terminal that has them, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int:
    """Return how many characters a line may have."""
    import shutil  # 4 ms, which a merge need not wait for

    return shutil.get_terminal_size().columns if stream.isatty() else _UNLIMITED


def height() -> int:
    """Return how many lines the terminal has."""
    import shutil

    return shutil.get_terminal_size().lines


def can_be_cleared(stream: TextIO) -> bool:
    """Return whether the stream is a terminal whose screen can be cleared."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_box_characters(stream: TextIO) -> bool:
    """Return whether Unicode's box drawing characters can be written."""
    try:
        "╭".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


# -- tables and text --------------------------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    """Draw rows as a table for stdout, as wide as that is."""
    out = sys.stdout
    return draw_rows(columns, rows, colour=is_coloured(out), width=width(out), unicode=has_box_characters(out))


def to_json(value: object) -> str:
    """Return a value as JSON in one line, with printable characters only."""
    return json.dumps(value).replace("\x7f", "\\u007f")  # the only one that json.dumps leaves as it is


def print_error(text: str) -> None:
    """Print a line to stderr."""
    print(printable(text), file=sys.stderr)


# -- progress ---------------------------------------------------------------------------------------------------------


class Progress:
    """A line on the terminal that counts; it appears only after one second.

    Args:
        what: what is counted, as the line says it: "rows merged".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, done: int, to_do: int) -> None:
        """Show the progress."""
        if time.monotonic() - self._began > 1.0:
            self._shown = True
            print(f"\r{done} of {to_do} {self._what}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the line."""
        if self._shown:
            print(file=sys.stderr)


@contextlib.contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Yield the progress of a verb, or None if stderr is not a terminal; end its line after the block."""
    shown = Progress(what) if sys.stderr.isatty() and not quiet else None
    yield shown
    if shown is not None:
        shown.end()
