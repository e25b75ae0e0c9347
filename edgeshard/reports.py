"""What operations report: plain values that print as one line and turn into JSON.

The longer text of `edgeshard status` is in cli/status.py.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs

from edgeshard import display, units
from edgeshard.errors import printable

#: Names of agents or databases in one line of a report, before the rest is only counted.
_NAMED_MAX = 5


@attrs.frozen
class Report:
    """Base of all reports. Printed, it is one line, whatever the names in it are: see `errors.printable`."""

    #: Properties that `as_dict` includes, besides the attributes.
    _computed: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        return printable(self._line())

    def __repr__(self) -> str:
        names = [field.name for field in attrs.fields(type(self))]
        values = (getattr(self, name) for name in names)
        return f"{type(self).__name__}({display.named_values(names, values)})"

    def _repr_html_(self) -> str:
        """Return the report as HTML for a notebook: its line, and a table of its fields."""
        return f"<div><p>{display.cell(str(self))}</p>{self._fields_html()}</div>"

    def _fields_html(self) -> str:
        names = [field.name for field in attrs.fields(type(self))]
        return display.fields([(name, _html(getattr(self, name))) for name in (*names, *self._computed)])

    def _line(self) -> str:
        values = [f"{field.name}={getattr(self, field.name)!r}" for field in attrs.fields(type(self))]
        return f"{type(self).__name__}({', '.join(values)})"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as values that `json.dumps` takes: times become ISO 8601 text, reports become dicts."""
        names = [field.name for field in attrs.fields(type(self))]
        return {name: _plain(getattr(self, name)) for name in (*names, *self._computed)}


def _plain(value: Any) -> Any:
    if isinstance(value, Report):
        return value.as_dict()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _html(value: Any) -> str:
    """Return a field's value as HTML: reports as tables, and only the first items of a long list."""
    if isinstance(value, Report):
        return value._fields_html()
    if isinstance(value, Mapping):
        return display.table(("", ""), value.items(), len(value), to_cell=_html) if value else ""
    if not isinstance(value, (tuple, list)):
        return display.cell(value.isoformat() if isinstance(value, datetime.datetime) else value)
    if value and isinstance(value[0], Report):
        names = [field.name for field in attrs.fields(type(value[0]))]
        rows = ([getattr(each, name) for name in names] for each in value)
        return display.table(names, rows, len(value), to_cell=_html)
    return display.lines(map(_html, value), len(value))


# -- rows that are missing, or refused --------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class Gap(Report):
    """Rows that are known to exist, or to have existed, and that the master never held.

    Attributes:
        agent: the agent that wrote them.
        stream: the stream's id, in hexadecimal.
        first: the first missing seq.
        last: the last missing seq.
    """

    agent: str
    stream: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def _line(self) -> str:
        return f"rows {self.first} to {self.last} of stream {self.stream} of agent {self.agent!r}"


@attrs.frozen(repr=False)
class Quarantined(Report):
    """A database that a merge refused. The file stays as it is, and is tried again once it changes.

    Attributes:
        path: the file.
        reason: why, and what to do.
    """

    path: str
    reason: str


@attrs.frozen(repr=False)
class Blocked(Report):
    """Rows that a merge cannot copy, because their table contradicts the master's. They stay where they are.

    Attributes:
        path: the database that has them.
        table: the table.
        rows: how many rows; all of a transaction that has a row of this table. No row is counted for two reasons.
        reason: why, and what to do.
    """

    path: str
    table: str
    rows: int
    reason: str


@attrs.frozen(repr=False)
class Rejected(Report):
    """Rows that PostgreSQL cannot store. They stay in the master; all other rows are pushed.

    Attributes:
        agent: the agent that wrote them.
        stream: the stream's id, in hexadecimal.
        first: the first seq that is not pushed; a writer's transaction is never divided.
        last: the last one; 4294967295 if the whole stream is blocked from `first` on.
        seq: the row that caused it.
        table: its table.
        column: the column that caused it, or "" if it is not a single column.
        reason: why, and what to do.
    """

    agent: str
    stream: str
    first: int
    last: int
    seq: int
    table: str
    column: str
    reason: str

    def _line(self) -> str:
        place = f"{self.table}.{self.column}" if self.column else self.table
        return (
            f"agent {self.agent!r}, stream {self.stream}, seqs {self.first} to {self.last} are rejected: "
            f"row {self.seq}, {place or 'the stream itself'}: {self.reason}"
        )


# -- writing lines of text --------------------------------------------------------------------------------------------


#: The most bad lines that a report lists. There may be any number.
BAD_LINES_MAX = 10


@attrs.frozen(repr=False)
class BadLine(Report):
    """A line of NDJSON or CSV that is not a row, or whose row cannot be stored exactly.

    Attributes:
        number: the number of the line, from 1.
        cause: why, with the field if one is at fault, and what to write instead.
    """

    number: int
    cause: str

    def _line(self) -> str:
        return f"line {self.number}: {self.cause}"


@attrs.frozen(repr=False)
class WriteReport(Report):
    """What was written of one row, or of the lines of a file.

    Attributes:
        agent: whose shard the rows are in.
        rows: rows committed.
        bad: bad lines, also the one that ended the write.
        bad_lines: the first `BAD_LINES_MAX` of them.
        last_line: the last line whose row is committed, or that is bad and was left out; 0 if there is none.
        ended: whether all lines were read. If not, go on with the lines behind `last_line`.
        unknown: rows behind `last_line` whose commit failed, so that it is unknown whether they are in the shard:
            either all of them are, or none.
        seconds: how long it took.
    """

    _computed = ("complete",)

    agent: str
    rows: int = 0
    bad: int = 0
    bad_lines: tuple[BadLine, ...] = ()
    last_line: int = 0
    ended: bool = True
    unknown: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the row of every line is committed."""
        return self.ended and not self.bad

    def _line(self) -> str:
        rows, unknown = units.count(self.rows, "row"), units.count(self.unknown, "row")
        line = f"{rows} committed to the shard of agent {self.agent!r} in {self.seconds:.3f} s"
        if self.ended and self.bad:
            line += f"; left out {units.count(self.bad, 'bad line')}"
        if not self.ended:
            line += f"; ended after line {self.last_line:,}" if self.last_line else "; ended before the first line"
        if self.unknown:
            line += f"; whether the next {unknown} are committed is unknown: all of them, or none"
        return line


# -- merge, prune, push -----------------------------------------------------------------------------------------------


#: The most gaps that the report of a merge lists. There may be any number, and a merger reports each second.
GAPS_MAX = 100


@attrs.frozen(repr=False)
class MergeReport(Report):
    """What one merge did, or what a dry run would do.

    Attributes:
        rows: rows copied into the master.
        truncated: rows deleted from shards, because the master holds them.
        removed: shards removed, because their agent has ended and the master holds all their rows.
        shards: shards and other sources that were opened, because they had changed.
        quarantined: databases that were refused, with the reason.
        blocked: rows that were not copied, because their table contradicts the master's; all other rows of the same
            databases were.
        gaps: rows known to exist that the master never held, the first `GAPS_MAX` gaps; `Store.verify` lists all.
        missing_rows: how many rows are missing, in these and all other gaps.
        seconds: how long it took.
        dry_run: whether nothing was changed.
        stopped: whether the merge stopped on request before it had finished; the next one continues.
        dropped: rows deleted from the master because the disk budget had no space for them.
        pruned: what the store's own prune rules deleted afterwards (a watching merger: since the last report), or None
            if there are no rules or no prune was due.
        forgotten_streams: streams of which all rows were pruned long ago, and that the master forgot to stay within
            the disk budget: a copy as old as they are could bring their rows back.
        prune_error: why that prune failed, or "". The merge itself is done.
        refresh_error: why the statements of the store's ``refresh.sql`` failed, or "". The merge itself is done.
    """

    _computed = ("complete",)

    rows: int = 0
    truncated: int = 0
    removed: int = 0
    shards: int = 0
    quarantined: tuple[Quarantined, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    gaps: tuple[Gap, ...] = ()
    missing_rows: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False
    dropped: int = 0
    pruned: PruneReport | None = None
    prune_error: str = ""
    forgotten_streams: int = 0
    refresh_error: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is quarantined, blocked or missing, and the store's own rules and statements were met."""
        rules_met = not self.prune_error and not self.refresh_error and (self.pruned is None or self.pruned.fits)
        return not self.quarantined and not self.blocked and not self.gaps and rules_met

    def _line(self) -> str:
        merged, truncated = ("would merge", "would truncate") if self.dry_run else ("merged", "truncated")
        line = f"{merged} {units.count(self.rows, 'row')} from {units.count(self.shards, 'shard')}"
        line += f", {truncated} {self.truncated:,}, in {self.seconds:.3f} s"
        if self.removed:
            removed = "would remove" if self.dry_run else "removed"
            line += f"; {removed} {units.count(self.removed, 'shard')} of agents that have ended"
        if self.dropped:
            dropped = "would drop" if self.dry_run else "dropped"
            line += f"; {dropped} the oldest rows to stay within the disk budget: {self.dropped:,}"
        if self.forgotten_streams:
            line += f"; forgot the oldest streams without rows, for the same reason: {self.forgotten_streams:,}"
        if self.stopped:
            line += "; stopped early, the next merge continues"
        be = " would be" if self.dry_run else ""
        if self.quarantined:
            line += f"; {units.count(len(self.quarantined), 'database')}{be} quarantined"
        if self.blocked:
            tables = sorted({each.table for each in self.blocked})
            rows = units.count(sum(each.rows for each in self.blocked), "row")
            line += f"; {rows}{be} blocked of {_first_few(tables)}"
        if self.gaps:
            more = " and more" if len(self.gaps) == GAPS_MAX else ""
            line += f"; {_missing(self.missing_rows, self.gaps, dry_run=self.dry_run)}{more}"
        return line + self._afterwards()

    def _afterwards(self) -> str:
        line = "" if self.pruned is None else f"; {self.pruned}"
        if self.prune_error:
            line += f"; old rows could not be pruned: {self.prune_error}"
        if self.refresh_error:
            line += f"; what is derived from the rows is stale: {self.refresh_error}"
        return line


