"""Find the agent, streams, truncations and tables of a damaged shard, for salvage.

Every page is read on its own (see `pages`), so it is unknown which table a row comes from. A row is recognised by
its form: only the rows of one of edgeshard's own tables have it.
"""

from __future__ import annotations

import re

import attrs

from edgeshard import format
from edgeshard.errors import FormatError
from edgeshard.inspect.pages import Cell, Pages, Value
from edgeshard.master import extents
from edgeshard.records import declare, keys
from edgeshard.records.names import is_reserved

_ACTION = "salvage"

_NAME = "[A-Za-z][A-Za-z0-9_]{0,99}"

_TYPES = "INTEGER|REAL|TEXT|BLOB"

_COLUMN_NAME = f"{_NAME}|{format.TIMESTAMP}"

_COLUMN = re.compile(rf'"?({_COLUMN_NAME})"?\s+({_TYPES})', re.IGNORECASE)

_TABLE = re.compile(
    rf'CREATE\s+TABLE\s+"?{_NAME}"?\s*\(\s*_id\s+INTEGER\s+PRIMARY\s+KEY'
    rf'((?:\s*,\s*"?(?:{_COLUMN_NAME})"?\s+(?:{_TYPES}))+)\s*\)'
    r"(?:\s*STRICT)?\s*",
    re.IGNORECASE,
)

#: A row's id alone takes five bytes on its page, and the row's pointer and lengths four.
_ROW_BYTES_MIN = 9

#: Length of a stream's id, and of a database's.
_ID_BYTES = 16


@attrs.define
class Stream:
    """A stream of the shard.

    Attributes:
        stream_id: its 16 random bytes.
        agent: its agent.
        began_at: when it began, as it is stored.
        truncated: the (first, last) seqs that were truncated, with the id of the database that holds them.
    """

    stream_id: bytes
    agent: str
    began_at: str
    truncated: dict[tuple[int, int], bytes] = attrs.Factory(dict)

    @property
    def last_truncated(self) -> int:
        """The highest seq that was truncated, or 0."""
        return max((last for _, last in self.truncated), default=0)


@attrs.frozen
class Table:
    """A record table: the name and type of each column, in the order in which they are stored."""

    name: str
    columns: tuple[tuple[str, str], ...]


@attrs.define
class Survey:
    """The agent, streams, truncations and tables of a shard, as far as they can be read.

    Attributes:
        agent: its agent, or "".
        streams: its streams, by number.
        tables: its record tables, by name.
        table_of_page: the table whose tree leads to a page, or "" if several do.
        keys: columns, conflict rule and history flag of each keyed table, as they are stored.
        rows_max: how many rows a file of this size can have at most.
        renames: (table, old name, new name) of columns.
        priorities: the priority of each table that has one, by its name in lower case.
    """

    agent: str = ""
    streams: dict[int, Stream] = attrs.Factory(dict)
    tables: dict[str, Table] = attrs.Factory(dict)
    table_of_page: dict[int, str] = attrs.Factory(dict)
    keys: dict[str, tuple[str, str, int]] = attrs.Factory(dict)
    rows_max: int = 0
    renames: set[tuple[str, str, str]] = attrs.Factory(set)
    priorities: dict[str, int] = attrs.Factory(dict)


@attrs.define
class _Notes:
    """The content of the shard's own tables, before its parts are checked against one another."""

    texts: dict[str, tuple[int, str]] = attrs.Factory(dict)
    types: dict[tuple[str, str], str] = attrs.Factory(dict)
    truncations: list[tuple[int, int, int, bytes]] = attrs.Factory(list)


