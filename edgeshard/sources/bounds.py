"""Bound the work that an untrusted database can cause, and never call a sound one damaged.

Steps of SQLite's virtual machine are counted. A few for each byte are enough for almost any database. One that takes
more, because its rows are tiny and its columns many, or because the file system holds fewer bytes than there are (in
holes, or compressed), is checked by SQLite: in a sound one each page belongs to one place, so reading it ends, and it
goes on. In a hostile one pages lead in circles, which the check finds at the first page that it meets twice, and that
is what ends it. So the size that a file claims to have does not matter: neither in the number of steps, which follows
what the file system holds, nor in the check, which follows the pages.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError
from edgeshard.files import paths
from edgeshard.sqlite import Connection, quote

_ACTION: Final = "read database"

#: Steps until a database is checked, and how many more for each byte of it: 0.1 s, and 0.4 s for each MB (measured). A
#: row takes about ten, and three for each column that is compared; a column has at least a byte.
_STEPS: Final = 2_000_000

_STEPS_A_BYTE: Final = 8

#: A database for whose bytes fewer steps are allowed than for any database.
_SMALL_BYTES: Final = _STEPS // _STEPS_A_BYTE

#: The unit of `st_blocks`, in bytes.
_BLOCK_BYTES: Final = 512

#: Bytes that a row takes at least: its place on its page, its length, its id and its header.
_ROW_BYTES_MIN: Final = 8

#: How long the check waits for a lock, in seconds.
_BUSY_TIMEOUT_S: Final = 0.25

#: The blocks that are bounded now, by the id of the connection and the name by which the database is attached, with
#: what the file system held of the database when the block began, in bytes.
_blocks: dict[tuple[int, str], int] = {}

#: A block within another one for the same database.
_BOUNDED_ALREADY: Final = contextlib.nullcontext()

#: The check needs a bit for each page. More than this, in bytes, it gets only if the file has as many.
_CHECK_BYTES_MAX: Final = 64 << 20


def bounded(connection: Connection, schema: str, *, all_tables: bool = False) -> AbstractContextManager[None]:
    """Bound what the connection does with a database in the block.

    If that ends a write, the whole transaction is rolled back. A block within another one for the same database has no
    bound of its own, because to prepare a bound costs more than most blocks do.

    Args:
        connection: the connection.
        schema: the name by which the database is attached.
        all_tables: check tables that are not ours as well, because the block reads them (VACUUM does).

    Raises:
        DamagedError: it takes more steps than it should, because it is damaged.
        StorageError: it takes many steps, and cannot be checked.
    """
    if (id(connection), schema) in _blocks:
        return _BOUNDED_ALREADY
    return _bounded(connection, schema, all_tables=all_tables)


@contextlib.contextmanager
def _bounded(connection: Connection, schema: str, *, all_tables: bool) -> Iterator[None]:
    path = connection.db_filename(schema)
    counted = held = _allocated_bytes(path)
    if counted > _SMALL_BYTES:  # what a small file claims to have makes no difference, and takes two statements to read
        counted = min(counted, sqlite.claimed_bytes(connection, schema))
    steps = _STEPS + _STEPS_A_BYTE * counted
    block = (id(connection), schema)
    _blocks[block] = held
    try:
        with sqlite.limit_steps_in_block(connection, steps, partial(ensure_sound, path, all_tables=all_tables)):
            yield
    finally:
        del _blocks[block]


def row_bytes(connection: Connection, schema: str, rows: int, used_bytes: int) -> int:
    """Return about how many bytes a row of an attached database takes, at least 1, in a block that is `bounded`.

    A file of holes claims more than it has, and would be copied row by row. What the file system holds counts instead,
    unless that cannot be all, because it holds the file compressed or has yet to write it.

    Args:
        connection: the connection.
        schema: the name by which the database is attached.
        rows: how many rows it has.
        used_bytes: what its pages in use take.
    """
    held = _blocks[id(connection), schema]
    if held >= _ROW_BYTES_MIN * rows:
        used_bytes = min(used_bytes, held)
    return max(1, used_bytes // max(1, rows))


def _allocated_bytes(path: str) -> int:
    """Return how much the file system holds of a database and its WAL; 0 if it does not say."""
    found = 0
    for name in (path, paths.wal(path)):
        try:  # each shard comes here twice, and contextlib.suppress costs more than the call
            found += os.stat(name).st_blocks * _BLOCK_BYTES
        except OSError:
            continue
    return found


def ensure_sound(path: str, *, all_tables: bool = False) -> None:
    """Check the form of each table that we read, over a connection of its own.

    Raises:
        DamagedError: it is damaged.
        StorageError: it cannot be checked.
    """
    with sqlite.translate_errors(_ACTION, path):
        connection = sqlite.connect_untrusted(path, _BUSY_TIMEOUT_S)
        try:
            pages: int = connection.pragma("page_count")
            if pages // 8 > max(_CHECK_BYTES_MAX, _allocated_bytes(path)):
                raise DamagedError(_ACTION, path, f"it has {pages} pages, most of which are holes")
            sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0"
            ordinary = {name for (name,) in sqlite.fetch(connection, sql)}
            for name in sorted(ordinary if all_tables else ordinary & format.DDL.keys()):
                _check(connection, path, name)
            if all_tables:
                return
            # by now it is known to be sound
            sql = "SELECT DISTINCT table_name FROM main._edgeshard_columns"
            for (name,) in sqlite.fetch_typed(connection, path, (str,), sql):
                if name in ordinary:
                    _check(connection, path, name)
        finally:
            connection.close()


def _check(connection: Connection, path: str, table: str) -> None:
    ((finding,), *_) = sqlite.fetch(connection, f"PRAGMA quick_check({quote(table)})")
    if finding != "ok":
        raise DamagedError(_ACTION, path, f"SQLite finds in table {table!r:.120}: {' '.join(finding.split()):.200}")
