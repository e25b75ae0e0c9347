"""Keep the bookkeeping of a master small: retire streams, and forget the oldest retired ones.

A stream retires once all of its rows are held and pruned, and its shard's file is gone: see
`edgeshard.master.retirement`. Retired streams are forgotten once they are older than the rules say. Within a disk
budget, the oldest ones are forgotten as well once all of them take more than their part of it. A copy of a shard or a
master that is as old as a forgotten stream could bring its rows back.

All of this happens in short transactions next to mergers. A kill or a power cut between two of them leaves some streams
retired or forgotten, and others not yet; in each single one a stream is in one form or the other, and the next prune
continues.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from edgeshard import sqlite, units
from edgeshard.errors import ConfigurationError
from edgeshard.files import fingerprint, store_folder
from edgeshard.format.ranges import size
from edgeshard.log_fields import fields
from edgeshard.master import extents, identity, proven, pruned_ranges, retired, retirement, streams, superseded
from edgeshard.master.clock_trust import TrustedClock
from edgeshard.master.retired import Group
from edgeshard.retention import by_address, rules
from edgeshard.retention.pace import pause
from edgeshard.retention.run import PruneRun
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.prune")

#: The part of a disk budget that retired streams may take: one in so many bytes.
BUDGET_PART: Final = 8

#: If they take more, so many of the oldest are forgotten that this part of what they may take is free again: one in so
#: many. All retired streams are read for that.
FREED_PART: Final = 8

#: How many retired streams one transaction looks through; about 1 ms, and ten pages.
FORGET_STREAMS: Final = 1_000


# -- retiring ---------------------------------------------------------------------------------------------------------


def retire(run: PruneRun, stream_nos: Iterable[int]) -> None:
    """Retire those of these streams that can be, some in each transaction, with rests in between."""
    connection, left = run.connection, list(stream_nos)
    is_file = partial(_is_shard, run)
    while left and not run.is_stopping() and run.pace.may_grow_wal():
        batch, left = left[: run.pace.streams], left[run.pace.streams :]
        written_before = sqlite.wal_pages_written(connection)
        with sqlite.immediate(connection):
            began, now_s = time.monotonic(), int(run.clock.latest_s)
            retired_now = sum(
                retirement.retire(connection, number, rules.FORGETTABLE, is_file, now_s) for number in batch
            )
            if not retired_now:
                connection.execute("ROLLBACK")
        took_s = time.monotonic() - began
        run.progress.retired += retired_now
        run.pace.adapt_streams(len(batch), retired_now, took_s, sqlite.wal_pages_written(connection) - written_before)
        pause(took_s)


def _is_shard(run: PruneRun, name: str) -> bool:
    try:
        folder = store_folder.resolve_shards(Path(run.path).parent)
    except ConfigurationError:  # the disk with the shards is not mounted: the file may be there
        return True
    return fingerprint.exists(folder / name)


def retire_all(run: PruneRun) -> None:
    """Retire all streams that can be: their shards may have been removed after their last rows were pruned."""
    _record_superseded(run)
    with sqlite.read_snapshot(run.connection):
        lacking = {number for number, *_ in streams.lacking(run.connection)}
        candidates = pruned_ranges.streams_pruned_from_the_first(run.connection)
    retire(run, [number for number in candidates if number not in lacking])


def _record_superseded(run: PruneRun) -> None:
    """Take the seqs of streams of which all rows were superseded out of the blocks, so that these streams can retire.

    An agent that is started for each new version of a key leaves a stream of one row, which the next one supersedes.
    """
    connection = run.connection
    with sqlite.read_snapshot(connection):
        expected = extents.block_rows(connection)
        counts = superseded.superseded_counts(connection)
        left = [number for number, rows in counts.items() if rows and rows == expected.get(number)]
    while left and not run.is_stopping() and run.pace.may_grow_wal():
        batch, left = left[: run.pace.streams], left[run.pace.streams :]
        with sqlite.immediate(connection):
            began = time.monotonic()
            for number in batch:
                if any(_is_shard(run, name) for name in proven.shards(connection, number)):
                    continue  # it may still have them, and they are judged anew
                blocks = extents.blocks(connection, number)
                gone = by_address.without_row(connection, blocks)
                if not size(gone) == sum(map(len, blocks)) == superseded.counts_of(connection, [number]).get(number):
                    continue  # it has got rows meanwhile, or it contradicts itself, which `verify` reports
                by_address.take_out(connection, number, gone, pruned_ranges.SUPERSEDED)
                superseded.subtract(connection, number, size(gone))
            identity.increment_generation(connection)
        pause(time.monotonic() - began)


# -- forgetting -------------------------------------------------------------------------------------------------------


def forget(run: PruneRun, limit_bytes: int | None) -> None:
    """Forget retired streams that are older than the rules say, and the oldest ones beyond their part of the budget.

    A dry run only counts them.

    Args:
        run: the prune.
        limit_bytes: what the store may use; None if it has no disk budget.
    """
    groups = retired.groups(run.connection)
    old = [] if run.rules.forget_after_s is None else _older_than(groups, run.clock, run.rules.forget_after_s)
    left = [group for group in groups if group not in old] if old else groups
    beyond = [] if limit_bytes is None else _beyond(left, max_streams(limit_bytes))
    if not old and not beyond:
        return
    forgotten = _forget_groups(run, [group.number for group in (*old, *beyond)])
    run.progress.forgotten += forgotten
    if beyond and not run.dry_run:
        text = (
            "%s has forgotten %s of which all rows were pruned, the oldest first: the disk budget has space for "
            "%s. A copy of a shard or a master that is as old as they are could bring their rows back"
        )
        kept = units.count(max_streams(limit_bytes or 0), "such stream")
        logger.warning(text, run.path, units.count(forgotten, "stream"), kept, extra=fields(file=run.path))


def max_streams(limit_bytes: int) -> int:
    """Return how many retired streams a store may have that may use this many bytes."""
    return limit_bytes // BUDGET_PART // retired.STREAM_BYTES


def _older_than(groups: Sequence[Group], clock: TrustedClock, age_s: float) -> list[Group]:
    """Return the groups of which all streams retired longer ago than this by the trusted time.

    The clock may have been ahead while streams were added to a group. They were added within `retired.GROUP_S` after it
    was opened, and that was before each later group was opened.
    """
    if not clock.is_known:
        return []
    now = clock.trusted_s
    found, latest = [], now
    for group in reversed(groups):
        latest = min(latest, group.opened_at + retired.GROUP_S)
        if min(group.retired_at, latest) < now - age_s:
            found.append(group)
    return found[::-1]


def _beyond(groups: Sequence[Group], most: int) -> list[Group]:
    """Return the oldest groups, so many that clearly fewer streams than `most` are left; none if there are no more."""
    streams = sum(group.streams for group in groups)
    if streams <= most:
        return []
    wanted, found = most - most // FREED_PART, []
    for group in groups:
        if streams <= wanted:
            break
        found.append(group)
        streams -= group.streams
    return found


def _forget_groups(run: PruneRun, numbers: Collection[int]) -> int:
    """Forget groups, looking through the retired streams in the order of their ids; return how many streams went."""
    connection, forgotten, after = run.connection, 0, b""
    if run.dry_run:
        return sum(group.streams for group in retired.groups(connection) if group.number in numbers)
    while not run.is_stopping() and run.pace.may_grow_wal():
        last = _next_window(connection, after, numbers)
        if last is None:
            break
        with sqlite.immediate(connection):
            began = time.monotonic()
            forgotten += retired.forget(connection, after, last, numbers)
        took_s = time.monotonic() - began
        pause(took_s)
        after = last
    return forgotten


def _next_window(connection: Connection, after: bytes, numbers: Collection[int]) -> bytes | None:
    """Return the end of the next window after an id in which there is a stream to forget, or None."""
    with sqlite.read_snapshot(connection):
        first = retired.next_of_groups(connection, after, numbers)
        return None if first is None else retired.window_end(connection, first, FORGET_STREAMS)
