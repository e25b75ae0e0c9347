"""What was pruned, by address and reason: told from what was lost.

The lines of this master's own prunings lie in its ranges, and in none of its blocks. Those of other databases say why
their rows did not come with the others when they were merged: they are losses explained, if this master never held
the rows, and otherwise of no meaning.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from edgeshard import sqlite
from edgeshard.format import PRUNED_RANGES
from edgeshard.format.ranges import PrunedRange, Range, clip, subtract, union
from edgeshard.master import identity
from edgeshard.sqlite import Connection

_OWN = "database_id = (SELECT database_id FROM main.edgeshard_database)"


def note(connection: Connection, stream_no: int, seqs: Range, reason: str) -> None:
    """Remember that this master pruned these seqs, in the transaction in which their rows and blocks go.

    They share a line with those beside them that went for the same reason: there are as few lines as runs of rows.
    """
    own = f"{_OWN} AND stream_no = ?1"
    beside = sqlite.fetch(
        connection,
        f"SELECT first, last FROM (SELECT * FROM main.{PRUNED_RANGES} WHERE {own} AND first < ?2 "
        f"ORDER BY first DESC LIMIT 1) WHERE last = ?2 - 1 AND reason = ?4 "
        f"UNION ALL SELECT first, last FROM main.{PRUNED_RANGES} WHERE {own} AND first = ?3 + 1 AND reason = ?4",
        (stream_no, seqs.first, seqs.last, reason),
    )
    (whole,) = union([seqs, *(Range(*row) for row in beside)])
    for first, _ in beside:
        connection.execute(f"DELETE FROM main.{PRUNED_RANGES} WHERE {own} AND first = ?2", (stream_no, first))
    connection.execute(
        f"INSERT INTO main.{PRUNED_RANGES} SELECT database_id, ?, ?, ?, ?, ? FROM main.edgeshard_database",
        (stream_no, whole.first, whole.last, reason, datetime.datetime.now(datetime.UTC).isoformat()),
    )


def note_of_others(connection: Connection, stream_no: int, found: Iterable[PrunedRange], held: list[Range]) -> None:
    """Remember why a source lacks rows that the main database does not hold either.

    Args:
        connection: the database that is merged into.
        stream_no: its number for the stream.
        found: what the source says, in order of database and seq.
        held: what the main database has ever held of the stream.
    """
    own = identity.database_id(connection)
    for database_id, pruned in itertools.groupby(found, key=lambda item: item.database_id):
        if database_id == own:
            continue  # what it says of itself are its ranges; an older copy of it was put back
        items = list(pruned)
        noted = _of(connection, PRUNED_RANGES, stream_no, "AND database_id = ?", (database_id,))
        new = subtract([item.seqs for item in items], [*held, *noted])
        connection.executemany(
            f"INSERT INTO main.{PRUNED_RANGES} VALUES (?, ?, ?, ?, ?, ?)",
            [
                (database_id, stream_no, part.first, part.last, item.reason, item.pruned_at)
                for item in items
                for part in clip(new, item.seqs)
            ],
        )


def by_reason(connection: Connection) -> dict[str, int]:
    """How many rows this master pruned, by the rule that asked for it."""
    sql = f"SELECT reason, sum(last - first + 1) FROM main.{PRUNED_RANGES} WHERE {_OWN} GROUP BY reason ORDER BY reason"
    return dict(sqlite.fetch(connection, sql))


def elsewhere(connection: Connection, stream_id: bytes) -> list[PrunedRange]:
    """What other databases pruned of a stream."""
    rows = sqlite.fetch(
        connection,
        f"SELECT first, last, p.database_id, reason, pruned_at FROM main.{PRUNED_RANGES} p "
        f"JOIN main.edgeshard_streams USING(stream_no) WHERE stream_id = ? AND NOT p.{_OWN} ORDER BY first",
        (stream_id,),
    )
    return [PrunedRange(Range(first, last), *rest) for first, last, *rest in rows]


def streams_since(connection: Connection, since_s: float, besides: str) -> set[int]:
    """The numbers of streams of which this master, or another, pruned rows since a time, for another reason than one.

    Args:
        connection: the master.
        since_s: the time, in seconds since 1970.
        besides: the reason that does not count.
    """
    sql = f"SELECT stream_no, max(pruned_at) FROM main.{PRUNED_RANGES} WHERE reason <> ? GROUP BY stream_no"
    return {number for number, at in sqlite.fetch(connection, sql, (besides,)) if _seconds(at) >= since_s}


def _seconds(pruned_at: str) -> float:
    """A time in seconds since 1970; that of a stranger may be anything, which counts as yet to come."""
    try:
        return datetime.datetime.fromisoformat(pruned_at).timestamp()
    except (ValueError, OverflowError):
        return math.inf


# -- what must hold ---------------------------------------------------------------------------------------------------


def errors(connection: Connection, limit: int) -> Iterator[str]:
    """What is held lies in a block or was pruned, and not both; at most `limit` findings of each kind."""
    yield from itertools.islice(_line_errors(connection), limit)
    yield from itertools.islice(_lost(connection), limit)


def _line_errors(connection: Connection) -> Iterator[str]:
    for number, first, last in connection.execute(
        f"SELECT stream_no, first, last FROM main.{PRUNED_RANGES} p WHERE {_OWN} AND NOT EXISTS (SELECT 1 FROM "
        "main.edgeshard_ranges r WHERE r.stream_no = p.stream_no AND r.first <= p.first AND r.last >= p.last)"
    ):
        yield f"stream number {number}: seqs {first} to {last} were pruned, but have no range: they would come back"
    for number, first in connection.execute(
        "SELECT stream_no, first FROM (SELECT stream_no, first, lag(last) OVER (PARTITION BY stream_no ORDER BY first) "
        f"AS before FROM main.{PRUNED_RANGES} WHERE {_OWN}) WHERE before >= first"
    ):
        yield f"stream number {number}: seq {first} was pruned twice"
    for number, first, last in connection.execute(
        f"SELECT stream_no, first, last FROM main.{PRUNED_RANGES} p WHERE {_OWN} AND coalesce((SELECT b.last FROM "
        "main.edgeshard_blocks b WHERE b.stream_no = p.stream_no AND b.first <= p.last ORDER BY b.first DESC LIMIT 1), "
        "0) >= p.first"
    ):
        yield f"stream number {number}: seqs {first} to {last} were pruned, and some of them have a block"


def _lost(connection: Connection) -> Iterator[str]:
    """Each run of seqs that a master held, and of which nothing says where they are."""
    sums = [_sums(connection, "edgeshard_ranges"), _sums(connection, "edgeshard_blocks"), _own_sums(connection)]
    held, here, pruned = sums
    for number, count in held.items():
        if count != here.get(number, 0) + pruned.get(number, 0):
            known = _of(connection, "edgeshard_blocks", number) + _own_of(connection, number)
            for part in subtract(_of(connection, "edgeshard_ranges", number), known):
                text = "were here, and are neither here now nor pruned"
                yield f"stream number {number}: seqs {part.first} to {part.last} {text}"


def _sums(connection: Connection, table: str, where: str = "") -> dict[int, int]:
    sql = f"SELECT stream_no, sum(last - first + 1) FROM main.{table} {where} GROUP BY stream_no"
    return dict(sqlite.fetch(connection, sql))


def _own_sums(connection: Connection) -> dict[int, int]:
    return _sums(connection, PRUNED_RANGES, f"WHERE {_OWN}")


def _of(
    connection: Connection, table: str, stream_no: int, where: str = "", bindings: tuple[Any, ...] = ()
) -> list[Range]:
    sql = f"SELECT first, last FROM main.{table} WHERE stream_no = ? {where}"
    return [Range(*row) for row in sqlite.fetch(connection, sql, (stream_no, *bindings))]


def _own_of(connection: Connection, stream_no: int) -> list[Range]:
    return _of(connection, PRUNED_RANGES, stream_no, f"AND {_OWN}")