@attrs.frozen(repr=False)
class PrunableTable(Report):
    """The rows of a table that a prune would delete.

    Attributes:
        name: the table.
        rows: how many rows.
        oldest_at: when the oldest of them arrived in this master, to the minute, or None if that is unknown.
        newest_at: the same of the newest one.
        freed_bytes: an estimate of what they and their part of the indexes take, which becomes free.
    """

    name: str
    rows: int
    oldest_at: datetime.datetime | None
    newest_at: datetime.datetime | None
    freed_bytes: int

    def _line(self) -> str:
        return f"{self.name}: {units.count(self.rows, 'row')}, about {units.size(self.freed_bytes)}"


@attrs.frozen(repr=False)
class PruneReport(Report):
    """What one prune did, or what a dry run would do.

    Attributes:
        rows: rows deleted from the master.
        tables: of a dry run, the rows that it would delete, by table; otherwise ().
        by_reason: the same rows, by rule.
        kept_back: rows that a rule selected but that stayed, because no peer holds them, or because the rest of their
            transaction stays.
        tombstones_behind: tombstones that are old enough but stayed, because older changes may still arrive.
        behind: where these changes may come from, and what to do, one sentence each.
        tombstones_unheard: tombstones that stayed, because a database that has given a receipt does not know of them.
        unheard: the ids of these databases, in hexadecimal.
        awaiting: the ids of databases whose receipts await confirmation, so that rows in them were kept, too.
        unconfirmed: rows that stayed although the clock says that they are too old: it went ahead, and that awaits
            confirmation (see `Store.clock`). Rows of all tables count.
        used_bytes: size of the master's pages in use and of its WAL.
        file_bytes: size of the master's file.
        wal_bytes: size of its WAL.
        free_bytes: free space inside the file, which later rows fill.
        retired_streams: streams of which all rows were pruned, and that now take less space.
        forgotten_streams: streams of which all rows were pruned long ago, and that are now forgotten: a copy as old as
            they are could bring their rows back.
        shrunk_bytes: by how much the file became smaller.
        can_shrink: whether the file can become smaller. If not, its free space is only filled again.
        fits: whether the master is within the size that the rules allow; True if no rule limits the size.
        seconds: how long it took.
        dry_run: whether nothing was changed. Then the sizes are those before the prune, and `fits` is a forecast.
        stopped: whether the prune stopped on request before it had finished; the next one continues.
    """

    _computed = ("complete",)

    rows: int = 0
    by_reason: Mapping[str, int] = attrs.Factory(dict)
    kept_back: int = 0
    tombstones_behind: int = 0
    behind: tuple[str, ...] = ()
    tombstones_unheard: int = 0
    unheard: tuple[str, ...] = ()
    awaiting: tuple[str, ...] = ()
    unconfirmed: int = 0
    used_bytes: int = 0
    file_bytes: int = 0
    wal_bytes: int = 0
    free_bytes: int = 0
    shrunk_bytes: int = 0
    can_shrink: bool = True
    fits: bool = True
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False
    retired_streams: int = 0
    forgotten_streams: int = 0
    tables: tuple[PrunableTable, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the rules were met: the same as `fits`, under the name that all reports have."""
        return self.fits

    def _line(self) -> str:
        line = f"{'would prune' if self.dry_run else 'pruned'} {units.count(self.rows, 'row')}"
        if len(self.by_reason) > 1:
            line += f" ({', '.join(f'{reason}: {rows:,}' for reason, rows in self.by_reason.items())})"
        if self.kept_back:
            line += f", {self._kept(self.kept_back, 'row')} that no other database holds"
            if self.awaiting:
                line += f" (receipts that await confirmation, see status: {_first_few(self.awaiting)})"
        if self.unconfirmed:
            line += (
                f", {self._kept(self.unconfirmed, 'row')} because the clock went ahead, and that awaits confirmation"
            )
            line += " (see Store.clock, `edgeshard clock`)"
        line += self._tombstones_kept()
        if self.forgotten_streams:
            forgot, streams = (
                "would forget" if self.dry_run else "forgot",
                units.count(self.forgotten_streams, "stream"),
            )
            line += f", {forgot} {streams} without rows"
        line += f", in {self.seconds:.3f} s; {self._sizes()}"
        if self.stopped:
            line += "; stopped early, the next prune continues"
        if not self.fits:
            line += f"; the master {'would still be' if self.dry_run else 'is still'} larger than the rules allow"
        return line

    def _kept(self, number: int, noun: str) -> str:
        return f"{'would keep' if self.dry_run else 'kept'} {units.count(number, noun)}"

    def _sizes(self) -> str:
        line = f"{units.size(self.used_bytes)} in use, {units.size(self.free_bytes)} free in the file"
        if self.tables:
            line += f", about {units.size(sum(table.freed_bytes for table in self.tables))} would become free"
        if self.shrunk_bytes:
            line += f", {units.size(self.shrunk_bytes)} given back to the disk"
        if not self.can_shrink:
            line += " (this file cannot become smaller; later rows fill the free space)"
        return line

    def _tombstones_kept(self) -> str:
        line = ""
        if self.tombstones_behind:
            line += (
                f", {self._kept(self.tombstones_behind, 'tombstone')} because older changes may still arrive "
                f"({_first_few(self.behind)})"
            )
        if self.tombstones_unheard:
            line += (
                f", {self._kept(self.tombstones_unheard, 'tombstone')} that not all databases with a receipt know of "
                f"({_first_few(self.unheard)}: push or export to them, then record their next receipts; "
                "Store.forget_peer (`edgeshard forget-peer`) forgets one that will never return)"
            )
        return line


def _rows_of_streams(
    report: PushReport | ExportReport | RestoreReport | VerifyReport | SalvageReport | ReceiptReport,
) -> str:
    return f"{units.count(report.rows, 'row')} of {units.count(report.streams, 'stream')}"


def _missing(rows: int, gaps: Sequence[Gap], *, dry_run: bool = False) -> str:
    return f"{units.count(rows, 'row')}{' would be' if dry_run else ''} missing in {units.count(len(gaps), 'gap')}"


def _first_few(names: Sequence[str]) -> str:
    more = f"; and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return "; ".join(names[:_NAMED_MAX]) + more


def combine_prunes(reports: Sequence[PruneReport]) -> PruneReport | None:
    """Combine the reports of successive prunes of one master, or return None if there are none."""
    if not reports:
        return None
    by_reason: Counter[str] = Counter()
    for report in reports:
        by_reason.update(report.by_reason)
    return attrs.evolve(
        reports[-1],  # the sizes are those after the last one
        rows=sum(report.rows for report in reports),
        by_reason=dict(by_reason),
        kept_back=sum(report.kept_back for report in reports),
        tombstones_behind=sum(report.tombstones_behind for report in reports),
        behind=tuple(sorted({cause for report in reports for cause in report.behind})),
        tombstones_unheard=sum(report.tombstones_unheard for report in reports),
        unheard=tuple(sorted({peer for report in reports for peer in report.unheard})),
        awaiting=tuple(sorted({peer for report in reports for peer in report.awaiting})),
        unconfirmed=sum(report.unconfirmed for report in reports),
        shrunk_bytes=sum(report.shrunk_bytes for report in reports),
        retired_streams=sum(report.retired_streams for report in reports),
        forgotten_streams=sum(report.forgotten_streams for report in reports),
        fits=all(report.fits for report in reports),
        seconds=sum(report.seconds for report in reports),
        stopped=any(report.stopped for report in reports),
    )


@attrs.frozen(repr=False)
class PushReport(Report):
    """What one push did, or what a dry run would do.

    Attributes:
        upstream: the PostgreSQL database, as user@host:port/database, without any secret.
        rows: rows committed there. If the answer to a commit was lost, its rows count only if they had to be sent
            again.
        streams: streams that these rows belong to.
        tables: rows per table.
        statements: SQL that was run to create tables, columns and indexes for them.
        rejected: rows that PostgreSQL cannot store, with the reason.
        remaining: rows in the master that PostgreSQL still lacks, including the rejected ones.
        tombstones: tombstones that were deleted there, because this master has pruned them.
        seconds: how long it took.
        dry_run: whether nothing was changed.
        stopped: whether the push stopped on request before it had finished; the next one continues.
    """

    _computed = ("complete",)

    upstream: str = ""
    rows: int = 0
    streams: int = 0
    tables: dict[str, int] = attrs.Factory(dict)
    statements: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    remaining: int = 0
    tombstones: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether no row was rejected."""
        return not self.rejected

    def _line(self) -> str:
        done = "would push" if self.dry_run else "pushed"
        line = f"{done} {_rows_of_streams(self)} to {self.upstream}, in {self.seconds:.3f} s"
        if self.tables:
            line += " (" + ", ".join(f"{name}: {rows:,}" for name, rows in sorted(self.tables.items())) + ")"
        if self.tombstones:
            line += f"; deleted {units.count(self.tombstones, 'tombstone')} there"
        if self.stopped:
            line += "; stopped early, the next push continues"
        if self.rejected:
            reasons = units.count(len(self.rejected), "reason")
            line += f"; {units.count(self.remaining, 'row')} still to push, rejected for {reasons}"
        elif self.remaining and not self.dry_run:
            line += f"; {units.count(self.remaining, 'row')} still to push"
        return line


# -- exchange between stores ------------------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class ExportReport(Report):
    """What one export wrote.

    Attributes:
        path: the bundle.
        rows: rows in it.
        streams: streams that it has rows of.
        left_out: rows of the master that are not in it, because the receiver has them or had them.
        size_bytes: size of the file.
    """

    path: str
    rows: int
    streams: int
    left_out: int
    size_bytes: int

    def _line(self) -> str:
        line = f"exported {_rows_of_streams(self)} in {units.size(self.size_bytes)}"
        left_out = units.count(self.left_out, "row")
        return f"{line}; left out {left_out} that the receiver has already" if self.left_out else line


#: What became of a receipt: see `ReceiptReport.outcome`.
NEXT, PUT_BACK, DOUBTFUL, AWAITING = "next", "put back", "doubtful", "awaiting confirmation"

_RECEIPT_OUTCOMES = {
    PUT_BACK: "it was restored from an older copy, and holds less than it did",
    DOUBTFUL: "this receipt is older than the last one, or its clock was set back; only what both say counts",
}


@attrs.frozen(repr=False)
class ReceiptReport(Report):
    """What was recorded of a receipt.

    Attributes:
        database: the database that gave it, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        outcome: "next": recorded in place of the last one; "put back": the same, and the peer was restored from an
            older copy; "doubtful": it is unclear which receipt is the later one, so only what both say counts now;
            "awaiting confirmation": nobody has confirmed this database, so nothing of its receipt counts.
        rows: rows that the peer now counts as holding: those that this master had held, too, by now.
        streams: streams that they belong to.
        unknown: streams in the receipt that this master does not know; nothing is recorded for them.
        claimed: rows of other streams that the peer says it holds and that this master never held. They do not count,
            not even once such rows arrive here.
    """

    _computed = ("complete",)

    database: str
    kind: str
    outcome: str
    rows: int
    streams: int
    unknown: int
    claimed: int

    @property
    def complete(self) -> bool:
        """Whether the receipt counts: its database is confirmed."""
        return self.outcome != AWAITING

    def _line(self) -> str:
        if not self.complete:
            return f"{self.kind} database {self.database} awaits confirmation: nothing of its receipt counts until then"
        line = f"{self.database} holds {_rows_of_streams(self)} known here"
        if self.outcome in _RECEIPT_OUTCOMES:
            line += f"; {_RECEIPT_OUTCOMES[self.outcome]}"
        if self.claimed:
            line += f"; ignored {units.count(self.claimed, 'row')} that this master never held"
        unknown = units.count(self.unknown, "stream")
        return f"{line}; ignored {unknown} not known here" if self.unknown else line


# -- what became of rows ----------------------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class ForgetPeerReport(Report):
    """What `Store.forget_peer` did, or what a dry run would do, and what that permits.

    Attributes:
        database: the peer's id, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        tombstones: how many tombstones wait for this peer only. Once they are old enough, prunes may delete them.
        rows: how many rows no other peer is known to hold. No rule with ``only_pushed`` or ``only_receipted``
            deletes them any more.
        claimed: how many rows this peer says it holds that never arrived here. Nothing reminds of them any more.
        dry_run: whether nothing was changed.
    """

    database: str
    kind: str
    tombstones: int
    rows: int
    claimed: int
    dry_run: bool = False

    def _line(self) -> str:
        done = "would forget" if self.dry_run else "forgot"
        line = f"{done} {self.kind} database {self.database}: {units.count(self.tombstones, 'tombstone')} waited for it"
        line += f" only, and may be pruned; {units.count(self.rows, 'row')} that no other peer is known to hold"
        return line + (f"; {units.count(self.claimed, 'row')} that only it has may never come" if self.claimed else "")


@attrs.frozen(repr=False)
class RowStates(Report):
    """How many of the rows that are known to have been written are in which state. Each row is in exactly one.

    Attributes:
        present: rows in the master.
        superseded: rows of keyed tables that newer versions took the place of.
        collected: tombstones that were collected.
        pruned: rows that a retention rule deleted.
        erased: rows that were erased for good.
        by_hand: rows that somebody deleted with another program, unless that loss was accepted.
        written_off: rows that are missing, or were deleted by hand, and whose loss was accepted.
        pending: rows in shards that the master does not hold yet.
        missing: all others. They went to another database, for example, or are lost.
    """

    _computed = ("total",)

    present: int = 0
    superseded: int = 0
    collected: int = 0
    pruned: int = 0
    erased: int = 0
    by_hand: int = 0
    written_off: int = 0
    pending: int = 0
    missing: int = 0

    @property
    def total(self) -> int:
        """All rows that are known to have been written."""
        return sum(getattr(self, field.name) for field in attrs.fields(type(self)))


def add_states(states: Iterable[RowStates]) -> RowStates:
    """Return the sums of the states of several streams."""
    names = [field.name for field in attrs.fields(RowStates)]
    listed = list(states)
    return RowStates(**{name: sum(getattr(each, name) for each in listed) for name in names})


# -- salvage, verify, status ------------------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class SalvageReport(Report):
    """What `Store.salvage` recovered.

    Attributes:
        path: the damaged shard.
        agent: its agent, or "" if that cannot be read.
        rows: rows that could be read.
        merged: how many of them the master did not have.
        streams: streams of the shard that are known.
        gaps: rows of these streams that are known to have existed and that the master does not have.
        unassigned: rows that could be read, but whose stream or table is lost or ambiguous.
    """

    _computed = ("complete",)

    path: str
    agent: str = ""
    rows: int = 0
    merged: int = 0
    streams: int = 0
    gaps: tuple[Gap, ...] = ()
    unassigned: int = 0

    @property
    def readable(self) -> bool:
        """Whether anything in the shard could be read."""
        return bool(self.rows or self.streams)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, as far as is known."""
        return self.readable and not self.gaps and not self.unassigned

    def _line(self) -> str:
        if not self.readable:
            return f"nothing in {self.path} can be read"
        line = f"salvaged {_rows_of_streams(self)} of agent {self.agent!r}, {self.merged:,} of them new"
        if self.gaps:
            line += f"; {_missing(sum(map(len, self.gaps)), self.gaps)}"
        if self.unassigned:
            line += f"; {units.count(self.unassigned, 'row')} of unknown origin left out"
        return line


@attrs.frozen(repr=False)
class ImportedTable(Report):
    """What `Store.import_` did with one table of a file; NDJSON and CSV have one.

    Attributes:
        table: the table that the rows went to.
        form: "sqlite", "ndjson" or "csv".
        rows: rows imported now.
        known: rows that had been imported before.
        continues: the name that the file had when these were imported, if it has another one now; otherwise "".
        notes: what should be known of rows that were not imported.
        unfinished_line: the number of the last line, if it has no end yet and is no row: the next import takes it.
        error: why not all rows were imported, or "". Those before the row that it names were.
    """

    table: str
    form: str
    rows: int = 0
    known: int = 0
    continues: str = ""
    notes: tuple[str, ...] = ()
    unfinished_line: int = 0
    error: str = ""


@attrs.frozen(repr=False)
class ImportedFile(Report):
    """What `Store.import_` did with one file.

    Attributes:
        path: the file.
        agent: the agent that its rows are of.
        tables: its tables.
        left_out: what of a SQLite database is not imported: views, virtual tables, columns that SQLite computes.
        error: why nothing of it was imported, or "".
    """

    path: str
    agent: str
    tables: tuple[ImportedTable, ...] = ()
    left_out: tuple[str, ...] = ()
    error: str = ""

    @property
    def errors(self) -> tuple[str, ...]:
        """Each reason why something of it was not imported, with the file."""
        of_tables = (f"import {self.path}: {table.error}" for table in self.tables if table.error)
        return (*([self.error] if self.error else []), *of_tables)


@attrs.frozen(repr=False)
class ImportReport(Report):
    """What `Store.import_` did.

    Attributes:
        files: each file.
        pending: why rows may not be in the master yet, or "". They are in shards, and the next merge takes them.
        seconds: how long it took.
        dry_run: whether nothing was imported.
    """

    _computed = ("rows", "complete")

    files: tuple[ImportedFile, ...] = ()
    pending: str = ""
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def rows(self) -> int:
        """How many rows were imported."""
        return sum(table.rows for file in self.files for table in file.tables)

    @property
    def complete(self) -> bool:
        """Whether all rows were imported and merged, and no note says that some were passed over."""
        notes = [table.notes for file in self.files for table in file.tables if table.notes]
        return not self.pending and not notes and not any(file.errors for file in self.files)

    def _line(self) -> str:
        imported = "would import" if self.dry_run else "imported"
        known = sum(table.known for file in self.files for table in file.tables)
        line = f"{imported} {units.count(self.rows, 'row')} from {units.count(len(self.files), 'file')}"
        line += f", in {self.seconds:.3f} s"
        if known:
            line += f"; {units.count(known, 'row')} had been imported before"
        if errors := sum(len(file.errors) for file in self.files):
            line += f"; {units.count(errors, 'error')}"
        if self.pending:
            line += f"; rows are pending: {self.pending}"
        return line


#: Why rows are missing: see `Loss.cause`.
PEER, PRUNED, OLDER_MASTER, OTHER_MASTER, UNKNOWN = "peer", "pruned", "older master", "another master", "unknown"
REPLACED = "replaced master"


@attrs.frozen(repr=False)
class Loss(Report):
    """A part of a gap, and where its rows are, as far as that is known.

    Attributes:
        gap: the rows.
        cause: "peer": another database holds them, as its receipt says; "pruned": another master, from which this one
            was merged, deleted them by rule; "older master": this master held them before an older copy of it was
            restored; "another master": a shard was truncated after that master had merged it; "unknown": they are in a
            shard that is quarantined or was not merged here, or they are lost. In the report of a restore also
            "replaced master": the master that was replaced has them.
        database: the id of the database that holds, pruned or merged them, in hexadecimal, or "".
        kind: the type of database that holds them, "edgeshard" or "postgresql", as its receipt says, or "".
    """

    gap: Gap
    cause: str
    database: str
    kind: str = ""


@attrs.frozen(repr=False)
class InitReport(Report):
    """What `Store.init` did, or what a dry run would do.

    Attributes:
        path: the store's folder.
        created: whether the store was made; False if there was one.
        dry_run: whether nothing was changed.
    """

    path: str
    created: bool
    dry_run: bool = False

    def _line(self) -> str:
        if not self.created:
            return f"{self.path} is a store already; nothing was changed"
        return f"{'would make' if self.dry_run else 'made'} the store {self.path}"


@attrs.frozen(repr=False)
class AcceptedLoss(Report):
    """Rows whose loss a user accepted; see `Store.accept_loss`.

    Attributes:
        gap: the rows.
        why: why the user accepted it.
        at: when, ISO 8601, UTC.
    """

    gap: Gap
    why: str
    at: str


@attrs.frozen(repr=False)
class AcceptLossReport(Report):
    """What `Store.accept_loss` did, or what a dry run would do.

    Attributes:
        gaps: the rows whose loss is accepted now. They were missing, or somebody had deleted them by hand.
        dry_run: whether nothing was changed.
    """

    _computed = ("rows",)

    gaps: tuple[Gap, ...] = ()
    dry_run: bool = False

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return sum(map(len, self.gaps))

    def _line(self) -> str:
        if not self.gaps:
            return "none of these rows is missing or was deleted by hand, so there is no loss to accept"
        accepted = "would accept" if self.dry_run else "accepted"
        return f"{accepted} the loss of {units.count(self.rows, 'row')} in {units.count(len(self.gaps), 'run')}"


@attrs.frozen(repr=False)
class ErasedElsewhere(Report):
    """Another database that holds rows which were erased here, as its last receipt says.

    Attributes:
        database: its id, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        rows: how many of the rows it holds.
    """

    database: str
    kind: str
    rows: int


@attrs.frozen(repr=False)
class EraseReport(Report):
    """What `Store.erase` did, or what a dry run would do.

    Attributes:
        rows: rows erased from the master, which held all rows that could be merged by then.
        pending: a dry run: rows in shards that were not examined, because they would be merged first. Otherwise 0.
        unexamined: shards whose rows, or some of them, could not be merged and so were not examined, with the reason.
        elsewhere: the databases that hold some of the rows, as their receipts say.
        is_wal_emptied: whether the master's WAL was emptied. If not, it has copies of the rows until a later merge.
        dry_run: whether nothing was changed.
    """

    _computed = ("complete",)

    rows: int = 0
    pending: int = 0
    unexamined: tuple[Quarantined, ...] = ()
    elsewhere: tuple[ErasedElsewhere, ...] = ()
    is_wal_emptied: bool = True
    dry_run: bool = False

    @property
    def complete(self) -> bool:
        """Whether all rows of the store were examined, and the WAL was emptied."""
        return not self.unexamined and self.is_wal_emptied

    def _line(self) -> str:
        line = f"{'would erase' if self.dry_run else 'erased'} {units.count(self.rows, 'row')}"
        if self.pending:
            line += f"; {units.count(self.pending, 'pending row')} would be merged and examined first"
        if self.unexamined:
            could = "could" if not self.dry_run else "can"
            line += f"; {units.count(len(self.unexamined), 'shard')} {could} not be examined: {self.unexamined[0].path}"
        if not self.is_wal_emptied:
            line += "; another program reads the master, so its WAL has copies of them until a later merge"
        for each in self.elsewhere:
            line += f"; {each.kind} database {each.database} holds {each.rows:,} of them"
        return line


@attrs.frozen(repr=False)
class VerifyReport(Report):
    """What `Store.verify` found.

    Attributes:
        rows: rows in the master's record tables.
        streams: streams it knows.
        errors: contradictions found in the master; each is damage or a bug in edgeshard.
        gaps: rows known to exist that the master never held. A gap closes once the database with its rows is merged.
        losses: the same rows, with where they are.
        database: the master's id, in hexadecimal, by which other databases know it.
        pruned: rows that this master deleted by rule, per rule, collected tombstones included; they are not gaps.
        states: all known rows, by what became of them. Rows in shards are not counted: what is pending there is
            missing, if it is known at all, except for rows that are blocked in a shard.
        unnamed: why rows may be missing that cannot be named, or "".
        by_hand: rows that somebody deleted with another program, and whose loss nobody accepted (`accept_loss`).
        accepted: losses that somebody accepted.
    """

    _computed = ("ok",)

    rows: int
    streams: int
    errors: tuple[str, ...]
    gaps: tuple[Gap, ...]
    losses: tuple[Loss, ...] = ()
    database: str = ""
    pruned: Mapping[str, int] = attrs.Factory(dict)
    states: RowStates = attrs.Factory(RowStates)
    unnamed: str = ""
    by_hand: tuple[Gap, ...] = ()
    accepted: tuple[AcceptedLoss, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the master is free of contradictions, and lacks no row whose loss was not accepted."""
        return not self.errors and not self.gaps and not self.by_hand and not self.unnamed

    def _line(self) -> str:
        line = f"{_rows_of_streams(self)}{self._pruned()}{self._given_up()}: "
        if self.ok:
            return line + "all well"
        line += f"{units.count(len(self.errors), 'error')}, {_missing(sum(map(len, self.gaps)), self.gaps)}"
        line += f", {units.count(sum(map(len, self.by_hand)), 'row')} deleted by hand" if self.by_hand else ""
        return f"{line}; {self.unnamed}" if self.unnamed else line

    def _given_up(self) -> str:
        erased = f", {self.states.erased:,} erased" if self.states.erased else ""
        return erased + (f", {self.states.written_off:,} written off" if self.states.written_off else "")

    def _pruned(self) -> str:
        reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in self.pruned.items())
        return f", {sum(self.pruned.values()):,} pruned ({reasons})" if self.pruned else ""


