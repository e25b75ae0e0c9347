"""Whatever must hold of a master, checked: SQLite's structure, rows against blocks and ranges, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import attrs

from edgeshard import database, master
from edgeshard.database import Connection, quote
from edgeshard.report import Gap


@attrs.frozen
class VerifyReport:
    """What `Store.verify` found.

    Attributes:
        rows: rows in the master's record tables.
        streams: streams it knows.
        errors: contradictions found in the master; each is damage, or a bug of ours.
        gaps: rows known to exist that the master never held; named, and filled once their database is merged.
    """

    rows: int
    streams: int
    errors: tuple[str, ...]
    gaps: tuple[Gap, ...]

    @property
    def ok(self) -> bool:
        """Whether the master contradicts itself nowhere and lacks nothing it knows of."""
        return not self.errors and not self.gaps

    def __str__(self) -> str:
        line = f"{self.rows} rows of {self.streams} streams: "
        if self.ok:
            return line + "all well"
        missing = sum(map(len, self.gaps))
        return line + f"{len(self.errors)} errors, {missing} rows missing in {len(self.gaps)} gaps"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {**attrs.asdict(self), "ok": self.ok}


def verify(connection: Connection) -> VerifyReport:
    """Check an open master, in one snapshot; reads every row of it once."""
    with database.reading(connection):
        tables = [name for (name,) in connection.execute("SELECT DISTINCT table_name FROM edgeshard_columns")]
        errors = tuple(_errors(connection, tables))
        rows = sum(database.scalar(connection, f"SELECT count(*) FROM {quote(name)}") for name in tables)
        streams = database.scalar(connection, "SELECT count(*) FROM edgeshard_streams")
        return VerifyReport(rows, streams, errors, master.gaps(connection))


def _errors(connection: Connection, tables: list[str]) -> Iterator[str]:
    for (finding,) in connection.execute("PRAGMA integrity_check(20)").fetchall():
        if finding != "ok":
            yield f"SQLite finds: {finding}"
    yield from _block_errors(connection)
    yield from _row_errors(connection, tables)


def _block_errors(connection: Connection) -> Iterator[str]:
    """Blocks lie in ranges, and no two of a stream overlap."""
    for number, first, last in connection.execute(
        "SELECT stream_no, first, last FROM edgeshard_blocks b WHERE NOT EXISTS (SELECT 1 FROM edgeshard_ranges r "
        "WHERE r.stream_no = b.stream_no AND r.first <= b.first AND r.last >= b.last)"
    ):
        yield f"stream number {number}: seqs {first} to {last} have a block, but no range"
    for number, first in connection.execute(
        "SELECT stream_no, first FROM (SELECT stream_no, first, "
        "lag(last) OVER (PARTITION BY stream_no ORDER BY first) AS before FROM edgeshard_blocks) WHERE before >= first"
    ):
        yield f"stream number {number}: two blocks hold seq {first}"
    for (first_id,) in connection.execute(
        "SELECT first_id FROM (SELECT first_id, lag(first_id + last - first) OVER (ORDER BY first_id) AS before "
        "FROM edgeshard_blocks) WHERE before >= first_id"
    ):
        yield f"two blocks hold the id {first_id}"


def _row_errors(connection: Connection, tables: list[str]) -> Iterator[str]:
    """Every row lies in a block of its stream, every seq of a block has its row, and no id has two."""
    counted: dict[int, int] = {}
    for name in tables:
        for number, count in database.fetch(
            connection, f"SELECT _stream, count(*) FROM {quote(name)} GROUP BY _stream"
        ):
            counted[number] = counted.get(number, 0) + count
        stray = database.scalar(
            connection,
            f"SELECT count(*) FROM {quote(name)} t WHERE coalesce(("
            "SELECT t._seq <= b.last AND t._id = b.first_id + t._seq - b.first FROM edgeshard_blocks b "
            "WHERE b.stream_no = t._stream AND b.first <= t._seq ORDER BY b.first DESC LIMIT 1), 0) = 0",
        )
        if stray:
            yield f"table {name}: {stray} rows are not where their address says"
    listed = database.fetch(
        connection, "SELECT stream_no, sum(last - first + 1) FROM edgeshard_blocks GROUP BY stream_no"
    )
    for number, expected in listed:
        found = counted.pop(number, 0)
        if found != expected:
            yield f"stream number {number}: {found} rows where its blocks hold {expected}"
    for number, found in counted.items():
        yield f"stream number {number}: {found} rows and no block"
    for one, other in combinations(tables, 2):
        sql = f"SELECT count(*) FROM {quote(one)} JOIN {quote(other)} USING(_id)"
        if doubled := database.scalar(connection, sql):
            yield f"tables {one} and {other} share {doubled} ids"
