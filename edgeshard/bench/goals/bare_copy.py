"""The least that a merge of many files can be: SQLite copies their rows into one database, and does nothing else.

Its settings are its own, and so are its files. So it is the same in each version of edgeshard, and shows how much the
machine changed between two runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard.bench.costs.timing import scratch, seconds
from edgeshard.sqlite import Connection

_TABLE: Final = "CREATE TABLE sample(id INTEGER PRIMARY KEY, source TEXT, value REAL, text TEXT) STRICT"
_COLUMNS: Final = "source, value, text"
_TARGET_PAGE_BYTES: Final = 4_096
_CACHE_KIB: Final = 32_000


@attrs.frozen
class Files:
    """Files that have the same table, with as many rows in each.

    Attributes:
        paths: the files.
        rows: how many rows each of them has; their ids are 1, 2, 3 …
    """

    paths: Sequence[Path]
    rows: int

    @property
    def total_rows(self) -> int:
        """How many rows all of them have."""
        return len(self.paths) * self.rows


def make_files(folder: Path, count: int, rows: int, payload_bytes: int, page_bytes: int = 1_024) -> Files:
    """Create a number of files with `rows` rows each."""
    paths = [folder / f"{number}.db" for number in range(count)]
    text = "p" * payload_bytes
    for path in paths:
        connection = _open(path, page_bytes)
        try:
            connection.execute("BEGIN")
            values = (("inlet", number / 7, text) for number in range(rows))
            connection.executemany(f"INSERT INTO sample({_COLUMNS}) VALUES (?, ?, ?)", values)
            connection.execute("COMMIT")
        finally:
            connection.close()
    return Files(paths, rows)


def copy_seconds(folder: Path, files: Files, transaction_rows: int | None = None, cache_kib: int = _CACHE_KIB) -> float:
    """Time the copy of all files into a new database in a folder, from opening it to closing it.

    The database already has the table. The copy is INSERT ... SELECT. When a transaction has been committed it is on
    the disk, and if it is larger than 1,000 pages, SQLite has also written it into the database (a checkpoint).

    Args:
        folder: where to put the database.
        files: the files.
        transaction_rows: how many rows a transaction copies at most; None copies all in one.
        cache_kib: SQLite's cache of the database, in KiB.
    """
    with scratch(folder) as root:
        create_target(root / "target.db")
        return seconds(lambda: copy(root / "target.db", files, transaction_rows or files.total_rows, cache_kib))


def create_target(path: Path) -> None:
    """Create the database to copy into."""
    _open(path, _TARGET_PAGE_BYTES).close()


def copy(target: Path, files: Files, transaction_rows: int, cache_kib: int = _CACHE_KIB) -> None:
    """Copy all rows of the files, as `copy_seconds` does."""
    connection = Connection(str(target))
    try:
        connection.pragma("synchronous", "FULL")
        connection.pragma("cache_size", -cache_kib)
        for number, path in enumerate(files.paths):
            connection.execute(f"ATTACH ? AS file{number}", (str(path),))
        for parts in divide(len(files.paths), files.rows, transaction_rows):
            connection.execute("BEGIN IMMEDIATE")
            for number, first, last in parts:
                rows = f"SELECT {_COLUMNS} FROM file{number}.sample WHERE id BETWEEN ? AND ?"
                connection.execute(f"INSERT INTO main.sample({_COLUMNS}) {rows}", (first, last))
            connection.execute("COMMIT")
    finally:
        connection.close()


def divide(files: int, rows: int, transaction_rows: int) -> Iterator[list[tuple[int, int, int]]]:
    """Divide the rows of all files into transactions.

    Args:
        files: number of files.
        rows: how many rows each of them has.
        transaction_rows: how many rows a transaction copies at most.

    Yields:
        The parts of a transaction: the number of a file, from 0, and its first and its last row in the transaction.
    """
    total = files * rows
    for begin in range(0, total, transaction_rows):
        end = min(begin + transaction_rows, total)
        yield [
            (file, max(begin - file * rows, 0) + 1, min(end - file * rows, rows))
            for file in range(begin // rows, (end - 1) // rows + 1)
        ]


def _open(path: Path, page_bytes: int) -> Connection:
    """Create a database in WAL mode, with the table."""
    connection = Connection(str(path))
    connection.pragma("page_size", page_bytes)
    connection.pragma("journal_mode", "WAL")
    connection.execute(_TABLE)
    return connection
