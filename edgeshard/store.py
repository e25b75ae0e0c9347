"""The facade: everything that a user or the command line does with a store goes through this module."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from edgeshard import handles, lazy, reports
from edgeshard.budget import policy
from edgeshard.budget.policy import ON_FULL, Budget, OnFull
from edgeshard.errors import ConfigurationError, quoted
from edgeshard.files import paths, scan, store_folder
from edgeshard.format import VERSION
from edgeshard.loading import load_all
from edgeshard.log_fields import fields
from edgeshard.merge.listener import Listener as MergeListener
from edgeshard.options import (
    BUSY_TIMEOUT_S,
    DURABILITIES,
    LOCK_WAIT_S,
    MAX_INTERVAL_S,
    OBSERVERS,
    TRANSACTION_WAIT_S,
    DecodeJson,
    Durability,
    OnError,
    Params,
    PruneRule,
    References,
)
from edgeshard.postgres.options import BATCH, BATCH_MAX, ON_INVALID, OnInvalid
from edgeshard.postgres.options import INTERVAL_S as PUSH_INTERVAL_S
from edgeshard.postgres.options import Listener as PushListener
from edgeshard.records import fallbacks
from edgeshard.records.fallbacks import Encode, NanChoice
from edgeshard.records.rows import Rows
from edgeshard.retention.quantities import age_s, row_count, size_bytes
from edgeshard.shard import write_profile
from edgeshard.shard.write_profile import PROFILES, WriteProfileName

if TYPE_CHECKING:
    from edgeshard.exchange.inventory import Inventory as Inventory
    from edgeshard.files.os_errors import explain_os_error as explain_os_error
    from edgeshard.files.targets import ensure_free_for_user as ensure_free_for_user
    from edgeshard.files.targets import find_obstacle as find_obstacle
    from edgeshard.files.targets import resolve_target as resolve_target
    from edgeshard.format.ranges import Range
    from edgeshard.records.scalars import number_or_text as number_or_text
    from edgeshard.retention.store_rules import Retention
    from edgeshard.sqlite import Statement as Statement
    from edgeshard.sqlite import draw_rows as draw_rows
    from edgeshard.sqlite import shorten_text as shorten_text
    from edgeshard.sqlite import wrap_text as wrap_text

# The command line imports nothing below this module, so what else it needs is exported here.
__all__ = [
    "BATCH",
    "BATCH_MAX",
    "BUSY_TIMEOUT_S",
    "DURABILITIES",
    "LINES_BATCH",
    "LOCK_WAIT_S",
    "MAX_INTERVAL_S",
    "OBSERVERS",
    "ON_FULL",
    "ON_INVALID",
    "PROFILES",
    "PUSH_INTERVAL_S",
    "REJECTED_LIMIT",
    "VERSION",
    "Inventory",
    "MergeListener",
    "PruneRule",
    "PushListener",
    "Statement",
    "Store",
    "age_s",
    "draw_rows",
    "ensure_free_for_user",
    "explain_os_error",
    "find_obstacle",
    "load_all",
    "number_or_text",
    "resolve_target",
    "row_count",
    "shorten_text",
    "size_bytes",
    "wrap_text",
]

#: What only the command line needs, and a program that writes or merges should not wait for.
_MODULES: Final = {
    "Inventory": "edgeshard.exchange.inventory",
    "Statement": "edgeshard.sqlite",
    "draw_rows": "edgeshard.sqlite",
    "ensure_free_for_user": "edgeshard.files.targets",
    "explain_os_error": "edgeshard.files.os_errors",
    "find_obstacle": "edgeshard.files.targets",
    "number_or_text": "edgeshard.records.scalars",
    "resolve_target": "edgeshard.files.targets",
    "shorten_text": "edgeshard.sqlite",
    "wrap_text": "edgeshard.sqlite",
}

logger = logging.getLogger("edgeshard.store")

if not TYPE_CHECKING:  # which would believe that there is every name
    __getattr__ = lazy.loader(__name__, _MODULES)

_R = TypeVar("_R")

#: How many rows from lines of text are committed together, unless told otherwise.
LINES_BATCH = 1_000

#: Of how many ranges of rejected rows the addresses are returned, unless told otherwise.
REJECTED_LIMIT = 100

#: The largest number of rows, or of anything else that is counted: as many digits as the command line takes.
_NUMBER_MAX: Final = 10**18 - 1

#: How many characters a line of a table may have at most; the command line gives so many in a pipe.
_WIDTH_MAX: Final = 1 << 20

#: Called with (done, to do) as an operation continues.
Progress = Callable[[int, int], None]


def _never() -> bool:
    return False


class Store:
    """A folder with the shards of one machine's agents, and the master that their rows are merged into.

        >>> store = Store("data")
        >>> with store.shard("door-3") as shard:
        ...     seq = shard.write({"action": "opened"})
        >>> store.merge().rows
        1
        >>> store.query("SELECT agent_id, data ->> 'action' AS action FROM agent_data")
        [Row(agent_id='door-3', action='opened')]

    The shards are ``shards/*.db``, one per agent; the master is ``master.db``. Creating a Store touches nothing:
    folders and files are created when they are first needed (folders with mode 0700, files with 0600).

    Args:
        root: the folder.
        prune: which rows are pruned automatically after merges made through this Store: the rules of `prune`, as in
            ``{"older_than": "30d", "only_pushed": True}``, or a list of such rules, for example one per table. See
            `merge` and `watching`. The rules belong to this object; they are not saved in the folder.
        wear: "low" writes less, for flash, and merges less often. New shards get smaller pages; `watching` merges once
            a minute, even the first row after a quiet time; and rows stay longer in the shards and in the master's WAL
            if copying them earlier would write them twice. Nothing becomes less durable. Pass it wherever the store is
            opened.
        max_bytes: the disk budget: how much space all files of the store may use together, as "500M", "2GiB" or a
            number of bytes. It is saved in the folder (``budget.json``) when a shard is opened or a merge is made, and
            from then on holds for every process, with or without this argument. None: the budget that is saved, if any.
        on_full: "error" (the default) refuses writes and merges that do not fit, with a `DiskBudgetError`.
            "drop-oldest" makes merges delete the oldest rows of the master, starting with the tables of lowest
            priority and sparing agents with few rows, and refuses writes until there is space again.
        encode: what to store instead of values that have no exact form, such as arrays, sets or objects: a function of
            the value and its path (``Reading.image``, ``$.steps[2].score``), called for each of them by a write, in
            fields of classes and at any depth of dicts and lists. What it returns is stored if it has an exact form,
            and is what readers get. It may be called more than once for a value. What it raises refuses the record.
        nan: what becomes of NaN, and inside dicts and lists of infinity, which JSON lacks: "refuse" (the default),
            "null", or in dicts and lists "text" ("NaN", "Infinity", "-Infinity").

    Attributes:
        root: the folder as an absolute path, with symbolic links resolved once, when the Store is created.

    Raises:
        ConfigurationError: the path is not valid UTF-8, or a rule, a budget, `wear`, `encode` or `nan` is not valid.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        prune: PruneRule | Sequence[PruneRule] | None = None,
        wear: WriteProfileName = "normal",
        max_bytes: str | int | None = None,
        on_full: OnFull | None = None,
        encode: Encode | None = None,
        nan: NanChoice = "refuse",
    ) -> None:
        root = paths.checked(root, "open store", 'the folder, as in Store("data"),')
        self.root = Path(os.path.realpath(root))
        self._given = Path(os.path.abspath(root))
        try:
            str(self.root).encode()
        except UnicodeEncodeError as error:
            cause = "its path is not valid UTF-8, which SQLite needs; rename the folder"
            raise ConfigurationError("open store", repr(self.root), cause) from error
        self._rules = _rules_of(prune, self.root)
        self._profile = write_profile.parse_profile(wear, self.root)
        self._budget = _budget_of(self.root, max_bytes, on_full)
        self._fallbacks = fallbacks.parse_fallbacks(encode, nan, str(self.root))

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    @property
    def master_path(self) -> Path:
        """The master's file. Any SQLite tool may read it, at any time."""
        return paths.master(self.root)

    def exists(self) -> bool:
        """Return whether the folder is a store: it has a folder of shards, or a master.

        Raises:
            AccessError, StorageIOError: it cannot be determined.
        """
        return store_folder.is_store(self.root)

    def ensure_exists(self) -> None:
        """Refuse a path that is not a store, as all methods do that neither write rows nor make a store.

        Raises:
            ConfigurationError: it is not a store. The message says what it is, and which store was probably meant.
            AccessError, StorageIOError: it cannot be determined.
        """
        store_folder.ensure_is_store(self.root, self._given)

    def init(self, *, dry_run: bool = False, lock_wait: float = BUSY_TIMEOUT_S) -> reports.InitReport:
        """Make the store, empty, unless it exists. Agents do so with their first write, and `watching` too.

        A hub without agents needs it, and a merge or a reader that runs before the first agent does. The folder, those
        above it, the folder of the shards and the master are made as far as they are missing; what else is in the
        folder stays. A budget that this object was given is saved.

        Args:
            dry_run: report what would be done, and change nothing.
            lock_wait: how long to wait for another process that makes or merges the same store, in seconds.

        Raises:
            ConfigurationError: the path is a file, leads nowhere, or is a part of another store.
            MergeInProgressError: another process was at work on it for all that time.
            StorageError: the folder or the master cannot be made.
        """
        from edgeshard.merge import init_store, locks

        locks.check_wait(self.root, lock_wait)
        report = init_store.init_store(self.root, self._given, dry_run=dry_run, lock_wait_s=lock_wait)
        if not dry_run:
            self._save_budget()
        return report

    def has_shards(self) -> bool:
        """Return whether there is any shard.

        Raises:
            AccessError, StorageIOError: it cannot be determined.
            ConfigurationError: the folder of the shards is a link that leads nowhere, or back to itself.
        """
        return any(True for _ in scan.shard_files(store_folder.resolve_shards(self.root)))

    def has_master(self) -> bool:
        """Return whether there is a master.

        Raises:
            AccessError, StorageIOError: it cannot be determined.
        """
        return scan.find_database(str(self.master_path)) is not None

    # -- writing ------------------------------------------------------------------------------------------------------

    def shard(
        self,
        agent: str,
        *,
        durability: Durability = "process",
        reference: References | None = None,
        wait: float = LOCK_WAIT_S,
        transaction_wait: float = TRANSACTION_WAIT_S,
    ) -> handles.Shard:
        """Open an agent's shard for writing. Use it with ``with``, or call ``close()``.

        Args:
            agent: the agent's name, 1 to 200 characters of any text.
            durability: what a committed row survives. "process": a kill at any moment, and a power cut except for the
                last moments before it. "power": a power cut as well, at the price of an fsync per commit.
            reference: SQLite databases for `Shard.lookup`, by the name they have in SQL:
                ``{"patterns": "patterns.db"}``. They are only read; do not let anything write to them meanwhile.
            wait: how long to wait for another handle of this shard to be closed, in seconds. A merge that removes what
                the agent left when it ended needs some milliseconds.
            transaction_wait: how long a write waits for one transaction of another thread, in seconds, before it raises
                TransactionError. Such a transaction may itself be waiting for the write.

        Raises:
            ShardInUseError: another handle, in this process or another, has it open. The message says which process.
            ShardForkedError: this process was forked while its parent used the shard, as in a transaction.
            ConfigurationError: the durability, a name, a time or a reference is not valid.
            DiskBudgetError: the disk budget has no space for a new shard.
            StorageError: the file, or a reference, cannot be created or opened.
        """
        from edgeshard.shard.open import open_shard  # a shard then loads nothing more, whatever happens

        return open_shard(
            self.root,
            agent,
            durability,
            self._profile,
            reference,
            self._ensure_budget(),
            self._fallbacks,
            wait,
            transaction_wait,
        )

    def line_writer(
        self,
        agent: str,
        *,
        table: str | None = None,
        batch: int = LINES_BATCH,
        durability: Durability = "process",
        wait: float = LOCK_WAIT_S,
        on_bad_line: Callable[[reports.BadLine], None] | None = None,
        should_stop: Callable[[], bool] = _never,
    ) -> handles.LineWriter:
        """Return what writes rows from NDJSON or CSV into an agent's shard, which it opens. Use it with ``with``.

        Args:
            agent: see `shard`.
            table: the table of the rows, as for `Shard.write`.
            batch: how many rows are committed together, at least 1; fewer if lines are large.
            durability: see `shard`.
            wait: see `shard`.
            on_bad_line: called for each line that is not a row, or has none that can be stored exactly, which is then
                left out. None: the first such line ends the write with a RecordError.
            should_stop: called after each commit; once it returns True the write ends.

        Raises:
            ConfigurationError: the batch is not valid.
        """
        from edgeshard.exchange.line_writer import LineWriter

        _check_number("batch", batch, 1, _NUMBER_MAX, "write rows to", self.root)
        open_shard = partial(self.shard, agent, durability=durability, wait=wait)
        return LineWriter(open_shard, agent, table, batch, on_bad_line, should_stop)

    def import_(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        agent: str | None = None,
        table: str | None = None,
        dry_run: bool = False,
    ) -> reports.ImportReport:
        """Import files of other programs: ordinary SQLite databases, NDJSON and CSV. Then merge.

        Repeating it imports only rows that are new. The files are only read. A file, or a table of one, that cannot be
        imported is in the report with the reason, and the others are imported. See `edgeshard help importing`.

        Args:
            files: their paths. What a file is, is decided by its content.
            agent: the agent to import all of them as; None: each as the agent that has its name, without the ending.
            table: of NDJSON and CSV, the table of the rows (None: ``agent_data``). Of a SQLite database, the table to
                import (None: all), or the name that its only table gets.
            dry_run: report what would be imported, and change nothing.

        Raises:
            ConfigurationError: an argument is not valid, or there can be no such store.
            WatcherStalledError: another merger has the store for itself, but is stopped, or commits nothing.
            StorageError: the master cannot be read or written. What was committed stays.
        """
        from edgeshard.exchange import imports
        from edgeshard.merge import once

        named, table = _checked_paths(files, "import", "import_", "a file"), _table_name(table)
        if not dry_run:
            self.init()
        open_shard = partial(self.shard, durability="power")
        merge = partial(once.merge, self.root, alongside_watcher=True, lock_wait_s=-1)
        return imports.import_files(imports.Importer(self.root, agent, table, open_shard, dry_run), named, merge)

    def note_budget(self, max_bytes: str | int, on_full: OnFull | None = None) -> None:
        """Save a disk budget in the store now, replacing any other; see `Store`. Delete ``budget.json`` to remove it.

        Raises:
            ConfigurationError: the budget is not valid, or there is no such store.
            StorageError: it cannot be saved.
        """
        budget = _budget_of(self.root, max_bytes, on_full)
        if budget is None:
            cause = 'max_bytes must be given, such as "500M"; to remove a budget, delete budget.json'
            raise ConfigurationError("note budget", self.root, cause)
        self.ensure_exists()
        self._budget = budget
        self._save_budget()

    def _ensure_master_exists(self, action: str) -> None:
        from edgeshard.master import database

        self.ensure_exists()
        database.ensure_exists(self.master_path, action)

    def disk_budget(self) -> Budget | None:
        """Return the disk budget, or None if the store has none; `status` says how much of it is used.

        Raises:
            ConfigurationError: there is no such store, or the saved budget is not valid.
            StorageError: it cannot be read.
        """
        from edgeshard.budget import usage

        self.ensure_exists()
        return self._budget or usage.load_budget(self.root)

    def _save_budget(self) -> None:
        from edgeshard.budget import usage

        if self._budget is not None:
            usage.save_budget(self.root, self._budget)

    def _ensure_budget(self) -> Budget | None:
        """Return the store's budget, after saving the one that this object was given; None if it has none."""
        from edgeshard.budget import usage

        self._save_budget()
        return self._budget or usage.load_budget(self.root)

    # -- merging ------------------------------------------------------------------------------------------------------

    def merge(
        self,
        sources: Iterable[str | os.PathLike[str]] = (),
        *,
        dry_run: bool = False,
        keep_empty: bool = False,
        lock_wait: float = 0.0,
        should_stop: Callable[[], bool] = _never,
        progress: Progress | None = None,
    ) -> reports.MergeReport:
        """Copy the rows of all shards into the master, exactly once, and truncate the shards.

        A shard that no agent has open is then removed; the agent gets a new one when it comes back. Afterwards the
        rules of `Store(prune=...)` are applied, if there are any. `MergeReport.pruned` says what they deleted. If that
        fails, the error is logged and is in `MergeReport.prune_error`; the merge itself is done.

        Args:
            sources: other edgeshard databases (masters, shards, bundles, copies) to merge as well; they are only read.
            dry_run: report what would be done, and change nothing. What would be pruned is not reported.
            keep_empty: keep the empty shards of agents that have ended.
            lock_wait: how long to wait for another merger, in seconds; -1 forever. A watcher that is at work merges the
                rows itself, and is not waited for.
            should_stop: called after each shard; once it returns True the merge ends early and keeps what it committed.
            progress: called with (rows done, rows to do) after each commit.

        Raises:
            ConfigurationError: there is no such store: make it with `init` if no agent has written to it yet.
            StoreWatchedError: a watcher merges the store's rows (which does not prevent merging `sources`).
            WatcherStalledError: a watcher, or another merger, has the store for itself, but is stopped, or hangs.
            MergeInProgressError: another merger is at work on this master.
            DiskBudgetError: the disk budget has no space for pending rows; they stay in the shards.
            StorageError: the master or the folder cannot be read or written; no row is lost.
        """
        from edgeshard.merge import locks, once

        locks.check_wait(self.root, lock_wait)
        self.ensure_exists()
        named = _checked_paths(sources, "merge", "merge", "a source")
        if dry_run:
            return once.preview(self.root, named, should_stop=should_stop)
        self._save_budget()
        return once.merge(
            self.root,
            named,
            keep_empty=keep_empty,
            lock_wait_s=lock_wait,
            prune=self._retention(),
            should_stop=should_stop,
            progress=progress,
        )

    async def amerge(
        self,
        sources: Iterable[str | os.PathLike[str]] = (),
        *,
        dry_run: bool = False,
        keep_empty: bool = False,
        lock_wait: float = 0.0,
    ) -> reports.MergeReport:
        """Merge in a thread, so that an asyncio loop goes on meanwhile; see `merge`.

        If it is cancelled, the merge ends after the current shard, and keeps what it committed; then the cancellation
        is seen. The rows that it did not reach are merged by the next one.
        """
        import asyncio  # whoever awaits this has imported it, and nobody else should wait for that

        from edgeshard.shard.async_write import await_end

        stopping = threading.Event()
        merge = partial(
            self.merge,
            sources,
            dry_run=dry_run,
            keep_empty=keep_empty,
            lock_wait=lock_wait,
            should_stop=stopping.is_set,
        )
        merging = asyncio.get_running_loop().run_in_executor(None, merge)
        try:
            return await asyncio.shield(merging)
        except asyncio.CancelledError:
            stopping.set()
            await await_end(merging)
            if (error := merging.exception()) is not None:
                logger.warning(
                    "a merge that was cancelled failed: %s", error, extra=fields(store=self.root, error=error)
                )
            raise

    def merge_now(self) -> None:
        """Merge now, even if a merger watches the store; wait while another merger is at work.

        Raises:
            ConfigurationError: there is no such store.
            WatcherStalledError: another merger has the store for itself, but is stopped, or commits nothing.
            StorageError: the master or the folder cannot be read or written.
        """
        from edgeshard.merge import once

        self.ensure_exists()
        once.merge(self.root, alongside_watcher=True, lock_wait_s=-1)

    def watcher(
        self,
        *,
        interval: float | None = None,
        rescan: float | None = None,
        observer: str = "auto",
        keep_empty: bool = False,
        listener: MergeListener | None = None,
    ) -> handles.Watcher:
        """Return a watcher, which merges new rows until `stop` is called. Call its `open`, then its `run`.

        `watching` runs one in a thread; the command line runs one in the foreground.

        Args:
            interval: see `watching`.
            rescan: see `watching`.
            observer: see `watching`.
            keep_empty: see `watching`.
            listener: its methods are called as the watcher works.

        Raises:
            ConfigurationError: an argument is not valid, or there is no such store.
            AccessError, StorageIOError: it cannot be determined whether there is one.
        """
        self.ensure_exists()
        return self._watcher(interval, rescan, observer, keep_empty=keep_empty, listener=listener)

    @contextlib.contextmanager
    def watching(
        self,
        interval: float | None = None,
        *,
        rescan: float | None = None,
        observer: str = "auto",
        keep_empty: bool = False,
        standby: bool = False,
    ) -> Iterator[None]:
        """Merge new rows in a thread of this process, as long as the ``with`` block lasts; make the store if it is new.

        After the block, everything written before its end is in the master. The rules of `Store(prune=...)` are
        applied when the block begins and ends, and in between in another thread, as rows arrive or become too old: at
        most once a minute, and for age alone once per hundredth of that age or once an hour, whichever is longer.

        A process that is forked inside the block merges nothing, and ending the block there has no effect: the parent
        goes on. Call this in each worker, after the fork.

        Args:
            interval: how often a pass begins while rows keep arriving, in seconds (default: 1; with ``wear="low"``:
                60). After a quiet time the first row is merged at once; with ``wear="low"`` after that interval.
            rescan: how often all shards are checked even if the file system reports no change, in seconds (default:
                30; with ``wear="low"``: 600).
            observer: "native" relies on the file system's events, "polling" checks each shard's files every interval,
                "auto" switches from the first to the second if events do not arrive.
            keep_empty: keep the empty shards of agents that have ended.
            standby: if another process watches the store, or another block of this one, wait in the thread until it
                ends, also if it is killed, and then go on in its place, within `rescan`. So each of several workers can
                watch. The first merge is then made in the thread, too; if it fails, that is logged and tried again.

        Raises:
            ConfigurationError: an argument is not valid.
            MergeInProgressError: another merger watches the store already, and `standby` is False.
            StorageError: the first merge, before the block, or the last one, after it, failed. Failures in between are
                logged and tried again.
            BaseException: an unexpected error that ended the thread.
        """
        from edgeshard.merge import once
        from edgeshard.merge.watcher import in_thread

        watcher = self._watcher(interval, rescan, observer, keep_empty=keep_empty)  # settings first: it makes nothing
        if not self.exists():
            self.init()
        self._save_budget()
        if not standby:
            watcher.open()
        pid = os.getpid()
        try:
            with in_thread(watcher, standby=standby):
                yield
        finally:
            if os.getpid() == pid:
                once.merge(
                    self.root, keep_empty=keep_empty, alongside_watcher=True, lock_wait_s=-1, prune=self._retention()
                )

    def _watcher(
        self,
        interval: float | None,
        rescan: float | None,
        observer: str,
        *,
        keep_empty: bool,
        listener: MergeListener | None = None,
    ) -> handles.Watcher:
        from edgeshard.merge.watcher import Watcher

        return Watcher(
            self.root,
            interval_s=self._profile.interval_s if interval is None else interval,
            rescan_s=self._profile.rescan_s if rescan is None else rescan,
            observer=observer,
            keep_empty=keep_empty,
            listener=listener,
            prune=self._retention(),
            profile=self._profile,
        )

    def _retention(self) -> Retention:
        """Return the rules by which this object prunes after its merges."""
        from edgeshard.retention import store_rules

        return self._rules or store_rules.NONE

    # -- reading ------------------------------------------------------------------------------------------------------

    def query(
        self,
        sql: str,
        params: Params = (),
        *,
        fresh: bool = False,
        reference: References | None = None,
        json: DecodeJson = False,
    ) -> Rows:
        """Run one SELECT on the master, which it only reads.

        Args:
            sql: the statement; ``?`` or ``:name`` stand for parameters. Give expressions a name with AS.
            params: their values. A datetime, date, Decimal, UUID or Enum is converted to what its column stores.
            fresh: merge first, so that all rows written so far are seen; waits for a merger at work.
            reference: SQLite databases to join with, by the name they have in SQL, as for `shard`.
            json: True decodes columns that hold dicts or lists, such as ``data``, also through views and under another
                name. Expressions such as ``data -> 'steps'`` stay text, unless their columns are named:
                ``json=["steps"]``. Columns of a reference are decoded if they are declared as JSON there.

        Returns:
            The rows, as a list of tuples whose values have names: ``row.agent_id``, ``row["agent_id"]``. See
            `edgeshard.Row`.

        Raises:
            QueryError: the SQL or the parameters are mistaken: not one statement that reads, or SQLite refused it.
            UnreadableRowError: with `json`, a text is not JSON.
            ConfigurationError: a reference is not valid.
            StorageError: the master, or a reference, cannot be read.
        """
        from edgeshard.inspect import query

        self.ensure_exists()
        if fresh:
            self.merge_now()
        return query.select(self.master_path, sql, params, reference, json)

    async def aquery(
        self,
        sql: str,
        params: Params = (),
        *,
        fresh: bool = False,
        reference: References | None = None,
        json: DecodeJson = False,
    ) -> Rows:
        """Run one SELECT in a thread, so that an asyncio loop goes on meanwhile; see `query`.

        If it is cancelled, the statement runs to its end in the thread, and its rows are dropped.
        """
        import asyncio  # whoever awaits this has imported it, and nobody else should wait for that

        return await asyncio.to_thread(self.query, sql, params, fresh=fresh, reference=reference, json=json)

    def describe_query(self, sql: str) -> handles.Statement:
        """Return the columns and parameters of one SQL statement on the master, without running it.

        Raises:
            QueryError: it is mistaken, or not exactly one statement.
            StorageError: the master cannot be read.
        """
        from edgeshard.inspect import query

        self.ensure_exists()
        return query.describe(self.master_path, sql)

    def query_rows(self, sql: str, params: Params = (), *, json: DecodeJson = False) -> Iterator[tuple[Any, ...]]:
        """Yield the names of a statement's columns, and then its rows one by one, without loading all of them.

        One snapshot of the master stays open meanwhile, so the master's WAL grows until the iterator is exhausted.

        Args:
            sql: the statement.
            params: the values of its parameters.
            json: see `query`.

        Raises:
            QueryError: the SQL or the parameters are mistaken.
            UnreadableRowError: a text that should be JSON is not.
            StorageError: the master cannot be read.
        """
        from edgeshard.inspect import query

        self.ensure_exists()
        return query.rows(self.master_path, sql, params, json)

    def query_table(self, sql: str, params: Params = (), *, colour: bool, width: int, unicode: bool) -> str:
        """Return the rows of a statement drawn as a text table.

        Args:
            sql: the statement.
            params: the values of its parameters.
            colour: whether to add the colours of a terminal.
            width: how many characters a line may have.
            unicode: whether to draw with Unicode's box characters, or with ASCII.

        Raises:
            QueryError: the SQL or the parameters are mistaken.
            ConfigurationError: the width is not valid.
            StorageError: the master cannot be read.
        """
        from edgeshard.inspect import query

        _check_number("width", width, 1, _WIDTH_MAX, "query", self.master_path)
        self.ensure_exists()
        return query.table(self.master_path, sql, params, colour=colour, width=width, unicode=unicode)

    def read(self, cls: type[_R], *, fresh: bool = False, on_error: OnError = "raise") -> Iterator[_R]:
        """Yield all rows of a class's table in the master, as instances, in the order in which they arrived there.

        The rows are read in portions, each from a snapshot of its own, so a slow reader blocks no merge. Rows that are
        merged meanwhile come last.

        An older class can read a master that newer agents write: `renamed` columns are found under the fields' older
        names, and a wider column is read as far as its values fit the field.

        Args:
            cls: the class.
            fresh: merge first, as for `query`.
            on_error: what becomes of a row that the class cannot have, because another program or a class of another
                version wrote it: "raise" an error that has its address, or "skip" it and log that error (logger
                ``edgeshard.read``).

        Raises:
            UnreadableRowError: a row is not one of the class.
            ConfigurationError: `cls` is no class, or `on_error` is not valid.
            TableError: the class cannot be a table.
            SchemaConflictError: a column has another type.
            StorageError: the master cannot be read.
        """
        from edgeshard.inspect import query

        self.ensure_exists()
        if fresh:
            self.merge_now()
        return query.read(self.master_path, cls, on_error)

    @contextlib.contextmanager
    def shell(self) -> Iterator[Any]:
        """Open apsw's SQL shell on the master, which it only reads; ``.shards`` lists the store's shards.

        Raises:
            StorageError: the master cannot be read.
        """
        from edgeshard.inspect import shell

        self.ensure_exists()
        with shell.shell(self.master_path, store_folder.resolve_shards(self.root)) as opened:
            yield opened

    # -- inspecting ---------------------------------------------------------------------------------------------------

    def status(self) -> reports.StatusReport:
        """Report on the master and on each shard: who writes, what is pending, and what is wrong.

        Nothing is created or changed, and neither writers nor a merger wait. A shard that cannot be read is not an
        error: the report says why.

        Raises:
            DamagedError: the master is damaged.
            StorageError: the master or the folder cannot be read.
        """
        from edgeshard.inspect import status

        self.ensure_exists()
        return status.status(self.root)

    def activity(self) -> reports.Activity:
        """Report what happened lately: rows that arrived by agent and time, and bytes written per day.

        Only what the store records anyway is read, and no row: this takes about a second per million blocks
        (`_edgeshard_blocks`) of the last day. Times are exact to the minute.

        Raises:
            DamagedError: the master is damaged.
            StorageError: the master or the folder cannot be read.
        """
        from edgeshard.inspect import activity

        self.ensure_exists()
        return activity.activity(self.root)

    def tables(self, *, internal: bool = False) -> reports.TablesReport:
        """Report on each record table of the master: rows, agents, arrivals, size, columns with their types, and SQL.

        Each table is read once as a whole, to count its rows.

        Args:
            internal: also report on edgeshard's own tables.

        Raises:
            ConfigurationError: there is no master yet.
            StorageError: it cannot be read.
        """
        from edgeshard.inspect import tables

        self._ensure_master_exists("list tables of")
        return tables.load(self.master_path, internal=internal)

    def verify(self, *, deep: bool = False) -> reports.VerifyReport:
        """Check the master: SQLite's integrity, every row against its address, and which rows are missing and why.

        Args:
            deep: also read every value and each index, which takes about three times as long.

        Raises:
            DamagedError: the master is too damaged to be read.
            StorageError: it cannot be read for another reason.
        """
        from edgeshard.inspect import verify

        self._ensure_master_exists("verify")
        return verify.verify(self.master_path, deep=deep)

    def verify_against(
        self, dsn: str, *, deep: bool = False, should_stop: Callable[[], bool] = _never
    ) -> reports.CompareReport:
        """Compare the rows of a PostgreSQL database with the master's, and name what differs by address.

        Rows that somebody deleted or changed there differ. Rows that the master pruned or erased, and rows that were
        never pushed, or were rejected, do not. Rows that nobody pushed are not looked for.

        Args:
            dsn: the database; see `push`.
            deep: also compare checksums of the rows of each stream. Else only the ranges and the numbers of rows.
            should_stop: called after each few thousand rows; once it returns True the comparison ends.

        Raises:
            ConfigurationError: the DSN is not valid, psycopg is not installed, or there was no push to it yet.
            PostgresError: PostgreSQL cannot be reached, or refuses.
            StorageError: the master cannot be read.
        """
        from edgeshard.postgres.compare import compare
        from edgeshard.retention import by_hand

        self._ensure_master_exists("compare")
        by_hand.settle_file(self.master_path)
        return compare(self.master_path, dsn, deep=deep, should_stop=should_stop)

    def accept_loss(
        self,
        *,
        why: str,
        agent: str | None = None,
        stream: str | None = None,
        seqs: str | tuple[int, int] | None = None,
        dry_run: bool = False,
        lock_wait: float = BUSY_TIMEOUT_S,
    ) -> reports.AcceptLossReport:
        """Accept that rows are lost: those that are missing for good, and those that somebody deleted by hand.

        They are recorded as written off, with the reason. From then on, merges, `status` and `verify` no longer report
        them as missing; `verify` lists them separately. Rows that arrive later all the same are merged. Rows that were
        deleted by hand come back from no copy, whether that is accepted or not.

        Without `agent` and `stream`, this is done for all agents.

        Args:
            why: the reason, for whoever reads the report later.
            agent: only rows of this agent.
            stream: only rows of the stream with this id, in hexadecimal, or its first digits (6 or more).
            seqs: only these rows, such as "73-82", "73" or (73, 82); then a single stream must be meant.
            dry_run: report what would be accepted, and change nothing.
            lock_wait: how long to wait for a merger at work, in seconds; -1 forever.

        Raises:
            ConfigurationError: there is no such agent or stream, or an argument is not valid.
            MergeInProgressError: a merger was at work for all that time.
            StorageError: the master cannot be read or written.
        """
        from edgeshard.merge import accept_loss

        self._ensure_master_exists("accept loss in")
        return accept_loss.accept_loss(self.root, why, agent, stream, seqs, dry_run=dry_run, lock_wait_s=lock_wait)

    def erase(
        self,
        table: str | type,
        where: str,
        params: Params = (),
        *,
        dry_run: bool = False,
        lock_wait: float = BUSY_TIMEOUT_S,
    ) -> reports.EraseReport:
        """Erase the rows of a table that meet a condition, for good: in the master, and rows that are pending.

        What is pending is merged first, whatever it is. Then the rows are deleted from the master, and their addresses
        recorded: no copy of a shard, hub, bundle or older master brings them back into this store. Rows of other
        databases stay: `EraseReport.elsewhere` names those that hold some, as their receipts say. Rows that are written
        during the call may stay. Other rows of the same transactions stay, too.

        Args:
            table: the table, or its class. Of a keyed table, the history is meant as well.
            where: the condition, as after WHERE in SQL; it can only read. ``?`` or ``:name`` stand for parameters.
            params: their values.
            dry_run: report what would be erased of what the master has now, and change nothing.
            lock_wait: how long to wait for a merger at work, in seconds; -1 forever.

        Raises:
            ConfigurationError: there is no master yet, or no such table, or it holds tombstones.
            QueryError: the condition or the parameters are mistaken.
            MergeInProgressError: a merger was at work for all that time.
            StorageError: the master cannot be read or written. An erasure that began is completed by the next merge.
        """
        from edgeshard.merge import erase, locks

        locks.check_wait(self.root, lock_wait)
        self.ensure_exists()
        if not self.has_master() and (dry_run or not self.has_shards()):
            raise ConfigurationError("erase from", self.master_path, "there is no master yet; merge first")
        name = _table_name(table) or ""
        if dry_run:
            return erase.preview(self.root, name, where, params)
        return erase.erase_rows(self.root, name, where, params, lock_wait_s=lock_wait)

    def salvage(self, path: str | os.PathLike[str]) -> reports.SalvageReport:
        """Bring what can still be read of a damaged shard into the master, each row once.

        The shard stays as it is, and every merge reports it until you move it away. Rows that are known to have
        existed, and that the master lacks, are gaps. A flipped bit inside a value cannot be detected.

        Args:
            path: the shard, with its WAL next to it, if it has one.

        Raises:
            ConfigurationError: there is no such file.
            FormatError: it is a master or a bundle.
            StorageBusyError: its agent has it open.
            StorageError: it cannot be read, or what was read cannot be merged.
        """
        from edgeshard.inspect import salvage

        self.ensure_exists()
        return salvage.salvage(self.root, paths.checked(path, "salvage", "path"))

    # -- pruning ------------------------------------------------------------------------------------------------------

    def prune(
        self,
        *,
        older_than: str | float | datetime.timedelta | None = None,
        keep_rows: int | None = None,
        max_bytes: str | int | None = None,
        deletions_older_than: str | float | datetime.timedelta | None = None,
        only_pushed: bool = False,
        only_receipted: bool = False,
        table: str | type | None = None,
        drop_table: bool = False,
        forget_after: str | float | datetime.timedelta | None = None,
        shrink: bool = False,
        dry_run: bool = False,
        lock_wait: float = BUSY_TIMEOUT_S,
        should_stop: Callable[[], bool] = _never,
        progress: Progress | None = None,
    ) -> reports.PruneReport:
        """Delete old rows from the master, for good: no copy of a shard or of a master brings them back.

        Afterwards each rule holds, as far as rows may be deleted. The rows of one transaction are deleted together, or
        stay.

        Args:
            older_than: prune rows that arrived in this master longer ago than this: "30d", "12h", "90m", a timedelta,
                or seconds. Precise to the minute, by the time that the store counts (see `clock`).
            keep_rows: prune all but this many of the newest rows, counting all tables together.
            max_bytes: prune the oldest rows until the master and its WAL are no larger: "500M", "2GiB", or a number of
                bytes.
            deletions_older_than: prune tombstones of keyed tables that were made, and arrived in this master, longer
                ago than this, once no known stream can still deliver an older change, and every confirmed database
                that has given a receipt knows of them.
            only_pushed: only prune rows that a PostgreSQL database holds, as its receipt says.
            only_receipted: only prune rows that some other database holds, as the receipt of a confirmed one says
                (see `receipt`).
            table: a table, or its class: apply all rules to its rows only, even if they were written in one
                transaction with rows of other tables.
            drop_table: prune all rows of `table`, which may have a key, and of its tombstones and history. Then drop
                it, so that the next merge makes it as the first shard declares it that has rows for it. No other rule
                may be given.
            forget_after: forget streams of which every row was pruned longer ago than this, such as "365d"; a month may
                pass until they are. A forgotten stream takes no space. But a copy of a shard or a master, or a bundle,
                that is as old as it is and is merged again brings its rows back. Streams of which rows are present or
                missing are never forgotten.
            shrink: give all free pages back to the disk. Without this the file becomes smaller only for `max_bytes`,
                and as far as writers lack space within the disk budget; later merges fill the other free pages.
            dry_run: report what would be done, and change nothing.
            lock_wait: how long to wait, in each step, for a merger at work or another process that has the master
                locked, in seconds; -1 forever.
            should_stop: called after each step, and while waiting for a merger; once it returns True the prune ends
                early and keeps what it committed.
            progress: called with (rows done, rows to do) after each step.

        Raises:
            ConfigurationError: there is no rule, a rule is not valid, or there is no such table, or no such store.
            MergeInProgressError: a merger was at work for longer than `lock_wait`. What was pruned stays pruned.
            TableError: the class cannot be a table.
            StorageError: the master cannot be read or written. What was pruned by then stays pruned.
        """
        from edgeshard.merge import locks
        from edgeshard.retention import prune, rules

        try:
            name = _table_name(table)
            wanted = rules.parse_rules(
                older_than,
                keep_rows,
                max_bytes,
                only_pushed,
                only_receipted,
                name,
                deletions_older_than,
                drop_table,
                forget_after,
            )
        except ValueError as error:
            raise ConfigurationError("prune", self.master_path, str(error)) from error
        locks.check_wait(self.root, lock_wait)
        if wanted.is_empty and not shrink:
            wanted_rules = "older_than, keep_rows, max_bytes, deletions_older_than, forget_after, drop_table or shrink"
            raise ConfigurationError("prune", self.master_path, f"no rule was given; set {wanted_rules}")
        self.ensure_exists()
        if not self.has_master():  # nothing was merged yet
            return reports.PruneReport(dry_run=dry_run)
        return prune.prune(
            self.master_path,
            wanted,
            shrink=shrink,
            dry_run=dry_run,
            lock_wait_s=lock_wait,
            merge_lock=partial(locks.merge_lock_held, self.root, lock_wait),
            should_stop=should_stop,
            progress=progress,
        )

    # -- the clock ----------------------------------------------------------------------------------------------------

    def clock(self) -> reports.ClockReport:
        """Report what the clock of this machine shows, and whether something of it awaits confirmation.

        Rows are deleted by age only by a time that no single reading of the clock can change: if the clock goes ahead,
        that awaits confirmation. It is confirmed after ten days, or by `confirm_clock`.

        Raises:
            StorageError: the master cannot be read.
        """
        from edgeshard.retention import clock_status

        self.ensure_exists()
        if not self.has_master():
            return clock_status.without_master()
        return clock_status.report(self.master_path)

    def confirm_clock(self, *, dry_run: bool = False, lock_wait: float = BUSY_TIMEOUT_S) -> reports.ClockReport:
        """Confirm that this machine's clock is right now, and that the time by which it went ahead has really passed.

        Rows that arrived before it went ahead become older by that, so that rules by age may delete them. If the clock
        is behind the time that the store has counted, that time is moved back, and no row's age changes.

        Args:
            dry_run: report what would follow, and change nothing.
            lock_wait: how long to wait for a merger that works on the store, in seconds.

        Raises:
            ConfigurationError: the clock was never set.
            MergeInProgressError: a merger worked on the store all that time.
            StorageError: the master cannot be read or written.
        """
        from edgeshard.merge import locks
        from edgeshard.retention import clock_status

        locks.check_wait(self.root, lock_wait)
        self._ensure_master_exists("confirm clock of")
        if dry_run:
            return clock_status.confirm(self.master_path, dry_run=True)
        held = locks.merge_lock(self.root, lock_wait, _never)
        try:
            return clock_status.confirm(self.master_path, dry_run=False)
        finally:
            if held is not None:
                held.release()

    # -- exchange with other databases --------------------------------------------------------------------------------

    def snapshot(
        self,
        target: str | os.PathLike[str],
        *,
        force: bool = False,
        check: bool = True,
        progress: Progress | None = None,
    ) -> None:
        """Copy the master as it is at this moment, durably, while writers and mergers continue.

        The copy is one file that needs no other. It can be read from a read-only medium, merged elsewhere
        as one of the ``sources``, or restored as a master (see `restore`). It appears under its name complete and
        checked, or not at all.

        Args:
            target: the file to create, in an existing folder.
            force: replace an existing file, but no part of any store.
            check: check the copy as ``verify(deep=True)`` does. Without it the snapshot is faster, and
                a damaged master is copied as it is, unless it is known to be damaged and an existing file would be
                replaced.
            progress: called with (pages copied, pages to copy).

        Raises:
            ConfigurationError: the file exists already, the folder does not, or the path is a part of a store.
            StorageBusyError: another snapshot is writing the same file.
            DamagedError: the master is damaged, or the copy is. Nothing was created or replaced.
            StorageError: the master cannot be read, or the copy cannot be written.
        """
        from edgeshard.exchange import snapshot

        target = paths.checked(target, "snapshot", "target")
        self._ensure_master_exists("snapshot")
        snapshot.snapshot(self.master_path, target, force=force, check=check, progress=progress)

    def restore(
        self,
        snapshot: str | os.PathLike[str],
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> reports.RestoreReport:
        """Put a snapshot in the place of the master, and keep the old master in the folder, under another name.

        Nothing else may have the master open meanwhile. A kill or a power cut leaves the old or the new master, whole.
        Rows that are still in shards are merged again. The report says which others are missing now, and who may have
        them; the next merges and `verify` do so, too. To take back what the replaced master has, merge it:
        ``store.merge([report.replaced])``.

        Args:
            snapshot: a file that `snapshot` made of this store's master; it is only read, and checked first.
            dry_run: check the snapshot and report what would be missing, and replace nothing.
            progress: called with (pages copied, pages to copy).

        Raises:
            ConfigurationError: there is no such file or store, it is a snapshot of another master, or the master is
                a symbolic link.
            MergeInProgressError: a merger is at work, or watches the store.
            StorageBusyError: another process has the master open.
            DamagedError, FormatError: the snapshot is damaged, or is not one.
            StorageError: a file cannot be read or written. The old master is in its place.
        """
        from edgeshard.exchange import restore

        self.ensure_exists()
        return restore.restore(
            self.root, paths.checked(snapshot, "restore", "snapshot"), dry_run=dry_run, progress=progress
        )

    def push(
        self,
        dsn: str,
        *,
        batch: int = BATCH,
        inserts: bool = False,
        retry_rejected: bool = False,
        on_invalid: OnInvalid = "reject",
        distribute: bool = False,
        dry_run: bool = False,
        should_stop: Callable[[], bool] = _never,
        progress: Progress | None = None,
    ) -> reports.PushReport:
        """Push the rows that a PostgreSQL database lacks from the master into it, exactly once. Merge first.

        Neither writers nor mergers wait for it. Several devices may push into one database, and one stream may arrive
        there by several routes. Needs ``pip install 'edgeshard[postgres]'``.

        Args:
            dsn: the database, as libpq takes it. What it leaves out comes from the PG* variables, a service file and
                the password file; "postgresql://" takes everything from there.
            batch: rows per transaction; fewer if rows are large.
            inserts: use INSERT instead of COPY. Servers that only speak PostgreSQL's protocol always get INSERT.
            retry_rejected: try again the rows that this database rejected (see `rejected`), except dismissed ones.
            on_invalid: what to do with characters that PostgreSQL cannot store, U+0000 and halves of surrogate pairs:
                "reject" their rows, "replace" each by U+FFFD, or "escape" it as JSON does, in six characters. The
                columns of a key are never changed. With the last two, rows that were rejected for that are tried again.
            distribute: on the coordinator of a Citus cluster, distribute the tables of rows over its workers, by
                stream, as they are created; those that the server has already are distributed as well.
            dry_run: report what would be done, and change nothing.
            should_stop: called after each commit; once it returns True the push ends early and keeps what it committed.
            progress: called with (rows done, rows to do) after each commit.

        Raises:
            ConfigurationError: the DSN, the batch or `on_invalid` is not valid, or psycopg is not installed.
            PostgresError: PostgreSQL cannot be reached, or refuses; what was committed stays.
            StorageError: the master cannot be read.
        """
        from edgeshard.postgres.once import preview, push_once

        self.ensure_exists()
        if dry_run:
            return preview(
                self.master_path, dsn, retry_rejected=retry_rejected, on_invalid=on_invalid, distribute=distribute
            )
        return push_once(
            self.master_path,
            dsn,
            batch=batch,
            inserts=inserts,
            retry_rejected=retry_rejected,
            on_invalid=on_invalid,
            distribute=distribute,
            should_stop=should_stop,
            progress=progress,
        )

    def push_watcher(
        self,
        dsn: str,
        *,
        interval: float = PUSH_INTERVAL_S,
        batch: int = BATCH,
        inserts: bool = False,
        retry_rejected: bool = False,
        on_invalid: OnInvalid = "reject",
        distribute: bool = False,
        listener: PushListener | None = None,
    ) -> handles.PushWatcher:
        """Return a service that pushes what merges bring until `stop` is called. Call its `run`.

        Args:
            dsn: see `push`.
            interval: how often to check whether a merge brought rows, in seconds.
            batch: see `push`.
            inserts: see `push`.
            retry_rejected: see `push`; done once, when it starts.
            on_invalid: see `push`.
            distribute: see `push`.
            listener: its methods are called as the watcher works.

        Raises:
            ConfigurationError: an argument is not valid, or psycopg is not installed.
        """
        from edgeshard.postgres.watcher import PushWatcher

        self.ensure_exists()
        return PushWatcher(
            self.master_path,
            dsn,
            interval_s=interval,
            batch=batch,
            inserts=inserts,
            retry_rejected=retry_rejected,
            on_invalid=on_invalid,
            distribute=distribute,
            listener=listener,
        )

    def rejected(self, *, limit: int = REJECTED_LIMIT) -> reports.RejectedReport:
        """Return which rows of the master PostgreSQL databases rejected, and why, according to the pushes to them.

        They stay in the master, and a push leaves them out until `push(retry_rejected=True)`.

        Args:
            limit: of how many ranges of rows to return the addresses, at most. All are counted.

        Raises:
            ConfigurationError: there is no master yet, or the limit is not valid.
            StorageError: the master cannot be read.
        """
        from edgeshard.exchange import rejected_rows  # needed rarely

        _check_number("limit", limit, 0, _NUMBER_MAX, "read rejected rows of", self.master_path)
        self._ensure_master_exists("read rejected rows of")
        return rejected_rows.report(self.master_path, limit)

    def dismiss_rejected(self, *, why: str, table: str | type = "", dry_run: bool = False) -> reports.RejectedReport:
        """Dismiss the rows that PostgreSQL databases rejected: they stay in the master, and are never pushed.

        Rows that are rejected later are not dismissed by that, even for the same reason. What was dismissed is recorded
        with `why`.

        Args:
            why: the reason, for whoever reads the report later.
            table: only rows that were rejected because of a row of this table, or its class; "": all.
            dry_run: report what would be dismissed (`RejectedReport.rejected`), and change nothing.

        Returns:
            What is rejected and dismissed after that.

        Raises:
            ConfigurationError: there is no master yet, or `why` is empty.
            StorageError: the master cannot be read or written.
        """
        from edgeshard.exchange import rejected_rows  # needed rarely

        self._ensure_master_exists("dismiss rejected rows of")
        return rejected_rows.dismiss(self.master_path, why, _table_name(table) or "", dry_run=dry_run)

    @staticmethod
    def pushed_ranges(dsn: str) -> handles.Inventory:
        """Return the inventory of a PostgreSQL database: which rows of all pushes it holds.

        Args:
            dsn: the database; see `push`.

        Raises:
            ConfigurationError: the DSN is not valid, psycopg is not installed, or there was no push to it yet.
            PostgresError: PostgreSQL cannot be reached, or refuses.
        """
        from edgeshard.postgres.inventory import ranges

        return ranges(dsn)

    def ranges(self) -> handles.Inventory:
        """Return the master's inventory: what it holds, and has ever held, durably.

        `Inventory.to_json` turns it into a small document for other stores. An export to this store leaves the listed
        rows out (``export(ranges=...)``), and a store that records the document as a receipt (`receipt`) may delete
        its own copy of them. Rows that are still in the shards are not listed: merge first.

        Raises:
            StorageError: the master cannot be read.
        """
        from edgeshard import sqlite
        from edgeshard.exchange import receipts
        from edgeshard.files import folders
        from edgeshard.master import database
        from edgeshard.retention import by_hand

        self._ensure_master_exists("read ranges of")
        by_hand.settle_file(self.master_path)  # others may delete what it says that this master holds
        connection = database.open_master(self.master_path, writable=False)
        try:
            with database.translate_errors("read ranges of", self.master_path), sqlite.read_snapshot(connection):
                found = receipts.take_inventory(connection)
                # a commit of a merger that was killed can be read, but may still be lost in a power cut
                sqlite.sync_file(str(self.master_path))
                folders.sync_path(self.root)
                return found
        finally:
            connection.close()

    def receipt(
        self, said: str | os.PathLike[str] | BinaryIO | handles.Inventory, *, force: bool = False, trust: bool = False
    ) -> reports.ReceiptReport:
        """Record in the master what another database holds durably, as its `ranges` said.

        From then on an `export` for that database leaves these rows out, `verify` says which of the rows that are
        missing here it holds, and prunes with ``only_receipted`` may delete the rows that it holds. A later receipt of
        the same database replaces an earlier one, in whatever order they arrive.

        Nothing of this happens until the database is confirmed: record one of its receipts with `trust`, after you
        compared its id (`ReceiptReport.database`) with the one in `status` there. Databases that this store pushed to
        are confirmed by that. Until then the receipt awaits confirmation, and `ReceiptReport.complete` is False. Only
        rows that this master has held by now count.

        Args:
            said: a file that ``edgeshard ranges`` wrote there, an open binary file with that, or what `ranges`
                returned.
            force: record it even if a later one was recorded, or may have been.
            trust: confirm the database, if it is not confirmed yet. Do not pass it each time: that would confirm any
                database, whoever made the file.

        Raises:
            ConfigurationError: there is no such file, it is not an inventory, it is this database's own, it says
                another type of database than the one that was confirmed, or a later one awaits confirmation.
            FormatError, DamagedError: it has a later format, is incomplete, or was changed.
            StorageError: it cannot be read, or the master cannot be written.
        """
        from edgeshard.exchange import receipts
        from edgeshard.master import database
        from edgeshard.merge import init_store

        self.ensure_exists()
        stated = _inventory(said)
        init_store.make_master(self.root, BUSY_TIMEOUT_S)
        connection = database.open_master(self.master_path, writable=True)
        try:
            with database.translate_errors("record receipt in", self.master_path):
                return receipts.record_receipt(connection, stated, force=force, trust=trust)
        finally:
            connection.close()

    def forget_peer(self, database: str, *, dry_run: bool = False) -> reports.ForgetPeerReport:
        """Forget a hub or a server that gave a receipt and will never return.

        Tombstones no longer wait until it knows of them, and no rule with ``only_pushed`` or ``only_receipted`` deletes
        rows because it holds them. If it returns all the same, it has to be confirmed again, as at first; and keys that
        were deleted here and not there may be back once its rows are merged, if their tombstones are gone by then.

        Args:
            database: its id, in hexadecimal, or its first digits (6 or more); see `status`.
            dry_run: report what that permits, and change nothing.

        Raises:
            ConfigurationError: there is no receipt of such a database, or of more than one.
            StorageBusyError: another process records a receipt of it.
            StorageError: the master cannot be read or written.
        """
        from edgeshard.exchange import forget_peer

        self._ensure_master_exists("forget peer of")
        return forget_peer.forget_peer(self.master_path, database, dry_run=dry_run)

    def export(
        self,
        target: str | os.PathLike[str],
        *,
        since_hub: str | None = None,
        ranges: str | os.PathLike[str] | BinaryIO | handles.Inventory | None = None,
        force: bool = False,
        progress: Progress | None = None,
    ) -> reports.ExportReport:
        """Write the rows that another database lacks into one file, a bundle, to take there and merge.

        The bundle needs no other file, has a checksum, and appears under its name complete, or not at all. Like a
        snapshot it holds what has been merged by this moment, while writers and mergers continue.

        Args:
            target: the file to create, in an existing folder.
            since_hub: the id of the receiving database, in hexadecimal, or its first digits (6 or more). What its last
                `receipt` says it has, or had, is left out; it must be confirmed.
            ranges: the same, from a file that ``edgeshard ranges`` wrote there, an open binary file with that, or what
                `ranges` returned. With neither, all rows are written.
            force: replace an existing file, but no part of any store.
            progress: called with (rows written, rows to write).

        Raises:
            ConfigurationError: the file exists already, the folder does not, the path is a part of a store, there is
                no receipt of such a database, or both `since_hub` and `ranges` are given.
            StorageBusyError: another process is writing the same file.
            StorageError: the master cannot be read, or the bundle cannot be written.
        """
        from edgeshard.exchange import bundle

        target = paths.checked(target, "export", "target")
        self._ensure_master_exists("export")
        unwanted = self._held_by_receiver(since_hub, ranges)
        return bundle.export(self.master_path, target, unwanted, force=force, progress=progress)

    def _held_by_receiver(
        self, hub: str | None, ranges: str | os.PathLike[str] | BinaryIO | handles.Inventory | None
    ) -> Mapping[bytes, Sequence[Range]]:
        from edgeshard import sqlite
        from edgeshard.master import database, receipts

        if hub is not None and ranges is not None:
            raise ConfigurationError("export", self.master_path, "since_hub and ranges exclude each other; give one")
        if ranges is not None:
            return _inventory(ranges).streams
        if hub is None:
            return {}
        connection = database.open_master(self.master_path, writable=False)
        try:
            with database.translate_errors("read receipts of", self.master_path), sqlite.read_snapshot(connection):
                peer = receipts.find(connection, hub, str(self.master_path))
                return receipts.ever_held_by(connection, peer.database_id)
        finally:
            connection.close()


def _rules_of(prune: PruneRule | Sequence[PruneRule] | None, root: Path) -> Retention | None:
    if prune is None:
        return None
    from edgeshard.retention import store_rules

    return store_rules.parse_store_rules(prune, root)


def _check_number(name: str, value: object, least: int, most: int, action: str, path: Path) -> None:
    """Refuse what is no whole number in these bounds.

    SQLite and Python's own functions fail with errors of many kinds if a number has another type or is too large, and
    some of these also tell that a master is damaged. So an argument is checked before the master is opened.

    Raises:
        ConfigurationError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(
            action, path, f"{name} must be a whole number from {least} to {most}, got {quoted(value)}"
        )


def _inventory(said: str | os.PathLike[str] | BinaryIO | handles.Inventory) -> handles.Inventory:
    from edgeshard import sqlite
    from edgeshard.exchange import inventory

    if isinstance(said, inventory.Inventory):
        return said
    if isinstance(said, (str, os.PathLike)):
        return inventory.load(paths.checked(said, "read ranges", "the file"))
    if not hasattr(said, "read"):
        cause = f"give the path of a file, an open binary file, or what Store.ranges() returned, not {quoted(said)}"
        raise ConfigurationError("read ranges", "", cause)
    name = str(getattr(said, "name", "stream")).replace("<stdin>", "standard input")
    with sqlite.translate_errors("read ranges", name):
        text = said.read(inventory.BYTES_MAX + 1)
    if not isinstance(text, bytes):
        raise ConfigurationError("read ranges", name, 'it was opened in text mode; open it with open(path, "rb")')
    return inventory.parse(text, name)


def _checked_paths(given: Any, action: str, called: str, name: str) -> list[str]:
    """Return one path or several, checked.

    Args:
        given: what the caller gave.
        action: what the caller does, for the message.
        called: the name of the method.
        name: how the message calls one path.
    """
    if isinstance(given, (str, os.PathLike)):
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        cause = f'{called} takes paths, as in store.{called}(["other/master.db"]), got {quoted(given, 200)}'
        raise ConfigurationError(action, "", cause)
    return [paths.checked(each, action, name) for each in given]


def _table_name(table: str | type | None) -> str | None:
    from edgeshard.records import declare

    if isinstance(table, str):
        try:
            table.encode()
        except UnicodeEncodeError as error:
            cause = f"{quoted(table)} is not valid Unicode text; tables() lists the names"
            raise ConfigurationError("find table", "", cause) from error
    if table is None or isinstance(table, str):
        return table
    if isinstance(table, type) or hasattr(table, "__origin__"):
        return declare.table_of(table).name
    raise ConfigurationError("find table", "", f"a table is its name or its class, not {quoted(table)}")


def _budget_of(root: Path, max_bytes: str | int | None, on_full: str | None) -> Budget | None:
    try:
        if max_bytes is None and on_full is not None:
            raise ValueError("on_full requires max_bytes")
        return None if max_bytes is None else policy.parse_budget(size_bytes(max_bytes), on_full or "error")
    except (ValueError, TypeError, OverflowError) as error:
        cause = f"max_bytes={quoted(max_bytes)}, on_full={quoted(on_full)}: {error}"
        raise ConfigurationError("open store", root, cause) from error
