"""Own _edgeshard_rejections and _edgeshard_rejected: rows that a PostgreSQL database cannot store, and why.

The record is about pushes alone: it decides what the next push to that database leaves out, and nothing else. Whoever
loses it, by restoring an older master, loses nothing: these rows are tried again.

Rows are recorded as ranges of seqs, and adjacent ranges with the same reason are one. Reasons are told apart by what
they are about (the kind, the table, the column, the constraint), so there are only as many as the tables permit. Of the
words, those about the first row are kept.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.format.ranges import Range, clip, subtract
from edgeshard.master import streams
from edgeshard.sqlite import Connection

#: Kinds of reasons that no server needs to give. The others are SQLSTATEs.
NUL: Final = "nul"
SURROGATE: Final = "surrogate"
NOT_UTF8: Final = "not-utf8"
VALUE: Final = "value"
AGENT: Final = "agent"
STREAM: Final = "stream"
TABLE: Final = "table"

#: The columns by which reasons are told apart.
_REASON: Final = "database_id, kind, table_name, column_name, constraint_name"

#: Ranges that one transaction changes, so that it keeps a merger waiting for milliseconds.
STEP: Final = 2_000


@attrs.frozen
class Reason:
    """Why a database cannot store rows.

    Attributes:
        kind: `NUL`, `SURROGATE`, ... or the SQLSTATE that the server answered.
        table: the table of the row that caused it, or "".
        column: the column that caused it, or "" if it is not a single column.
        constraint: the constraint or index of the server that refused it, or "".
        message: the reason in words. Reasons that differ in nothing else are one.
    """

    kind: str
    table: str = ""
    column: str = ""
    constraint: str = ""
    message: str = attrs.field(default="", eq=False)


@attrs.frozen
class Rejection:
    """Rows of one stream that a database cannot store.

    Attributes:
        stream_no: the master's number of the stream.
        seqs: the rows, whole transactions of the writer.
        seq: the first of them that the database cannot store.
        reason: why.
    """

    stream_no: int
    seqs: Range
    seq: int
    reason: Reason


@attrs.frozen
class Listed:
    """A rejection as it is recorded.

    Attributes:
        database_id: the database, 16 bytes.
        agent_id: the agent that wrote the rows.
        stream_id: the stream's id, 16 bytes.
        rejection: the rows, and why they are rejected.
        dismissed_why: why a user dismissed them, or "".
        dismissed_at: when, ISO 8601, or None if nobody did.
    """

    database_id: bytes
    agent_id: str
    stream_id: bytes
    rejection: Rejection
    dismissed_why: str = ""
    dismissed_at: str | None = None


# -- recording --------------------------------------------------------------------------------------------------------


def join(rejections: Iterable[Rejection]) -> list[Rejection]:
    """Return rejections in order of stream and seq, with adjacent ones of the same reason as one."""
    joined: list[Rejection] = []
    for item in sorted(rejections, key=lambda item: (item.stream_no, item.seqs)):
        last = joined[-1] if joined else None
        if (
            last is not None
            and (last.stream_no, last.reason) == (item.stream_no, item.reason)
            and item.seqs.first <= last.seqs.last + 1
        ):
            together = Range(last.seqs.first, max(last.seqs.last, item.seqs.last))
            joined[-1] = attrs.evolve(last, seqs=together)
        else:
            joined.append(item)
    return joined


def record(connection: Connection, database_id: bytes, rejections: Iterable[Rejection]) -> None:
    """Record rows as rejected, unless they are, in transactions of at most `STEP` ranges.

    Args:
        connection: the master, open for writing, without a transaction.
        database_id: the database that rejects them.
        rejections: the rows. Those of a stream that has retired meanwhile are left out.
    """
    joined = join(rejections)
    for at in range(0, len(joined), STEP):
        numbers: dict[Reason, int] = {}
        with sqlite.immediate(connection):
            for item in joined[at : at + STEP]:
                if streams.with_number(connection, item.stream_no) is None:
                    continue
                if item.reason not in numbers:
                    numbers[item.reason] = _reason_number(connection, database_id, item.reason)
                _record(connection, database_id, item, numbers[item.reason])


def _record(connection: Connection, database_id: bytes, new: Rejection, number: int) -> None:
    # what overlaps it, or is adjacent: the ranges are disjoint
    around = sqlite.fetch(
        connection,
        "SELECT first, last, seq, rejection_no FROM main._edgeshard_rejected WHERE database_id = ?1 AND stream_no = ?2 "
        "AND last >= ?3 - 1 AND first BETWEEN ifnull((SELECT max(first) FROM main._edgeshard_rejected "
        "WHERE database_id = ?1 AND stream_no = ?2 AND first < ?3), ?3) AND ?4 + 1",
        (database_id, new.stream_no, new.seqs.first, new.seqs.last),
    )
    parts = subtract([new.seqs], [Range(first, last) for first, last, _, _ in around])
    same = [(Range(first, last), seq) for first, last, seq, other in around if other == number]
    connection.executemany(
        "DELETE FROM main._edgeshard_rejected WHERE database_id = ? AND stream_no = ? AND first = ?",
        [(database_id, new.stream_no, seqs.first) for seqs, _ in same],
    )
    ours = [Rejection(new.stream_no, seqs, seq, new.reason) for seqs, seq in same]
    ours += [Rejection(new.stream_no, part, min(max(new.seq, part.first), part.last), new.reason) for part in parts]
    connection.executemany(
        "INSERT INTO main._edgeshard_rejected(database_id, stream_no, first, last, seq, rejection_no) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [(database_id, item.stream_no, item.seqs.first, item.seqs.last, item.seq, number) for item in join(ours)],
    )


def _reason_number(connection: Connection, database_id: bytes, reason: Reason) -> int:
    found = _find_reason(connection, database_id, reason)
    if found is not None:
        return found
    connection.execute(
        f"INSERT INTO main._edgeshard_rejections({_REASON}, message, dismissed_why) VALUES (?, ?, ?, ?, ?, ?, '')",
        (database_id, reason.kind, reason.table, reason.column, reason.constraint, reason.message),
    )
    return int(sqlite.scalar(connection, "SELECT last_insert_rowid()"))


def _find_reason(connection: Connection, database_id: bytes, reason: Reason) -> int | None:
    """Return the number of a reason for which rows are rejected, and not dismissed, or None."""
    found: int | None = sqlite.scalar(
        connection,
        f"SELECT rejection_no FROM main._edgeshard_rejections WHERE ({_REASON}) = (?, ?, ?, ?, ?) "
        "AND dismissed_at IS NULL",
        (database_id, reason.kind, reason.table, reason.column, reason.constraint),
    )
    return found


def dismiss(connection: Connection, why: str, table: str = "") -> None:
    """Dismiss all rows that are rejected now, or those that a row of one table caused: they are not pushed."""
    at = datetime.datetime.now(datetime.UTC).isoformat()
    with sqlite.immediate(connection):
        connection.execute(
            "UPDATE main._edgeshard_rejections SET dismissed_why = ?1, dismissed_at = ?2 "
            "WHERE dismissed_at IS NULL AND (?3 = '' OR table_name = ?3 COLLATE NOCASE)",
            (why, at, table),
        )


# -- forgetting -------------------------------------------------------------------------------------------------------


def forget_reasons(connection: Connection, database_id: bytes, reasons: Iterable[Reason]) -> None:
    """Forget rows that are rejected for one of these reasons, and not dismissed: the next push tries them again.

    Args:
        connection: the master, open for writing, without a transaction.
        database_id: the database.
        reasons: the reasons.
    """
    found = (_find_reason(connection, database_id, reason) for reason in reasons)
    numbers = json.dumps([number for number in found if number is not None])
    sql = (
        "SELECT stream_no, first FROM main._edgeshard_rejected WHERE database_id = ?1 "
        "AND (stream_no, first) > (?2, ?3) "
        f"AND rejection_no IN (SELECT value FROM json_each(?4)) ORDER BY stream_no, first LIMIT {STEP}"
    )
    step = [(-1, -1)]
    while step:
        with sqlite.immediate(connection):
            step = sqlite.fetch(connection, sql, (database_id, *step[-1], numbers))
            connection.executemany(
                "DELETE FROM main._edgeshard_rejected WHERE database_id = ? AND stream_no = ? AND first = ?",
                [(database_id, *row) for row in step],
            )
            if not step:
                _forget_unused_reasons(connection)


def forget_database(connection: Connection, database_id: bytes) -> None:
    """Forget all rows that a database rejected, dismissed ones as well: nothing will be pushed there again.

    Args:
        connection: the master, open for writing, without a transaction.
        database_id: the database.
    """
    found = None
    while found is None or len(found) == STEP:
        with sqlite.immediate(connection):
            sql = f"SELECT stream_no, first FROM main._edgeshard_rejected WHERE database_id = ? LIMIT {STEP}"
            found = sqlite.fetch(connection, sql, (database_id,))
            connection.executemany(
                "DELETE FROM main._edgeshard_rejected WHERE database_id = ? AND stream_no = ? AND first = ?",
                [(database_id, *row) for row in found],
            )
            if len(found) < STEP:
                _forget_unused_reasons(connection)


def forget_ranges(connection: Connection, database_id: bytes, gone: Mapping[int, Sequence[Range]]) -> None:
    """Forget that rows are rejected, because the database holds them by now or because they exist no more.

    Args:
        connection: the master, open for writing, without a transaction.
        database_id: the database.
        gone: the rows, by the number of their stream.
    """
    for stream_no, seqs in gone.items():
        for at in range(0, len(seqs), STEP):
            with sqlite.immediate(connection):
                _forget(connection, database_id, stream_no, seqs[at : at + STEP])
    with sqlite.immediate(connection):
        _forget_unused_reasons(connection)


def erase(connection: Connection, stream_no: int, seqs: Sequence[Range]) -> None:
    """Forget rows that are erased, in the caller's transaction, with the words of the server about such rows."""
    databases = sqlite.fetch(connection, "SELECT DISTINCT database_id FROM main._edgeshard_rejections")
    numbers = {number for (database_id,) in databases for number in _forget(connection, database_id, stream_no, seqs)}
    # the words may quote a value of an erased row
    connection.executemany(
        "UPDATE main._edgeshard_rejections SET message = '' WHERE rejection_no = ?", [(number,) for number in numbers]
    )
    if numbers:
        _forget_unused_reasons(connection)


