"""Own _edgeshard_pruned_ranges: which rows were pruned, by address and reason. This tells them from lost ones.

What this master pruned itself (``is_own``) is in its ranges, and in none of its blocks. What a merged database says
explains why rows did not come along: it means nothing for rows that this master ever held, and decides nothing about
what is copied or deleted.

What a merged database says may be about this master itself: it pruned the rows, and then an older copy of it was put
back, which still lacks them. They count as pruned in reports, not as missing.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from edgeshard import sqlite
from edgeshard.format.ranges import PrunedRange, Range, clip, size, subtract, union
from edgeshard.master import extents, identity, retired, streams
from edgeshard.sqlite import Connection

#: The reason of tombstones that were collected.
TOMBSTONES: Final = "tombstone"

#: The reasons of rows that somebody deleted with another program. In a stream of which rows were superseded, too,
#: nobody can tell one kind from the other, unless the deletion was noted (see `by_hand`).
BY_HAND: Final = "by hand"
BY_HAND_OR_SUPERSEDED: Final = "by hand or superseded"

#: The reason of rows that were erased.
ERASED: Final = "erased"

#: The reason of rows of a stream of which all rows were superseded, in the form in which it can retire.
SUPERSEDED: Final = "superseded"

#: What became of rows with a reason that is not the name of a retention rule: a state of `reports.RowStates`.
STATES: Final = {
    TOMBSTONES: "collected",
    BY_HAND: "by_hand",
    BY_HAND_OR_SUPERSEDED: "by_hand",
    ERASED: "erased",
    SUPERSEDED: "superseded",
}

#: The condition that this master pruned the rows itself.
_OWN: Final = f"is_own = 1 AND database_id = {identity.OWN_ID}"

#: The condition that a newer copy of this master pruned them, before this one was put back in its place.
_OF_NEWER_COPY: Final = f"is_own = 0 AND database_id = {identity.OWN_ID}"


def is_rule(reason: str) -> bool:
    """Return whether a reason is the name of a retention rule."""
    return STATES.get(reason, "collected") == "collected"


def record(connection: Connection, stream_no: int, seqs: Range, reason: str) -> None:
    """Record that this master prunes these seqs, in the transaction that deletes their rows and blocks.

    They are joined with adjacent seqs that were pruned for the same reason, so there are no more entries than runs of
    rows.
    """
    own = f"{_OWN} AND stream_no = ?1"
    adjacent = sqlite.fetch(
        connection,
        f"SELECT first, last FROM (SELECT * FROM main._edgeshard_pruned_ranges WHERE {own} AND first < ?2 "
        "ORDER BY first DESC LIMIT 1) WHERE last = ?2 - 1 AND reason = ?4 UNION ALL "
        f"SELECT first, last FROM main._edgeshard_pruned_ranges WHERE {own} AND first = ?3 + 1 AND reason = ?4",
        (stream_no, seqs.first, seqs.last, reason),
    )
    (whole,) = union([seqs, *(Range(*row) for row in adjacent)])
    for first, _ in adjacent:
        sql = f"DELETE FROM main._edgeshard_pruned_ranges WHERE {own} AND first = ?2"
        connection.execute(sql, (stream_no, first))
    connection.execute(
        f"INSERT INTO main._edgeshard_pruned_ranges VALUES (1, {identity.OWN_ID}, ?, ?, ?, ?, ?)",
        (stream_no, whole.first, whole.last, reason, datetime.datetime.now(datetime.UTC).isoformat()),
    )


def record_restored(connection: Connection, stream_no: int, rows: Mapping[str, int], pruned_at: str) -> None:
    """Record of a stream that was retired that this master pruned all of its rows.

    Args:
        connection: the master, in the transaction that restores the stream.
        stream_no: its number now.
        rows: how many rows count for each rule.
        pruned_at: when the last of them was pruned, ISO 8601, UTC.
    """
    first = 1
    for reason, count in rows.items():
        connection.execute(
            f"INSERT INTO main._edgeshard_pruned_ranges VALUES (1, {identity.OWN_ID}, ?, ?, ?, ?, ?)",
            (stream_no, first, first + count - 1, reason, pruned_at),
        )
        first += count


def is_collected(connection: Connection, stream_no: int, seq: int) -> bool:
    """Return whether this master collected the tombstone with this address."""
    sql = (
        f"SELECT last, reason FROM main._edgeshard_pruned_ranges WHERE {_OWN} AND stream_no = ? AND first <= ? "
        "ORDER BY first DESC LIMIT 1"
    )
    return any(seq <= last and reason == TOMBSTONES for last, reason in sqlite.fetch(connection, sql, (stream_no, seq)))


def own_rows(connection: Connection, stream_no: int) -> Counter[str]:
    """Return how many rows of a stream this master pruned, by the rule that selected them."""
    found: Counter[str] = Counter()
    sql = f"SELECT reason, last - first + 1 FROM main._edgeshard_pruned_ranges WHERE {_OWN} AND stream_no = ?"
    for reason, rows in sqlite.fetch(connection, sql, (stream_no,)):
        found[reason] += rows
    return found


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget what was pruned of a stream, in the transaction in which it retires.

    The record of the retired stream says what this master pruned. What merged databases say explains the absence of
    rows that this master never held, and it held all rows of this stream.
    """
    table = "main._edgeshard_pruned_ranges"
    connection.execute(f"DELETE FROM {table} WHERE {_OWN} AND stream_no = ?", (stream_no,))
    # there is no index on the number alone, and few databases: look for the next one, instead of reading all entries
    connection.execute(
        f"WITH RECURSIVE d(id) AS (SELECT min(database_id) FROM {table} WHERE is_own = 0 UNION ALL "
        f"SELECT (SELECT min(database_id) FROM {table} WHERE is_own = 0 AND database_id > d.id) FROM d "
        "WHERE id IS NOT NULL) "
        f"DELETE FROM {table} WHERE is_own = 0 AND database_id IN (SELECT id FROM d WHERE id IS NOT NULL) "
        "AND stream_no = ?",
        (stream_no,),
    )


