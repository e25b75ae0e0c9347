"""Reads the master that is pushed, in snapshots that last for milliseconds: none is open while the network is waited
for, so that none keeps a merger from emptying the log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from edgeshard import sqlite
from edgeshard.errors import DamagedError
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range
from edgeshard.master import catalog, database, extents, superseded
from edgeshard.postgres.plan import Stream
from edgeshard.postgres.schema import Table
from edgeshard.postgres.values import Row
from edgeshard.records import keys, renames
from edgeshard.sqlite import Connection, quote

_T = TypeVar("_T")

#: Rows of a first look into a table, and at most, and about how many bytes are wanted at a time.
_FIRST_ROWS = 256

_ROWS_MAX = 4_096

_PORTION_BYTES = 512 << 10


class NotTextError(Exception):
    """A text of the row with this id is not UTF-8; its writer did not go through edgeshard."""

    def __init__(self, row_id: int) -> None:
        super().__init__(row_id)
        self.row_id = row_id


class Local:
    """An open master, read-only. Use it with ``with``, or ``close()`` it.

    Raises:
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: Connection = database.open_master(path, writable=False)

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def next_id(self) -> int:
        """The id that the next row gets: it grows with each merge that brings rows."""
        return int(self._fetch("SELECT next_id FROM edgeshard_database")[0][0])

    def row_bytes(self) -> int:
        """About what a row takes."""
        with database.translate_errors("push", self.path):
            used = sqlite.used_bytes(self._connection)
        ((rows,),) = self._fetch("SELECT coalesce(sum(last - first + 1), 0) FROM edgeshard_blocks")
        return int(max(1, used // max(1, rows)))

    def streams(self) -> list[Stream]:
        """All streams, each with the rows that are here."""
        rows = self._fetch(
            "SELECT s.stream_no, stream_id, agent_id, began_at, last_seq, b.first, b.last, b.first_id "
            "FROM edgeshard_streams s LEFT JOIN edgeshard_blocks b USING(stream_no) ORDER BY s.stream_no, b.first"
        )
        found: dict[int, tuple[bytes, str, str, int]] = {}
        blocks: dict[int, list[Block]] = {}
        for number, stream_id, agent_id, began_at, last_seq, first, last, first_id in rows:
            found[number] = (stream_id, agent_id, began_at, last_seq)
            if first is not None:
                blocks.setdefault(number, []).append(Block(first, last, first_id))
        return [Stream(number, *described, tuple(blocks.get(number, ()))) for number, described in found.items()]

    def tables(self) -> list[Table]:
        """The record tables."""
        columns: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in self._fetch("SELECT table_name, column_name, type FROM edgeshard_columns"):
            columns.setdefault(table, []).append((column, kind))
        indexes: dict[str, list[tuple[str, ...]]] = {}
        for table, text in self._fetch("SELECT table_name, columns FROM edgeshard_indexes ORDER BY 1, 2"):
            indexes.setdefault(table, []).append(tuple(json.loads(text)))
        with database.translate_errors("push", self.path):
            keyed, arrows = catalog.load_keys(self._connection), catalog.renames_of(self._connection)
        older = {name: tuple(renames.ends(found).items()) for name, found in arrows.items()}
        owners = {keys.history_name(name).lower(): name.lower() for name, key in keyed.items() if key.history}
        return [
            Table(
                name,
                tuple(found),
                tuple(indexes.get(name, ())),
                keyed.get(name),
                older.get(name.lower(), ()),
                owners.get(name.lower(), ""),
            )
            for name, found in columns.items()
        ]

    def has_columns(self, tables: Iterable[Table]) -> bool:
        """Whether these tables still have the columns that they had, by the same names and of the same kinds."""
        there = set(self._fetch("SELECT table_name, column_name, type FROM edgeshard_columns"))
        return there.issuperset((table.name, *column) for table in tables for column in table.columns)

    def replaced(self, numbers: Iterable[int]) -> int:
        """How many seqs in the blocks of some streams, by their numbers, have no row any more: newer ones are there."""
        with database.translate_errors("push", self.path):
            known = superseded.superseded_counts(self._connection)
        return sum(known.get(number, 0) for number in numbers)

    def transaction(self, row_id: int) -> Range | None:
        """The ids of the writer's transaction that a row belongs to, where it is of more than one row."""
        with database.translate_errors("push", self.path):
            return extents.transaction_at(self._connection, row_id)

    def transaction_end(self, row_id: int) -> int | None:
        """The last id of that transaction."""
        found = self.transaction(row_id)
        return None if found is None else found.last

    def count(self, table: Table, runs: Iterable[Range]) -> int:
        """How many rows of a table have one of these ids."""
        sql = f"SELECT count(*) FROM {quote(table.name)} WHERE _id BETWEEN ? AND ?"
        return sum(self._fetch(sql, (run.first, run.last))[0][0] for run in runs)

    def first(self, table: Table, run: Range) -> int | None:
        """The first of these ids that a row of a table has."""
        sql = f"SELECT min(_id) FROM {quote(table.name)} WHERE _id BETWEEN ? AND ?"
        ((first,),) = self._fetch(sql, (run.first, run.last))
        return None if first is None else int(first)

    def rows(self, table: Table, run: Range, pack: Callable[[list[Row]], _T]) -> Iterator[tuple[list[Row], _T]]:
        """The rows of a table that have one of these ids, a portion at a time, and what `pack` makes of each.

        Each row is its stream's number, its seq, and its columns.

        Raises:
            NotTextError: a text is none.
        """
        after, limit = run.first - 1, _FIRST_ROWS
        while True:
            found = self._portion(table, after, run.last, limit)
            if found is None:
                if limit == 1:
                    raise NotTextError(self._next(table, after))
                limit //= 2
                continue
            if not found:
                return
            portion: list[Row] = [row[1:] for row in found]
            packed = pack(portion)
            yield portion, packed
            if len(found) < limit:
                return
            after = found[-1][0]
            taken = len(packed) if isinstance(packed, bytes) else _PORTION_BYTES // 4
            limit = max(1, min(_ROWS_MAX, 4 * limit, limit * _PORTION_BYTES // max(1, taken)))

    def _portion(self, table: Table, after: int, last: int, limit: int) -> list[tuple[Any, ...]] | None:
        """So many rows; None: a text among them is none."""
        names = "".join(f", {quote(column)}" for column, _ in table.columns)
        sql = (
            f"SELECT _id, _stream, _seq{names} FROM {quote(table.name)} WHERE _id > ? AND _id <= ? ORDER BY _id LIMIT ?"
        )
        with database.translate_errors("push", self.path):
            try:
                return sqlite.fetch(self._connection, sql, (after, last, limit))
            except UnicodeDecodeError:
                return None

    def _next(self, table: Table, after: int) -> int:
        ((found,),) = self._fetch(f"SELECT min(_id) FROM {quote(table.name)} WHERE _id > ?", (after,))
        return int(found)

    def _fetch(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with database.translate_errors("push", self.path):
            return sqlite.fetch(self._connection, sql, bindings)


def damaged(path: Path, cause: str) -> DamagedError:
    """What to raise of a master whose own account of its rows is wrong."""
    return DamagedError("push", path, f"{cause}; `edgeshard verify` says more")
