"""Retire a stream of which the master held and pruned every row, and restore it once there is news about it.

Rows that newer versions superseded count as pruned here, if that is what became of all rows of the stream.

The facts about a stream are the same in both forms: which rows were held, and that all of them were pruned. So nothing
that a merge decides depends on when streams retire. Its number goes, and with it every entry that names the number: no
own table of a master names a stream that the master does not list. A retired stream lacks what only reports and old
copies need:

* when each stream began, and which of its rows were pruned by which rule: its group says that of all its streams
* who wrote it, if its group is one of several agents
* from which files its rows are proven, unless all are proven of the one file that its group names. A copy of another
  file then has unproven rows, which stay there (see `edgeshard.merge`)
* what merged databases, or a newer copy of this master, pruned of it: that explained the absence of rows before they
  arrived here, and says nothing about rows that the master held
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Set

from edgeshard.format.ranges import Range
from edgeshard.master import (
    arrivals,
    blocked_rows,
    by_hand,
    extents,
    proven,
    pruned_ranges,
    receipts,
    rejected,
    retired,
    streams,
    superseded,
    truncations,
    written_off,
)
from edgeshard.sqlite import Connection


def retire(
    connection: Connection, stream_no: int, reasons: Set[str], is_file: Callable[[str], bool], now_s: int
) -> bool:
    """Retire a stream if every row of it was held and pruned, in the caller's transaction.

    Args:
        connection: the master.
        stream_no: the stream's number.
        reasons: the rules that may have selected its rows. Others say something that must not be forgotten.
        is_file: returns whether there is a shard's file of this name: its agent may go on.
        now_s: the time, in seconds since 1970.

    Returns:
        Whether it retired.
    """
    # a number must not be used again, as a reader may remember it: the highest one stays
    found = streams.with_number(connection, stream_no)
    if found is None or stream_no == streams.highest_number(connection):
        return False
    stream_id, agent, began_at, last_seq = found
    if not extents.is_held_without_rows(connection, stream_no, last_seq):
        return False
    rows = pruned_ranges.own_rows(connection, stream_no)
    if rows.total() != last_seq or not rows.keys() <= reasons:
        return False
    files = proven.shards(connection, stream_no)
    if any(map(is_file, files)):
        return False
    if blocked_rows.has_stream(connection, stream_no) or receipts.is_claimed(connection, stream_no):
        return False
    shard = next((name for name, seqs in files.items() if seqs == [Range(1, last_seq)]), "")
    retired.add(connection, stream_id, agent, shard, _seconds(began_at, now_s), rows, now_s)
    # from here on nothing names the number: each owner of a table with such numbers forgets the stream
    for owner in (extents, pruned_ranges, proven, superseded, truncations, written_off, by_hand, receipts, rejected):
        owner.forget_stream(connection, stream_no)
    streams.remove(connection, stream_no)
    return True


def restore(connection: Connection, stream_id: bytes, agent: str, began_at: str) -> None:
    """Restore a stream if it is retired, in the caller's transaction: another database has news about it.

    Args:
        connection: the master.
        stream_id: the stream's id.
        agent: who wrote it, as that database says.
        began_at: when it began, the same.
    """
    stream = retired.find(connection, stream_id)
    if stream is None:
        return
    rows = retired.remove(connection, stream)
    stream_no = streams.add(connection, stream_id, stream.group.agent or agent, began_at)
    streams.raise_last_seq(connection, stream_no, stream.last_seq)
    seqs = Range(1, stream.last_seq)
    extents.add_ranges(connection, stream_no, [], [seqs])
    pruned_at = arrivals.utc_time(stream.group.retired_at)
    pruned_ranges.record_restored(connection, stream_no, rows, pruned_at.isoformat())
    if stream.group.shard:
        proven.record(connection, stream.group.shard, stream_no, [seqs])


def _seconds(began_at: str, now_s: int) -> int:
    """Return when a stream began, in seconds since 1970; unknown if the clock of its writer was ahead."""
    try:
        began = datetime.datetime.fromisoformat(began_at)
        seconds = int(began.timestamp()) if began.tzinfo is not None else retired.UNKNOWN
    except (ValueError, OverflowError):  # a hostile database may hold any text
        return retired.UNKNOWN
    return seconds if 0 <= seconds <= now_s else retired.UNKNOWN