def streams_pruned_from_the_first(connection: Connection) -> list[int]:
    """Return the numbers of the streams of which this master pruned the first row."""
    table = "main._edgeshard_pruned_ranges p"
    # a stream may have any number of entries: look for the next stream, instead of reading all entries
    next_own = f"SELECT min(stream_no) FROM {table} WHERE {_OWN} AND p.stream_no > n.stream_no"
    rows = sqlite.fetch(
        connection,
        f"WITH RECURSIVE n(stream_no) AS (SELECT -1 UNION ALL SELECT ({next_own}) FROM n WHERE stream_no IS NOT NULL) "
        "SELECT stream_no FROM n WHERE stream_no IS NOT NULL "
        f"AND EXISTS (SELECT 1 FROM {table} WHERE {_OWN} AND p.stream_no = n.stream_no AND first = 1)",
    )
    return [number for (number,) in rows]


def record_from_source(
    connection: Connection, stream_no: int, found: Iterable[PrunedRange], held: Sequence[Range]
) -> None:
    """Record why a source lacks rows that the main database does not hold either.

    Args:
        connection: the database that is merged into.
        stream_no: its number for the stream.
        found: what the source says, ordered by database and seq.
        held: the seqs of the stream that the main database has ever held, at least among these, in order.
    """
    for database_id, pruned in itertools.groupby(found, key=lambda item: item.database_id):
        for item in pruned:
            recorded = _ranges_around(connection, database_id, stream_no, item.seqs)
            if not subtract([item.seqs], [*clip(held, item.seqs), *recorded]):
                continue
            # recorded whole, so that the next merge recognizes it by one look-up; a prune may have extended it since
            inside = [part for part in recorded if clip([item.seqs], part) == [part]]
            connection.executemany(
                "DELETE FROM main._edgeshard_pruned_ranges "
                "WHERE is_own = 0 AND database_id = ? AND stream_no = ? AND first = ?",
                [(database_id, stream_no, part.first) for part in inside],
            )
            connection.executemany(
                "INSERT INTO main._edgeshard_pruned_ranges VALUES (0, ?, ?, ?, ?, ?, ?)",
                [
                    (database_id, stream_no, part.first, part.last, item.reason, item.pruned_at)
                    for part in subtract([item.seqs], [part for part in recorded if part not in inside])
                ],
            )


