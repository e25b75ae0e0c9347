"""The least that a merge of many files can be: SQLite copies their rows into one database, and does nothing else.

Its settings are its own, and so are its files. So it is the same in each version of edgeshard, and shows how much the
machine changed between two runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.timing import scratch, seconds
from edgeshard.sqlite import Connection

_TABLE: Final = "CREATE TABLE sample(id INTEGER PRIMARY KEY, source TEXT, value REAL, text TEXT) STRICT"
_COLUMNS: Final = "source, value, text"
_FILE_PAGE_BYTES: Final = 1_024
_TARGET_PAGE_BYTES: Final = 4_096
_CACHE_KIB: Final = 32_000


def make_files(folder: Path, count: int, rows: int, payload_bytes: int) -> list[Path]:
    """Create a number of files with `rows` rows each."""
    paths = [folder / f"{number}.db" for number in range(count)]
    text = "p" * payload_bytes
    for path in paths:
        connection = _open(path, _FILE_PAGE_BYTES)
        try:
            connection.execute("BEGIN")
            values = (("inlet", number / 7, text) for number in range(rows))
            connection.executemany(f"INSERT INTO sample({_COLUMNS}) VALUES (?, ?, ?)", values)
            connection.execute("COMMIT")
        finally:
            connection.close()
    return paths


def copy_seconds(folder: Path, paths: Sequence[Path]) -> float:
    """Time the copy of all files into a new database in a folder, from opening it to closing it.

    The database already has the table. The copy is one transaction of INSERT ... SELECT, which is on the disk when it
    has been committed.
    """
    with scratch(folder) as root:
        _open(root / "target.db", _TARGET_PAGE_BYTES).close()
        return seconds(lambda: _copy(root / "target.db", paths))


def _copy(target: Path, paths: Sequence[Path]) -> None:
    connection = Connection(str(target))
    try:
        connection.pragma("synchronous", "FULL")
        connection.pragma("cache_size", -_CACHE_KIB)
        for number, path in enumerate(paths):
            connection.execute(f"ATTACH ? AS file{number}", (str(path),))
        connection.execute("BEGIN IMMEDIATE")
        for number in range(len(paths)):
            connection.execute(f"INSERT INTO main.sample({_COLUMNS}) SELECT {_COLUMNS} FROM file{number}.sample")
        connection.execute("COMMIT")
    finally:
        connection.close()


def _open(path: Path, page_bytes: int) -> Connection:
    """Create a database in WAL mode, with the table."""
    connection = Connection(str(path))
    connection.pragma("page_size", page_bytes)
    connection.pragma("journal_mode", "WAL")
    connection.execute(_TABLE)
    return connection
