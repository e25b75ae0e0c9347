"""Read the master that is pushed, in snapshots of milliseconds.

No snapshot is open while the push waits for the network, because it would keep mergers from resetting the WAL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from edgeshard import sqlite
from edgeshard.errors import DamagedError
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import (
    catalog,
    database,
    extents,
    identity,
    pruned_ranges,
    receipts,
    rejected,
    retired,
    streams,
    superseded,
    tombstone_gc,
)
from edgeshard.master.rejected import Listed, Reason
from edgeshard.master.streams import Stream
from edgeshard.master.tombstone_gc import Collected
from edgeshard.postgres import names
from edgeshard.postgres.schema import Table
from edgeshard.postgres.values import Row
from edgeshard.records import keys
from edgeshard.sqlite import Connection, quote

_T = TypeVar("_T")

#: Rows in the first batch of a table, and at most.
_FIRST_ROWS: Final = 256

_ROWS_MAX: Final = 4_096

#: About how many encoded bytes a batch should have.
_BATCH_BYTES: Final = 512 << 10


class NotTextError(Exception):
    """A row contains a text that is not UTF-8.

    Attributes:
        row_id: the row's id.
    """

    def __init__(self, row_id: int) -> None:
        super().__init__(row_id)
        self.row_id = row_id


class MasterReader:
    """An open master, read-only. Use it with ``with``, or call ``close()``.

    Raises:
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: Connection = database.open_master(path, writable=False)

    def __enter__(self) -> MasterReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the master."""
        self._connection.close()

    # -- identity, streams and tables ----------------------------------------------------------------------------------

    def state(self) -> tuple[int, int]:
        """Return what differs after each merge that brought rows, or renamed, widened or added columns."""
        with database.translate_errors("push", self.path):
            return identity.next_id(self._connection), sqlite.scalar(self._connection, "PRAGMA schema_version")

    def streams(self) -> list[Stream]:
        """Return all streams, each with the blocks of its rows."""
        with database.translate_errors("push", self.path):
            return streams.load(self._connection)

    def row_bytes(self, all_streams: Iterable[Stream]) -> int:
        """Return about how many bytes a row takes on average."""
        with database.translate_errors("push", self.path):
            used = sqlite.used_bytes(self._connection)
        rows = sum(len(block) for stream in all_streams for block in stream.blocks)
        return max(1, used // max(1, rows))

    def tables(self) -> list[Table]:
        """Return the record tables."""
        with database.translate_errors("push", self.path):
            all_columns = catalog.all_columns(self._connection)
            indexes = catalog.all_indexes(self._connection)
            keyed = catalog.load_keys(self._connection)
            arrows = catalog.load_renames(self._connection)
        columns: dict[str, list[tuple[str, str]]] = {}
        for table, column, column_type in all_columns:
            columns.setdefault(table, []).append((column, column_type))
        folded = {name: frozenset((old.lower(), new.lower()) for old, new in found) for name, found in arrows.items()}
        owners = {keys.history_name(name).lower(): names.table_name(name) for name, key in keyed.items() if key.history}
        fixed = {name.lower(): frozenset(map(names.column_name, key.fixed)) for name, key in keyed.items()}
        fixed |= {name: fixed[owner.lower()] for name, owner in keys.companions(keyed).items()}
        return [
            Table(
                name,
                tuple(found),
                tuple(indexes.get(name, ())),
                keyed.get(name),
                folded.get(name.lower(), frozenset()),
                owners.get(name.lower(), ""),
                fixed.get(name.lower(), frozenset()),
            )
            for name, found in columns.items()
        ]

    def has_columns(self, tables: Iterable[Table]) -> bool:
        """Return whether these tables still have the columns that they had, with the same names and types."""
        with database.translate_errors("push", self.path):
            now = set(catalog.all_columns(self._connection))
        return now.issuperset((table.name, *column) for table in tables for column in table.columns)

    def superseded_rows(self, stream_nos: Iterable[int]) -> int:
        """Return how many seqs in the blocks of these streams have no row any more: newer rows superseded them."""
        with database.translate_errors("push", self.path):
            counts = superseded.superseded_counts(self._connection)
        return sum(counts.get(number, 0) for number in stream_nos)

    def transaction_at(self, row_id: int) -> Range | None:
        """Return the ids of the writer's transaction that a row belongs to, or None if the row is the only one."""
        with database.translate_errors("push", self.path):
            return extents.transaction_at(self._connection, row_id)

    # -- rows ----------------------------------------------------------------------------------------------------------

    def count_rows(self, table: Table, id_ranges: Iterable[Range]) -> int:
        """Return how many rows of a table have one of these ids."""
        sql = f"SELECT count(*) FROM {quote(table.name)} WHERE _id BETWEEN ? AND ?"
        return sum(self._fetch(sql, (ids.first, ids.last))[0][0] for ids in id_ranges)

    def rows_by_stream(self, table: Table, id_ranges: Iterable[Range]) -> dict[int, int]:
        """Return how many rows of a table have one of these ids, by the number of their stream."""
        sql = f"SELECT _stream, count(*) FROM {quote(table.name)} WHERE _id BETWEEN ? AND ? GROUP BY _stream"
        counts: dict[int, int] = {}
        for ids in id_ranges:
            for stream_no, rows in self._fetch(sql, (ids.first, ids.last)):
                counts[stream_no] = counts.get(stream_no, 0) + rows
        return counts

    def receipt(self, database_id: bytes) -> dict[bytes, list[Range]]:
        """Return which of the master's rows a database held after the last push, as its receipt says."""
        with database.translate_errors("push", self.path):
            return receipts.held_by(self._connection, database_id)

    # -- tombstones ----------------------------------------------------------------------------------------------------

    def collected_tombstones(self) -> dict[str, Collected]:
        """Return what prunes have deleted of the tombstones of each keyed table that had some pruned."""
        with database.translate_errors("push", self.path):
            return tombstone_gc.load(self._connection)

    def lacks(self, stream_id: bytes, ranges: Iterable[Range]) -> bool:
        """Return whether the master never had some of these rows of a stream."""
        with database.translate_errors("push", self.path):
            found = streams.find(self._connection, stream_id)
            if found is not None:
                return bool(subtract(ranges, extents.ranges(self._connection, found[0])))
            last_seq = retired.last_seq(self._connection, stream_id) or 0
            return any(item.last > last_seq for item in ranges)

    def collected_among(self, addresses: Iterable[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
        """Return those of these addresses whose tombstones this master has pruned."""
        with database.translate_errors("push", self.path):
            return [each for each in addresses if self._is_collected(*each)]

    def _is_collected(self, stream_id: bytes, seq: int) -> bool:
        found = streams.find(self._connection, stream_id)
        if found is not None:
            return pruned_ranges.is_collected(self._connection, found[0], seq)
        last_seq = retired.last_seq(self._connection, stream_id)  # all rows of such a stream were pruned
        return last_seq is not None and seq <= last_seq

    # -- rows ----------------------------------------------------------------------------------------------------------

    def first_id(self, table: Table, ids: Range) -> int | None:
        """Return the lowest of these ids that a row of the table has, or None if no row has one."""
        sql = f"SELECT min(_id) FROM {quote(table.name)} WHERE _id BETWEEN ? AND ?"
        ((first,),) = self._fetch(sql, (ids.first, ids.last))
        return None if first is None else int(first)

    def ids(self, table: Table, ids: Range) -> Iterator[int]:
        """Yield those of these ids that a row of the table has, in order; each batch from a snapshot of its own."""
        sql = f"SELECT _id FROM {quote(table.name)} WHERE _id BETWEEN ? AND ? ORDER BY _id LIMIT {_ROWS_MAX}"
        first = ids.first
        while found := self._fetch(sql, (first, ids.last)):
            yield from (row_id for (row_id,) in found)
            first = found[-1][0] + 1

    def rejected(self, database_id: bytes) -> Iterator[Listed]:
        """Yield the rows that a database rejected, as the master recorded them, from one snapshot."""
        with database.translate_errors("push", self.path):
            yield from rejected.listed(self._connection, database_id)

    def rejection_reasons(self, database_id: bytes) -> list[Reason]:
        """Return why a database rejected rows that are not dismissed."""
        with database.translate_errors("push", self.path):
            return rejected.reasons(self._connection, database_id)

    def batches(
        self, table: Table, ids: Range, encode: Callable[[Sequence[Row]], _T]
    ) -> Iterator[tuple[Sequence[int], _T]]:
        """Yield the ids of a table's rows that have one of these ids in batches, each with what `encode` makes of it.

        A row is its stream's number, its seq and the sources of the columns that it fills. The size of a batch follows
        that of the encoded rows.

        Raises:
            NotTextError: a row contains a text that is not UTF-8.
        """
        after, limit = ids.first - 1, _FIRST_ROWS
        while True:
            found = self._read_batch(table, after, ids.last, limit)
            if found is None:
                if limit == 1:
                    raise NotTextError(self._next_id(table, after))
                limit //= 2  # to find the row
                continue
            if not found:
                return
            batch: list[Row] = [row[1:] for row in found]
            encoded = encode(batch)
            yield [row[0] for row in found], encoded
            if len(found) < limit:
                return
            after = found[-1][0]
            size = len(encoded) if isinstance(encoded, bytes) else _BATCH_BYTES // 4
            limit = max(1, min(_ROWS_MAX, 4 * limit, limit * _BATCH_BYTES // max(1, size)))

    def _read_batch(self, table: Table, after: int, last: int, limit: int) -> list[tuple[Any, ...]] | None:
        """Read up to `limit` rows; return None if a text among them is not UTF-8."""
        columns = "".join(f", {quote(name)}" for column in table.sent for name, _ in column.sources)
        where = "WHERE _id > ? AND _id <= ? ORDER BY _id LIMIT ?"
        sql = f"SELECT _id, _stream, _seq{columns} FROM {quote(table.name)} {where}"
        with database.translate_errors("push", self.path):
            try:
                return sqlite.fetch(self._connection, sql, (after, last, limit))
            except UnicodeDecodeError:
                return None

    def _next_id(self, table: Table, after: int) -> int:
        ((found,),) = self._fetch(f"SELECT min(_id) FROM {quote(table.name)} WHERE _id > ?", (after,))
        return int(found)

    def _fetch(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with database.translate_errors("push", self.path):
            return sqlite.fetch(self._connection, sql, bindings)


def damaged(path: Path, cause: str) -> DamagedError:
    """Return the error for a master whose own account of its rows is wrong."""
    return DamagedError("push", path, f"{cause}; Store.verify (`edgeshard verify`) says more")