#: How the rows of a PostgreSQL database differ from the master's: deleted there; changed there; in a table there whose
#: rows the master has elsewhere; no longer named by its ranges, as after a restore.
DELETED, CHANGED, EXTRA, LOST = "deleted", "changed", "extra", "lost"

#: How many differences a report lists, at most.
DIFFERENCES_MAX = 1_000


@attrs.frozen(repr=False)
class Difference(Report):
    """Rows of a PostgreSQL database that are not what the master pushed.

    Attributes:
        agent: the agent that wrote them.
        stream: the stream's id, in hexadecimal.
        first: the first of their seqs.
        last: the last one.
        table: their table, or "" if it is not known.
        kind: "deleted", "changed", "extra" or "lost".
    """

    agent: str
    stream: str
    first: int
    last: int
    table: str
    kind: str

    def __len__(self) -> int:
        return self.last - self.first + 1

    def _line(self) -> str:
        place = f" of table {self.table}" if self.table else ""
        return f"{self.kind}: rows {self.first} to {self.last}{place}, stream {self.stream} of agent {self.agent!r}"


@attrs.frozen(repr=False)
class CompareReport(Report):
    """What `Store.verify_against` found.

    Attributes:
        upstream: the PostgreSQL database, as user@host:port/database, without any secret.
        rows: rows of the master that were compared: those that the database's ranges name.
        remaining: rows of the master that were never pushed, rejected ones included. They are no differences.
        counts: how many rows differ, by kind: "deleted", "changed", "extra" and "lost".
        differences: the first 1,000 differences.
        unchecked: rows whose values were not compared by a deep check: those that the push changed on request, because
            PostgreSQL cannot store them.
        behind: tables of which only the number of rows was compared, because they lack columns that the next push adds.
        deep: whether the values were compared.
        seconds: how long it took.
        stopped: whether it stopped on request before it had finished.
    """

    _computed = ("ok",)

    upstream: str
    rows: int
    remaining: int
    counts: Mapping[str, int]
    differences: tuple[Difference, ...] = ()
    unchecked: int = 0
    behind: tuple[str, ...] = ()
    deep: bool = False
    seconds: float = 0.0
    stopped: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not any(self.counts.values())

    def _line(self) -> str:
        found = ", ".join(f"{rows:,} {kind}" for kind, rows in self.counts.items() if rows)
        line = f"compared {units.count(self.rows, 'row')} with {self.upstream}: {found or 'no difference'}"
        if self.remaining:
            line += f"; {units.count(self.remaining, 'row')} not pushed"
        if self.unchecked:
            line += f"; values of {units.count(self.unchecked, 'row')} not compared: the push changed them on request"
        if self.behind:
            line += f"; only counted (push first): {', '.join(self.behind)}"
        return line + ("; stopped early" if self.stopped else "")


