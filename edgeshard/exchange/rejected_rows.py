"""Report which rows PostgreSQL databases rejected and why, and dismiss them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.master import database, rejected
from edgeshard.master.rejected import Listed
from edgeshard.master.why import checked as checked_why
from edgeshard.reports import Rejected, RejectedRange, RejectedReport


def report(path: Path, limit: int) -> RejectedReport:
    """Return what is rejected according to a master, with the addresses of at most `limit` ranges.

    Raises:
        StorageError: the master cannot be read.
    """
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("read rejected rows of", path), sqlite.read_snapshot(connection):
            ranges = tuple(map(_range, itertools.islice(rejected.listed(connection), limit)))
            reasons = summarise(rejected.listed(connection))
    finally:
        connection.close()
    return RejectedReport(
        rejected=tuple(item for item in reasons if not item.dismissed_at),
        dismissed=tuple(item for item in reasons if item.dismissed_at),
        ranges=ranges,
    )


def dismiss(path: Path, why: str, table: str, *, dry_run: bool) -> RejectedReport:
    """Dismiss rejected rows; see `Store.dismiss_rejected`.

    Raises:
        ConfigurationError: `why` is empty or too long.
        StorageError: the master cannot be read or written.
    """
    why = checked_why(why, "dismiss rejected rows of", path)
    if dry_run:
        before = report(path, 0)
        wanted = tuple(item for item in before.rejected if table.lower() in ("", item.table.lower()))
        return attrs.evolve(before, rejected=wanted)
    connection = database.open_master(path, writable=True)
    try:
        with database.translate_errors("dismiss rejected rows of", path):
            rejected.dismiss(connection, why, table)
    finally:
        connection.close()
    return report(path, 0)


def summarise(listed: Iterable[Listed]) -> tuple[Rejected, ...]:
    """Return one item for each reason, in the order of the first address of each, in the memory of these."""
    first: dict[object, Listed] = {}
    rows: Counter[object] = Counter()
    ranges: Counter[object] = Counter()
    for item in listed:
        key = (item.database_id, item.rejection.reason, item.dismissed_why, item.dismissed_at)
        first.setdefault(key, item)
        rows[key] += len(item.rejection.seqs)
        ranges[key] += 1
    found = (_reason(item, rows[key], ranges[key]) for key, item in first.items())
    return tuple(sorted(found, key=lambda item: (item.database, item.agent, item.stream, item.first)))


def _reason(first: Listed, rows: int, ranges: int) -> Rejected:
    rejection, reason = first.rejection, first.rejection.reason
    return Rejected(
        database=first.database_id.hex(),
        kind=reason.kind,
        table=reason.table,
        column=reason.column,
        constraint=reason.constraint,
        reason=reason.message or f"PostgreSQL rejects it (SQLSTATE {reason.kind})",
        rows=rows,
        ranges=ranges,
        agent=first.agent_id,
        stream=first.stream_id.hex(),
        first=rejection.seqs.first,
        last=rejection.seqs.last,
        seq=rejection.seq,
        dismissed_why=first.dismissed_why,
        dismissed_at=first.dismissed_at or "",
    )


def _range(item: Listed) -> RejectedRange:
    rows, reason = item.rejection, item.rejection.reason
    return RejectedRange(
        item.database_id.hex(),
        item.agent_id,
        item.stream_id.hex(),
        rows.seqs.first,
        rows.seqs.last,
        rows.seq,
        reason.kind,
        reason.table,
        reason.column,
        is_dismissed=item.dismissed_at is not None,
    )
