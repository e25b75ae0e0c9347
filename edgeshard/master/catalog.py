"""Own _edgeshard_columns, _indexes, _keys, _renames and _priorities: what a database knows about its record tables.

A shard has all but the first only once a class of its agent needs them (`format.OPTIONAL_SHARD_TABLES`); without the
table nothing is recorded. What changes a shard is returned as statements, because its writer executes them.

Agents may contradict one another about the priority of a table. The highest wins, in any order of merging; a
table without a recorded priority has 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from edgeshard import format, sqlite
from edgeshard.records import ddl, keys, promote
from edgeshard.records.json_values import to_json
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sqlite import Connection, quote

#: A statement and its bindings.
Statement = tuple[str, tuple[str | int, ...]]

#: Records a column behind those that its table has.
_INSERT_COLUMN: Final = (
    "INSERT INTO main._edgeshard_columns SELECT ?1, ?2, ?3, coalesce(max(position), 0) + 1 "
    "FROM main._edgeshard_columns WHERE table_name = ?1"
)


def _optional_table(connection: Connection, name: str) -> Iterator[Statement]:
    """Yield the statement that makes one of `format.OPTIONAL_SHARD_TABLES`, if the shard lacks it."""
    if not sqlite.has_table(connection, name):
        yield format.DDL[name], ()


def drop_table(connection: Connection, table: str) -> None:
    """Drop a record table of a master, with its indexes, and forget all that is recorded of it."""
    connection.execute(f"DROP TABLE main.{quote(table)}")
    for name in ("columns", "indexes", "keys", "renames", "priorities"):
        sql = f"DELETE FROM main._edgeshard_{name} WHERE table_name = ? COLLATE NOCASE"
        connection.execute(sql, (table,))


def dropped_tables(connection: Connection) -> list[str]:
    """Return the record tables of a master that another program dropped."""
    sql = "SELECT name FROM main.sqlite_schema WHERE type IN ('table', 'view')"
    there = {name.lower() for (name,) in sqlite.fetch(connection, sql)}
    return [name for name in record_tables(connection) if name.lower() not in there]


def present_tables(connection: Connection) -> list[str]:
    """Return the names of the record tables, sorted, without those that another program dropped."""
    dropped = set(dropped_tables(connection))
    return [name for name in record_tables(connection) if name not in dropped]


def lost_columns(connection: Connection) -> dict[str, list[tuple[str, str]]]:
    """Map the record tables from which another program dropped columns to the names and types of these, in order."""
    columns: dict[str, list[tuple[str, str]]] = {}
    for table, column, type_ in all_columns(connection):
        columns.setdefault(table, []).append((column, type_))
    found = {}
    for table in present_tables(connection):
        described = sqlite.fetch(connection, f"PRAGMA main.table_xinfo({quote(table)})")
        there = {row[1].lower() for row in described}
        lost = [(column, type_) for column, type_ in columns[table] if column.lower() not in there]
        found.update({table: lost} if lost else {})
    return found


def make_again(connection: Connection, table: str) -> Iterator[Statement]:
    """Yield the statements that make a record table of a master that was dropped or renamed, without rows."""
    columns = [(column, type_) for name, column, type_ in all_columns(connection) if name == table]
    yield ddl.create_table(table, format.MASTER_COLUMNS, columns), ()
    for index in indexes_of(connection, table):
        # of a table that was renamed, the index is still there
        yield f"DROP INDEX IF EXISTS main.{quote(index_name(table, index))}", ()
        yield create_index(table, index), ()


def add_again(columns: Mapping[str, Iterable[tuple[str, str]]]) -> Iterator[str]:
    """Yield the statements that add what `lost_columns` found, without values."""
    for table, lost in columns.items():
        yield from ddl.add_columns(table, lost)


# -- columns ----------------------------------------------------------------------------------------------------------


def record_tables(connection: Connection) -> list[str]:
    """Return the names of the record tables, sorted."""
    return [name for (name,) in connection.execute("SELECT DISTINCT table_name FROM _edgeshard_columns ORDER BY 1")]


def tables_with_column(connection: Connection, column: str) -> list[str]:
    """Return the names of the record tables that have a column of exactly this name."""
    sql = "SELECT table_name FROM main._edgeshard_columns WHERE column_name = ?"
    return [name for (name,) in sqlite.fetch(connection, sql, (column,))]


def all_columns(connection: Connection) -> list[tuple[str, str, str]]:
    """Return (table, column, type) of each column of each record table of the main database.

    They are sorted by the tables' names; the columns of a table are in the order in which they were declared.
    """
    order = "ORDER BY table_name, position, column_name"
    rows = sqlite.fetch(connection, f"SELECT table_name, column_name, type FROM main._edgeshard_columns {order}")
    return [(table, column, type_) for table, column, type_ in rows]


def json_columns(connection: Connection) -> set[tuple[str, str]]:
    """Return (table, column) of each column of JSON, in lower case."""
    return {(table.lower(), column.lower()) for table, column, type_ in all_columns(connection) if type_ == "json"}


def columns_of_table(connection: Connection, table: str) -> tuple[str, dict[str, str]]:
    """Return the spelling of a table's name, and the type of each of its columns by name in lower case.

    SQL folds case, and the first spelling of a table's name stays. A table that does not exist has no columns.
    """
    rows = sqlite.fetch(
        connection,
        "SELECT table_name, column_name, type FROM main._edgeshard_columns WHERE table_name = ? COLLATE NOCASE "
        "ORDER BY position, column_name",
        (table,),
    )
    return rows[0][0] if rows else table, {column.lower(): type_ for _, column, type_ in rows}


def define_columns(
    name: str, leading_columns: str, columns: Iterable[tuple[str, str]], *, is_new: bool
) -> Iterator[Statement]:
    """Yield the statements that make a record table, or add columns to it, and record the columns.

    Args:
        name: the table.
        leading_columns: what it begins with: `format.SHARD_COLUMNS` or `format.MASTER_COLUMNS`.
        columns: name and type of each column to be made.
        is_new: whether to make the table itself.
    """
    columns = list(columns)
    for sql in [ddl.create_table(name, leading_columns, columns)] if is_new else ddl.add_columns(name, columns):
        yield sql, ()
    for column, type_ in columns:
        yield _INSERT_COLUMN, (name, column, type_)


def widen_column(connection: Connection, table: str, column: str, type_: str, wider: str) -> Iterator[Statement]:
    """Yield the statements that give a column a wider type, and record it; run all of them in one transaction."""
    if format.STORED_AS[type_] != format.STORED_AS[wider]:
        value = promote.converted(connection, quote(column), type_, wider)
        for sql in ddl.change_type(table, column, wider, value):
            yield sql, ()
    sql = "UPDATE main._edgeshard_columns SET type = ? WHERE table_name = ? AND column_name = ? COLLATE NOCASE"
    yield sql, (wider, table, column)


def rename_column(connection: Connection, table: str, column: str, new_name: str) -> None:
    """Record that a column of a record table now has another name."""
    sql = "UPDATE main._edgeshard_columns SET column_name = ? WHERE table_name = ? AND column_name = ? COLLATE NOCASE"
    connection.execute(sql, (new_name, table, column))


def forget_column(connection: Connection, table: str, column: str) -> None:
    """Delete the record of a column that the table no longer has."""
    sql = "DELETE FROM main._edgeshard_columns WHERE table_name = ? AND column_name = ? COLLATE NOCASE"
    connection.execute(sql, (table, column))


# -- indexes ----------------------------------------------------------------------------------------------------------


def all_indexes(connection: Connection) -> dict[str, list[tuple[str, ...]]]:
    """Map each record table that has indexes to the columns of each of them."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for table, text in sqlite.fetch(
        connection, "SELECT table_name, columns FROM main._edgeshard_indexes ORDER BY 1, 2"
    ):
        found.setdefault(table, []).append(tuple(json.loads(text)))
    return found