@attrs.frozen(repr=False)
class RestoreReport(Report):
    """What `Store.restore` did, or what a dry run would do.

    Attributes:
        snapshot: the snapshot.
        replaced: the file that the replaced master is now, or "" if there was none.
        is_replaced_readable: whether that file can be read, and merged with `Store.merge`.
        database: the master's id, in hexadecimal.
        rows: rows in the master now.
        streams: streams it knows.
        gaps: rows known to exist that the master now lacks. Rows still in shards are not among them.
        losses: the same rows, with where they are.
        peers: other databases that gave receipts; they may have any of the missing rows.
        unnamed: why more rows may be missing, which cannot be named, or "".
        dry_run: whether nothing was changed.
    """

    _computed = ("complete", "missing_rows")

    snapshot: str
    replaced: str = ""
    is_replaced_readable: bool = False
    database: str = ""
    rows: int = 0
    streams: int = 0
    gaps: tuple[Gap, ...] = ()
    losses: tuple[Loss, ...] = ()
    peers: tuple[PeerStatus, ...] = ()
    unnamed: str = ""
    dry_run: bool = False

    @property
    def missing_rows(self) -> int:
        """How many rows are missing."""
        return sum(map(len, self.gaps))

    @property
    def complete(self) -> bool:
        """Whether no row is missing, as far as is known."""
        return not self.gaps and not self.unnamed

    def _line(self) -> str:
        done = "would restore" if self.dry_run else "restored"
        line = f"{done} {_rows_of_streams(self)} from {self.snapshot}"
        if self.replaced:
            line += f"; the replaced master is {self.replaced}"
        if self.gaps:
            line += f"; {_missing(self.missing_rows, self.gaps, dry_run=self.dry_run)}"
        return f"{line}; {self.unnamed}" if self.unnamed else line


