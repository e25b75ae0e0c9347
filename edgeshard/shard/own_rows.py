"""Read the rows that a shard still holds: those that are committed and not truncated.

Each query, and each portion of rows of a class, has a connection of its own, which only reads and is closed at once.
So it sees no open transaction, and cannot disturb one: neither by an error, nor by an interrupt, nor by what SQLite
remembers of a connection's last row. It keeps no checkpoint and no truncation from its work for longer than it runs.

A query sees the tables as in a master, with ``_stream`` and ``_seq``, through temporary views that have their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgeshard import format, sqlite
from edgeshard.master import agent_views, catalog
from edgeshard.master.reading import Source
from edgeshard.options import DecodeJson, Params
from edgeshard.records import declare, queries
from edgeshard.records.queries import Call
from edgeshard.records.rows import Rows
from edgeshard.shard import truncations
from edgeshard.sqlite import Connection, quote

_AGENT_DATA: Final = declare.table_of(declare.AgentData)

#: SQL for the stream number and the seq of a row of a shard.
_STREAM: Final = f"_id >> {format.SEQ_BITS}"

_SEQ: Final = f"_id & {format.SEQ_MAX}"


def open_to_read(path: str, *, has_file: bool) -> Connection:
    """Open a shard for reading, next to its writer.

    Args:
        path: the shard.
        has_file: whether a transaction was committed; before that, a shard is empty.

    Raises:
        StorageError: it cannot be read.
    """
    with sqlite.translate_errors("read shard", path):
        connection = sqlite.connect(path, writable=False) if has_file else sqlite.open_in_memory(format.SHARD_TABLES)
        sqlite.allow_interrupt(connection)
        return connection


def source(path: str, open_: Callable[[], Connection]) -> Source:
    """Return a shard as what the rows of a class can be read from; `open_` opens it."""
    return Source(path, open_, address=f"{_STREAM}, {_SEQ}", condition=truncations.not_truncated("_id"))


def select(path: str, open_: Callable[[], Connection], sql: str, params: Params, json: DecodeJson) -> Rows:
    """Run one SELECT on the rows of a shard, which `open_` opens; see `Shard.query`."""
    on_write = "A query only reads; write rows with write() or write_many()"
    call = Call("query", path, "query(sql, {})", on_write, _explain_tables)
    connection = open_()
    try:
        with sqlite.translate_errors("query", path):
            _make_views(connection, sql)
            return queries.select(connection, call, sql, params, json, catalog.json_columns)
    finally:
        connection.close()


def _make_views(connection: Connection, sql: str) -> None:
    text = sql.lower() if isinstance(sql, str) else ""  # anything else is refused later
    names = catalog.record_tables(connection)
    for name in names:
        if name.lower() not in text:  # with 200 tables, all views would take 35 ms (measured)
            continue
        described = sqlite.fetch(connection, f"PRAGMA main.table_info({quote(name)})")
        columns = "".join(f", {quote(row[1])}" for row in described if row[1] != "_id")
        rows = f"main.{quote(name)} WHERE {truncations.not_truncated('_id')}"
        connection.execute(f"CREATE TEMP VIEW {_view(name, columns)} FROM {rows}")
        with_agent = agent_views.create_view(name, [row[1].lower() for row in described if row[1] != "_id"])
        connection.execute(with_agent.replace("CREATE VIEW", "CREATE TEMP VIEW", 1))
    if _AGENT_DATA.name not in {name.lower() for name in names}:  # a master has it from the beginning
        columns = "".join(f", NULL AS {quote(column.name)}" for column in _AGENT_DATA.columns)
        connection.execute(f"CREATE TEMP VIEW {_view(_AGENT_DATA.name, columns)} FROM (SELECT 1 AS _id) WHERE false")


def _view(name: str, columns: str) -> str:
    return f"{quote(name)} AS SELECT _id, {_STREAM} AS _stream, {_SEQ} AS _seq{columns}"


def _explain_tables(connection: Connection) -> str:
    listed = ", ".join(sorted({_AGENT_DATA.name, *catalog.record_tables(connection)}))
    return f"The shard has the tables {listed}; a table appears with the first write of its rows"
