"""apsw's extras for the command line: describe SQL, draw tables, the SQL shell.

apsw.ext and apsw.shell are slow to import, so each is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, Final

import apsw
import attrs

from edgeshard.errors import printable
from edgeshard.sqlite.causes import translate_errors
from edgeshard.sqlite.connection import open_in_memory
from edgeshard.sqlite.rows import Bindings, quote

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
    """Return the rows of a query as a text table at most `width` characters wide, with printable characters only."""
    table: str = _ext().format_query_table(
        connection,
        sql,
        bindings,
        colour=colour,
        text_width=width,
        use_unicode=unicode,
        binary=bytes.hex,
        string_sanitize=printable_lines,
    )
    return table


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