def indexes_of(connection: Connection, table: str) -> list[list[str]]:
    """Return the columns of each index that is recorded for a table of a shard or a master."""
    if not sqlite.has_table(connection, format.INDEXES):
        return []
    rows = sqlite.fetch(connection, "SELECT columns FROM main._edgeshard_indexes WHERE table_name = ?", (table,))
    return [json.loads(text) for (text,) in rows]


def index_name(table: str, columns: Iterable[str]) -> str:
    """Return the name that an index of a record table has in a master."""
    return f"{table} by {', '.join(columns)}"


def create_index(table: str, columns: list[str]) -> str:
    """Return the statement that builds an index of a record table of a master."""
    return f"CREATE INDEX main.{quote(index_name(table, columns))} ON {quote(table)}({', '.join(map(quote, columns))})"


def add_index(connection: Connection, table: str, columns: list[str]) -> bool:
    """Record an index of a table; return False if it was recorded already."""
    text = to_json(columns)
    sql = "SELECT 1 FROM main._edgeshard_indexes WHERE table_name = ? AND columns = ?"
    if sqlite.scalar(connection, sql, (table, text)) is not None:
        return False
    connection.execute("INSERT INTO main._edgeshard_indexes VALUES (?, ?)", (table, text))
    return True


def insert_index(connection: Connection, table: str, columns: Iterable[str]) -> Iterator[Statement]:
    """Yield the statements that record an index of a table, unless it is recorded already."""
    yield from _optional_table(connection, format.INDEXES)
    text = to_json([column.lower() for column in columns])
    yield "INSERT OR IGNORE INTO main._edgeshard_indexes VALUES (?, ?)", (table, text)


