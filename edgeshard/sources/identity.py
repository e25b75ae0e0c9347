"""Find out whether an attached database is one of ours, and what it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from edgeshard import format, sqlite
from edgeshard.errors import FormatError
from edgeshard.files import paths
from edgeshard.sources import bounds, checked_schemas, tables
from edgeshard.sources.checked_schemas import Checked, Objects
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection, quote

_ACTION: Final = "read database"

_ID_BYTES: Final = 16

#: What PRAGMA index_xinfo gives in place of a column's number if the index has an expression there.
_EXPRESSION: Final = -2


def open_source(connection: Connection, schema: str, path: str) -> Source:
    """Check that the attached database is one of ours, and read what it is and which tables it has.

    Raises:
        FormatError: it is not one of ours, or has tables that we do not read.
    """
    with bounds.bounded(connection, schema):
        sqlite.check_identity(connection, schema, format.IDENTITY, path)
        objects = checked_schemas.read_objects(connection, schema)
        recalled = checked_schemas.recall(connection, schema, objects)
        if recalled is not None:
            checked = recalled.checked
            role, database_id, agent_id = _parse_role(path, recalled.identity)
        else:
            role, database_id, agent_id, checked = _check(connection, schema, path, objects)
        return Source(schema, path, role, database_id, agent_id, checked.tables, checked.priorities)


def _check(connection: Connection, schema: str, path: str, objects: Objects) -> tuple[str, bytes, str | None, Checked]:
    """Check a schema that was not checked before; return what `_parse_role` does, and what was found.

    Views and virtual tables have no root page, and are no ordinary tables. The text of the schema is read, and not
    PRAGMA table_list, which prepares each view, and lets each virtual table run its own code.
    """
    ordinary = {name: sql for type_, name, _, sql, has_root in objects if type_ == "table" and has_root}
    _check_own_tables(connection, schema, path, ordinary, format.COMMON_TABLES)
    role, database_id, agent_id = _read_role(connection, schema, path)
    if role == format.SHARD:
        _check_indexes(connection, schema, path, objects)
    # checksum.verify looks for the checksum of a bundle
    required = set(format.REQUIRED_TABLES[role]) - {format.CHECKSUM_TABLE}
    _check_own_tables(connection, schema, path, ordinary, sorted(required))
    # a shard has one of these only if a class of its agent needs it
    present = {
        name
        for name in format.OPTIONAL_SHARD_TABLES
        if name in ordinary and _is_as_declared(connection, schema, name, ordinary[name])
    }
    record_tables = tables.read_tables(connection, schema, path, role, ordinary.keys(), present)
    priorities = tables.read_priorities(connection, schema, path, record_tables, present)
    checked = Checked(record_tables, priorities)
    checked_schemas.remember(connection, schema, objects, present, checked)
    return role, database_id, agent_id, checked


def _check_own_tables(
    connection: Connection, schema: str, path: str, ordinary: Mapping[str, str], names: Iterable[str]
) -> None:
    for name in names:
        if name not in ordinary or not _is_as_declared(connection, schema, name, ordinary[name]):
            cause = f"its table {name} is missing, or not the ordinary table that edgeshard makes"
            raise FormatError(_ACTION, path, cause)


def _is_as_declared(connection: Connection, schema: str, name: str, text: str) -> bool:
    """Return whether one of the format's own tables has exactly the columns that we give it, none of them computed."""
    if text == format.DDL[name]:
        return True
    # the same columns may be declared in other words, for example with other comments
    described = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.table_xinfo({quote(name)})")
    columns = [(row[1], row[2], row[5], row[6]) for row in described]
    return columns == list(_declared_columns()[name])


@lru_cache(maxsize=1)
def _declared_columns() -> dict[str, tuple[tuple[Any, ...], ...]]:
    """Map each of the format's own tables to its columns, as (name, type, place in the primary key, hidden flag)."""
    connection = sqlite.open_in_memory(";".join(format.DDL.values()))
    try:
        described = {name: sqlite.fetch(connection, f"PRAGMA table_xinfo({quote(name)})") for name in format.DDL}
        return {name: tuple((row[1], row[2], row[5], row[6]) for row in rows) for name, rows in described.items()}
    finally:
        connection.close()


def _check_indexes(connection: Connection, schema: str, path: str, objects: Objects) -> None:
    """Refuse a shard with an index over an expression or with a WHERE: SQLite evaluates these when it deletes rows.

    No other database is written by those who read it, so the indexes of its users do not matter.
    """
    for type_, name, table, sql, _ in objects:
        if (
            type_ == "index"
            and sql is not None
            and (_has_expression(connection, schema, name) or _is_partial(connection, schema, name, table))
        ):
            raise FormatError(_ACTION, path, "it has an index over an expression, or over a part of the rows")


def _has_expression(connection: Connection, schema: str, index: str) -> bool:
    columns = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.index_xinfo({quote(index)})")
    return any(row[1] == _EXPRESSION for row in columns)


def _is_partial(connection: Connection, schema: str, index: str, table: str) -> bool:
    indexes = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.index_list({quote(table)})")
    return any(row[1] == index and row[4] for row in indexes)


def _read_role(connection: Connection, schema: str, path: str) -> tuple[str, bytes, str | None]:
    sql = f"SELECT role, database_id, agent_id FROM {quote(schema)}._edgeshard_database LIMIT 2"
    return _parse_role(path, sqlite.fetch(connection, sql))


def _parse_role(path: str, rows: Sequence[tuple[Any, ...]]) -> tuple[str, bytes, str | None]:
    """Return the role, the database id, and a shard's agent."""
    sqlite.ensure_types(path, (str, bytes, None), rows)
    if len(rows) == 1:
        role, database_id, agent_id = rows[0]
        is_role = role in (format.SHARD, format.MASTER, format.BUNDLE)
        if is_role and len(database_id) == _ID_BYTES and len(agent_id or "") <= paths.AGENT_NAME_MAX:
            return role, database_id, agent_id
    raise FormatError(_ACTION, path, "_edgeshard_database does not say what it is")
