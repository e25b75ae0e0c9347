"""Delete from a shard what the master holds durably. Call it only after a commit of the master at FULL.

A truncation is written down first (``edgeshard_truncations``): from that commit on the rows do not count, whether they
are still in the file or not, so that they can be deleted in small transactions without ever showing a part of one.
Each step is idempotent: a killed truncation is finished by the next.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from edgeshard import format, sqlite
from edgeshard.files import scan
from edgeshard.files.fingerprint import State
from edgeshard.sources.source import Source
from edgeshard.sources.streams import shard_blocks
from edgeshard.sqlite import Connection, quote

#: Rows deleted in one transaction while a writer may wait for it; about 1 ms.
_DELETE_ROWS = 1_000

#: A shard that its agent goes on writing is cleared, too, and the few rows that the master lacks are put back, where
#: there are no more of them than this, ...
_PUT_BACK_ROWS = 5_000

#: ... and what is in the shard is no larger than this: its writer waits 10 ms, and deleting row by row costs five times
#: as much (measured).
_PUT_BACK_BYTES = 8 << 20

#: Until there is so much in it, a shard whose agent is far ahead of the merger is left for later: the agent will pause.
_AHEAD_BYTES = 64 << 20

#: A merger waits this long for a shard whose writer is in a transaction, and otherwise leaves it for the next merge.
_BUSY_TIMEOUT_S = 0.25

#: A file with more free pages than this, in bytes, gives them back to the disk, ...
_SHRINK_BYTES = 1 << 20

#: ... and before its log is copied into it already one with more than this: what is beyond the end of the database by
#: then is not copied.
_DEAD_BYTES = 64 << 10

#: Within a budget, the part of what is left that a shard may take whose rest is written anew.
_REWRITTEN_PART = 8

#: Pages given back in one transaction, where a budget leaves no room for VACUUM, a millisecond or two; and the fewest.
_GIVE_BACK_PAGES, _GIVE_BACK_LEAST = 200, 8

#: Each of them may write two more, that point to it.
_PAGES_A_PAGE = 3

#: A log shorter than this is left to grow: copying it would cost two fsyncs.
_LONG_LOG_BYTES = 256 << 10


@attrs.frozen
class Truncated:
    """What `truncate` did.

    Attributes:
        rows: how many it deleted.
        state: the state of the file, after that, in which it holds no row that does not count; () where it may hold
            one. It is looked at before the rows are, and our own change is no news.
    """

    rows: int
    state: State = ()


def truncate(
    shard: Source,
    durable: dict[bytes, int],
    master_id: bytes,
    patient: bool = False,
    left_bytes: int | None = None,
) -> Truncated | None:
    """Delete the rows of each stream up to the seq in `durable`.

    Args:
        shard: the shard; rows of no other table than those that were seen in it are touched.
        durable: the last seq of each stream that the master holds, by stream id.
        master_id: which master that is.
        patient: whether the next merge follows soon: then what would take long is left to it, up to a bound.
        left_bytes: what is left of the store's budget, if it has one: to put rows back, and VACUUM, write all that
            stays into the log.

    Returns:
        None where the shard was busy and keeps some for the next time, or was replaced.

    Raises:
        EdgeshardError: the shard cannot be written.
    """
    with sqlite.translate_errors("truncate shard", shard.path):
        connection = sqlite.connect_in_place(shard.path, busy_timeout_s=_BUSY_TIMEOUT_S)
        if connection is None:
            return None
        try:
            sqlite.set_synchronous(connection, "NORMAL")
            shard = attrs.evolve(shard, schema="main")
            done = _truncate(connection, shard, durable, master_id, patient, left_bytes)
            if done is None:
                return None
            deleted, gone = done
            return Truncated(deleted, _state_without_news(connection, shard, gone))
        except sqlite.BUSY:
            return None
        finally:
            connection.close()


def _state_without_news(connection: Connection, shard: Source, gone: dict[int, int]) -> State:
    file = scan.find_database(shard.path)
    quiet = _is_emptied(connection, shard, gone) and _knows_all_tables(connection, shard)
    return file.state if quiet and file is not None else ()


def _is_emptied(connection: Connection, shard: Source, gone: dict[int, int]) -> bool:
    """Whether no row counts any more."""
    return all(block.last <= gone.get(number, 0) for number, block in shard_blocks(connection, shard).items())


def _truncate(
    connection: Connection,
    shard: Source,
    durable: dict[bytes, int],
    master_id: bytes,
    patient: bool,
    left_bytes: int | None,
) -> tuple[int, dict[int, int]] | None:
    """How many rows were deleted, and the last seq that is gone, by stream number; None: it is left for later."""
    connection.wal_autocheckpoint(0)  # not with each commit, of pages that are about to be free: see _shrink
    with sqlite.immediate(connection):
        gone = _note(connection, durable, master_id)
        most_bytes = _rewritable_bytes(left_bytes)
        deleted = _clear(connection, shard, gone, most_bytes) if _knows_all_tables(connection, shard) else None
        if deleted is None and patient and sqlite.used_bytes(connection) < _AHEAD_BYTES:
            connection.execute("ROLLBACK")
            return None
    if deleted is None:
        deleted = sum(_delete_piecewise(connection, shard, number, last) for number, last in gone.items())
    _shrink(connection, shard, left_bytes)
    return deleted, gone


def _rewritable_bytes(left_bytes: int | None) -> int:
    """How large a shard may be whose rest is written anew, into its log."""
    return _PUT_BACK_BYTES if left_bytes is None else min(_PUT_BACK_BYTES, left_bytes // _REWRITTEN_PART)


def _clear(connection: Connection, shard: Source, gone: dict[int, int], most_bytes: int) -> int | None:
    """Empty the shard's tables, and put back what does not count as gone; in the caller's transaction.

    Args:
        connection: the shard's.
        shard: what it is.
        gone: the last seq that is gone, by stream number.
        most_bytes: how large a shard may be of which something is put back.

    Returns:
        How many rows are gone; None where nothing was done, since it would take long.
    """
    kept = [
        (format.row_id(number, gone.get(number, 0) + 1), block.last_id)
        for number, block in shard_blocks(connection, shard).items()
        if block.last > gone.get(number, 0)
    ]
    if not kept:
        return _delete_all(connection, shard)
    put_back = sum(last - first + 1 for first, last in kept)
    if put_back > _PUT_BACK_ROWS or sqlite.used_bytes(connection) > most_bytes:
        return None
    return _delete_all(connection, shard, kept) - put_back


def _shrink(connection: Connection, shard: Source, left_bytes: int | None) -> None:
    """Give free pages back to the disk, and copy a long log into the database, so that the writer need not."""
    free_bytes = connection.pragma("freelist_count") * connection.pragma("page_size")
    file = scan.find_database(shard.path)
    long_bytes = _LONG_LOG_BYTES if left_bytes is None else min(_LONG_LOG_BYTES, left_bytes // _REWRITTEN_PART)
    is_long = file is not None and file.wal_bytes > long_bytes
    if free_bytes > (_DEAD_BYTES if is_long or left_bytes is not None else _SHRINK_BYTES):
        if left_bytes is None or sqlite.used_bytes(connection) < _rewritable_bytes(left_bytes):
            connection.execute("VACUUM")
        elif sqlite.is_incremental(connection):
            _give_back(connection, left_bytes)
        is_long = True
    if is_long and left_bytes is None:
        sqlite.checkpoint(connection)
    elif is_long:
        sqlite.shrink_wal(connection)  # as long as it is, it counts


def _give_back(connection: Connection, left_bytes: int) -> None:
    """Move the last pages into the gaps, some at a time, so that a writer hardly waits, and the log stays short.

    Beside a busy writer a passive checkpoint would let it grow. Where the log cannot be begun anew the rest is left to
    the next truncation.
    """
    fitting = left_bytes // (_REWRITTEN_PART * _PAGES_A_PAGE * int(connection.pragma("page_size")))
    pages = max(_GIVE_BACK_LEAST, min(_GIVE_BACK_PAGES, fitting))
    before = 0
    while (free := int(connection.pragma("freelist_count"))) and free != before:
        before = free
        with sqlite.immediate(connection):
            sqlite.release_pages(connection, pages)
        try:
            sqlite.restart_wal(connection)
        except sqlite.BUSY:
            return


def _note(connection: Connection, durable: dict[bytes, int], master_id: bytes) -> dict[int, int]:
    """Write the truncations down; the last seq that is gone, by stream number."""
    gone: dict[int, int] = {}
    for stream_id, last in durable.items():
        rows = sqlite.fetch(
            connection,
            "SELECT s.stream_no, max(t.last), t.first, t.database_id FROM edgeshard_streams s "
            "LEFT JOIN edgeshard_truncations t ON t.stream_no = s.stream_no WHERE s.stream_id = ?",
            (stream_id,),
        )
        ((number, before, first, where),) = rows
        if number is None:
            continue  # the shard was replaced by another since it was read
        before = before or 0
        if last > before and where == master_id:
            sql = "UPDATE edgeshard_truncations SET last = ?3 WHERE stream_no = ?1 AND first = ?2"
            connection.execute(sql, (number, first, last))
        elif last > before:
            sql = "INSERT INTO edgeshard_truncations VALUES (?, ?, ?, ?)"
            connection.execute(sql, (number, before + 1, last, master_id))
        gone[number] = max(before, last)
    return gone


def _knows_all_tables(connection: Connection, shard: Source) -> bool:
    """Whether the shard has the tables it had when it was read: its agent may have made one since."""
    rows = connection.execute("SELECT DISTINCT table_name FROM edgeshard_columns")
    return {name for (name,) in rows} == {table.name for table in shard.tables}


def _delete_all(connection: Connection, shard: Source, kept: Iterable[tuple[int, int]] = ()) -> int:
    """Without WHERE: SQLite then frees whole pages, a million rows in milliseconds.

    Args:
        connection: the shard's, in a transaction.
        shard: what it is.
        kept: the first and the last id of each run of rows that are put back.

    Returns:
        How many rows were deleted, with those that were put back.
    """
    deleted = 0
    kept = list(kept)
    for name, key in [(table.name, "_id") for table in shard.tables] + [("edgeshard_transactions", "first_id")]:
        if kept:
            where = " OR ".join(f"{key} BETWEEN {first} AND {last}" for first, last in kept)
            connection.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM main.{quote(name)} NOT INDEXED WHERE {where}")
        connection.execute(f"DELETE FROM main.{quote(name)}")
        deleted += connection.changes() if key == "_id" else 0
        if kept:
            connection.execute(f"INSERT INTO main.{quote(name)} SELECT * FROM temp.kept; DROP TABLE temp.kept")
    return deleted


def _delete_piecewise(connection: Connection, shard: Source, number: int, last: int) -> int:
    """In transactions so short that the writer hardly waits."""
    deleted = 0
    bounds = (format.row_id(number, 0), format.row_id(number, last))
    for name, key in [(table.name, "_id") for table in shard.tables] + [("edgeshard_transactions", "first_id")]:
        low, high = bounds
        while True:
            end = sqlite.scalar(
                connection,
                f"SELECT max({key}) FROM (SELECT {key} FROM {quote(name)} NOT INDEXED "
                f"WHERE {key} BETWEEN ? AND ? ORDER BY {key} LIMIT {_DELETE_ROWS})",
                (low, high),
            )
            if end is None:
                break
            connection.execute(f"DELETE FROM {quote(name)} WHERE {key} BETWEEN ? AND ?", (low, end))
            deleted += connection.changes() if key == "_id" else 0
            low = end + 1
    return deleted


#: A shard that its agent writes to all the time keeps rows that the master holds until its log is this large, in
#: bytes, a little less than what the writer lets it grow to at "process" (shard.py), and more than at "power", ...
HELD_LOG_BYTES = 3_200_000

#: ... or until all that is in it is, in bytes, ...
HELD_BYTES = 4 << 20

#: ... or until it kept them for this long, in seconds. Truncating it each time would cost its writer a fifth.
HELD_MAX_S = 30.0


def is_truncation_due(copied_rows: int, used_bytes: int, log_bytes: int, held_s: float, least_s: float = 0.0) -> bool:
    """Whether to truncate a shard now, of whose agent we know that it may be busy.

    Args:
        copied_rows: how many rows this pass found new in it; none, and the agent pauses.
        used_bytes: what its pages in use take.
        log_bytes: the size of its log.
        held_s: for how long it has kept rows that the master holds.
        least_s: for how long it should keep them, unless it is large: a truncation writes, too.
    """
    is_large = used_bytes >= HELD_BYTES or log_bytes >= HELD_LOG_BYTES
    if least_s > 0:
        return is_large or held_s >= least_s
    return copied_rows == 0 or is_large or held_s >= HELD_MAX_S