def forget_index(connection: Connection, table: str, columns: list[str]) -> None:
    """Delete the record of an index."""
    sql = "DELETE FROM main._edgeshard_indexes WHERE table_name = ? AND columns = ?"
    connection.execute(sql, (table, to_json(columns)))


# -- what users made --------------------------------------------------------------------------------------------------


def made_by_hand(connection: Connection, names: Iterable[str] = ()) -> list[str]:
    """Name what users made in a master that may be in the way of our statements.

    That is each index and each computed column of a table of ours, and each table, view or index with a name that we
    need. Triggers do not fire while we write.

    Args:
        connection: the master.
        names: the names of tables that it is about to get.
    """
    own_tables = {name.lower() for name in [*record_tables(connection), *format.DDL]}
    own_indexes = {index_name(table, index) for table, found in all_indexes(connection).items() for index in found}
    wanted = {name.lower() for name in names} - own_tables
    sql = (
        "SELECT type, name, tbl_name FROM main.sqlite_schema WHERE type IN ('table', 'view') "
        "OR (type = 'index' AND sql IS NOT NULL)"
    )
    found = [
        f"{type_} {quote(name)}"
        for type_, name, table in sqlite.fetch(connection, sql)
        if name.lower() in wanted or (type_ == "index" and table.lower() in own_tables and name not in own_indexes)
    ]
    for table in record_tables(connection):
        described = sqlite.fetch(connection, f"PRAGMA main.table_xinfo({quote(table)})")
        found += [f"column {quote(row[1])} of table {quote(table)}" for row in described if row[6]]
    return found


def explain_made_by_hand(error: Exception, found: Iterable[str]) -> str:
    """Return the cause of an error to which what `made_by_hand` found may have led."""
    return (
        f"{error}. What was made by hand in the master may be in the way: {', '.join(found)}. Drop it, or give it "
        "another name, and try again"
    )


# -- keys -------------------------------------------------------------------------------------------------------------


def load_keys(connection: Connection) -> dict[str, Key]:
    """Return the key of each keyed table of a shard or a master, by the table's name."""
    if not sqlite.has_table(connection, "_edgeshard_keys"):
        return {}
    rows = sqlite.fetch(connection, "SELECT table_name, columns, conflict, has_history FROM main._edgeshard_keys")
    return {
        name: Key(tuple(json.loads(columns)), conflict, bool(has_history))
        for name, columns, conflict, has_history in rows
    }


def current_tables(connection: Connection) -> tuple[str, ...]:
    """Return the tables that hold the current rows of keyed tables, and their tombstones.

    Only the rule for tombstones deletes any of these.
    """
    return keys.current_tables(load_keys(connection))


def insert_key(connection: Connection, table: str, columns: str, conflict: str, has_history: int) -> None:
    """Record a table's key as another database stores it; `columns` is JSON, and is not checked."""
    connection.execute(
        f"INSERT INTO main.{format.KEYS} VALUES (?, ?, ?, ?, 0)", (table, columns, conflict, has_history)
    )


def add_key(connection: Connection, table: str, key: Key) -> Iterator[Statement]:
    """Yield the statements that record the key of a table."""
    yield from _optional_table(connection, "_edgeshard_keys")
    sql = "INSERT INTO main._edgeshard_keys(table_name, columns, conflict, has_history) VALUES (?, ?, ?, ?)"
    yield sql, (table, to_json(list(key.columns)), key.conflict, int(key.history))


