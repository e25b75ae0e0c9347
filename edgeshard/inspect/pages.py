"""Parse a damaged SQLite file page by page, for salvage, and return each row that is whole.

SQLite reads a tree from its root, so one damaged page hides all pages below it. Here every page
is read on its own (https://sqlite.org/fileformat2.html). A row counts only if every byte of it is there and its lengths
agree. (SQLite's own ``.recover`` is not in apsw's wheels, and fills missing parts of a row with zeros.)

A WAL counts up to its last complete transaction, as it does for SQLite. Nothing here opens a database.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import attrs

#: A value in a column of a row.
Value = int | float | str | bytes | None

_TABLE_LEAF, _INDEX_LEAF, _TABLE_INTERIOR, _INDEX_INTERIOR = 0x0D, 0x0A, 0x05, 0x02

#: Bytes of the header of each type of page that holds rows, and of the child's number before each of its rows. Of a
#: table's tree only the leaves hold rows, of an index and a table WITHOUT ROWID all pages.
_ROW_PAGES = {_TABLE_LEAF: (8, 0), _INDEX_LEAF: (8, 0), _INDEX_INTERIOR: (12, 4)}

_MAGIC = b"SQLite format 3\0"

_HEADER_BYTES = 100

_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24

_PAGE_BYTES = [512 << n for n in range(8)]


@attrs.frozen
class Cell:
    """A row as a page holds it.

    Attributes:
        row_id: its id, or None in a table WITHOUT ROWID.
        values: the values of its columns; a row may have fewer than its table.
    """

    row_id: int | None
    values: tuple[Value, ...]


class Pages:
    """The pages of a database and its WAL.

    Args:
        file: the database's file. Nothing may write to it meanwhile.
        wal: its WAL's file, or None.
        default_page_bytes: how large pages are, if the header does not say so.
    """

    def __init__(self, file: BinaryIO, wal: BinaryIO | None, default_page_bytes: int) -> None:
        self._file = file
        header = _read(file, 0, _HEADER_BYTES)
        is_whole = len(header) == _HEADER_BYTES and header.startswith(_MAGIC)  # otherwise nothing in it is trusted
        stated = struct.unpack(">H", header[16:18])[0] if is_whole else 0
        stated = 65536 if stated == 1 else stated
        self.page_bytes: int = stated if stated in _PAGE_BYTES else default_page_bytes
        self._usable = self.page_bytes - (header[20] if is_whole and header[20] < 32 else 0)
        self._wal = wal
        self._frames, self._count_after = ({}, 0) if wal is None else _frames(wal, self.page_bytes)
        self._in_file = file.seek(0, 2) // self.page_bytes
        self.count = max(self._in_file, max(self._frames, default=0))

    @property
    def missing(self) -> int:
        """How many whole pages at its end the database has lost: it says how many it has, unless that is damaged."""
        stated = self._count_after or self._stated_count()
        beyond = sum(self._in_file < number <= stated for number in self._frames)
        return max(0, stated - self._in_file - beyond)

    def _stated_count(self) -> int:
        """Return how many pages the header says there are, or 0 if SQLite would not believe it."""
        header = _read(self._file, 0, _HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC) or header[24:28] != header[92:96]:
            return 0
        return _uint32(header, 28)

    def page(self, number: int) -> bytes:
        """Return a page's bytes, or fewer if the file ends before."""
        offset = self._frames.get(number)
        if offset is not None and self._wal is not None:
            return _read(self._wal, offset, self.page_bytes)
        return _read(self._file, (number - 1) * self.page_bytes, self.page_bytes)

    def cells(self, number: int) -> list[Cell]:
        """Return the whole rows on a page, in its order, or [] if it holds none."""
        page = self.page(number)
        start = _HEADER_BYTES if number == 1 else 0
        if len(page) < self.page_bytes or page[start] not in _ROW_PAGES:
            return []
        is_table = page[start] == _TABLE_LEAF
        header_bytes, child_bytes = _ROW_PAGES[page[start]]
        pointers = _pointers(page, start, header_bytes)
        cells = (self._cell(page, pointer + child_bytes, is_table) for pointer in pointers)
        return [cell for cell in cells if cell is not None]

    def children(self, number: int) -> list[int]:
        """Return the pages that an interior page of a table leads to, or [] if it is not one."""
        page = self.page(number)
        start = _HEADER_BYTES if number == 1 else 0
        if len(page) < self.page_bytes or page[start] != _TABLE_INTERIOR:
            return []
        found = [_uint32(page, pointer) for pointer in _pointers(page, start, 12)]
        found.append(_uint32(page, start + 8))
        return [child for child in found if 1 < child <= self.count]

    def _cell(self, page: bytes, pointer: int, is_table: bool) -> Cell | None:
        try:
            length, at = _varint(page, pointer)
            row_id = None
            if is_table:
                row_id, at = _varint(page, at)
            payload = self._payload(page, at, length, is_table)
            return None if payload is None else Cell(row_id, _values(payload))
        except (IndexError, ValueError, struct.error):  # it is not whole
            return None

    def _payload(self, page: bytes, at: int, length: int, is_table: bool) -> bytes | None:
        most = self._usable - 35 if is_table else (self._usable - 12) * 64 // 255 - 23
        if length <= most:
            return page[at : at + length] if at + length <= self._usable else None
        least = (self._usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (self._usable - 4)
        local = local if local <= most else least
        if at + local + 4 > self._usable or length > self.count * self.page_bytes:
            return None
        parts, missing = [page[at : at + local]], length - local
        follower = _uint32(page, at + local)
        while missing > 0:
            further = self.page(follower) if 1 < follower <= self.count else b""
            if len(further) < self.page_bytes:
                return None
            parts.append(further[4 : 4 + min(missing, self._usable - 4)])
            missing -= self._usable - 4
            follower = _uint32(further, 0)
        return b"".join(parts) if follower == 0 else None


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _uint32(data: bytes, at: int) -> int:
    number: int = struct.unpack_from(">I", data, at)[0]
    return number


def _pointers(page: bytes, start: int, header_bytes: int) -> Iterator[int]:
    (count,) = struct.unpack_from(">H", page, start + 3)
    first = start + header_bytes
    if first + 2 * count <= len(page):
        yield from struct.unpack_from(f">{count}H", page, first)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length integer, and the offset of its end."""
    value = 0
    for n in range(8):
        byte = data[at + n]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


def _values(record: bytes) -> tuple[Value, ...]:
    """Return the columns of a record, which must have exactly its stated length.

    Raises:
        IndexError, ValueError, struct.error: it is not a record.
    """
    header_bytes, at = _varint(record, 0)
    serial_types = []
    while at < header_bytes:
        serial_type, at = _varint(record, at)
        serial_types.append(serial_type)
    if at != header_bytes:
        raise ValueError("the header has another length than it says")
    values = []
    for serial_type in serial_types:
        value, at = _value(record, at, serial_type)
        values.append(value)
    if at != len(record):
        raise ValueError("the record has another length than it says")
    return tuple(values)


def _value(record: bytes, at: int, serial_type: int) -> tuple[Value, int]:
    if serial_type in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[serial_type], at
    length = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8}.get(serial_type, (serial_type - 12) // 2)
    content = record[at : at + length]
    if serial_type in (10, 11) or serial_type < 0 or len(content) < length:
        raise ValueError("a column is not whole")
    if serial_type == 7:
        return struct.unpack(">d", content)[0], at + length
    if serial_type < 7:
        return int.from_bytes(content, "big", signed=True), at + length
    return content.decode() if serial_type % 2 else content, at + length


def _frames(wal: BinaryIO, page_bytes: int) -> tuple[dict[int, int], int]:
    """Map each page to the offset of its newest committed content in a WAL.

    Returns:
        The offsets, and how many pages the database has after the last commit, or 0 if there is none.
    """
    header = _read(wal, 0, _WAL_HEADER_BYTES)
    if len(header) < _WAL_HEADER_BYTES or header[:3] != b"\x37\x7f\x06" or _uint32(header, 8) != page_bytes:
        return {}, 0
    order = ">" if header[3] & 1 else "<"
    sums = _checksum(header[:24], (0, 0), order)
    if sums != struct.unpack(">II", header[24:]):
        return {}, 0
    committed: dict[int, int] = {}
    pending: dict[int, int] = {}
    count = 0
    offset = _WAL_HEADER_BYTES
    while len(frame := _read(wal, offset, _FRAME_HEADER_BYTES + page_bytes)) == _FRAME_HEADER_BYTES + page_bytes:
        number, pages_after = struct.unpack(">II", frame[:8])
        sums = _checksum(frame[24:], _checksum(frame[:8], sums, order), order)
        if frame[8:16] != header[16:24] or sums != struct.unpack(">II", frame[16:24]):
            break
        pending[number] = offset + _FRAME_HEADER_BYTES
        if pages_after:
            committed.update(pending)
            pending.clear()
            count = pages_after
        offset += len(frame)
    return committed, count


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    one, other = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + other) & 0xFFFFFFFF
        other = (other + second + one) & 0xFFFFFFFF
    return one, other
