"""The state of a store. The longer text of `edgeshard status` is in cli/status.py."""

from __future__ import annotations

import datetime
from typing import Literal

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.clock import ClockAhead, ClockReport
from edgeshard.reports.exchange import PeerStatus
from edgeshard.reports.phrases import first_few
from edgeshard.reports.rows import Blocked, Gap, RowStates
from edgeshard.reports.service import MergeStatus, WatcherStatus
from edgeshard.reports.write_stats import WriteStats

#: Who has no permission for a shard; "" if that is not why it is not read.
DeniedTo = Literal["", "user", "merger"]


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
        denied_to: who has no permission, if `reason` is only that, which says nothing of the shard: "merger", or "user"
            if it is the one who asks for the status; else "".
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
    denied_to: DeniedTo = ""


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


#: How bad a problem is, and the verdict on a store: "red" if there is a red problem, else "yellow" if there is any.
Level = Literal["green", "yellow", "red"]


#: What can be wrong with a store: see docs/troubleshooting.md.
ProblemKind = Literal[
    "damaged-master",
    "quarantined",
    "unreadable",
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
    "rejected",
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
        rejected_rows: rows that PostgreSQL databases rejected in pushes, and that nobody dismissed.
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
        "uncounted_shards",
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
    rejected_rows: int = 0
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
        if self.uncounted_shards:
            text += f" besides those in {units.count(self.uncounted_shards, 'shard')} that this user may not read"
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
        """Shards that a merge refuses, or that cannot be read although permissions allow it."""
        return sum(bool(shard.reason) and not shard.denied_to for shard in self.shards)

    @property
    def uncounted_shards(self) -> int:
        """Shards that this user, who asks for the status, may not read: `pending_rows` lacks their rows."""
        return sum(bool(shard.denied_to) and shard.pending_rows is None for shard in self.shards)

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
        return f"{self.verdict}: {self.headline}" + (f": {first_few(problems)}" if problems else "")