def enable_history(table: str) -> Statement:
    """Return the statement that records that a keyed table keeps superseded versions in its history."""
    return "UPDATE main._edgeshard_keys SET has_history = 1 WHERE table_name = ? COLLATE NOCASE", (table,)


def raise_last_timestamp(connection: Connection, table: str, timestamp: int) -> int | None:
    """Record the newest timestamp of a keyed table's changes.

    Returns:
        The newest timestamp before this, or None if `timestamp` is not newer, or there is no such table.
    """
    where = "table_name = ? AND last_timestamp < ?"
    before: int | None = sqlite.scalar(
        connection, f"SELECT last_timestamp FROM main._edgeshard_keys WHERE {where}", (table, timestamp)
    )
    if before is not None:
        sql = f"UPDATE main._edgeshard_keys SET last_timestamp = ? WHERE {where}"
        connection.execute(sql, (timestamp, table, timestamp))
    return before


def tables_changed_after(connection: Connection, timestamp: int) -> list[str]:
    """Return the keyed tables that ever had a change after `timestamp`."""
    if not sqlite.has_table(connection, format.KEYS):
        return []
    sql = f"SELECT table_name FROM main.{format.KEYS} WHERE last_timestamp > ?"
    return [name for (name,) in sqlite.fetch(connection, sql, (timestamp,))]


def newest_timestamps(connection: Connection) -> list[int]:
    """Return the highest timestamp that a master knows of each keyed table."""
    rows = sqlite.fetch(connection, "SELECT last_timestamp FROM main._edgeshard_keys")
    return [timestamp for (timestamp,) in rows]


# -- renames ----------------------------------------------------------------------------------------------------------


def load_renames(connection: Connection) -> dict[str, list[Arrow]]:
    """Return the renames of columns that a shard or a master knows, by the table's name in lower case."""
    found: dict[str, list[Arrow]] = {}
    if sqlite.has_table(connection, "_edgeshard_renames"):
        sql = "SELECT table_name, old_name, new_name FROM main._edgeshard_renames"
        for table, old, new in sqlite.fetch(connection, sql):
            found.setdefault(table.lower(), []).append((old, new))
    return found


_INSERT_RENAME: Final = "INSERT INTO main._edgeshard_renames VALUES (?, ?, ?)"


def add_renames(connection: Connection, table: str, arrows: Iterable[Arrow]) -> Iterator[Statement]:
    """Yield the statements that record renames of columns."""
    for old_name, new_name in arrows:
        yield from _optional_table(connection, "_edgeshard_renames")
        yield _INSERT_RENAME, (table, old_name.lower(), new_name)


def insert_rename(connection: Connection, table: str, old: str, new: str) -> None:
    """Record a rename as another database stores it."""
    connection.execute(_INSERT_RENAME, (table, old, new))


def add_rename(connection: Connection, table: str, old_name: str, new_name: str) -> None:
    """Record that a column of a table was renamed, in a database that has the table of renames."""
    connection.execute(_INSERT_RENAME, (table, old_name.lower(), new_name))


# -- priorities -------------------------------------------------------------------------------------------------------

_UPSERT_PRIORITY: Final = (
    "INSERT INTO main._edgeshard_priorities VALUES (?1, ?2) ON CONFLICT(table_name) DO UPDATE SET priority = ?2"
)


def load_priorities(connection: Connection) -> dict[str, int]:
    """Return the priority of each table of a shard or a master that has one, by the table's name in lower case."""
    if not sqlite.has_table(connection, "_edgeshard_priorities"):
        return {}
    rows = sqlite.fetch(connection, "SELECT table_name, priority FROM main._edgeshard_priorities")
    return {str(name): int(priority) for name, priority in rows}


def raise_priority(connection: Connection, table: str, priority: int) -> Iterator[Statement]:
    """Yield the statements that record the priority of a table, unless it has that or a higher one."""
    if priority and priority > load_priorities(connection).get(table.lower(), 0):
        yield from _optional_table(connection, "_edgeshard_priorities")
        yield _UPSERT_PRIORITY, (table.lower(), priority)


def raise_priorities(connection: Connection, found: Mapping[str, int]) -> None:
    """Record the priorities that a source has for its tables, where they are higher than ours."""
    known = load_priorities(connection) if found else {}
    for name, priority in found.items():
        if priority > known.get(name, 0):
            connection.execute(_UPSERT_PRIORITY, (name, priority))
