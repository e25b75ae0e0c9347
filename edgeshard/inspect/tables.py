"""Describe the tables of a master: how many rows of how many agents, when they came, how large, and their columns."""

from __future__ import annotations

from pathlib import Path

from edgeshard import format, sqlite
from edgeshard.master import arrivals, catalog, database, streams
from edgeshard.records import names
from edgeshard.reports import ColumnInfo, TableInfo, TablesReport
from edgeshard.sqlite import Connection, quote


def load(path: Path, *, internal: bool) -> TablesReport:
    """Describe the tables of a master; see `Store.tables`."""
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("list tables of", path), sqlite.read_snapshot(connection):
            return describe(connection, internal=internal)
    finally:
        connection.close()


def describe(connection: Connection, *, internal: bool) -> TablesReport:
    """Return the same, in the caller's snapshot."""
    columns: dict[str, list[ColumnInfo]] = {}
    for table, column, column_type in catalog.all_columns(connection):
        columns.setdefault(table, []).append(ColumnInfo(column, column_type))
    agents = {number: agent for number, _, agent, _ in streams.origins(connection)}
    indexes = sqlite.index_names(connection)
    found = []
    for name in catalog.present_tables(connection):
        sql = f"SELECT _stream, count(*), min(_id), max(_id) FROM {quote(name)} GROUP BY _stream"
        counts = sqlite.fetch(connection, sql)
        ids = [row_id for _, _, first, last in counts for row_id in (first, last)]
        found.append(
            TableInfo(
                name,
                tuple(columns[name]),
                _sql(connection, name),
                sum(count for _, count, _, _ in counts),
                len({agents.get(number, number) for number, *_ in counts}),
                arrivals.time_of_row(connection, min(ids)) if ids else None,
                arrivals.time_of_row(connection, max(ids)) if ids else None,
                _bytes(connection, name, indexes.get(name, [])),
            )
        )
    if internal:
        found += [_internal(connection, name, indexes.get(name, [])) for name in _internal_tables(connection)]
    return TablesReport(tuple(found))


def _internal_tables(connection: Connection) -> list[str]:
    return sorted(name for name in format.DDL if sqlite.has_table(connection, name))


def _internal(connection: Connection, name: str, indexes: list[str]) -> TableInfo:
    described = sqlite.fetch(connection, f"PRAGMA main.table_xinfo({quote(name)})")
    return TableInfo(
        name,
        tuple(ColumnInfo(row[1], row[2].lower()) for row in described),
        _sql(connection, name),
        sqlite.scalar(connection, f"SELECT count(*) FROM main.{quote(name)}"),
        size_bytes=_bytes(connection, name, indexes),
        is_internal=True,
    )


def _sql(connection: Connection, table: str) -> tuple[str, ...]:
    """Return the statements that made a table, its indexes and its view."""
    sql = (
        "SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND type <> 'trigger' "
        "AND tbl_name IN (?1, ?2) COLLATE NOCASE ORDER BY type = 'table' DESC, type, name"
    )
    return tuple(text for (text,) in sqlite.fetch(connection, sql, (table, table + names.VIEW_SUFFIX)))


def _bytes(connection: Connection, table: str, indexes: list[str]) -> int | None:
    return sqlite.tree_bytes(connection, [table, *indexes]) if sqlite.has_statistics() else None
