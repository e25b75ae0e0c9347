"""Read ordinary databases, which other programs made: their tables, and nothing that could run.

Only tables with rows of their own are read. Views, virtual tables with the tables that they keep their data in, and
columns that SQLite computes are left out. So no expression of the database is evaluated.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import Any, Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import ConfigurationError, DamagedError, EdgeshardError, StorageBusyError
from edgeshard.files import paths
from edgeshard.sources import bounds, readonly_copy
from edgeshard.sqlite import Connection, quote

_ACTION: Final = "import"

_SCHEMA: Final = "main"

#: How long to wait for a writer that has the whole database locked, in seconds.
_BUSY_TIMEOUT_S: Final = 5.0

#: The names of the rowid, unless columns have them (https://sqlite.org/rowidtable.html).
_ROWIDS: Final = ("_rowid_", "rowid", "oid")

#: The alias of the rowid in our SQL. No column that a record table can have has this name.
_NUMBER: Final = "_number"

#: What follows the name of a virtual table in the names of the tables that it keeps its data in: FTS3 to FTS5, R-tree.
_SHADOW_SUFFIXES: Final = (
    "_config", "_content", "_data", "_docsize", "_idx", "_node", "_parent", "_rowid", "_segdir", "_segments", "_stat",
)  # fmt: skip

_OURS: Final = (
    "it is an edgeshard database; merge it, so that each of its rows comes once: Store.merge([path]) "
    "(`edgeshard merge`)"
)

_HALF_WRITTEN: Final = (
    "its last writer was interrupted, and left a journal next to it that only a writer can undo; open it once with a "
    "program that may write it, such as the sqlite3 shell"
)

#: How many columns are looked at together: each takes four results, and SQLite's limit is 2,000.
_COLUMNS_AT_ONCE: Final = 400

_NOT_UTF8: Final = "it is text that is not UTF-8; correct it, or store it as a BLOB"


@attrs.frozen
class Column:
    """A column that holds values.

    Attributes:
        name: its name.
        declared: the type in its declaration, in upper case; "" if it has none.
    """

    name: str
    declared: str


@attrs.frozen
class Table:
    """A table that holds rows.

    Attributes:
        name: its name.
        columns: its columns, without those that SQLite computes.
        computed: the names of these.
        rowid: SQL for the number that SQLite finds a row by; "" if the table has none.
        has_key: whether that number is a column of the table, its INTEGER PRIMARY KEY.
    """

    name: str
    columns: tuple[Column, ...]
    computed: tuple[str, ...]
    rowid: str
    has_key: bool

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(column.name for column in self.columns)


class Database:
    """An ordinary database, open for reading; see `opened`.

    All is read in one snapshot, unless it is released.

    Attributes:
        path: its file.
        tables: its tables, by name.
        left_out: what is not read, each as its kind and name: "view recent".
    """

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self.path = path
        self.tables: tuple[Table, ...] = ()
        self.left_out: tuple[str, ...] = ()
        self._is_wal = sqlite.is_wal(connection, _SCHEMA)
        self._version = self._data_version()
        self._read_schema()

    def release(self) -> None:
        """End the snapshot if writers wait for that: in the rollback journal mode. No `rows` may be unfinished."""
        if not self._is_wal and self._connection.in_transaction:
            with self._explained():
                self._connection.execute("ROLLBACK")

    def resume(self) -> bool:
        """Begin a snapshot again if it was released; return whether the database was changed meanwhile."""
        if self._connection.in_transaction:
            return False
        with self._explained():
            self._connection.execute("BEGIN DEFERRED")
            before, self._version = self._version, self._data_version()
        return before != self._version

    def _data_version(self) -> int:
        version: int = self._connection.pragma("data_version", schema=_SCHEMA)
        return version

    def _read_schema(self) -> None:
        listed = sqlite.fetch_typed(
            self._connection,
            self.path,
            (str, str, int),
            f"SELECT type, name, rootpage > 0 AND sql LIKE 'CREATE TABLE%' FROM {_SCHEMA}.sqlite_schema "
            "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY name",
        )
        virtual = [name for kind, name, is_ordinary in listed if kind == "table" and not is_ordinary]
        shadows = {f"{name}{suffix}".lower() for name in virtual for suffix in _SHADOW_SUFFIXES}
        tables, left_out = [], []
        for kind, name, is_ordinary in listed:
            if kind == "view":
                left_out.append(f"view {name}")
            elif not is_ordinary:
                left_out.append(f"virtual table {name}")
            elif name.lower() in shadows:
                left_out.append(f"table {name} (of a virtual table)")
            else:
                tables.append(self._describe(name))
        computed = [f"column {table.name}.{column} (computed)" for table in tables for column in table.computed]
        self.tables, self.left_out = tuple(tables), (*left_out, *computed)

    def _describe(self, name: str) -> Table:
        described = sqlite.fetch(self._connection, f"PRAGMA {_SCHEMA}.table_xinfo({quote(name)})")
        columns = tuple(Column(row[1], str(row[2]).upper()) for row in described if not row[6])
        computed = tuple(row[1] for row in described if row[6])
        key = [row for row in described if row[5]]
        indexes = sqlite.fetch(self._connection, f"PRAGMA {_SCHEMA}.index_list({quote(name)})")
        # the key of a table WITHOUT ROWID, and an INTEGER PRIMARY KEY DESC, have an index
        has_key = len(key) == 1 and str(key[0][2]).upper() == "INTEGER" and all(row[3] != "pk" for row in indexes)
        rowid = quote(key[0][1]) if has_key else self._hidden_rowid(name, {row[1].lower() for row in described})
        return Table(name, columns, computed, rowid, has_key)

    def _hidden_rowid(self, name: str, taken: set[str]) -> str:
        rowid = next((each for each in _ROWIDS if each not in taken), "")
        if rowid:
            try:
                self._connection.execute(f"SELECT {rowid} FROM {_SCHEMA}.{quote(name)} LIMIT 0").fetchall()
            except sqlite.QUERY_MISTAKES:  # it is a table WITHOUT ROWID
                return ""
        return rowid

    def rows(
        self, table: Table, columns: tuple[str, ...], where: str = "", limit: int = -1, offset: int = 0
    ) -> Generator[tuple[Any, ...]]:
        """Yield rows in the order of the table: each a rowid (0 if the table has none), and a value for each column.

        Args:
            table: the table.
            columns: the names of the columns.
            where: SQL for which rows; it names the rowid as `Table.rowid` does. "": all.
            limit: at most so many rows; -1: all.
            offset: leave out so many rows.

        Raises:
            ConfigurationError: a text is not UTF-8; the message names the row.
            StorageError: the database cannot be read.
        """
        sql = self._select(table, columns, where)
        cursor = self._connection.cursor()
        with self._explained(), contextlib.closing(cursor):
            cursor.execute(f"{sql} LIMIT ? OFFSET ?", (limit, offset))
            while True:
                try:
                    row = next(cursor, None)
                except UnicodeDecodeError as error:
                    raise ConfigurationError(_ACTION, self.path, self._why_not_text(table, where)) from error
                if row is None:
                    return
                yield row

    def _select(self, table: Table, columns: tuple[str, ...], where: str) -> str:
        selected = ", ".join([f"{table.rowid or '0'} AS {_NUMBER}", *map(quote, columns)])
        condition = f" WHERE {where}" if where else ""
        # the rows of a table without a rowid lie in the order of its key, whose collation we may lack
        order = f" ORDER BY {table.rowid}" if table.rowid else ""
        return f"SELECT {selected} FROM {_SCHEMA}.{quote(table.name)} NOT INDEXED{condition}{order}"

    def _why_not_text(self, table: Table, where: str) -> str:
        """Return which value of a table is text that is not UTF-8, and what to do."""
        for column in table.column_names:
            cast = f"CAST({quote(column)} AS BLOB)"
            condition = f" WHERE {where}" if where else ""
            sql = (
                f"SELECT {table.rowid or '0'}, typeof({quote(column)}), {cast} FROM {_SCHEMA}.{quote(table.name)} "
                f"NOT INDEXED{condition}"
            )
            for number, kind, value in self._connection.execute(sql):
                if kind == "text" and not _is_utf8(value):
                    return f"{where_is(table, number)}, column {column}: {_NOT_UTF8}"
        return f"table {table.name}: {_NOT_UTF8}"

    def storage_classes(self, table: Table, where: str, offset: int) -> dict[str, frozenset[str]]:
        """Map each column to the storage classes of its values, NULL excepted: integer, real, text or blob.

        Args:
            table: the table.
            where: see `rows`.
            offset: see `rows`.
        """
        kinds = ("integer", "real", "text", "blob")
        names = table.column_names
        rows = f"({self._select(table, names, where)} LIMIT -1 OFFSET ?)"
        found: dict[str, frozenset[str]] = {}
        with self._explained():
            for start in range(0, len(names), _COLUMNS_AT_ONCE):
                part = names[start : start + _COLUMNS_AT_ONCE]
                wanted = ", ".join(f"max(typeof({quote(name)}) = '{kind}')" for name in part for kind in kinds)
                ((*flags,),) = self._connection.execute(f"SELECT {wanted} FROM {rows}", (offset,))
                for index, name in enumerate(part):
                    present = flags[index * len(kinds) : (index + 1) * len(kinds)]
                    found[name] = frozenset(kind for kind, flag in zip(kinds, present, strict=True) if flag)
        return found

    def first_row(self, table: Table, where: str, offset: int, condition: str) -> int | None:
        """Return the rowid of the first row that meets a condition, 0 if the table has none; None: no row does.

        Args:
            table: the table.
            where: see `rows`.
            offset: see `rows`.
            condition: SQL over the names of the columns.
        """
        rows = f"({self._select(table, table.column_names, where)} LIMIT -1 OFFSET ?)"
        with self._explained():
            sql = f"SELECT {_NUMBER} FROM {rows} WHERE {condition} LIMIT 1"
            found: int | None = sqlite.scalar(self._connection, sql, (offset,))
            return found

    def highest_key_ever(self, table: Table) -> int | None:
        """Return the highest key that a table ever had, if SQLite never uses a key of it again; None if it may.

        That is what AUTOINCREMENT is for (https://sqlite.org/autoinc.html).
        """
        with self._explained():
            sql = f"SELECT 1 FROM {_SCHEMA}.sqlite_schema WHERE type = 'table' AND name = 'sqlite_sequence'"
            if not table.has_key or sqlite.scalar(self._connection, sql) is None:
                return None
            sql = f"SELECT seq FROM {_SCHEMA}.sqlite_sequence WHERE name = ?"
            found = sqlite.scalar(self._connection, sql, (table.name,))
            return found if isinstance(found, int) else None

    def is_any(self, table: Table, where: str) -> bool:
        """Return whether a table has a row that meets a condition; see `rows`."""
        return next(self.rows(table, (), where, limit=1), None) is not None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        with _explained(self.path):
            yield


def where_is(table: Table, number: int) -> str:
    """Return how errors name a row."""
    return f"table {table.name}, rowid {number}" if table.rowid else f"table {table.name}"


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextlib.contextmanager
def opened(path: str, copies: str) -> Iterator[Database]:
    """Open an ordinary database for the block; it is only read.

    Args:
        path: its file, with symbolic links resolved.
        copies: the folder for a copy of it, which is needed if it is on a read-only medium.

    Raises:
        ConfigurationError: it is one of edgeshard's.
        DamagedError: it is damaged, or is not a database.
        StorageError: it cannot be read.
    """
    had_no_wal = not os.path.exists(paths.wal(path))
    with contextlib.ExitStack() as stack:
        stack.callback(_tidy, path, had_no_wal=had_no_wal)
        with _explained(path):
            connection = _connect(path, copies, stack)
            stack.enter_context(bounds.bounded(connection, _SCHEMA, all_tables=True))
            connection.execute("BEGIN DEFERRED")  # one snapshot, until the connection is closed
            if connection.pragma("application_id", schema=_SCHEMA) == format.APPLICATION_ID:
                raise ConfigurationError(_ACTION, path, _OURS)
            database = Database(connection, path)
        yield database


def _connect(path: str, copies: str, stack: contextlib.ExitStack) -> Connection:
    try:
        connection = sqlite.connect_untrusted(path, _BUSY_TIMEOUT_S)
    except sqlite.DATA_ERRORS as error:
        if not readonly_copy.is_needed(error, path):
            raise
        copy = stack.enter_context(readonly_copy.copied(path, copies))
        connection = sqlite.connect_untrusted(copy, _BUSY_TIMEOUT_S)
    return stack.enter_context(contextlib.closing(connection))


def _tidy(path: str, *, had_no_wal: bool) -> None:
    """Remove the empty WAL that reading a WAL database leaves."""
    if had_no_wal and os.path.exists(paths.wal(path)):
        sqlite.remove_empty_wal(path)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Raise edgeshard's errors in place of SQLite's."""
    try:
        yield
    except EdgeshardError:
        raise
    except sqlite.DATA_ERRORS as error:
        if sqlite.has_hot_journal(error):
            raise StorageBusyError(_ACTION, path, _HALF_WRITTEN) from error
        if sqlite.is_bad_schema(error):
            cause = f"SQLite cannot read its tables ({error}); restore it, or run the sqlite3 shell's .recover"
            raise DamagedError(_ACTION, path, cause) from error
        raise sqlite.explain(error, _ACTION, path) from error
