"""apsw's extras for the command line: describe SQL, draw tables, the SQL shell.

apsw.ext and apsw.shell are slow to import, so each is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw
import attrs

from edgeshard.errors import printable
from edgeshard.sqlite.causes import translate_errors
from edgeshard.sqlite.connection import open_in_memory
from edgeshard.sqlite.rows import Bindings, quote

#: What each column of a table takes at least: one character, and its frame.
_COLUMN_MIN: Final = 4

#: The name of a column is not made shorter than this.
_NAME_MIN: Final = 5

#: The longest value that is drawn, in characters, and what ends one that is cut.
_VALUE_MAX: Final = 4096
_VALUE_CUT: Final = " ..."

#: What stands for the middle of a text that is too long.
_CUT: Final = "..."


@attrs.frozen
class Statement:
    """The description of SQL that was not run.

    Attributes:
        columns: the names of its columns; none if it returns no rows.
        parameters: the name of each parameter, or None for a plain ``?``.
        is_one: whether it is exactly one statement.
    """

    columns: tuple[str, ...]
    parameters: tuple[str | None, ...]
    is_one: bool

    @property
    def has_names(self) -> bool:
        """Whether its parameters are bound by name (``:name``), not by position (``?``, ``?1``, or a mixture)."""
        return bool(self.parameters) and all(name and not name.isdigit() for name in self.parameters)


def describe(connection: apsw.Connection, sql: str) -> Statement:
    """Prepare SQL without running any of it."""
    info = _ext().query_info(connection, sql)
    rest = info.query_remaining
    is_one = info.has_vdbe and not (rest and _has_statement(connection, rest))
    return Statement(tuple(name for name, _ in info.description), tuple(info.bindings_names), is_one)


def _has_statement(connection: apsw.Connection, sql: str) -> bool:
    try:
        return bool(_ext().query_info(connection, sql).has_vdbe)
    except apsw.SQLError:
        return True  # a statement with a mistake


def draw_table(
    connection: apsw.Connection, sql: str, bindings: Bindings, *, colour: bool, width: int, unicode: bool
) -> str:
    """Return the rows of a query as text in lines of at most `width` characters, with printable characters only.

    They are drawn as a table, or one value per line if there are too many columns for one.
    """
    names = describe(connection, sql).columns
    if not fits_table(len(names), width):
        rows = connection.execute(sql, bindings)
        return draw_records(names, rows, colour=colour, width=width, unicode=unicode, null="(null)")
    table: str = _ext().format_query_table(
        connection,
        sql,
        bindings,
        colour=colour,
        text_width=width,
        use_unicode=unicode,
        binary=bytes.hex,
        string_sanitize=printable_lines,
        truncate=_VALUE_MAX,
        truncate_val=_VALUE_CUT,
    )
    return table


def fits_table(columns: int, width: int) -> bool:
    """Return whether a table of so many columns can be drawn in lines of `width` characters."""
    return _COLUMN_MIN * columns + 1 <= width


def draw_records(
    names: Sequence[str], rows: Iterable[Sequence[Any]], *, colour: bool, width: int, unicode: bool, null: str
) -> str:
    """Draw rows one value per line, as psql's expanded display does, in lines of at most `width` characters.

    Args:
        names: the names of the columns.
        rows: the values of each row, as SQLite returns them.
        colour: whether to add the colours of a terminal.
        width: how many characters a line may have.
        unicode: whether to draw with Unicode's box characters, or with ASCII.
        null: what stands for NULL.
    """
    dash, bar = ("─", " │ ") if unicode else ("-", " | ")
    shown = [shorten_text(printable(name), max(_NAME_MIN, width // 2 - len(bar))) for name in names]
    label = max(map(_unicode().text_width, shown), default=0)
    room = max(1, width - label - len(bar))
    lines = []
    for number, row in enumerate(rows, 1):
        lines.append(_bold(f"{dash}[ row {number} ]".ljust(min(width, label + len(bar) + 8), dash)[:width], colour))
        for name, value in zip(shown, row, strict=True):
            text = _text(value, null).split("\n")
            parts = [part for line in text for part in wrap_text(line, room) or [""]]
            padding = " " * (label - _unicode().text_width(name))
            lines.append((_bold(name, colour) + padding + bar + parts[0]).rstrip())
            lines += [(" " * label + bar + part).rstrip() for part in parts[1:]]
    return "".join(f"{line}\n" for line in lines or ["0 rows"])


def _text(value: object, null: str) -> str:
    text = null if value is None else value.hex() if isinstance(value, bytes) else str(value)
    text = printable_lines(text)
    return text if len(text) <= _VALUE_MAX else text[:_VALUE_MAX] + _VALUE_CUT


def _bold(text: str, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def printable_lines(text: str) -> str:
    """Return a text that controls no terminal, in the lines that it has."""
    return "\n".join(map(printable, text.split("\n")))


def draw_rows(
    names: Sequence[str], rows: Sequence[Sequence[str | int]], *, colour: bool, width: int, unicode: bool
) -> str:
    """Draw rows as a table in lines of text, of at most `width` characters.

    Args:
        names: the names of the columns.
        rows: a text or a whole number for each column.
        colour: whether to add the colours of a terminal.
        width: how many characters a line may have.
        unicode: whether to draw with Unicode's box characters, or with ASCII.

    Raises:
        StorageError: there is not enough memory.
    """
    columns = ", ".join(f"value ->> {n} AS {quote(name)}" for n, name in enumerate(names))
    with translate_errors("draw", "table"), contextlib.closing(open_in_memory("")) as connection:
        sql, bindings = f"SELECT {columns} FROM json_each(?)", (json.dumps(rows),)
        return draw_table(connection, sql, bindings, colour=colour, width=width, unicode=unicode)


def wrap_text(text: str, width: int) -> list[str]:
    """Return a line of text as lines of at most `width` columns of a terminal, broken between words if possible."""
    return [line.rstrip() for line in _unicode().text_wrap(text, width, hyphen="")]


def shorten_text(text: str, width: int) -> str:
    """Return a line of text, cut in the middle if it takes more than `width` columns of a terminal."""
    unicode = _unicode()
    if unicode.text_width(text) <= width:
        return text
    rest = max(0, width - len(_CUT))
    _, head = unicode.text_width_substr(text, rest - rest // 2)
    tail = ""
    for character in reversed(text):
        if unicode.text_width(character + tail) > rest // 2:
            break
        tail = character + tail
    return f"{head}{_CUT}{tail}"


def shell_class() -> Any:
    """Return apsw's SQL shell, to be subclassed."""
    import apsw.shell  # takes 100 ms, which no other command should wait for

    return apsw.shell.Shell


def _unicode() -> Any:
    import apsw.unicode  # takes 30 ms, which only people need to wait for

    return apsw.unicode


def _ext() -> Any:
    import apsw.ext  # takes 65 ms; opening a shard or merging needs nothing of it

    return apsw.ext
