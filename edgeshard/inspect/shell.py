"""The SQL shell on the master: apsw's, with commands that list its record tables and the store's shards."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from edgeshard import sqlite
from edgeshard.errors import printable
from edgeshard.inspect import shard_names, tables
from edgeshard.master import database
from edgeshard.records import queries
from edgeshard.reports import TableInfo
from edgeshard.sqlite import Connection

#: What sets the colour of a terminal's text, and nothing else.
_COLOUR: Final = re.compile("(\x1b\\[[0-9;]*m)")

#: All but the ends of lines and tabs.
_LINES: Final = re.compile("[^\n\t]+")

_TABLES = """
select value ->> 0 as name, value ->> 1 as rows, value ->> 2 as agents, value ->> 3 as first_arrival,
value ->> 4 as last_arrival, value ->> 5 as bytes, value ->> 6 as columns from json_each(?)
"""

_SHARDS = """
select value ->> 0 as name, value ->> 1 as agent, value ->> 2 as bytes, value ->> 3 as reason from json_each(?)
"""


@contextlib.contextmanager
def shell(path: Path, folder: Path) -> Iterator[Any]:
    """Open a shell on a master, which it only reads; see `Store.shell`.

    Args:
        path: the master.
        folder: the folder of the shards.
    """
    connection = database.open_to_read(path)
    try:
        with sqlite.translate_errors("open shell on", str(path)):
            made = _make(connection, folder)
        yield made
    finally:
        connection.close()


class _RecordsIfWide:
    """Draw a result as records if it has too many columns for a table, which apsw's shell refuses."""

    def output_box(self: Any, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Outputs using line drawing and auto sizing columns, or one value per line if these do not fit"""
        options = self.box_options
        width = options["text_width"] if options["text_width"] > 0 else self._terminal_width(32)
        if sqlite.fits_table(len(names), width):
            super().output_box(names, rows)  # type: ignore[misc]
            return
        colour = self.colour != self._colours["off"]
        null, unicode = options["null"], options["use_unicode"]
        drawn = sqlite.draw_records(names, rows, colour=colour, width=width, unicode=unicode, null=null)
        self.write(self.stdout, drawn)

    output_box.all_at_once = True  # type: ignore[attr-defined]  # so that it gets all rows


def _make(connection: Connection, folder: Path) -> Any:
    base: Any = sqlite.shell_class()

    class StoreShell(_RecordsIfWide, base):  # type: ignore[misc]  # its class is loaded only now
        """apsw's shell, with commands for stores.

        Attributes:
            failures: how many statements or commands failed.
        """

        failures = 0
        _sql = ""

        def process_sql(self, sql: str, *arguments: Any, **options: Any) -> None:
            self._sql = sql
            super().process_sql(sql, *arguments, **options)

        def handle_exception(self) -> None:
            error = sys.exception()
            if isinstance(error, BrokenPipeError):
                raise error  # the shell calls this while it handles one
            self.failures += 1
            super().handle_exception()
            if isinstance(error, Exception):
                hint = queries.explain_name(sqlite.find_misspelled(connection, self._sql, error))
                self.write_error(f"{hint.strip()}\n" if hint else "")

        def get_line(self, prompt: str = "") -> str | None:
            line: str | None = super().get_line(prompt)
            # the end of a pipe ends the statement, like that of an argument
            return ";" if line is None and prompt == self.moreprompt and not self.interactive else line

        def command_tables(self, cmd: list[str]) -> None:
            """tables ?PATTERN?: Lists the record tables

            Each with its rows, agents, first and last arrival, bytes and columns. With a LIKE pattern, lists the names
            of all tables and views that match it, such as _edgeshard_% or %_with_agent.
            """  # noqa: D403  apsw shows it as the help of ".tables"
            if cmd:
                super().command_tables(cmd)
                return
            with sqlite.read_snapshot(connection):
                found = tables.describe(connection, internal=False).tables
            self.process_sql(_TABLES, (json.dumps([_table_row(table) for table in found]),), internal=True)

        def command_shards(self, cmd: list[str]) -> None:
            """shards: Lists the store's shards

            Each file with its agent, its size with its WAL, and why it is quarantined. Shards are not opened, so the
            agent of one that was never merged may be unknown.
            """
            if cmd:
                raise self.Error("Unexpected arguments")
            found = shard_names.listing(connection, folder)
            rows = [[printable(value) if isinstance(value, str) else value for value in row] for row in found]
            self.process_sql(_SHARDS, (json.dumps(rows),), internal=True)

    # what goes to a file or another program stays as it is
    out = _Terminal(sys.stdout) if sys.stdout.isatty() else sys.stdout
    return StoreShell(db=connection, stdout=out, stderr=_Terminal(sys.stderr))


def _table_row(table: TableInfo) -> list[str | int | None]:
    columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
    times = (None if at is None else at.strftime("%Y-%m-%d %H:%M") for at in (table.first_at, table.last_at))
    return [printable(table.name), table.rows, table.agents, *times, table.size_bytes, printable(columns)]


class _Terminal:
    """A stream of lines with printable characters, tabs, and colours if it is a terminal.

    Tables, their SQL and what SQLite says about them may come from anybody.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_coloured = stream.isatty()

    def write(self, text: str) -> int:
        parts = _COLOUR.split(text.replace("\r\n", "\n")) if self._is_coloured else [text]
        for number, part in enumerate(parts):
            self._stream.write(part if number % 2 else _LINES.sub(_escape, part))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _escape(match: re.Match[str]) -> str:
    return printable(match[0])
