"""Whatever must hold of a master, checked: SQLite's structure, rows against blocks and ranges, and what is missing.

A deep check reads every value as well, and compares the indexes with the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import attrs

from edgeshard import format, sqlite
from edgeshard.format.ranges import Range, intersect, subtract
from edgeshard.master import catalog, identity, pruned_ranges, receipts, superseded, versions
from edgeshard.master import streams as streams_module
from edgeshard.reports import Gap
from edgeshard.sqlite import Connection, quote

#: Findings of one kind that are named before there are too many to read.
_FINDINGS_MAX = 20

#: Why a gap is one.
PEER, OLDER_MASTER, OTHER_MASTER, UNKNOWN = "peer", "older master", "another master", "unknown"

PRUNED = "pruned"

# what can be said of a value without reading it as its class would; None of these is a value that `write` lets pass
_NO_SUCH_VALUE = {
    "json": "NOT json_valid({0})",
    "datetime": "julianday({0}) IS NULL",
    "date": "julianday({0}) IS NULL OR length({0}) <> 10",
    "uuid": "length({0}) <> 36 OR {0} GLOB '*[^0-9a-f-]*'",
}


@attrs.frozen
class Loss:
    """A part of a gap, and where its rows went, as far as that was noted.

    Attributes:
        gap: the rows.
        cause: "peer": another database holds them, as its receipt says; "pruned": another master, from which this one
            was merged, had deleted them by rule; "older master": this very master held them, and an older copy of it
            was put back; "another master": a shard gave them up to that; "unknown": they are in a shard that is set
            aside or was not merged here, or they are lost.
        database: the id of the database that holds them, or that pruned them, or that a shard gave them up to, in
            hexadecimal, or "".
        kind: what kind of database holds them, "edgeshard" or "postgresql", as its receipt says, or "".
    """

    gap: Gap
    cause: str
    database: str
    kind: str = ""


@attrs.frozen
class VerifyReport:
    """What `Store.verify` found.

    Attributes:
        rows: rows in the master's record tables.
        streams: streams it knows.
        errors: contradictions found in the master; each is damage, or a bug of ours.
        gaps: rows known to exist that the master never held; named, and filled once their database is merged.
        losses: the same, and where they went.
        database: the master's id, in hexadecimal, by which other databases know it.
        pruned: how many rows this master deleted by rule, by its name; they are no gap.
    """

    rows: int
    streams: int
    errors: tuple[str, ...]
    gaps: tuple[Gap, ...]
    losses: tuple[Loss, ...] = ()
    database: str = ""
    pruned: Mapping[str, int] = attrs.Factory(dict)

    @property
    def ok(self) -> bool:
        """Whether the master contradicts itself nowhere and lacks nothing it knows of."""
        return not self.errors and not self.gaps

    def __str__(self) -> str:
        line = f"{self.rows} rows of {self.streams} streams{self._pruned()}: "
        if self.ok:
            return line + "all well"
        missing = sum(map(len, self.gaps))
        return line + f"{len(self.errors)} errors, {missing} rows missing in {len(self.gaps)} gaps"

    def _pruned(self) -> str:
        reasons = ", ".join(f"{reason}: {rows}" for reason, rows in self.pruned.items())
        return f", {sum(self.pruned.values())} pruned ({reasons})" if self.pruned else ""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {**attrs.asdict(self), "ok": self.ok}


def verify(connection: Connection, *, deep: bool = False) -> VerifyReport:
    """Check an open master, in one snapshot.

    Args:
        connection: the master.
        deep: read every value, and each index, as well; without it the addresses of all rows, and each page's form.
    """
    with sqlite.read_snapshot(connection):
        tables = catalog.record_tables(connection)
        errors = tuple(_errors(connection, tables, deep=deep))
        rows = sum(sqlite.scalar(connection, f"SELECT count(*) FROM {quote(name)}") for name in tables)
        streams = sqlite.scalar(connection, "SELECT count(*) FROM edgeshard_streams")
        gaps = streams_module.gaps(connection)
        own = identity.database_id(connection)
        losses = tuple(_losses(connection, own, gaps))
        return VerifyReport(rows, streams, errors, gaps, losses, own.hex(), pruned_ranges.by_reason(connection))


def _losses(connection: Connection, own: bytes, gaps: Iterable[Gap]) -> Iterator[Loss]:
    """The gaps, divided by who has their rows, or else by what was noted of where they went."""
    for gap in gaps:
        left = [Range(gap.first, gap.last)]
        found: list[Loss] = []
        for ranges, loss in _traces(connection, own, gap):
            found += [attrs.evolve(loss, gap=_part(gap, part)) for part in intersect(left, ranges)]
            left = subtract(left, ranges)
        found += [Loss(_part(gap, part), UNKNOWN, "") for part in left]
        yield from sorted(found, key=lambda loss: loss.gap.first)


def _part(gap: Gap, part: Range) -> Gap:
    return attrs.evolve(gap, first=part.first, last=part.last)


def _traces(connection: Connection, own: bytes, gap: Gap) -> Iterator[tuple[list[Range], Loss]]:
    """What is known of a stream's rows, the best first: who holds them, and to whom they were given up."""
    stream_id = bytes.fromhex(gap.stream)
    for peer, held in receipts.holders(connection, stream_id):
        yield held, Loss(gap, PEER, peer.database_id.hex(), peer.kind)
    for pruning in pruned_ranges.elsewhere(connection, stream_id):
        yield [pruning.seqs], Loss(gap, PRUNED, pruning.database_id.hex())
    noted = sqlite.fetch(
        connection,
        "SELECT first, last, t.database_id FROM edgeshard_truncations t JOIN edgeshard_streams USING(stream_no) "
        "WHERE stream_id = ? ORDER BY first",
        (stream_id,),
    )
    for first, last, where in noted:
        yield [Range(first, last)], Loss(gap, OLDER_MASTER if where == own else OTHER_MASTER, where.hex())


