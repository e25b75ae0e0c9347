"""Check what must hold of a master: SQLite's structure, rows against blocks and ranges, and which rows are missing.

A deep check also reads every value, and compares each index with its table.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import attrs

from edgeshard import format, sqlite, units
from edgeshard.errors import DamagedError, StorageError
from edgeshard.format.ranges import Range, intersect, subtract, union
from edgeshard.inspect import absences
from edgeshard.inspect.absences import Absences
from edgeshard.log_fields import fields
from edgeshard.master import (
    catalog,
    damage,
    database,
    extents,
    identity,
    known_rows,
    pruned_ranges,
    receipts,
    retired,
    row_states,
    soundness,
    streams,
    superseded,
    truncations,
    versions,
    written_off,
)
from edgeshard.master.known_rows import KnownRows
from edgeshard.master.row_states import StreamRows
from edgeshard.reports import (
    OLDER_MASTER,
    OTHER_MASTER,
    PEER,
    PRUNED,
    UNKNOWN,
    AcceptedLoss,
    Gap,
    Loss,
    VerifyReport,
    add_states,
)
from edgeshard.retention import by_hand
from edgeshard.sqlite import Connection, quote

logger = logging.getLogger("edgeshard.verify")

#: SQLite's own findings that are listed before the list becomes too long to read.
_FINDINGS_MAX = 20

# SQL conditions that no valid value of a type meets: `write` refuses such values. {0} is the column.
_IMPOSSIBLE_VALUE = {
    "json": "NOT json_valid({0})",
    "datetime": "julianday({0}) IS NULL",
    "date": "julianday({0}) IS NULL OR length({0}) <> 10",
    "uuid": "length({0}) <> 36 OR {0} GLOB '*[^0-9a-f-]*'",
}


def verify(path: Path, *, deep: bool = False) -> VerifyReport:
    """Check a master, in one snapshot; see `Store.verify`.

    Args:
        path: the master.
        deep: also read every value and each index. Without it, the address of every row and the form of every page.
    """
    try:
        report = check(path, path, deep=deep)
    except DamagedError as error:
        _note(partial(_record, path, [error.cause], deep=deep))
        raise
    if report.errors:
        _note(partial(_record, path, report.errors, deep=deep))
    else:
        _note(partial(damage.forget, path, is_deep=deep))
    return report


def check(path: Path, master_path: Path, *, deep: bool) -> VerifyReport:
    """Check a master, or a copy of it, in one snapshot, and record nothing.

    Args:
        path: the database to check.
        master_path: where the master is, next to its shards and notes.
        deep: see `verify`.
    """
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("verify", path):
            known = absences.find(connection, master_path.parent)
            with sqlite.read_snapshot(connection):
                return _report(connection, known, deep=deep)
    finally:
        connection.close()


@attrs.frozen
class Findings:
    """What a deep check finds in a master, or in a copy of it, without asking which rows are missing.

    Attributes:
        errors: contradictions.
        are_deletions_unrecorded: whether rows are gone that another program deleted, and nothing records that yet.
    """

    errors: tuple[str, ...]
    are_deletions_unrecorded: bool = False


def find_errors(path: Path) -> Findings:
    """Check deeply a master, or a copy of it, in one snapshot."""
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("verify", path), sqlite.read_snapshot(connection):
            findings = [
                f"SQLite finds: {each}" for each in soundness.findings(connection, "integrity_check", _FINDINGS_MAX)
            ]
            tables = catalog.present_tables(connection)
            absent = {} if findings else by_hand.find_all(connection)
            return Findings((*findings, *_errors(connection, tables, absent, deep=True)), bool(absent))
    finally:
        connection.close()


def _record(path: Path, findings: Sequence[str], *, deep: bool) -> None:
    """Record that the master is damaged if a second look finds that, too: an error in reading may look like damage.

    If only a deep check tells, only a deep check can clear it.
    """
    is_deep = not _is_damaged(path, deep=False)
    if is_deep and not (deep and _is_damaged(path, deep=True)):
        logger.warning(
            "%s: a second look found nothing wrong; see whether the device fails to read (dmesg)",
            path,
            extra=fields(file=path),
        )
        return
    damage.record(path, findings, is_deep=is_deep)


def _is_damaged(path: Path, *, deep: bool) -> bool:
    try:
        return bool(check(path, path, deep=deep).errors)
    except DamagedError:
        return True


def _note(write: Callable[[], None]) -> None:
    """Write a note about what was found, if this user may: verify tells the user, whatever becomes of the note."""
    try:
        write()
    except StorageError as error:
        logger.warning("mergers are not told what verify found: %s", error, extra=fields(error=error))


def _report(connection: Connection, known: Absences, *, deep: bool) -> VerifyReport:
    tables = catalog.present_tables(connection)
    findings = list(soundness.findings(connection, "integrity_check" if deep else "quick_check", _FINDINGS_MAX))
    rows = sum(sqlite.scalar(connection, f"SELECT count(*) FROM {quote(name)}") for name in tables)
    # rows that are gone from a sound file were deleted by another program; those of a damaged one may be lost
    absent = {} if findings else _absent(connection, rows)
    errors = (
        *(f"SQLite finds: {finding}" for finding in findings),
        *_errors(connection, tables, absent, deep=deep),
    )
    stream_count = streams.count(connection)[0] + retired.stream_count(connection)
    unknown = known_rows.select_unknown(connection, known.rows)
    stream_rows = known_rows.add_to(row_states.load(connection), unknown)
    gaps = row_states.find_gaps(stream_rows, known.blocked)
    own = identity.database_id(connection)
    losses = tuple(_losses(connection, own, gaps, unknown))
    reasons = pruned_ranges.by_reason(connection)
    pruned = {reason: count for reason, count in reasons.items() if pruned_ranges.is_rule(reason)}
    states = add_states([row_states.count_all(stream_rows, known.blocked), row_states.retired_states(connection)])
    deleted = tuple(_deleted_by_hand(connection, stream_rows, absent))
    accepted = tuple(
        AcceptedLoss(Gap(agent, stream_id.hex(), seqs.first, seqs.last), why, at)
        for agent, stream_id, seqs, why, at in written_off.load(connection)
    )
    return VerifyReport(
        rows,
        stream_count,
        errors,
        gaps,
        losses,
        own.hex(),
        pruned,
        states,
        known.unnamed,
        by_hand=deleted,
        accepted=accepted,
    )


def _absent(connection: Connection, rows: int) -> dict[int, list[Range]]:
    """Map stream numbers to the rows that are gone and not recorded, unless the numbers show that there are none."""
    if rows + sum(superseded.superseded_counts(connection).values()) == extents.row_count(connection):
        return {}
    return by_hand.unrecorded(connection)


def _deleted_by_hand(
    connection: Connection, stream_rows: Iterable[StreamRows], absent: Mapping[int, list[Range]]
) -> Iterator[Gap]:
    """Yield the rows that another program deleted and whose loss is not accepted, recorded or not, by agent."""
    unrecorded = {streams.origin(connection, number)[1]: seqs for number, seqs in absent.items()}
    for stream in sorted(stream_rows, key=lambda item: (item.agent_id, item.stream_id)):
        recorded = subtract(stream.by_hand, stream.written_off)
        seqs = union([*recorded, *unrecorded.get(stream.stream_id, [])])
        yield from (Gap(stream.agent_id, stream.stream_id.hex(), part.first, part.last) for part in seqs)


# -- where missing rows are -------------------------------------------------------------------------------------------


def _losses(connection: Connection, own: bytes, gaps: Iterable[Gap], unknown: Iterable[KnownRows]) -> Iterator[Loss]:
    """Divide the gaps by what is known of their rows: which database holds, pruned or merged them.

    The gaps of a stream are divided together: what is known of them may be as long a list as they are.
    """
    by_stream: dict[bytes, list[KnownRows]] = {}
    for each in unknown:
        by_stream.setdefault(each.stream_id, []).append(each)
    for (agent, stream), of_stream in itertools.groupby(gaps, key=lambda gap: (gap.agent, gap.stream)):
        left = [Range(gap.first, gap.last) for gap in of_stream]
        found: list[Loss] = []
        stream_id = bytes.fromhex(stream)
        for ranges, outcome in _traces(connection, own, stream_id, by_stream.get(stream_id, ())):
            known = intersect(left, ranges)
            found += [Loss(Gap(agent, stream, part.first, part.last), *outcome) for part in known]
            left = subtract(left, known)
        found += [Loss(Gap(agent, stream, part.first, part.last), UNKNOWN, "") for part in left]
        yield from sorted(found, key=lambda loss: loss.gap.first)


def _traces(
    connection: Connection, own: bytes, stream_id: bytes, unknown: Iterable[KnownRows]
) -> Iterator[tuple[Sequence[Range], tuple[str, str, str]]]:
    """Yield what is known of a stream's rows, best first: which databases hold, pruned or had merged them.

    Each is a set of seqs, and the fields of their `Loss` after the gap: the outcome, the database and its kind.
    """
    for peer, held in receipts.holders(connection, stream_id):
        yield held, (PEER, peer.database_id.hex(), peer.kind)
    pruned: dict[bytes, list[Range]] = {}
    for item in pruned_ranges.elsewhere(connection, stream_id):
        pruned.setdefault(item.database_id, []).append(item.seqs)
    for database_id, ranges in pruned.items():
        yield ranges, (PRUNED, database_id.hex(), "")
    truncated: dict[bytes, list[Range]] = {}
    for seqs, database_id in truncations.of_stream(connection, stream_id):
        truncated.setdefault(database_id, []).append(seqs)
    for each in unknown:
        truncated.setdefault(each.database_id, []).append(each.seqs)
    for database_id, ranges in truncated.items():
        yield ranges, (OLDER_MASTER if database_id == own else OTHER_MASTER, database_id.hex(), "")


# -- contradictions ---------------------------------------------------------------------------------------------------


def _errors(connection: Connection, tables: list[str], absent: Container[int], *, deep: bool) -> Iterator[str]:
    yield from _range_errors(connection)
    yield from _block_errors(connection)
    yield from pruned_ranges.errors(connection, _FINDINGS_MAX)
    yield from itertools.islice(retired.errors(connection), _FINDINGS_MAX)
    for stream_id in itertools.islice(streams.also_retired(connection), _FINDINGS_MAX):
        yield f"stream {stream_id.hex()} is retired, and is listed as if it were not"
    yield from _row_errors(connection, tables, absent)
    for name, rows in versions.tables_with_superseded(connection, tables):
        yield f"table {name}: {units.count(rows, 'row')} that others with their key should have superseded"
    if deep:
        yield from _value_errors(connection, tables)


def _range_errors(connection: Connection) -> Iterator[str]:
    """Check that ranges belong to known streams, do not overlap, and end where their stream does."""
    for number, first, last in extents.stray_ranges(connection, streams.last_seq_by_number(connection)):
        yield f"stream number {number}: seqs {first} to {last} are outside the stream"
    for number, seq in extents.overlapping_ranges(connection):
        yield f"stream number {number}: two ranges hold seq {seq}"
    for number, recorded, actual in streams.miscounted(connection):
        yield f"stream number {number}: {units.count(actual, 'row')} missing, and {recorded:,} recorded as missing"
    highest, next_id = extents.highest_id(connection), identity.next_id(connection)
    if next_id <= highest:
        yield f"the next row would get id {next_id}, but ids up to {highest} are already used"


def _block_errors(connection: Connection) -> Iterator[str]:
    """Check that blocks lie in ranges, and that no two blocks of a stream overlap."""
    for number, first, last in extents.blocks_outside_ranges(connection):
        yield f"stream number {number}: seqs {first} to {last} have a block, but no range"
    for number, seq in extents.overlapping_blocks(connection):
        yield f"stream number {number}: two blocks hold seq {seq}"
    for row_id in extents.doubled_ids(connection):
        yield f"two blocks hold the id {row_id}"


def _row_errors(connection: Connection, tables: list[str], absent: Container[int]) -> Iterator[str]:
    """Check that every row lies in a block of its stream, every seq of a block has its row, and ids are unique.

    Streams in `absent` are known to have lost rows.
    """
    counted: dict[int, int] = {}
    for name in tables:
        for number, count in sqlite.fetch(connection, f"SELECT _stream, count(*) FROM {quote(name)} GROUP BY _stream"):
            counted[number] = counted.get(number, 0) + count
        if stray := extents.stray_rows(connection, name):
            yield f"table {name}: {units.count(stray, 'row')} not where the address says"
    yield from _count_errors(connection, counted, absent)
    for one, other in combinations(tables, 2):
        sql = f"SELECT count(*) FROM {quote(one)} JOIN {quote(other)} USING(_id)"
        if doubled := sqlite.scalar(connection, sql):
            yield f"tables {one} and {other} share {doubled} ids"


def _count_errors(connection: Connection, counted: dict[int, int], absent: Container[int]) -> Iterator[str]:
    """Check that each stream has as many rows as seqs in its blocks, except for superseded ones."""
    superseded_rows = superseded.superseded_counts(connection)
    for number, expected in extents.block_rows(connection).items():
        found, superseded_count = counted.pop(number, 0), superseded_rows.pop(number, 0)
        if superseded_count < 0 or (found + superseded_count != expected and number not in absent):
            text = f"stream number {number}: {units.count(found, 'row')} where its blocks hold {expected:,}"
            yield f"{text} ({superseded_count:,} superseded since)" if superseded_count else text
    for number, superseded_count in superseded_rows.items():
        if superseded_count:
            yield f"stream number {number}: {units.count(superseded_count, 'row')} superseded, but it has no block"
    for number, found in counted.items():
        yield f"stream number {number}: {units.count(found, 'row')} and no block"


def _value_errors(connection: Connection, tables: Container[str]) -> Iterator[str]:
    """Check that every value has its column's type."""
    for table, column, column_type in catalog.all_columns(connection):
        if table not in tables:
            continue
        name = quote(column)
        if column_type in _IMPOSSIBLE_VALUE:
            condition = _IMPOSSIBLE_VALUE[column_type].format(name)
            sql = f"SELECT count(*) FROM {quote(table)} WHERE {name} IS NOT NULL AND ({condition})"
            if wrong := sqlite.scalar(connection, sql):
                yield f"table {table}: {units.count(wrong, 'value')} of column {column} not of type {column_type}"
        if format.STORED_AS[column_type] == "TEXT":
            sql = f"SELECT CAST({name} AS BLOB) FROM {quote(table)} WHERE {name} IS NOT NULL"
            wrong = sum(not _is_text(value) for (value,) in connection.execute(sql))
            if wrong:
                yield f"table {table}: {wrong} texts of column {column} are not valid UTF-8"


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