def by_reason(connection: Connection) -> dict[str, int]:
    """Return how many rows this master pruned, by the rule that selected them; also those of a newer copy of it."""
    found = retired.rows_by_reason(connection)
    sql = f"SELECT reason, sum(last - first + 1) FROM main._edgeshard_pruned_ranges WHERE {_OWN} GROUP BY reason"
    found.update(dict(sqlite.fetch(connection, sql)))
    for stream_no, pruned in of_newer_copy(connection).items():
        held = extents.ranges(connection, stream_no)
        for item in pruned:
            found[item.reason] += size(subtract([item.seqs], held))
    return {reason: rows for reason, rows in sorted(found.items()) if rows and reason != SUPERSEDED}


def rows_by_state(connection: Connection) -> dict[int, dict[str, int]]:
    """Map each stream number to how many of its rows this master deleted for one of the reasons in `STATES`."""
    listed = ", ".join("?" * len(STATES))
    found: dict[int, dict[str, int]] = {}
    for number, reason, rows in sqlite.fetch(
        connection,
        f"SELECT stream_no, reason, sum(last - first + 1) FROM main._edgeshard_pruned_ranges WHERE {_OWN} "
        f"AND reason IN ({listed}) GROUP BY stream_no, reason",
        tuple(STATES),
    ):
        rows_of = found.setdefault(number, {})
        rows_of[STATES[reason]] = rows_of.get(STATES[reason], 0) + rows
    return found


def by_hand(connection: Connection) -> dict[int, list[Range]]:
    """Map stream numbers to the seqs whose rows were deleted from this master by hand, in order."""
    return with_reason(connection, BY_HAND, BY_HAND_OR_SUPERSEDED)


def with_reason(connection: Connection, *reasons: str) -> dict[int, list[Range]]:
    """Map stream numbers to the seqs whose rows this master deleted for one of these reasons, in order."""
    found: dict[int, list[Range]] = {}
    for number, first, last in sqlite.fetch(
        connection,
        f"SELECT stream_no, first, last FROM main._edgeshard_pruned_ranges WHERE {_OWN} "
        f"AND reason IN ({', '.join('?' * len(reasons))}) ORDER BY stream_no, first",
        reasons,
    ):
        found.setdefault(number, []).append(Range(first, last))
    return found


def has_deletions_by_request(connection: Connection) -> bool:
    """Return whether rows of this master were erased, or deleted by hand."""
    reasons = (BY_HAND, BY_HAND_OR_SUPERSEDED, ERASED)
    sql = f"SELECT 1 FROM main._edgeshard_pruned_ranges WHERE {_OWN} AND reason IN (?, ?, ?) LIMIT 1"
    return sqlite.scalar(connection, sql, reasons) is not None


def streams_of_newer_copy(connection: Connection) -> list[int]:
    """Return the numbers of the streams that this master had pruned rows of before an older copy of it was put back."""
    sql = f"SELECT DISTINCT stream_no FROM main._edgeshard_pruned_ranges WHERE {_OF_NEWER_COPY}"
    return [number for (number,) in sqlite.fetch(connection, sql)]


def of_newer_copy(connection: Connection, stream_no: int | None = None) -> dict[int, list[PrunedRange]]:
    """Map stream numbers to what this master had pruned before an older copy of it was put back.

    Args:
        connection: the master.
        stream_no: only of this stream; None: of all.
    """
    found: dict[int, list[PrunedRange]] = {}
    only = "" if stream_no is None else f"AND stream_no = {stream_no:d}"
    for number, first, last, *rest in connection.execute(
        f"SELECT stream_no, first, last, database_id, reason, pruned_at FROM main._edgeshard_pruned_ranges "
        f"WHERE {_OF_NEWER_COPY} {only} ORDER BY stream_no, first"
    ):
        found.setdefault(number, []).append(PrunedRange(Range(first, last), *rest))
    return found


def elsewhere(connection: Connection, stream_id: bytes) -> list[PrunedRange]:
    """Return what other databases pruned of a stream."""
    rows = sqlite.fetch(
        connection,
        f"SELECT first, last, p.database_id, reason, pruned_at FROM main._edgeshard_pruned_ranges p {streams.JOIN} "
        f"WHERE stream_id = ? AND is_own = 0 AND p.database_id <> {identity.OWN_ID} ORDER BY first",
        (stream_id,),
    )
    return [PrunedRange(Range(first, last), *rest) for first, last, *rest in rows]


def stream_numbers(connection: Connection) -> set[int]:
    """Return the numbers of the streams that this master, or another database, pruned rows of."""
    sql = "SELECT DISTINCT stream_no FROM main._edgeshard_pruned_ranges"
    return {number for (number,) in sqlite.fetch(connection, sql)}


