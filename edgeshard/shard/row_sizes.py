"""Estimate how much space rows take: in their shard, and in the master, which has larger pages, and indexes.

Within a disk budget a merge must be able to copy each transaction, and it never divides one.
"""

from __future__ import annotations

import marshal
from typing import Any, Final

import attrs

from edgeshard.records.columns import Table

#: What a page of a table of the master has space for, in bytes: 4,096, less its header and one pointer. A larger row
#: leaves a part of its size in a page, and the rest in pages of its own.
_PAGE_BYTES, _ROW_BYTES_MAX = 4096, 4061

#: What a row, and an entry of an index, take besides the values as marshal encodes them: ids and pointers, in bytes.
_IN_SHARD, _IN_MASTER, _IN_INDEX = 8, 12, 2

#: What a value takes in a row at most, besides the bytes of a text or blob.
_VALUE_BYTES: Final = 9

#: Rows of less than this many bytes, without indexes or a history, take at most a quarter more in the master.
_SMALL_BYTES: Final = 1_000

#: How many times the size of their entries the pages of an index take that are filled in no order (measured: 1.05 to
#: 1.45).
_INDEX_GROWTH: Final = 1.5


@attrs.frozen
class RowSizes:
    """How much space the rows of one table take.

    Attributes:
        indexed: for each index that the master has of the table: where its columns are in the bindings of a row.
        copies: in how many tables of the master a row may be: with a history, a version may be moved to it.
    """

    indexed: tuple[tuple[int, ...], ...]
    copies: int

    @classmethod
    def of(cls, table: Table) -> RowSizes:
        """Return the sizes of the rows of a table."""
        own = 2 if table.is_timestamped else 1  # the id, and a timestamp
        places = {column.name.lower(): own + number for number, column in enumerate(table.columns)}
        key = table.key or (table.deletes_from.key if table.deletes_from else None)
        indexes = [*table.indexes, *([key.columns] if key else [])]
        has_history = table.key is not None and table.key.history
        return cls(tuple(tuple(places[name.lower()] for name in index) for index in indexes), 2 if has_history else 1)

    def measure(self, rows: list[tuple[Any, ...]]) -> tuple[int, int]:
        """Return how many bytes rows take: in the shard, and in the master.

        Args:
            rows: the bindings of their INSERT statement.

        Raises:
            ValueError: SQLite stores no such value.
        """
        sizes = [len(marshal.dumps(row, 2)) for row in rows]
        values = sum(sizes)
        if self.copies == 1 and not self.indexed and max(sizes) < _SMALL_BYTES:
            return values, values + values // 4
        in_indexes = sum(
            len(marshal.dumps([[row[place] for place in index] for row in rows], 2)) + len(rows) * _IN_INDEX
            for index in self.indexed
        )
        in_table = sum(_bytes_in_table(size + _IN_MASTER) for size in sizes)
        return values + len(rows) * _IN_SHARD, self.copies * in_table + int(_INDEX_GROWTH * in_indexes)


def bytes_of(row: tuple[Any, ...]) -> int:
    """Return how many bytes a row has, at most some bytes for each value more than it really has."""
    large = (value.encode() if isinstance(value, str) else value for value in row if isinstance(value, (str, bytes)))
    return sum(map(len, large)) + len(row) * _VALUE_BYTES


def _bytes_in_table(row_bytes: int) -> int:
    """Return what a row of this size takes in a table of the master, with its part of what is unused in its page."""
    if row_bytes > _ROW_BYTES_MAX:
        return row_bytes + _PAGE_BYTES // 2
    return _PAGE_BYTES // (_ROW_BYTES_MAX // row_bytes)