def survey(pages: Pages, path: str) -> Survey:
    """Read the agent, streams, truncations and tables of the shard.

    Args:
        pages: its pages.
        path: its path, for errors.

    Raises:
        FormatError: it is not a shard, but a master or a bundle.
    """
    found, notes = Survey(rows_max=pages.count * pages.page_bytes // _ROW_BYTES_MIN), _Notes()
    for number in range(1, pages.count + 1):
        for cell in pages.cells(number):
            if cell.row_id is None:
                _read_entry(found, notes, cell.values)
            else:
                _read_row(found, notes, cell, path)
    found.agent = found.agent or next((stream.agent for stream in found.streams.values()), "")
    found.streams = {no: stream for no, stream in found.streams.items() if stream.agent == found.agent}
    for no, first, last, database_id in notes.truncations:
        if no in found.streams and 1 <= first <= last <= format.SEQ_MAX and len(database_id) == _ID_BYTES:
            found.streams[no].truncated[first, last] = database_id
    _learn_tables(pages, found, notes)
    return found


def _read_row(found: Survey, notes: _Notes, cell: Cell, path: str) -> None:
    """Note a row of one of edgeshard's own tables with row ids."""
    match cell:
        case Cell(_, ("table", str(name), str(), int(root), str(text))):
            notes.texts[name] = (root, text)
        case Cell(_, (bytes(), format.MASTER, _, int(), int(), *_)):
            raise FormatError(_ACTION, path, "it is a master; restore a snapshot, or merge its sources again")
        case Cell(_, (bytes(), format.BUNDLE, _, int(), int(), *_)):
            raise FormatError(_ACTION, path, "it is a bundle; carry it here again, or export it again")
        case Cell(_, (bytes(), format.SHARD, str(agent), int(), int(), *_)):
            found.agent = agent
        case Cell(int(), (str(table), str(old), str(new))) if re.fullmatch(rf"{_NAME},{_NAME}", f"{old},{new}"):
            found.renames.add((table, old, new))
        case Cell(int(no), (None, str(agent), bytes(stream_id), str(began_at), int())):
            if len(stream_id) == _ID_BYTES and 1 <= no <= format.STREAM_NO_MAX:
                found.streams[no] = Stream(stream_id, agent, began_at)


def _read_entry(found: Survey, notes: _Notes, values: tuple[Value, ...]) -> None:
    """Note a row of _edgeshard_columns, _edgeshard_truncations, _edgeshard_keys or _edgeshard_priorities."""
    match values:
        case (str(table), str(columns), str(rule), int(has_history), int()) if keys.is_rule(rule):
            found.keys[table] = (columns, rule, has_history)
        case (str(table), int(priority)) if 0 < priority <= format.PRIORITY_MAX:
            found.priorities[table] = priority
        case (str(table), str(column), str(column_type)) if column_type in format.STORED_AS:
            notes.types[table, column] = column_type
        case (int(no), int(first), int(last), bytes(database_id)):
            notes.truncations.append((no, first, last, database_id))


def _learn_tables(pages: Pages, found: Survey, notes: _Notes) -> None:
    """Take the record tables from their CREATE statements, as far as the recorded types agree."""
    dicts = declare.table_of(declare.AgentData)
    found.tables[dicts.name] = Table(dicts.name, tuple((column.name, column.type) for column in dicts.columns))
    for name, (root, text) in notes.texts.items():
        if name == extents.TRANSACTIONS[0]:
            _learn_pages(pages, found, name, root)
        match = _TABLE.fullmatch(text)
        if match is None or is_reserved(name):
            continue
        declared = _COLUMN.findall(match[1])
        columns = tuple((column, notes.types.get((name, column), "")) for column, _ in declared)
        stored = [format.STORED_AS.get(column_type) for _, column_type in columns]
        if stored == [declared_as.upper() for _, declared_as in declared]:
            found.tables[name] = Table(name, columns)
            _learn_pages(pages, found, name, root)


def _learn_pages(pages: Pages, found: Survey, name: str, root: int) -> None:
    """Note which pages a table's tree leads to. A page that two trees lead to is ambiguous."""
    pending, seen = [root], set()
    while pending:
        number = pending.pop()
        if number not in seen:
            seen.add(number)
            found.table_of_page[number] = name if number not in found.table_of_page else ""
            pending += pages.children(number)