def streams_since(connection: Connection, since_s: float, besides: str) -> set[int]:
    """Return the numbers of the streams that this master, or another database, pruned rows of since a time.

    Args:
        connection: the master.
        since_s: the time, in seconds since 1970.
        besides: a reason that does not count.
    """
    sql = "SELECT stream_no, max(pruned_at) FROM main._edgeshard_pruned_ranges WHERE reason <> ? GROUP BY stream_no"
    return {number for number, at in sqlite.fetch(connection, sql, (besides,)) if _seconds(at) >= since_s}


def _seconds(pruned_at: str) -> float:
    """Return a time in seconds since 1970. A source may have written anything; such a time counts as in the future."""
    try:
        return datetime.datetime.fromisoformat(pruned_at).timestamp()
    except (ValueError, OverflowError):
        return math.inf


# -- checks -----------------------------------------------------------------------------------------------------------


def errors(connection: Connection, limit: int) -> Iterator[str]:
    """Check that each seq ever held is either in a block or pruned; yield at most `limit` findings of each check."""
    yield from itertools.islice(_misplaced(connection), limit)
    yield from itertools.islice(_unaccounted(connection), limit)


def _misplaced(connection: Connection) -> Iterator[str]:
    for number, first, last in connection.execute(
        f"SELECT stream_no, first, last FROM main._edgeshard_pruned_ranges p WHERE {_OWN} "
        f"AND NOT {extents.covered_by_range('p')}"
    ):
        yield f"stream number {number}: seqs {first} to {last} were pruned, but have no range: they would come back"
    for number, first in connection.execute(
        "SELECT stream_no, first FROM (SELECT stream_no, first, lag(last) OVER (PARTITION BY stream_no ORDER BY first) "
        f"AS before FROM main._edgeshard_pruned_ranges WHERE {_OWN}) WHERE before >= first"
    ):
        yield f"stream number {number}: seq {first} was pruned twice"
    for number, first, last in connection.execute(
        f"SELECT stream_no, first, last FROM main._edgeshard_pruned_ranges p WHERE {_OWN} "
        f"AND {extents.block_end('p')} >= p.first"
    ):
        yield f"stream number {number}: seqs {first} to {last} were pruned, and some of them have a block"


def _unaccounted(connection: Connection) -> Iterator[str]:
    """Find each run of seqs that the master held, and that is in no block and was not pruned."""
    sql = f"SELECT stream_no, sum(last - first + 1) FROM main._edgeshard_pruned_ranges WHERE {_OWN} GROUP BY stream_no"
    pruned = dict(sqlite.fetch(connection, sql))
    here = extents.block_rows(connection)
    for number, count in extents.range_rows(connection).items():
        if count != here.get(number, 0) + pruned.get(number, 0):
            in_blocks = [Range(block.first, block.last) for block in extents.blocks(connection, number)]
            known = in_blocks + _ranges(connection, number, _OWN)
            for part in subtract(extents.ranges(connection, number), known):
                text = "were here, and are neither here now nor pruned"
                yield f"stream number {number}: seqs {part.first} to {part.last} {text}"


def _ranges_around(connection: Connection, database_id: bytes, stream_no: int, seqs: Range) -> list[Range]:
    """Return which of these seqs of a stream merged databases say that a database pruned, in the recorded intervals."""
    sql = (
        "SELECT first, last FROM main._edgeshard_pruned_ranges "
        "WHERE is_own = 0 AND database_id = ?1 AND stream_no = ?2 "
        "AND first <= ?4 AND first >= coalesce((SELECT max(first) FROM main._edgeshard_pruned_ranges "
        "WHERE is_own = 0 AND database_id = ?1 AND stream_no = ?2 AND first <= ?3), 0)"
    )
    bindings = (database_id, stream_no, seqs.first, seqs.last)
    return [Range(*row) for row in sqlite.fetch(connection, sql, bindings)]


def _ranges(connection: Connection, stream_no: int, where: str, bindings: tuple[Any, ...] = ()) -> list[Range]:
    sql = f"SELECT first, last FROM main._edgeshard_pruned_ranges WHERE stream_no = ? AND {where}"
    return [Range(*row) for row in sqlite.fetch(connection, sql, (stream_no, *bindings))]