@attrs.frozen(repr=False)
class ShardStatus(Report):
    """One file in ``shards/``.

    Attributes:
        name: the file's name.
        agent: its agent, or None if unknown.
        alive: whether its agent has it open, or None if that cannot be determined.
        pid: the process that has it open, or None if none has, or it cannot be determined.
        pending_rows: rows in it that the master does not hold, or None if it cannot be read.
        oldest_age_s: how long the oldest of them has been pending, in seconds, or None if there are none or their age
            is unknown.
        oldest_is_bound: whether `oldest_age_s` is an upper bound. The row has no time of its own, but was written
            after its agent opened the shard and, unless the last merge was killed, after that merge.
        size_bytes: size of the file and its WAL.
        merged_at: when rows of it were last merged, or None if never.
        reason: why a merge refuses it, or why it cannot be read at the moment; "" if all is well.
        blocked: those of its pending rows that cannot be merged, because their table contradicts the master's.
    """

    name: str
    agent: str | None
    alive: bool | None
    pending_rows: int | None
    oldest_age_s: float | None
    oldest_is_bound: bool
    size_bytes: int
    merged_at: datetime.datetime | None
    reason: str
    blocked: tuple[Blocked, ...] = ()
    pid: int | None = None


@attrs.frozen(repr=False)
class ClockAhead(Report):
    """An agent whose changes of a keyed table carry timestamps ahead of this machine's clock, and win until then.

    Attributes:
        agent: the agent.
        table: the table.
        ahead_s: how far ahead its newest change is, in seconds.
    """

    agent: str
    table: str
    ahead_s: float


