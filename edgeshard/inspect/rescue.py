"""Copy the rows of a damaged shard that can still be read into a new database, under the addresses they always had.

This is a step of salvage, after `survey`. The new database has the form of a master, so it can be merged like any
other source.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from edgeshard import format, sqlite
from edgeshard.format.ranges import Range, union
from edgeshard.inspect.pages import Cell, Pages, Value
from edgeshard.inspect.survey import Survey, Table
from edgeshard.master import catalog, extents, identity, streams, truncations
from edgeshard.sqlite import Connection, quote


def rescue(pages: Pages, found: Survey, path: str) -> tuple[int, int]:
    """Create the database, and fill it with the rows that can be read.

    Args:
        pages: the pages of the damaged shard.
        found: the shard's agent, streams and tables.
        path: the database to create.

    Returns:
        How many rows it has, and how many rows could be read but not be assigned to a stream and table.
    """
    script = f"{format.MASTER_TABLES}{identity.INSERT}"
    sqlite.create(path, format.MASTER_PAGE_SIZE, script, (format.MASTER,), format.IDENTITY)
    connection = sqlite.connect(path, writable=True)
    try:
        sqlite.set_synchronous(connection, "OFF")  # the file is removed in a moment
        with sqlite.immediate(connection):
            _create_tables(connection, found)
            kept, unassigned = _copy_rows(connection, pages, found)
            _record_streams(connection, found, kept)
            return len(kept), unassigned
    finally:
        connection.close()


def _create_tables(connection: Connection, found: Survey) -> None:
    for table in found.tables.values():
        for statement in catalog.define_columns(table.name, format.MASTER_COLUMNS, table.columns, is_new=True):
            connection.execute(*statement)
        if table.name in found.keys and format.TIMESTAMP in dict(table.columns):
            catalog.insert_key(connection, table.name, *found.keys[table.name])
    names = {name.lower() for name in found.tables}
    priorities = {name: priority for name, priority in found.priorities.items() if name in names}
    catalog.raise_priorities(connection, priorities)
    for rename in found.renames:
        catalog.insert_rename(connection, *rename)


# -- rows -------------------------------------------------------------------------------------------------------------


def _copy_rows(connection: Connection, pages: Pages, found: Survey) -> tuple[set[int], int]:
    """Insert the rows; return their ids, and how many rows could not be assigned."""
    kept: dict[int, tuple[str, int]] = {}
    doubtful: set[int] = set()
    unassigned = 0
    for number in range(1, pages.count + 1):
        rows = [cell for cell in _in_order(pages.cells(number)) if _is_of_a_stream(cell, found)]
        if found.table_of_page.get(number) == extents.TRANSACTIONS[0]:
            _copy_transactions(connection, rows)
            continue
        name = _table_of(number, rows, found)
        if name is None:
            unassigned += len(rows)
            continue
        table = found.tables[name]
        for cell in rows:
            row_id = _id_of(cell)
            content = (name, hash(cell.values))
            if row_id not in kept:
                kept[row_id] = content
                _insert(connection, table, row_id, cell)
            elif kept[row_id] != content:  # rows never change: one of the two is damaged, or its id is
                doubtful.add(row_id)
    for row_id in doubtful:
        connection.execute(f"DELETE FROM {quote(kept.pop(row_id)[0])} WHERE _id = ?", (row_id,))
    return set(kept), unassigned + 2 * len(doubtful)


def _copy_transactions(connection: Connection, rows: list[Cell]) -> None:
    """Note transactions, so that the rows of a whole one appear in the master together."""
    for cell in rows:
        match cell:
            case Cell(int(first_id), (None, int(last_id))) if format.stream_no_of(first_id) == format.stream_no_of(
                last_id
            ):
                extents.insert_transaction(connection, Range(first_id, last_id))


def _in_order(cells: list[Cell]) -> list[Cell]:
    """Return the rows whose ids lie between those of their neighbours: an id out of order is damaged."""
    rows = [cell for cell in cells if cell.row_id is not None]
    wrong = {at + n for at in range(len(rows) - 1) for n in (0, 1) if _id_of(rows[at]) >= _id_of(rows[at + 1])}
    return [row for at, row in enumerate(rows) if at not in wrong]


def _id_of(cell: Cell) -> int:
    return -1 if cell.row_id is None else cell.row_id


def _is_of_a_stream(cell: Cell, found: Survey) -> bool:
    row_id = _id_of(cell)
    stream = found.streams.get(format.stream_no_of(row_id))
    # a flipped bit in an id must not make a gap of billions of rows
    return stream is not None and 1 <= format.seq_of(row_id) <= stream.last_truncated + found.rows_max


def _table_of(number: int, rows: list[Cell], found: Survey) -> str | None:
    """Return the table of a page's rows: the one whose tree leads to it, or else the only one that all rows fit."""
    known = found.table_of_page.get(number)
    names = [known] if known else [*found.tables]
    fitting = [name for name in names if name and all(_fits(found, name, cell) for cell in rows)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(found: Survey, name: str, cell: Cell) -> bool:
    """Return whether a row can belong to a table. It has fewer columns if its writer did not know the others yet."""
    columns = found.tables[name].columns
    if not 2 <= len(cell.values) <= len(columns) + 1 or cell.values[0] is not None:
        return False
    values = cell.values[1:]
    if all(value is None for value in values):
        return False
    if name == "agent_data" and values[0] != found.streams[format.stream_no_of(_id_of(cell))].agent:
        return False
    return all(_fits_type(column_type, value) for (_, column_type), value in zip(columns, values, strict=False))


def _fits_type(column_type: str, value: Value) -> bool:
    if value is None:
        return True
    if column_type == "json":
        try:
            json.loads(value if isinstance(value, str) else "")
        except (ValueError, RecursionError):
            return False
        return True
    if isinstance(value, float):
        return column_type == "real" and not math.isnan(value)
    return format.STORED_AS[column_type] in {int: ("INTEGER", "REAL"), str: ("TEXT",), bytes: ("BLOB",)}[type(value)]


def _insert(connection: Connection, table: Table, row_id: int, cell: Cell) -> None:
    values = cell.values[1:]
    names = ", ".join(["_id", "_stream", "_seq", *(quote(column) for column, _ in table.columns[: len(values)])])
    marks = ", ".join("?" * (len(values) + 3))
    bindings = (row_id, format.stream_no_of(row_id), format.seq_of(row_id), *values)
    connection.execute(f"INSERT INTO {quote(table.name)}({names}) VALUES ({marks})", bindings)


def _record_streams(connection: Connection, found: Survey, kept: Iterable[int]) -> None:
    """Note the streams, which of their seqs are here, and which the shard had truncated."""
    seqs: dict[int, list[int]] = {number: [] for number in found.streams}
    for row_id in kept:
        seqs[format.stream_no_of(row_id)].append(format.seq_of(row_id))
    for number, stream in found.streams.items():
        runs = union(Range(seq, seq) for seq in seqs[number])
        last = max([run.last for run in runs] + [stream.last_truncated])
        streams.insert(connection, number, stream.agent, stream.stream_id, stream.began_at, last)
        for run in runs:
            extents.insert_run(connection, number, run, format.row_id(number, run.first))
        for (first, last_truncated), database_id in stream.truncated.items():
            truncations.record(connection, number, Range(first, last_truncated), database_id)
