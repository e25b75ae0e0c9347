"""The baseline of the cost curves: plain apsw that does edgeshard's work with edgeshard's settings.

The settings are read from edgeshard, so that the two cannot diverge.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from edgeshard import format
from edgeshard.master import database
from edgeshard.shard import wal_limit
from edgeshard.sqlite import Connection

#: Columns of the table that `sample_rows.Sample` declares.
SAMPLE_COLUMNS: Final = "source, value, text"
#: SQLITE_OPEN_READWRITE, SQLITE_OPEN_CREATE and SQLITE_OPEN_URI.
_FLAGS: Final = 0x2 | 0x4 | 0x40


@contextlib.contextmanager
def bare_database(path: Path, page_size: int, synchronous: str) -> Iterator[Connection]:
    """Open a database in WAL mode with plain apsw, and create it if it is missing."""
    connection = Connection(str(path), flags=_FLAGS)
    try:
        for name, value in (("page_size", page_size), ("journal_mode", "WAL"), ("synchronous", synchronous)):
            connection.pragma(name, value)
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def bare_shard(path: Path, table: str, columns: str) -> Iterator[Any]:
    """Create a plain database with a shard's settings and one table, and yield a cursor.

    Args:
        path: the file.
        table: name of the table.
        columns: its columns after the key, as declared.
    """
    with bare_database(path, format.SHARD_PAGE_SIZE, "NORMAL") as connection:
        connection.wal_autocheckpoint(wal_limit.LEAST_BYTES // format.SHARD_PAGE_SIZE)
        connection.execute(f"CREATE TABLE {table}(_id INTEGER PRIMARY KEY, {columns}) STRICT")
        yield connection.cursor()


@contextlib.contextmanager
def bare_master(path: Path) -> Iterator[Connection]:
    """Open a plain database with a master's settings."""
    with bare_database(path, format.MASTER_PAGE_SIZE, "FULL") as connection:
        connection.pragma("cache_size", -32_000)
        connection.pragma("journal_size_limit", database._WAL_BYTES)
        connection.wal_autocheckpoint(database.CHECKPOINT_BYTES // format.MASTER_PAGE_SIZE)
        yield connection


def attach(connection: Connection, path: Path, schema: str) -> None:
    """Attach a file read-only."""
    connection.execute(f"ATTACH ? AS {schema}", (path.as_uri() + "?mode=ro",))


def bare_merge(target: Path, shards: Iterable[Path], *, whole_table: bool = False) -> None:
    """Attach shards, and insert their samples in one transaction. A single shard's rows keep their keys.

    Args:
        target: a database with the table.
        shards: the shards to copy.
        whole_table: use SELECT *, with which SQLite copies into an empty table without decoding the rows.
    """
    shards = list(shards)
    names = SAMPLE_COLUMNS if len(shards) > 1 else f"_id, {SAMPLE_COLUMNS}"
    with bare_master(target) as connection:
        for number, path in enumerate(shards):
            attach(connection, path, f"shard{number}")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(len(shards)):
            if whole_table:
                sql = f"INSERT INTO main.sample SELECT * FROM shard{number}.sample"
            else:
                sql = f"INSERT INTO main.sample({names}) SELECT {names} FROM shard{number}.sample"
            _check_transfer(connection, sql, expected=whole_table)
            connection.execute(sql)
        connection.execute("COMMIT")


def _check_transfer(connection: Connection, sql: str, *, expected: bool) -> None:
    """Check that SQLite uses its transfer optimization as expected: with it, a statement makes no records."""
    makes_records = any(row[1] == "MakeRecord" for row in connection.execute(f"EXPLAIN {sql}").fetchall())
    if makes_records is expected:
        raise RuntimeError(f"SQLite {'does not transfer' if expected else 'transfers'} whole rows: {sql}")