def _errors(connection: Connection, tables: list[str], *, deep: bool) -> Iterator[str]:
    check = "integrity_check" if deep else "quick_check"
    for (finding,) in connection.execute(f"PRAGMA {check}({_FINDINGS_MAX})").fetchall():
        if finding != "ok":
            yield f"SQLite finds: {finding}"
    yield from _range_errors(connection)
    yield from _block_errors(connection)
    yield from pruned_ranges.errors(connection, _FINDINGS_MAX)
    yield from _row_errors(connection, tables)
    for name, rows in versions.tables_with_superseded(connection, tables):
        yield f"table {name}: {rows} rows should have been replaced by others with their key"
    if deep:
        yield from _value_errors(connection)


def _range_errors(connection: Connection) -> Iterator[str]:
    """Ranges are those of streams that are known, do not overlap, and end where the stream does."""
    for number, first, last in connection.execute(
        "SELECT stream_no, r.first, r.last FROM edgeshard_ranges r LEFT JOIN edgeshard_streams s USING(stream_no) "
        "WHERE s.last_seq IS NULL OR r.first < 1 OR r.last < r.first OR r.last > s.last_seq"
    ):
        yield f"stream number {number}: seqs {first} to {last} are no part of it"
    for number, first in connection.execute(
        "SELECT stream_no, first FROM (SELECT stream_no, first, "
        "lag(last) OVER (PARTITION BY stream_no ORDER BY first) AS before FROM edgeshard_ranges) WHERE before >= first"
    ):
        yield f"stream number {number}: two ranges hold seq {first}"
    highest = sqlite.scalar(connection, "SELECT max(first_id + last - first) FROM edgeshard_blocks") or 0
    next_id = sqlite.scalar(connection, "SELECT next_id FROM edgeshard_database")
    if next_id <= highest:
        yield f"the next row would get the id {next_id}, and {highest} is given already"


def _value_errors(connection: Connection) -> Iterator[str]:
    """Every value is one of its column's kind."""
    columns = sqlite.fetch(connection, "SELECT table_name, column_name, type FROM edgeshard_columns ORDER BY 1, 2")
    for table, column, kind in columns:
        name = quote(column)
        if kind in _NO_SUCH_VALUE:
            sql = f"SELECT count(*) FROM {quote(table)} WHERE {name} IS NOT NULL AND ({_NO_SUCH_VALUE[kind]})"
            if wrong := sqlite.scalar(connection, sql.format(name)):
                yield f"table {table}: {wrong} values of column {column} are no {kind}"
        if format.STORED_AS[kind] == "TEXT":
            wrong = sum(not _is_text(value) for (value,) in connection.execute(_as_blobs(table, name)))
            if wrong:
                yield f"table {table}: {wrong} texts of column {column} are not valid UTF-8"


def _as_blobs(table: str, column: str) -> str:
    return f"SELECT CAST({column} AS BLOB) FROM {quote(table)} WHERE {column} IS NOT NULL"


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


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
        for number, count in sqlite.fetch(connection, f"SELECT _stream, count(*) FROM {quote(name)} GROUP BY _stream"):
            counted[number] = counted.get(number, 0) + count
        stray = sqlite.scalar(
            connection,
            f"SELECT count(*) FROM {quote(name)} t WHERE coalesce(("
            "SELECT t._seq <= b.last AND t._id = b.first_id + t._seq - b.first FROM edgeshard_blocks b "
            "WHERE b.stream_no = t._stream AND b.first <= t._seq ORDER BY b.first DESC LIMIT 1), 0) = 0",
        )
        if stray:
            yield f"table {name}: {stray} rows are not where their address says"
    yield from _count_errors(connection, counted)
    for one, other in combinations(tables, 2):
        sql = f"SELECT count(*) FROM {quote(one)} JOIN {quote(other)} USING(_id)"
        if doubled := sqlite.scalar(connection, sql):
            yield f"tables {one} and {other} share {doubled} ids"


def _count_errors(connection: Connection, counted: dict[int, int]) -> Iterator[str]:
    """Each stream has as many rows as seqs in its blocks, but for those that newer rows replaced."""
    listed = sqlite.fetch(
        connection, "SELECT stream_no, sum(last - first + 1) FROM edgeshard_blocks GROUP BY stream_no"
    )
    replaced = superseded.superseded_counts(connection)
    for number, expected in listed:
        found, gone = counted.pop(number, 0), replaced.pop(number, 0)
        if gone < 0 or found + gone != expected:
            text = f"stream number {number}: {found} rows where its blocks hold {expected}"
            yield f"{text}, of which {gone} were replaced by newer ones" if gone else text
    for number, gone in replaced.items():
        if gone:
            yield f"stream number {number}: {gone} rows were replaced by newer ones, and it has no block"
    for number, found in counted.items():
        yield f"stream number {number}: {found} rows and no block"
