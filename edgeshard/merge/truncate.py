"""Truncate shards: decide when a busy one is due, and delete the rows that the master holds durably.

Truncate only after a commit of the master at FULL.

A truncation is recorded first (shard/truncations.py): from that commit on the rows do not count, whether they are still
in the file or not. So they can be deleted in small transactions, without ever showing a part of a writer's. Each
step is idempotent: the next truncation finishes one that was killed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

import attrs

from edgeshard import format, sqlite
from edgeshard.files import fingerprint, scan
from edgeshard.files.fingerprint import State
from edgeshard.format.blocks import Block
from edgeshard.master import catalog, streams
from edgeshard.shard import truncations
from edgeshard.sources import bounds
from edgeshard.sources.source import Source
from edgeshard.sources.streams import shard_blocks
from edgeshard.sqlite import Connection

#: Rows deleted in one transaction while a writer may wait for it, and about how many bytes of them; about 1 ms.
_DELETE_ROWS, _DELETE_BYTES = 1_000, 1 << 20

#: All rows of a shard are deleted even while its agent goes on writing, and the few that the master lacks are put back,
#: if there are no more of them than this, ...
_PUT_BACK_ROWS = 5_000

#: ... they take no more than this, in bytes, ...
_PUT_BACK_BYTES = 2 << 20

#: ... and the shard has no more pages in use than this, each of which must be read: its writer waits 10 ms, and
#: deleting row by row costs five times as much (measured).
_PUT_BACK_PAGES = 8_192

#: The largest shard, in bytes, of which VACUUM rewrites the remaining rows where SQLite would keep them in memory.
_VACUUM_BYTES_IN_MEMORY = 8 << 20

#: A shard whose agent is far ahead of the merger is left for later until it is as large as this, in bytes: the agent
#: will pause.
_AHEAD_BYTES = 64 << 20

#: How long to wait for a shard whose writer is in a transaction, in seconds; then it is left for the next merge.
_BUSY_TIMEOUT_S = 0.25

#: A file with more free pages than this, in bytes, returns them to the disk, ...
_SHRINK_BYTES = 1 << 20

#: ... and one with more than this does so before its WAL is copied into it: pages that are beyond the end of the
#: database by then are not copied.
_DEAD_BYTES = 64 << 10

#: Within a disk budget, a file with more free pages than this, in bytes, returns them: an idle shard must be small.
_DEAD_BYTES_WITHIN_BUDGET = 16 << 10

#: Within a disk budget, a shard's remaining rows are rewritten only if it takes at most one such part of the quota.
_REWRITTEN_PART = 8

#: Pages released in one transaction (a millisecond or two) if the quota does not allow VACUUM; and the fewest.
_RELEASED_PAGES, _RELEASED_PAGES_LEAST = 200, 8

#: Each released page may write two more, which point to it.
_WRITTEN_PER_RELEASED_PAGE = 3

#: A WAL shorter than this, in bytes, is left to grow: copying it would cost two fsyncs, and VACUUM before it as much as
#: copying some thousand rows. It is a quarter of what its writer lets it grow to at least (shard/wal_limit.py), ...
_LONG_WAL_BYTES = 1 << 20

#: ... and less within a disk budget, towards which it counts.
_LONG_WAL_BYTES_WITHIN_BUDGET = 256 << 10

#: A WAL longer than this, in bytes, is emptied once its agent pauses, which may be for long.
_CUT_WAL_BYTES = 8 << 20


# -- when -------------------------------------------------------------------------------------------------------------

#: A shard that its agent writes to all the time keeps rows that the master holds until its WAL is as large as this, in
#: bytes: a little less than what every writer lets it grow to at "process" (shard/wal_limit.py), and more than at
#: "power", ...
HELD_WAL_BYTES = 3_200_000

#: ... or until its pages in use take this much, in bytes, ...
HELD_BYTES = 4 << 20

#: ... or until it has kept them for this long, in seconds. Truncating it at each pass would cost its writer a fifth.
HELD_MAX_S = 30.0


def is_truncation_due(copied_rows: int, used_bytes: int, wal_bytes: int, held_s: float, least_s: float = 0.0) -> bool:
    """Return whether to truncate a shard now, if its agent may be busy.

    Args:
        copied_rows: how many rows this pass copied from it; if none, its agent pauses.
        used_bytes: what its pages in use take.
        wal_bytes: the size of its WAL.
        held_s: for how long it has kept rows that the master holds.
        least_s: for how long it should keep them, unless it is large: a truncation writes, too.
    """
    is_large = used_bytes >= HELD_BYTES or wal_bytes >= HELD_WAL_BYTES
    if least_s > 0:
        return is_large or held_s >= least_s
    return copied_rows == 0 or is_large or held_s >= HELD_MAX_S


# -- how --------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Truncated:
    """What `truncate` did.

    Attributes:
        rows: how many rows it deleted.
        state: the state of the file in which it holds nothing new; () if it may hold a new row. It is taken before
            the rows are counted for the last time, so that a row that comes meanwhile shows as a change.
    """

    rows: int
    state: State = ()


def truncate(
    shard: Source,
    file: tuple[int, int] | None,
    durable: Mapping[bytes, int],
    master_id: bytes,
    opened: Callable[[], None] = lambda: None,
    patient: bool = False,
    quota_bytes: int | None = None,
    seen: Mapping[bytes, int] | None = None,
    overwriting: bool = False,
) -> Truncated | None:
    """Delete the rows of each stream up to the seq in `durable`.

    Args:
        shard: the shard; only rows of tables that were seen in it are deleted.
        file: device and inode of the file from which it was read; nothing is deleted from another, such as a copy from
            a cloned machine, which may have other rows under the same addresses. None if it was not attached.
        durable: the last seq of each stream that the master holds durably, by stream id.
        master_id: the master's database id.
        opened: called once the shard is open for writing: a caller that has it attached detaches it only then, because
            SQLite maps the shared memory of a database once for all connections of a process.
        patient: whether the next merge follows soon: then what would take long is left to it, up to a limit.
        quota_bytes: what the truncation may add to the store's files, or None if there is no budget. Putting rows back,
            and VACUUM, write all that stays into the WAL.
        seen: the last seq of each stream that the merge found in the shard, by stream id: what stays of these rows is
            blocked, and not new.
        overwriting: whether to overwrite what is deleted with zeros, and to empty the WAL.

    Returns:
        What was done, or None if the shard was busy and is left for the next merge, or was replaced. Once the
        truncation is recorded, being busy only costs space: rows that are left are deleted by the next merge, and the
        file gets smaller with the next truncation.

    Raises:
        EdgeshardError: the shard cannot be written.
    """
    with sqlite.translate_errors("truncate shard", shard.path):
        if file is None:
            return None
        connection = sqlite.connect_in_place(shard.path, busy_timeout_s=_BUSY_TIMEOUT_S, file=file)
        if connection is None:
            return None
        done: _Deleted | None = None
        try:
            opened()
            shard = shard.attached_as("main")
            with (
                bounds.bounded(connection, "main", all_tables=True),
                sqlite.secure_delete(connection) if overwriting else contextlib.nullcontext(),
            ):
                done = _truncate(connection, shard, durable, master_id, patient, quota_bytes)
                if done is None:
                    return None
                if not done.is_finished:
                    return Truncated(done.rows)
                state, truncated = _shrink(connection, shard, quota_bytes), dict(done.truncated)
                if overwriting:
                    sqlite.shrink_wal(connection)
                    state = scan.find_state(shard.path)
                if seen and (seen.keys() - durable.keys() or any(seen[each] > durable[each] for each in seen)):
                    numbers = streams.numbers_by_id(connection)
                    truncated |= {numbers[each]: last for each, last in seen.items() if each in numbers}
                has_news = _has_news(connection, shard, truncated, done.empty_version)
                # if another file took its place since, that has not been read
                is_in_place = state[:1] == file[1:]
                return Truncated(done.rows, state if is_in_place and not has_news else ())
        except sqlite.BUSY:
            return None if done is None else Truncated(done.rows)
        finally:
            connection.close()


@attrs.frozen
class _Deleted:
    """What was deleted from a shard.

    Attributes:
        rows: how many rows.
        truncated: the last truncated seq, by stream number.
        empty_version: if no row was left, SQLite's number of the shard's content then (`PRAGMA data_version`), which
            changes with each commit of another connection; None if rows may be left.
        is_finished: whether all truncated rows are deleted; if not, the shard was busy, and the next truncation
            deletes the others.
    """

    rows: int
    truncated: dict[int, int]
    empty_version: int | None = None
    is_finished: bool = True


def _truncate(
    connection: Connection,
    shard: Source,
    durable: Mapping[bytes, int],
    master_id: bytes,
    patient: bool,
    quota_bytes: int | None,
) -> _Deleted | None:
    """Record the truncation and delete the rows; return None if that is left for later."""
    tables = [table.name for table in shard.tables]
    # no checkpoint with each commit, of pages that are about to be free: see _shrink. A budget needs a short WAL
    autocheckpoint_pages = 0 if quota_bytes is None else _pages_of_part(connection, quota_bytes)
    connection.wal_autocheckpoint(autocheckpoint_pages)
    with sqlite.immediate_in_empty_wal(connection, autocheckpoint_pages):
        truncated = truncations.record(connection, durable, master_id)
        deleted = empty_version = None
        if _has_no_new_table(connection, shard):
            kept = _rows_to_keep(connection, shard, truncated, quota_bytes)
            if kept is not None:
                deleted = truncations.delete_all(connection, tables, kept)
                empty_version = None if kept else _data_version(connection)
        if deleted is None and patient and sqlite.used_bytes(connection) < _AHEAD_BYTES:
            connection.execute("ROLLBACK")
            return None
    if deleted is not None:
        return _Deleted(deleted, truncated, empty_version)
    deleted = 0
    try:
        row_bytes = _row_bytes(connection, shard, shard_blocks(connection, shard).values())
        rows = max(1, min(_DELETE_ROWS, _DELETE_BYTES // row_bytes))
        for stream_no, last in truncated.items():
            for piece in truncations.delete_piecewise(connection, tables, stream_no, last, rows):
                deleted += piece
    except sqlite.BUSY:  # the truncation is recorded, so this only takes space
        return _Deleted(deleted, truncated, is_finished=False)
    return _Deleted(deleted, truncated)


def _data_version(connection: Connection) -> int:
    return int(connection.pragma("data_version"))


def _rows_to_keep(
    connection: Connection, shard: Source, truncated: dict[int, int], quota_bytes: int | None
) -> list[tuple[int, int]] | None:
    """Find the rows that are not truncated: once all rows are deleted, these are put back in the same transaction.

    Args:
        connection: the shard.
        shard: what it is.
        truncated: the last truncated seq, by stream number.
        quota_bytes: what the truncation may add to the store's files, or None if there is no budget.

    Returns:
        The first and the last id of each run of them, or None if putting them back would take long.
    """
    blocks = shard_blocks(connection, shard)
    kept = [
        (format.row_id(stream_no, truncated.get(stream_no, 0) + 1), block.last_id)
        for stream_no, block in blocks.items()
        if block.last > truncated.get(stream_no, 0)
    ]
    if not kept:
        return []
    put_back = sum(last - first + 1 for first, last in kept)
    rows_max = min(_PUT_BACK_ROWS, _PUT_BACK_BYTES // _row_bytes(connection, shard, blocks.values()))
    if put_back > rows_max or sqlite.used_bytes(connection) > _rewritable_bytes(connection, quota_bytes):
        return None
    return kept


def _row_bytes(connection: Connection, shard: Source, blocks: Iterable[Block]) -> int:
    """Return about how many bytes a row of a shard takes, at least 1."""
    rows = 0
    for block in blocks:
        firsts = [_first_id(connection, table.name, block) for table in shard.tables]
        rows += block.last_id - min((first for first in firsts if first is not None), default=block.last_id) + 1
    return max(1, sqlite.used_bytes(connection) // max(1, rows))


def _first_id(connection: Connection, table: str, block: Block) -> int | None:
    sql = f"SELECT _id FROM main.{sqlite.quote(table)} NOT INDEXED WHERE _id BETWEEN ? AND ? ORDER BY _id LIMIT 1"
    found: int | None = sqlite.scalar(connection, sql, (block.first_id, block.last_id))
    return found


def _rewritable_bytes(connection: Connection, quota_bytes: int | None) -> int:
    """Return how large a shard may be, in bytes, if its remaining rows are to be put back, into its WAL."""
    most = _PUT_BACK_PAGES * int(connection.pragma("page_size"))
    return most if quota_bytes is None else min(most, quota_bytes // _REWRITTEN_PART)


def _pages_of_part(connection: Connection, quota_bytes: int) -> int:
    return max(1, quota_bytes // _REWRITTEN_PART // int(connection.pragma("page_size")))


def _has_no_new_table(connection: Connection, shard: Source) -> bool:
    """Return whether the shard has the tables it had when it was read: its agent may have made one since."""
    return set(catalog.record_tables(connection)) == {table.name for table in shard.tables}


def _has_news(connection: Connection, shard: Source, known: Mapping[int, int], empty_version: int | None) -> bool:
    """Return whether the shard may have a new row or a new table."""
    if empty_version is not None and _data_version(connection) == empty_version:
        return False
    return not (_has_no_new_row(connection, shard, known) and _has_no_new_table(connection, shard))


def _has_no_new_row(connection: Connection, shard: Source, known: Mapping[int, int]) -> bool:
    """Return whether the shard has no row after the last known seq of its stream."""
    blocks = shard_blocks(connection, shard)
    return all(block.last <= known.get(stream_no, 0) for stream_no, block in blocks.items())


# -- space ------------------------------------------------------------------------------------------------------------


def _shrink(connection: Connection, shard: Source, quota_bytes: int | None) -> State:
    """Return free pages to the disk, and copy a long WAL into the database, so that the writer need not.

    Returns:
        The state of the file after that.
    """
    state = scan.find_state(shard.path)
    wal_bytes = fingerprint.wal_bytes(state)
    if quota_bytes is None and fingerprint.file_bytes(state) + wal_bytes <= min(_SHRINK_BYTES, _LONG_WAL_BYTES):
        return state
    free_bytes = connection.pragma("freelist_count") * connection.pragma("page_size")
    long_bytes = _LONG_WAL_BYTES
    if quota_bytes is not None:
        long_bytes = min(_LONG_WAL_BYTES_WITHIN_BUDGET, quota_bytes // _REWRITTEN_PART)
    is_long = wal_bytes > long_bytes
    if free_bytes > (_DEAD_BYTES if is_long or quota_bytes is not None else _SHRINK_BYTES):
        # without a quota, VACUUM may rewrite any amount, unless it would keep all of it in memory
        is_limited = quota_bytes is not None or not sqlite.spills(connection)
        if not is_limited or sqlite.used_bytes(connection) < _vacuumed_bytes(quota_bytes):
            connection.execute("VACUUM")
        elif quota_bytes is not None and sqlite.is_incremental(connection):
            _release_pages(connection, quota_bytes)
        is_long = True
    if is_long and quota_bytes is None:
        _checkpoint(connection, shard)
    elif is_long:
        sqlite.shrink_wal(connection)  # a long WAL counts towards the budget
    return scan.find_state(shard.path)


def _checkpoint(connection: Connection, shard: Source) -> None:
    """Copy the WAL into the database, and empty it if it is long and its agent pauses.

    Emptying it keeps the writer waiting, for two fsyncs if it has written anything meanwhile.
    """
    before = scan.find_state(shard.path)
    sqlite.checkpoint(connection)
    after = scan.find_state(shard.path)
    pauses = fingerprint.wal_state(after) == fingerprint.wal_state(before)
    if pauses and fingerprint.wal_bytes(after) > _CUT_WAL_BYTES:
        sqlite.shrink_wal(connection)


def _vacuumed_bytes(quota_bytes: int | None) -> int:
    """Return how large the remaining rows may be that VACUUM keeps in memory, or writes within a quota."""
    most = _VACUUM_BYTES_IN_MEMORY
    return most if quota_bytes is None else min(most, quota_bytes // _REWRITTEN_PART)


def _release_pages(connection: Connection, quota_bytes: int) -> None:
    """Move the last pages into the gaps, a few at a time, so that a writer hardly waits and the WAL stays short.

    Next to a busy writer a passive checkpoint would let the WAL grow. If it cannot be restarted, the rest is left to
    the next truncation.
    """
    page_bytes = int(connection.pragma("page_size"))
    fitting = quota_bytes // (_REWRITTEN_PART * _WRITTEN_PER_RELEASED_PAGE * page_bytes)
    pages = max(_RELEASED_PAGES_LEAST, min(_RELEASED_PAGES, fitting))
    before = 0
    while (free := int(connection.pragma("freelist_count"))) and free != before:
        before = free
        with sqlite.immediate(connection):
            sqlite.release_pages(connection, pages)
        try:
            sqlite.restart_wal(connection)
        except sqlite.BUSY:
            return