@attrs.frozen(repr=False)
class ClockReport(Report):
    """The clock of this machine, and the time by which rows of a master become too old.

    Attributes:
        wall: what the clock shows.
        trusted: the time by which rows become too old; None if the clock was never set, or nothing was merged yet.
        ahead_s: by how many seconds the clock went ahead of that, unconfirmed.
        rows: rows that arrived before it went ahead, and become older once that is confirmed.
        confirmed_in_s: after how many seconds it is confirmed by itself, if the clock stays there: of the time in which
            the machine is on, or merges are made each day.
        behind_s: by how many seconds the clock is behind that time.
        awaits_confirmation: whether somebody should look: the clock went ahead by more than a night, or is behind by
            more than a day.
        confirmed: whether the clock was confirmed just now.
        dry_run: whether nothing was changed.
    """

    _computed = ("complete",)

    wall: datetime.datetime
    trusted: datetime.datetime | None = None
    ahead_s: float = 0.0
    rows: int = 0
    confirmed_in_s: float = 0.0
    behind_s: float = 0.0
    awaits_confirmation: bool = False
    confirmed: bool = False
    dry_run: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing awaits confirmation."""
        return not self.awaits_confirmation

    def _line(self) -> str:
        wall = self.wall.isoformat(timespec="seconds")
        if self.confirmed:
            return f"{'would confirm' if self.dry_run else 'confirmed'} the clock, which shows {wall}; {self.effect}"
        if self.trusted is None:
            return f"the clock shows {wall}; rows have no age before it is set, and before the first merge"
        if self.behind_s:
            return (
                f"the clock shows {wall}, {_days(self.behind_s)} behind the time that this store has counted. Rows "
                "become older by the time that is measured. If the clock is wrong, set it; if it is right, confirm it"
            )
        if self.ahead_s:
            return (
                f"the clock shows {wall}; it went ahead by {_days(self.ahead_s)}, and "
                f"{units.count(self.rows, 'row')} will be older by that once it is confirmed, by you or by "
                f"{_days(self.confirmed_in_s)} in which this machine is on or merges each day. Until then deletions by "
                "age wait, and all else goes on. If it is wrong, or was when these rows arrived, do not confirm it; if "
                "that time has really passed, confirm it"
            )
        return f"the clock shows {wall}, and rows become older by it"

    @property
    def effect(self) -> str:
        """What follows if the clock is confirmed."""
        if self.behind_s:
            return f"the time that this store has counted is moved back by {_days(self.behind_s)}, no row's age changes"
        rows = units.count(self.rows, "row")
        return f"the age of {rows} grows by {_days(self.ahead_s)}" if self.ahead_s else "no row's age changes"


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days"


@attrs.frozen(repr=False)
class PeerStatus(Report):
    """Another database that gave a receipt.

    Attributes:
        database: its id, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        received_at: when its last receipt arrived.
        trusted_at: when it was confirmed, or None if its receipt awaits confirmation and does not count.
    """

    database: str
    kind: str
    received_at: datetime.datetime
    trusted_at: datetime.datetime | None


@attrs.frozen(repr=False)
class MasterStatus(Report):
    """The master.

    Attributes:
        path: its file.
        exists: whether there is one; if not, everything below is 0.
        size_bytes: size of the file.
        wal_bytes: size of its WAL.
        rows: rows in its record tables.
        tables: the names of these tables.
        pruned_rows: rows that retention rules deleted from it.
        collected_rows: tombstones that were collected.
        superseded_rows: rows of keyed tables that newer rows have superseded.
        clocks_ahead: agents whose changes of keyed tables are more than a day ahead of this machine's clock.
        triggers: triggers that users made on its tables, and that do not fire when rows are merged, if the store has no
            ``refresh.sql``.
        agents: agents whose rows it knows of.
        streams: streams that it knows of.
        merged_at: when a merge last brought rows, or None if none did, as far as is known.
        retired_streams: those of which it held and pruned every row.
        gaps: runs of rows that are known to exist, and that neither it nor a shard has; `StatusReport.gaps` lists them.
        missing_rows: rows in these gaps.
        generation: how many transactions of merges and prunes it has seen.
        database: its id, in hexadecimal, by which other databases know it, or "" if there is no master.
        damage: what a check found, if it is known to be damaged and gets no more rows, or "".
    """

    path: str
    exists: bool = False
    size_bytes: int = 0
    wal_bytes: int = 0
    rows: int = 0
    agents: int = 0
    streams: int = 0
    gaps: int = 0
    missing_rows: int = 0
    generation: int = 0
    database: str = ""
    pruned_rows: int = 0
    collected_rows: int = 0
    superseded_rows: int = 0
    clocks_ahead: tuple[ClockAhead, ...] = ()
    retired_streams: int = 0
    triggers: tuple[str, ...] = ()
    damage: str = ""
    merged_at: datetime.datetime | None = None
    tables: tuple[str, ...] = ()


@attrs.frozen(repr=False)
class BudgetStatus(Report):
    """The disk budget, in bytes.

    Attributes:
        max_bytes: the budget.
        on_full: what happens once it is used up.
        limit_bytes: what the store may use now: less than the budget if the file system has less space.
        used_bytes: what the store uses.
        dropped_rows: rows ever deleted from the master to stay within the budget.
        promised_bytes: what open shards may still take without asking, and what pending rows may take in the master.
        reserve_bytes: what is set aside for merging.
        left_bytes: what is left for writers; negative if merging needs more than its reserve.
        open_shards: how many shards are open.
        least_bytes: the least budget with which one shard more can be open, besides what rows take.
        is_full: whether no further shard can be opened, or the writer of one that is there is refused.
        is_nearly_full: whether writers will soon be refused: pending rows and merging need what is not used yet.
    """

    max_bytes: int
    on_full: str
    limit_bytes: int
    used_bytes: int
    dropped_rows: int
    promised_bytes: int = 0
    reserve_bytes: int = 0
    left_bytes: int = 0
    open_shards: int = 0
    least_bytes: int = 0
    is_full: bool = False
    is_nearly_full: bool = False


@attrs.frozen(repr=False)
class SpaceUse(Report):
    """What fills a store, in bytes.

    Attributes:
        rows_bytes: the tables of the master with rows. In a large master, this includes their indexes.
        indexes_bytes: the indexes of these tables; None if the master is so large that they would take long to measure.
        bookkeeping_bytes: what the master knows about rows: addresses, what was merged and pruned, receipts.
        retired_bytes: that part of the bookkeeping that is about streams of which all rows were pruned.
        free_bytes: free pages of the master's file, which later rows fill.
        master_wal_bytes: the master's WAL, and its index.
        shards_bytes: the shards.
        shard_wals_bytes: their WALs, and the indexes of these.
        other_bytes: all other files in the store's folder and that of its shards: locks, settings, and what does not
            belong to the store.
    """

    _computed = ("total_bytes",)

    rows_bytes: int = 0
    indexes_bytes: int | None = 0
    bookkeeping_bytes: int = 0
    retired_bytes: int = 0
    free_bytes: int = 0
    master_wal_bytes: int = 0
    shards_bytes: int = 0
    shard_wals_bytes: int = 0
    other_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        master = self.rows_bytes + (self.indexes_bytes or 0) + self.bookkeeping_bytes + self.free_bytes
        return master + self.master_wal_bytes + self.shards_bytes + self.shard_wals_bytes + self.other_bytes


@attrs.frozen(repr=False)
class WriteStats(Report):
    """Bytes that a store has written to its files, as far as they are counted.

    Attributes:
        today_bytes: written today (UTC).
        bytes: written since the first day.
        days: days from the first one to today.
        rows: rows merged in that time.
    """

    today_bytes: int = 0
    bytes: int = 0
    days: int = 0
    rows: int = 0

    @property
    def bytes_a_day(self) -> float | None:
        """Average per day, or None if nothing was counted."""
        return self.bytes / self.days if self.days else None

    @property
    def bytes_a_row(self) -> float | None:
        """Average per merged row, or None if no row was merged."""
        return self.bytes / self.rows if self.rows else None


@attrs.frozen(repr=False)
class ColumnInfo(Report):
    """A column of a table of the master.

    Attributes:
        name: its name.
        type: its type, as `edgeshard help tables` lists them; of an internal table, as SQLite has it.
    """

    name: str
    type: str


@attrs.frozen(repr=False)
class TableInfo(Report):
    """A table of the master.

    Attributes:
        name: its name.
        columns: its columns, without those of a row's address.
        sql: the statements that made it, its indexes and its view.
        rows: how many rows it has.
        agents: how many agents these rows are of; 0 for an internal table.
        first_at: when the first of these rows arrived in this master, to the minute, or None if that is unknown.
        last_at: the same of the last one.
        size_bytes: size of the table and its indexes, or None if SQLite cannot tell.
        is_internal: whether it is one of edgeshard's own.
    """

    name: str
    columns: tuple[ColumnInfo, ...]
    sql: tuple[str, ...]
    rows: int
    agents: int = 0
    first_at: datetime.datetime | None = None
    last_at: datetime.datetime | None = None
    size_bytes: int | None = None
    is_internal: bool = False

    def _line(self) -> str:
        return f"{self.name}: {units.count(self.rows, 'row')} of {units.count(self.agents, 'agent')}"


@attrs.frozen(repr=False)
class TablesReport(Report):
    """The tables of a store's master.

    Attributes:
        tables: the tables, by name; edgeshard's own come last.
    """

    tables: tuple[TableInfo, ...] = ()

    def _line(self) -> str:
        return "; ".join(map(str, self.tables)) or "there are no tables yet"


#: How bad a problem is, and the verdict on a store: "red" if there is a red problem, else "yellow" if there is any.
Level = Literal["green", "yellow", "red"]

#: What can be wrong with a store: see docs/troubleshooting.md.
ProblemKind = Literal[
    "damaged-master",
    "quarantined",
    "missing",
    "missing-unnamed",
    "deleted-by-hand",
    "blocked",
    "budget-full",
    "clock-unconfirmed",
    "watcher-stalled",
    "merge-stalled",
    "no-merger",
    "pending",
    "budget-high",
    "clock-doubtful",
    "agent-clock-ahead",
    "receipt-unconfirmed",
]


@attrs.frozen(repr=False)
class Problem(Report):
    """Something in a store that needs attention; see `edgeshard.inspect.verdict`.

    Attributes:
        kind: what it is.
        level: "red" if it needs attention now, "yellow" if it does soon, or may.
        text: what it is, in words.
        shard: the name of the shard's file that it is about, or "".
        agent: the agent that it is about, or "" if it is about none, or several.
        table: the table that it is about, or "".
        database: the id of another database that it is about, in hexadecimal, or "".
    """

    kind: ProblemKind
    level: Level
    text: str
    shard: str = ""
    agent: str = ""
    table: str = ""
    database: str = ""

    def _line(self) -> str:
        return f"{self.level}: {self.text}"


@attrs.frozen(repr=False)
class WatcherStatus(Report):
    """The watcher of a store: the process that merges new rows as they come.

    Attributes:
        pid: its process, or None if it is not known, or of another container.
        since: since when it has watched the store, or None if it is not known.
        pass_age_s: how long ago it finished a pass, or committed rows in one, in seconds; None if it is not known.
        rescan_s: how often it checks all shards, in seconds, or None if it is not known.
        is_stopped: whether a signal has stopped its process.
        is_stuck: whether it has not finished a pass for several rescans, although rows are pending.
    """

    _computed = ("is_stalled",)

    pid: int | None
    since: datetime.datetime | None
    pass_age_s: float | None
    rescan_s: float | None
    is_stopped: bool
    is_stuck: bool

    @property
    def is_stalled(self) -> bool:
        """Whether it merges nothing."""
        return self.is_stopped or self.is_stuck

    def _line(self) -> str:
        who = units.process("a watcher", self.pid)
        if self.is_stopped:
            return f"{who} is stopped, and merges nothing"
        if self.is_stuck:
            since = f"has not finished a pass for {self.pass_age_s:.0f} s"
            return f"{who} {since}, although rows are pending; it should do so every {self.rescan_s:.3g} s"
        return f"{who} merges this store"


@attrs.frozen(repr=False)
class MergeStatus(Report):
    """A merge, or a prune, that was at work when the store was read: the process that holds ``merge.lock``.

    Attributes:
        pid: the process, or None if it is not known, or of another container.
        is_stopped: whether a signal has stopped it.
        idle_s: for how long it has committed nothing, in seconds, or None if that is not known. A merge commits every
            few seconds at least.
    """

    pid: int | None
    is_stopped: bool
    idle_s: float | None

    def _line(self) -> str:
        who = units.process("a merge", self.pid)
        if self.is_stopped:
            return f"{who} is stopped, and keeps other mergers from the store"
        if self.idle_s is None:
            return f"{who} is at work"
        return f"{who} has committed nothing for {units.duration(self.idle_s)}, and keeps other mergers from the store"


@attrs.frozen(repr=False)
class StatusReport(Report):
    """What `Store.status` found.

    Attributes:
        at: when the store was read.
        watching: whether a watcher merges new rows, or None if that cannot be determined; False if it is stalled.
        watcher: the watcher, stalled or not, or None if there is none, or nothing is known of it.
        merge: the merge or prune that is at work, also a watcher's, or None if there is none.
        master: the master.
        shards: the shards: quarantined ones first, then by pending rows (most first), then by agent.
        gaps: rows known to exist that neither the master nor a shard has, by agent, stream and seq.
        states: all known rows, by what became of them. A row that is pending in two copies of a shard is one row.
        blocked_rows: those pending rows that cannot be merged, because their table contradicts the master's.
        write_stats: bytes written to the files, as far as they are counted.
        budget: the disk budget, or None if the store has none.
        peers: the databases that gave receipts: those that await confirmation first, then the most recent first.
        space: what fills the store, in bytes by kind.
        unnamed: why rows may be missing that cannot be named, or "".
        clock: the clock of this machine, and the time by which rows become too old; None if there is no master.
        problems: what needs attention, the worst first.
    """

    _computed = (
        "verdict",
        "headline",
        "complete",
        "pending_rows",
        "oldest_age_s",
        "oldest_is_bound",
        "quarantined_shards",
        "bytes_a_day",
        "bytes_a_row",
    )

    at: datetime.datetime
    watching: bool | None
    master: MasterStatus
    shards: tuple[ShardStatus, ...]
    gaps: tuple[Gap, ...] = ()
    write_stats: WriteStats = attrs.Factory(WriteStats)
    budget: BudgetStatus | None = None
    states: RowStates = attrs.Factory(RowStates)
    peers: tuple[PeerStatus, ...] = ()
    space: SpaceUse = attrs.Factory(SpaceUse)
    unnamed: str = ""
    clock: ClockReport | None = None
    blocked_rows: int = 0
    watcher: WatcherStatus | None = None
    merge: MergeStatus | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def verdict(self) -> Level:
        """Whether all is well ("green"), or something needs attention: soon ("yellow"), or now ("red")."""
        levels = {problem.level for problem in self.problems}
        return "red" if "red" in levels else "yellow" if "yellow" in levels else "green"

    @property
    def headline(self) -> str:
        """The verdict in words."""
        if self.verdict == "red":
            return f"something is wrong: {units.count(len(self.problems), 'problem')}"
        if self.verdict == "yellow":
            return f"look at it soon: {units.count(len(self.problems), 'problem')}"
        if not self.states.total and not self.shards:
            return "all is well, there are no rows yet"
        if not self.pending_rows:
            return f"all is well, all rows are merged; {self.merger}"
        return f"all is well, {self.pending}; {self.merger}"

    @property
    def pending(self) -> str:
        """How many rows are pending, and since when, in words."""
        text = f"{units.count(self.pending_rows, 'row')} pending"
        if self.oldest_age_s is None:
            return text
        return f"{text}, the oldest for {'up to ' if self.oldest_is_bound else ''}{units.duration(self.oldest_age_s)}"

    @property
    def watching_line(self) -> str:
        """Whether a merger watches or is at work, in words."""
        if self.watcher is not None and self.watcher.is_stalled:
            return str(self.watcher)
        if self.watching is None:
            return "whether a merger watches is unknown"
        if self.watching or self.merge is None:
            return "a merger watches" if self.watching else "no merger watches"
        return f"{units.process('a merge', self.merge.pid)} is at work"

    @property
    def merger(self) -> str:
        """Whether a merger watches, and if not, when the last rows were merged, in words."""
        if self.watching:
            return self.watching_line
        if self.merged_s_ago is None:
            return f"{self.watching_line}, and nothing was merged yet"
        return f"{self.watching_line}, and the last merge of rows was at most {units.duration(self.merged_s_ago)} ago"

    @property
    def merged_s_ago(self) -> float | None:
        """How long ago a merge last brought rows, at most, in seconds; None if none did, as far as is known."""
        merged_at = self.master.merged_at
        return None if merged_at is None else max(0.0, (self.at - merged_at).total_seconds())

    @property
    def pending_rows(self) -> int:
        """Rows that the master does not hold, in all shards that could be read; a row in two copies counts once."""
        return self.states.pending

    @property
    def oldest(self) -> ShardStatus | None:
        """The shard whose oldest row has been pending longest, or None if nothing is pending."""
        pending = [shard for shard in self.shards if shard.oldest_age_s is not None]
        return max(pending, key=lambda shard: shard.oldest_age_s or 0.0, default=None)

    @property
    def oldest_age_s(self) -> float | None:
        """How long the oldest row has been pending, in seconds, or None."""
        return None if self.oldest is None else self.oldest.oldest_age_s

    @property
    def oldest_is_bound(self) -> bool:
        """Whether `oldest_age_s` is an upper bound."""
        return self.oldest is not None and self.oldest.oldest_is_bound

    @property
    def quarantined_shards(self) -> int:
        """Shards that a merge refuses, or that cannot be read."""
        return sum(bool(shard.reason) for shard in self.shards)

    @property
    def bytes_a_day(self) -> float | None:
        """Bytes written per day on average, or None if nothing was counted."""
        return self.write_stats.bytes_a_day

    @property
    def bytes_a_row(self) -> float | None:
        """Bytes written per merged row on average, or None if no row was merged."""
        return self.write_stats.bytes_a_row

    @property
    def complete(self) -> bool:
        """Whether nothing needs attention now: the verdict is not red."""
        return self.verdict != "red"

    def _line(self) -> str:
        problems = [problem.text for problem in self.problems]
        return f"{self.verdict}: {self.headline}" + (f": {_first_few(problems)}" if problems else "")


# -- activity ---------------------------------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class AgentRows(Report):
    """How many rows of an agent arrived, in each period of an `Arrivals`.

    Attributes:
        agent: the agent.
        rows: the rows of each period, the oldest first.
    """

    agent: str
    rows: tuple[int, ...]

    @property
    def total(self) -> int:
        """The rows of all periods."""
        return sum(self.rows)


@attrs.frozen(repr=False)
class Arrivals(Report):
    """How many rows arrived in a master, by agent and time. Rows that were pruned since then are not counted.

    Attributes:
        begins_at: when the first period begins, by the clock that arrivals are recorded by.
        period_s: how long each period is, in seconds.
        agents: the busiest agents, the one with the most rows first.
        other_agents: how many other agents had rows.
        other_rows: their rows of each period, together.
    """

    begins_at: datetime.datetime
    period_s: int
    agents: tuple[AgentRows, ...]
    other_agents: int
    other_rows: tuple[int, ...]

    @property
    def total(self) -> int:
        """The rows of all agents."""
        return sum(agent.total for agent in self.agents) + sum(self.other_rows)


@attrs.frozen(repr=False)
class DayWritten(Report):
    """What was written to a store's files in a day.

    Attributes:
        day: the day, ISO 8601, UTC.
        bytes: bytes written, as far as they are counted.
        rows: rows merged.
    """

    day: str
    bytes: int
    rows: int


@attrs.frozen(repr=False)
class Activity(Report):
    """What `Store.activity` found: what happened in a store lately.

    Attributes:
        at: when the store was read, by the wall clock.
        last_hour: rows that arrived in the last hour, by the minute; None if no time of arrival is recorded, because
            nothing was merged or the clock was never set.
        last_day: rows that arrived in the last 24 hours, by the half hour; None as above.
        days: bytes written on each day from the first of the last 30 that has any, the oldest first.
        last_seqs: the highest seq known to exist in each stream that the master lacks rows of, by the stream's id.
    """

    at: datetime.datetime
    last_hour: Arrivals | None = None
    last_day: Arrivals | None = None
    days: tuple[DayWritten, ...] = ()
    last_seqs: Mapping[str, int] = attrs.Factory(dict)

    def _line(self) -> str:
        hour, day = (0 if found is None else found.total for found in (self.last_hour, self.last_day))
        return f"{units.count(hour, 'row')} arrived in the last hour, and {day:,} in the last 24 hours"
