"""Find the name in a statement that SQLite does not know, and the known name that was probably meant.

SQLite says where a mistake is, but not of which kind, except in words that are not meant for programs. So a statement
is prepared again with another name in the place of the doubtful one: if SQLite then finds no mistake, or only one
further on, that name was the mistake. Nothing is run.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import apsw
import attrs

from edgeshard.sqlite import rows
from edgeshard.sqlite.rows import quote

#: What may hide a name, and names: plain, or quoted in one of SQLite's ways.
_TOKEN: Final = re.compile(
    r"""'(?:[^']|'')*'|--[^\n]*|/\*.*?(?:\*/|$)|(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|[^\W\d][\w$]*)""",
    re.DOTALL,
)

#: Names that are looked at in one statement.
_NAMES_MAX: Final = 50

#: How many known names are tried for an unknown one.
_TRIED_MAX: Final = 3


@attrs.frozen
class Misspelled:
    """A name that SQLite does not know.

    Attributes:
        name: the name.
        nearest: the known name that was probably meant, or "".
        is_column: whether it should be a column; otherwise it should be a table.
        columns: the columns of each table that the statement names, if it should be a column.
    """

    name: str
    nearest: str
    is_column: bool
    columns: Mapping[str, Sequence[str]] = attrs.Factory(dict)


@attrs.frozen
class _Name:
    """A name in a statement, and where it stands, in characters."""

    text: str
    first: int
    end: int


def find_misspelled(connection: apsw.Connection, sql: str, error: Exception) -> Misspelled | None:
    """Return the unknown name in a statement that SQLite refused, or None if its mistake is another one.

    Args:
        connection: where the statement was refused.
        sql: the statement.
        error: what SQLite said.
    """
    if not isinstance(error, apsw.SQLError):
        return None
    names = list(_names(sql))[:_NAMES_MAX]
    tables = {name.lower(): name for name in _tables(connection)}
    mentioned = dict.fromkeys(tables[each.text.lower()] for each in names if each.text.lower() in tables)
    columns = {table: _columns(connection, table) for table in mentioned}
    known = {column.lower(): column for of_table in columns.values() for column in of_table}
    began = _offset(sql, error)
    for name in names:
        if (began is None or began <= name.first) and name.text.lower() not in (known.keys() | tables.keys()):
            for candidates, is_column in ((known, True), (tables, False)):
                for nearest in difflib.get_close_matches(name.text.lower(), candidates, _TRIED_MAX):
                    if _is_better(connection, sql, name, quote(candidates[nearest]), began):
                        return Misspelled(name.text, candidates[nearest], is_column, columns if is_column else {})
    unknown = _chain(sql, names, began)
    if unknown is not None and columns and _is_better(connection, sql, unknown, "NULL", began):
        return Misspelled(unknown.text, "", is_column=True, columns=columns)
    return None


def _names(sql: str) -> Iterator[_Name]:
    for match in _TOKEN.finditer(sql):
        text = match["name"]
        if text:
            plain = text if text[0] not in '"`[' else text[1:-1]
            yield _Name(plain, match.start(), match.end())


def _chain(sql: str, names: Sequence[_Name], began: int | None) -> _Name | None:
    """Return the name that begins at a place, with those that follow it after dots; None for that of a function."""
    parts = [name for name in names if began is not None and name.first >= began]
    if not parts or parts[0].first != began:
        return None
    end = parts[0].end
    for name in parts[1:]:
        if sql[end : name.first].strip() != ".":
            break
        end = name.end
    return None if sql[end:].lstrip().startswith("(") else _Name(sql[parts[0].first : end], parts[0].first, end)


def _is_better(connection: apsw.Connection, sql: str, name: _Name, other: str, began: int | None) -> bool:
    """Return whether SQLite accepts a statement up to a name, or as a whole, with something else in its place."""
    changed = sql[: name.first] + other + sql[name.end :]
    cursor = connection.cursor()
    cursor.exec_trace = lambda *_: False  # it is prepared, and not run
    try:
        cursor.execute(changed)
    except (apsw.ExecTraceAbort, apsw.BindingsError):
        return True
    except apsw.SQLError as error:
        found = _offset(changed, error)
        return found is not None and (began is None or found > name.first + len(other))
    except apsw.Error:
        return False
    return False  # there is nothing to run


def _offset(sql: str, error: apsw.SQLError) -> int | None:
    """Return where in a statement a mistake is, in characters, or None if SQLite does not say."""
    offset: int = getattr(error, "error_offset", -1)  # in bytes of UTF-8
    return None if offset < 0 else len(sql.encode(errors="replace")[:offset].decode(errors="ignore"))


def _tables(connection: apsw.Connection) -> list[str]:
    """Return the names of all tables and views."""
    sql = "SELECT name FROM {}.sqlite_schema WHERE type IN ('table', 'view')"
    return [name for schema in connection.db_names() for (name,) in rows.fetch(connection, sql.format(quote(schema)))]


def _columns(connection: apsw.Connection, table: str) -> list[str]:
    found: list[str] = []

    def note(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        found.extend(column[0] for column in cursor.get_description())
        return False

    cursor = connection.cursor()
    cursor.exec_trace = note
    with contextlib.suppress(apsw.Error):  # a view of something that is gone
        cursor.execute(f"SELECT * FROM {quote(table)}")
    return found
