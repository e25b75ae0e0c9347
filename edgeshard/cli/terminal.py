"""What a terminal can show, and progress on it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO

#: Wide enough for everything: what reads a pipe wraps lines itself, or does not want them wrapped.
_NO_WIDTH = 1 << 20


def is_coloured(stream: TextIO) -> bool:
    """Whether to write colours: on a terminal that has them, unless https://no-color.org is asked for."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int:
    """How many characters a line may have."""
    import shutil  # 4 ms, which a merge need not wait for

    return shutil.get_terminal_size().columns if stream.isatty() else _NO_WIDTH


def height() -> int:
    """How many lines the terminal has."""
    import shutil

    return shutil.get_terminal_size().lines


def can_be_cleared(stream: TextIO) -> bool:
    """Whether to write over what was there: on a terminal that can."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_lines(stream: TextIO) -> bool:
    """Whether Unicode's box drawing characters can be written."""
    try:
        "╭".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


class Progress:
    """A line on the terminal, from the second second on; nothing where stderr is none.

    Args:
        what: what is counted, as the line says it: "rows merged".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._shown = False

    def __call__(self, done: int, to_do: int) -> None:
        """Show how far it is, once it has taken a second."""
        if time.monotonic() - self._began > 1.0:
            self._shown = True
            print(f"\r{done} of {to_do} {self._what}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            print(file=sys.stderr)


@contextlib.contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[Progress | None]:
    """The progress of a verb, where somebody watches; its line is left once the block is done."""
    shown = Progress(what) if sys.stderr.isatty() and not quiet else None
    yield shown
    if shown is not None:
        shown.end()