def _forget(connection: Connection, database_id: bytes, stream_no: int, gone: Sequence[Range]) -> set[int]:
    """Forget rows of a stream, which are in order; return the numbers of the reasons that they had."""
    rows = sqlite.fetch(
        connection,
        "SELECT first, last, seq, rejection_no FROM main._edgeshard_rejected WHERE database_id = ?1 AND stream_no = ?2 "
        "AND last >= ?3 AND first BETWEEN ifnull((SELECT max(first) FROM main._edgeshard_rejected "
        "WHERE database_id = ?1 AND stream_no = ?2 AND first <= ?3), ?3) AND ?4",
        (database_id, stream_no, gone[0].first, gone[-1].last),
    )
    numbers = set()
    for first, last, seq, number in rows:
        holes = clip(gone, Range(first, last))
        if not holes:
            continue
        left = subtract([Range(first, last)], holes)
        numbers.add(number)
        connection.execute(
            "DELETE FROM main._edgeshard_rejected WHERE database_id = ? AND stream_no = ? AND first = ?",
            (database_id, stream_no, first),
        )
        connection.executemany(
            "INSERT INTO main._edgeshard_rejected(database_id, stream_no, first, last, seq, rejection_no) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [
                (database_id, stream_no, part.first, part.last, min(max(seq, part.first), part.last), number)
                for part in left
            ],
        )
    return numbers


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget the rejected rows of a stream, in the transaction in which it retires: it has no row left to push."""
    connection.execute(
        "DELETE FROM main._edgeshard_rejected WHERE stream_no = ? AND database_id IN "
        "(SELECT database_id FROM main._edgeshard_rejections)",
        (stream_no,),
    )


def _forget_unused_reasons(connection: Connection) -> None:
    connection.execute(
        "DELETE FROM main._edgeshard_rejections AS reason WHERE NOT EXISTS (SELECT 1 FROM main._edgeshard_rejected r "
        "WHERE r.database_id = reason.database_id AND r.rejection_no = reason.rejection_no)"
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def listed(connection: Connection, database_id: bytes | None = None) -> Iterator[Listed]:
    """Yield what is rejected by one database or all, dismissed or not, by database, agent, stream and seq."""
    sql = (
        "SELECT r.database_id, agent_id, stream_id, stream_no, first, last, seq, kind, table_name, column_name, "
        "constraint_name, message, dismissed_why, dismissed_at FROM main._edgeshard_rejected r "
        f"{streams.JOIN} JOIN main._edgeshard_rejections USING (rejection_no) "
        "WHERE ?1 IS NULL OR r.database_id = ?1 ORDER BY r.database_id, agent_id, stream_id, first"
    )
    for database, agent, stream_id, number, first, last, seq, *rest in connection.execute(sql, (database_id,)):
        *reason, why, at = rest
        yield Listed(database, agent, stream_id, Rejection(number, Range(first, last), seq, Reason(*reason)), why, at)


def reasons(connection: Connection, database_id: bytes) -> list[Reason]:
    """Return why a database rejected rows, except those that a user dismissed."""
    rows = sqlite.fetch(
        connection,
        "SELECT kind, table_name, column_name, constraint_name, message FROM main._edgeshard_rejections "
        "WHERE database_id = ? AND dismissed_at IS NULL ORDER BY rejection_no",
        (database_id,),
    )
    return [Reason(*row) for row in rows]


def rows(connection: Connection) -> int:
    """Return how many rows are rejected and not dismissed; one that several databases reject counts several times."""
    sql = (
        "SELECT ifnull(sum(last - first + 1), 0) FROM main._edgeshard_rejected "
        "JOIN main._edgeshard_rejections USING (rejection_no) WHERE dismissed_at IS NULL"
    )
    return int(sqlite.scalar(connection, sql))
