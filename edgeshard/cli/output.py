"""What the verbs write: reports, tables and progress, and what a terminal can show."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from edgeshard import store
from edgeshard.errors import printable

if TYPE_CHECKING:
    from edgeshard.reports import Level, Report

#: Wide enough for any line. A program that reads a pipe wraps lines itself, or does not want them wrapped.
_UNLIMITED = 1 << 20

#: The longest line of what is wrapped, in characters: longer ones are hard to read.
_DEFINITION_MAX = 100

#: A word of a command, with what is quoted in it.
_SHELL_WORD = re.compile(r"""(?:\$'(?:\\.|[^'\\])*'|'[^']*'|"[^"]*"|\S)+""")

#: The narrowest line that is still readable.
_COLUMNS_MIN = 40


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
    """Return how many characters a line of data may have: in a pipe, as many as it needs."""
    import shutil  # 4 ms, which a merge need not wait for

    return min(shutil.get_terminal_size().columns, _UNLIMITED) if stream.isatty() else _UNLIMITED


def columns() -> int:
    """Return how many characters a line for people may have, also in a pipe: COLUMNS, the terminal's width, or 80."""
    import shutil

    return max(_COLUMNS_MIN, shutil.get_terminal_size().columns)


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


def table(names: Sequence[str], rows: Sequence[Sequence[str | int]], max_width: int | None = None) -> str:
    """Draw rows as a table for stdout, as wide as that is, or of at most `max_width` characters."""
    out = sys.stdout
    limit = width(out) if max_width is None else max_width
    return store.draw_rows(names, rows, colour=is_coloured(out), width=limit, unicode=has_box_characters(out))


def room_for_names(widths: Collection[int], max_width: int) -> int:
    """Return how wide the first column of a table may be, if the others have these widths."""
    return max_width - sum(widths) - len(" │ ") * (len(widths) + 1) - 1


def aligned(title: str, texts: Sequence[str]) -> list[str]:
    """Return the cells of a column so that they are drawn at its right edge."""
    longest = max(map(len, (title, *texts)))
    return [text.rjust(longest) for text in texts]


def text(value: object) -> str:
    """Return a text as one printable line, as stdout will show it: what its encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "ascii"
    return printable(value).encode(encoding, errors="backslashreplace").decode(encoding)


def paragraph(line: str, max_width: int, indent: str = "", first: str | None = None) -> list[str]:
    """Break a text into lines of at most `max_width` characters.

    Args:
        line: the text.
        max_width: how many characters each line may have, with its indentation.
        indent: what each line begins with.
        first: what the first line begins with instead, if it differs.
    """
    lines = store.wrap_text(text(line), max_width - len(indent)) or [""]
    return [(indent if number or first is None else first) + each for number, each in enumerate(lines)]


def command_lines(command: str, max_width: int, indent: str) -> list[str]:
    """Break a command into lines that a shell takes for one, of at most `max_width` characters if its words allow."""
    lines, line = [], indent
    for word in _SHELL_WORD.findall(text(command)):
        if line.strip() and len(line) + len(word) + len(" \\") > max_width:
            lines.append(f"{line.rstrip()} \\")
            line = indent + "  "
        line += word + " "
    return [*lines, line.rstrip()]


_COLOURS = {"green": "\x1b[1;32m", "yellow": "\x1b[1;33m", "red": "\x1b[1;31m"}


def coloured(word: str, level: Level) -> str:
    """Return a text in the colour of a verdict, if stdout has colours."""
    return f"{_COLOURS[level]}{word}\x1b[0m" if is_coloured(sys.stdout) else word


def definitions(texts: Mapping[str, str], word_width: int = 0) -> list[str]:
    """Return lines that say for each word what it means, and fit the terminal.

    Args:
        texts: the words and their meanings.
        word_width: the width of the longest word, if it is not among these.
    """
    indent = max([word_width, *map(len, texts)]) + 4
    max_width = min(columns(), _DEFINITION_MAX)
    lines = []
    for word, meaning in texts.items():
        lines += paragraph(meaning, max_width, " " * indent, f"  {word}".ljust(indent))
    return lines


def to_json(value: object) -> str:
    """Return a value as JSON in one line, with printable characters only."""
    return json.dumps(value).replace("\x7f", "\\u007f")  # the only one that json.dumps leaves as it is


def drop() -> None:
    """Discard what is still buffered for stdout: Python would try to write it again as it exits, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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
            print(f"\r{done:,} of {to_do:,} {self._what}", end="", file=sys.stderr, flush=True)

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
