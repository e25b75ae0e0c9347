"""A store: the folder of one device's shards and master."""

from __future__ import annotations

import contextlib
import datetime
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeshard import format, sqlite
from edgeshard.budget import policy, usage
from edgeshard.budget.policy import Budget, OnFull
from edgeshard.errors import ConfigurationError, DamagedError, QueryError, ShardInUseError
from edgeshard.exchange import inventory, receipts, snapshot
from edgeshard.exchange.inventory import Inventory
from edgeshard.exchange.receipts import ReceiptReport
from edgeshard.files import folders, locks, paths, scan
from edgeshard.format.ranges import Range
from edgeshard.inspect import status, verify
from edgeshard.inspect.status import StatusReport
from edgeshard.inspect.verify import VerifyReport
from edgeshard.master import catalog, database, projection, write_stats
from edgeshard.master.receipts import ever_held_by, find
from edgeshard.merge import once
from edgeshard.merge.service import Service, in_thread
from edgeshard.records import codecs, columns, declare
from edgeshard.reports import MergeReport
from edgeshard.retention import rules, store_rules
from edgeshard.retention.store_rules import PruneRule
from edgeshard.shard import write_profile
from edgeshard.shard.lookup import Lookups, References, attached_references
from edgeshard.shard.quota import Bound, BoundedShard
from edgeshard.shard.shard import DURABILITIES, Durability, Shard
from edgeshard.shard.write_profile import Wear, WriteProfile
from edgeshard.sqlite import quote
from edgeshard.sqlite.rows import row_class

if TYPE_CHECKING:
    from edgeshard.exchange.bundle import ExportReport
    from edgeshard.inspect.salvage import SalvageReport
    from edgeshard.reports import PruneReport, PushReport


_R = TypeVar("_R")

#: Rows that `Store.read` takes from the master at a time, each time in a snapshot of its own.
_READ_ROWS = 1_000

#: How long an agent waits for its own shard's lock before it says that another handle has it, in seconds.
_REMOVAL_WAIT_S = 0.5

_NOT_TEXT = (
    "a text in it is not valid UTF-8; its writer did not go through edgeshard. Read it with CAST(column AS BLOB)"
)


class Store:
    """The databases below one folder: ``shards/*.db``, one an agent, and ``master.db``.

    Making a Store touches nothing; folders and files are made when first needed (folders 0700, files 0600).

    Args:
        root: the folder.
        prune: which rows go from the master by themselves, after merges that are made through this Store: the rules
            of `prune`, as in ``{"older_than": "30d", "only_pushed": True}``, or several such, one for each table. See
            `merge` and `watching`. Rules are this Store's, and not kept in the folder.
        wear: "low" writes less, for flash, and merges less often: shards that are made have smaller pages, `watching`
            merges once a minute, also the first row after a quiet time, and leaves longer in the shards and in the
            master's log what would be written twice. Nothing is less durable. Give it wherever the store is opened.
        max_bytes: the most that all files of the store together may take: "500M", "2GiB", or a number of bytes. It is
            noted in the folder (``budget.json``) as a shard is opened or a merge made, and holds for every process that
            does so from then on, with this argument or without it; None: what is noted there, if anything.
        on_full: "error" (the default) refuses writes, and merges, for which there is no room, with a
            `edgeshard.errors.DiskBudgetError`; "drop-oldest" has merges delete the oldest rows of the master, of tables
            with the lowest priority first, and of agents with few rows last, and refuses writes until they did.

    Attributes:
        root: the folder, absolute, with symbolic links followed once, now.

    Raises:
        ConfigurationError: the path is not valid UTF-8, or a rule or a budget cannot be, or there is no such `wear`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        prune: PruneRule | Sequence[PruneRule] | None = None,
        wear: Wear = "normal",
        max_bytes: str | int | None = None,
        on_full: OnFull | None = None,
    ) -> None:
        self.root = Path(os.path.realpath(root))
        try:
            str(self.root).encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                "open store", repr(self.root), "SQLite needs a path that is valid UTF-8"
            ) from error
        self._retention = store_rules.parse_store_rules(prune, self.root)
        self._thrift = write_profile.parse_profile(wear, self.root)
        self._wanted = _budget_of(self.root, max_bytes, on_full)

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    @property
    def master_path(self) -> Path:
        """The master's file. Any SQLite tool may read it, at any time."""
        return self.root / "master.db"

    def shard(self, agent: str, *, durability: Durability = "process", reference: References | None = None) -> Shard:
        """Open an agent's shard for writing; use it with ``with``, or ``close()`` it.

        Args:
            agent: the agent's name, 1 to 200 characters of any text.
            durability: what a committed row survives: "process" a kill at once, and a power cut after the last
                moments; "power" a power cut as well, at the price of an fsync a commit.
            reference: SQLite databases to look things up in with `Shard.lookup`, the path of each by its name in
                SQL: ``{"patterns": "patterns.db"}``. They are only read, and nobody should write them meanwhile.

        Raises:
            ShardInUseError: another handle, here or in another process, has it open.
            ConfigurationError: no such durability, no such name, or no such reference.
            DiskBudgetError: the store has a budget, and no room for a new shard.
            StorageError: the file, or a reference, cannot be made or opened.
        """
        bound = self._bound()
        if reference is None:
            return _open_shard(self.root / "shards", agent, durability, self._thrift, bound=bound)
        lookups = Lookups(reference)  # first: where one cannot be opened, no shard is made
        try:
            return _open_shard(self.root / "shards", agent, durability, self._thrift, lookups, bound)
        except BaseException:
            lookups.close()
            raise

    def note_budget(self, max_bytes: str | int, on_full: OnFull | None = None) -> None:
        """Give the store a budget now, in the place of another; see `Store`. ``budget.json`` deleted, it has none.

        Raises:
            ConfigurationError: it cannot be.
            StorageError: it cannot be noted.
        """
        self._wanted = _budget_of(self.root, max_bytes, on_full)
        self._bound()

    def _bound(self) -> Bound | None:
        """The budget that the store has, noted where this handle brings one; None where it has none."""
        if self._wanted is not None:
            usage.save_budget(self.root, self._wanted)
        known = self._wanted or usage.load_budget(self.root)
        return None if known is None else Bound(self.root, known)

    def merge(
        self,
        sources: Iterable[str | os.PathLike[str]] = (),
        *,
        dry_run: bool = False,
        keep_empty: bool = False,
        lock_wait: float = 0.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> MergeReport:
        """Copy the rows of all shards into the master, exactly once, and truncate the shards.

        A shard that no agent has open is then removed; the agent gets a new one when it comes back. Then the rules of
        `Store(prune=...)` are followed, if there are any: what goes is `MergeReport.pruned`, and what goes wrong with
        that is logged, and `MergeReport.prune_problem`; the merge is done by then.

        Args:
            sources: other databases of ours (masters, shards, bundles, copies) to merge as well; they are only read.
            dry_run: say what would be done, and do nothing. What would be pruned after it is not said.
            keep_empty: leave the empty shards of agents that are gone.
            lock_wait: how long to wait for another merger, in seconds; -1 for ever.
            progress: called with (rows done, rows to do) after each commit.

        Raises:
            MergeInProgressError: another merger is at work on this master, or watches the store (that does not keep
                `sources` out).
            DiskBudgetError: the store has a budget, and no room for rows that wait; they stay in the shards.
            StorageError: the master or the folder cannot be read or written; no row is lost.
        """
        if isinstance(sources, (str, os.PathLike)):
            sources = [sources]
        if dry_run:
            return once.preview(self.root, sources)
        self._bound()
        return once.merge(
            self.root,
            sources,
            keep_empty=keep_empty,
            lock_wait_s=lock_wait,
            prune=self._retention,
            progress=progress,
        )

    @contextlib.contextmanager
    def watching(
        self,
        interval: float | None = None,
        *,
        rescan: float | None = None,
        observer: str = "auto",
        keep_empty: bool = False,
    ) -> Iterator[None]:
        """Merge in a thread of this process, as rows come, for as long as the ``with`` block lasts.

        After the block everything that was written before its end is in the master. The rules of `Store(prune=...)`
        are followed at its beginning, once it ends, and between these in another thread, as rows come or become too
        old: at most once a minute, and by age alone once in a hundredth of that, or an hour, where that is longer.

        Args:
            interval: under load a pass begins this often, in seconds (default: 1; where ``wear="low"``: 60); after a
                quiet time the first row is merged at once, at ``wear="low"`` after that time.
            rescan: how often all shards are looked at, whether the file system reported a change or not, in seconds
                (default: 30; where ``wear="low"``: 600).
            observer: "native" relies on the file system's events, "polling" looks at each shard's files each
                interval; "auto" turns from the one to the other where events do not arrive.
            keep_empty: leave the empty shards of agents that are gone.

        Raises:
            ConfigurationError: an argument that cannot work.
            MergeInProgressError: another merger watches the store already.
            StorageError: the first merge, before the block, or the last one, after it, could not be made. Failures
                between them are logged, and tried again.
            BaseException: what the thread ended with, where it was something that nobody foresaw.
        """
        self._bound()
        service = Service(
            self.root,
            interval_s=self._thrift.interval_s if interval is None else interval,
            rescan_s=self._thrift.rescan_s if rescan is None else rescan,
            observer=observer,
            keep_empty=keep_empty,
            prune=self._retention,
            thrift=self._thrift,
        )
        service.open()
        try:
            with in_thread(service):
                yield
        finally:
            once.merge(self.root, keep_empty=keep_empty, beside_watcher=True, lock_wait_s=-1, prune=self._retention)

    def query(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] = (),
        *,
        fresh: bool = False,
        reference: References | None = None,
    ) -> list[Any]:
        """Run one SELECT on the master, read-only.

        Args:
            sql: the statement; ``?`` or ``:name`` stand for parameters. Give expressions a name with AS.
            params: their values; a datetime, date, Decimal, UUID or Enum is turned into what a column of it holds.
            fresh: merge first, so that all rows written so far are seen; waits for a merger at work.
            reference: SQLite databases to join with, the path of each by its name in SQL, as those of `shard`.

        Returns:
            The rows, as tuples whose values are attributes as well: ``row.agent_id``.

        Raises:
            QueryError: SQLite refused the statement.
            ConfigurationError: no such reference.
            StorageError: the master, or a reference, cannot be read.
        """
        if fresh:
            once.merge(self.root, beside_watcher=True, lock_wait_s=-1)
        database.ensure_master(self.master_path)
        with querying(self.master_path) as connection, attached_references(connection, reference):
            names, rows = sqlite.select(connection, sql, codecs.bindable(params))
        return list(map(row_class(names), rows))

    def read(self, cls: type[_R]) -> Iterator[_R]:
        """All rows of a class's table in the master, as instances, in the order in which they arrived there.

        The rows come in portions, each from a snapshot of its own, so that a slow reader holds nobody up: rows that
        are merged meanwhile come last.

        An older class reads a master that newer agents write: by `renamed` columns its fields' older names lead to, and
        of a wider column what fits the field.

        Raises:
            TableError: the class cannot be a table.
            SchemaConflictError: a column has another type, or a value in it does not fit the field.
            StorageError: the master cannot be read.
        """
        table = declare.table_of(cls)
        decode = codecs.decoder(cls, table)
        last = 0
        while True:
            found, rows = self._rows_after(table, last)
            if found is None or not rows:
                return
            for row in rows:
                yield decode(found.narrowed(row))
            last = rows[-1][0]

    def _rows_after(
        self, table: columns.Table, last: int
    ) -> tuple[projection.Projection | None, list[tuple[Any, ...]]]:
        database.ensure_master(self.master_path)
        connection = database.open_master(self.master_path, writable=False)
        try:
            with sqlite.translate_errors("read", str(self.master_path)), sqlite.read_snapshot(connection):
                found = projection.project(connection, table, str(self.master_path))
                if found is None:
                    return None, []
                sql = f"SELECT _id, {found.columns} FROM {quote(table.name)} WHERE _id > ? ORDER BY _id LIMIT ?"
                try:
                    return found, sqlite.fetch(connection, sql, (last, _READ_ROWS))
                except UnicodeDecodeError as error:
                    raise DamagedError("read", self.master_path, _NOT_TEXT) from error
        finally:
            connection.close()

    def verify(self, *, deep: bool = False) -> VerifyReport:
        """Check the master: SQLite's integrity, every row against its address, and which rows are missing, and why.

        Args:
            deep: read every value and each index as well, which takes about three times as long.

        Raises:
            DamagedError: the master is damaged so much that it cannot be read.
            StorageError: it cannot be read for another reason.
        """
        database.ensure_master(self.master_path)
        connection = database.open_master(self.master_path, writable=False)
        try:
            with database.translate_errors("verify", self.master_path):
                return verify.verify(connection, deep=deep)
        finally:
            connection.close()

    def salvage(self, path: str | os.PathLike[str]) -> SalvageReport:
        """Bring what can still be read of a damaged shard into the master, each row once.

        The shard stays as it is, and is reported by each merge until it is moved away. What the master lacks of what
        is known to have existed is a gap. A bit that changed within a value cannot be noticed.

        Args:
            path: the shard, with its log beside it, if it has one.

        Raises:
            ConfigurationError: there is no such file.
            FormatError: it is a master.
            StorageBusyError: its agent has it open.
            StorageError: it cannot be read, or what it holds not be merged.
        """
        from edgeshard.inspect import salvage  # 10 ms, which only a shard that is damaged costs

        return salvage.salvage(self.root, path)

    def status(self) -> StatusReport:
        """Look at the master and at each shard: who writes, what waits to be merged, and what is wrong.

        Nothing is made or changed, and neither writers nor a merger wait for it. A shard that cannot be read is no
        error, but a line of the report that says why.

        Raises:
            DamagedError: the master is damaged.
            StorageError: the master or the folder cannot be read.
        """
        return status.status(self.root)

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
        shrink: bool = False,
        dry_run: bool = False,
        lock_wait: float = sqlite.BUSY_TIMEOUT_S,
        progress: Callable[[int, int], None] | None = None,
    ) -> PruneReport:
        """Delete old rows from the master, for good: no copy of a shard or of a master brings them back.

        Each rule that is given holds afterwards, as far as rows may go. Rows of one transaction go together, or stay.

        Args:
            older_than: rows that came into this master longer ago: "30d", "12h", "90m", a timedelta, or seconds. To
                the minute, by the clock of this machine.
            keep_rows: all but so many of the newest, of all tables together.
            max_bytes: the oldest, until the master and its log take no more: "500M", "2GiB", or a number of bytes.
            deletions_older_than: deletions of keyed tables that were made, and came into this master, longer ago, once
                nothing older can come any more of any stream that is known, and every database of which there is a
                receipt knows of them.
            only_pushed: only rows that a PostgreSQL database holds, as its receipt says.
            only_receipted: only rows that some other database holds, as its receipt says.
            table: a table, or its class: all rules are meant of its rows alone, also of those that were written in one
                transaction with rows of other tables.
            shrink: give all free pages back to the disk. Without this the file gets smaller only where `max_bytes`
                asks for it; otherwise later merges fill it first.
            dry_run: say what would be done, and do nothing.
            lock_wait: how long to wait, in each step, for whoever holds the master locked, in seconds.
            progress: called with (rows done, rows to do) after each step.

        Raises:
            ConfigurationError: no rule, a rule that cannot be, or no such table.
            TableError: the class cannot be a table.
            StorageError: the master cannot be read or written. What was pruned by then stays so.
        """
        from edgeshard.reports import PruneReport
        from edgeshard.retention import prune  # whoever never prunes need not wait for it

        try:
            name = _table_name(table)
            asked = rules.parse_rules(
                older_than, keep_rows, max_bytes, only_pushed, only_receipted, name, deletions_older_than
            )
        except ValueError as error:
            raise ConfigurationError("prune", self.master_path, str(error)) from error
        if asked.is_empty and not shrink:
            cause = "give older_than, keep_rows, max_bytes, deletions_older_than, or shrink"
            raise ConfigurationError("prune", self.master_path, cause)
        if dry_run and scan.find_database(str(self.master_path)) is None:
            return PruneReport(dry_run=True)
        database.ensure_master(self.master_path)
        return prune.prune(
            self.master_path, asked, shrink=shrink, dry_run=dry_run, lock_wait_s=lock_wait, progress=progress
        )

    def snapshot(
        self,
        target: str | os.PathLike[str],
        *,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Copy the master as it is at this moment, durably, while writers and mergers go on.

        The copy is one file that needs none beside it, so that it can be read from a read-only medium, merged
        elsewhere with ``sources``, or put back as a master. It appears under its name whole, or not at all.

        Args:
            target: the file to make, in a folder that exists.
            force: replace a file that has this name.
            progress: called with (pages copied, pages to copy) as it goes on.

        Raises:
            ConfigurationError: there is such a file already, or no such folder.
            StorageBusyError: another snapshot is making this very file.
            StorageError: the master cannot be read, or the copy not be written.
        """
        database.ensure_master(self.master_path)
        snapshot.snapshot(self.master_path, target, force=force, progress=progress)

    def push(
        self,
        dsn: str,
        *,
        batch: int = 20_000,
        inserts: bool = False,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> PushReport:
        """Push what the master has, and a PostgreSQL database lacks, into it, exactly once. Merge first.

        Neither writers nor mergers wait for it. Several devices may push into one database, and one stream may come
        there by several routes. Needs ``pip install 'edgeshard[postgres]'``.

        Args:
            dsn: the database, as libpq takes it; what it leaves out comes from the PG* variables, a service file and
                the password file. "postgresql://" takes all from there.
            batch: rows of a transaction; fewer where rows are large.
            inserts: use INSERT, not COPY; so it is in any case where the server is not PostgreSQL itself.
            dry_run: say what would be done, and do nothing.
            progress: called with (rows done, rows to do) after each commit.

        Raises:
            ConfigurationError: the DSN is none, or psycopg is not installed.
            UpstreamError: PostgreSQL cannot be reached, or refuses; what was committed stays.
            StorageError: the master cannot be read.
        """
        from edgeshard.postgres.once import (
            preview,
            push_once,  # what only some devices do costs no other
        )

        if dry_run:
            return preview(self.master_path, dsn)
        return push_once(self.master_path, dsn, batch=batch, inserts=inserts, progress=progress)

    def ranges(self) -> Inventory:
        """What the master holds and has held, durably: `Holdings.to_json` is a small document of it, to be carried.

        Whoever has rows for this store leaves out what is here (``export(ranges=...)``), and may delete what it has
        once it has this receipt (`receipt`). Rows that are still in the shards are not in it: merge first.

        Raises:
            StorageError: the master cannot be read.
        """
        database.ensure_master(self.master_path)
        connection = database.open_master(self.master_path, writable=False)
        try:
            with database.translate_errors("read ranges of", self.master_path), sqlite.read_snapshot(connection):
                found = receipts.inventory_of(connection)
                # what a merger that was killed committed can be read, and may yet be gone after a power cut
                sqlite.sync_file(str(self.master_path))
                folders.sync_path(self.root)
                return found
        finally:
            connection.close()

    def receipt(self, said: str | os.PathLike[str] | Inventory, *, force: bool = False) -> ReceiptReport:
        """Note in the master what another database holds durably, as its `ranges` said.

        From then on `export` leaves that out for it, and `verify` says so of what is missing here. A later receipt of
        the same database takes the place of an earlier one, in whatever order they come.

        Args:
            said: a file that ``edgeshard ranges`` wrote there, or what `ranges` returned.
            force: note it although a later one was noted, or may have been.

        Raises:
            ConfigurationError: there is no such file, it is no such document, or it is of this very database.
            FormatError, DamagedError: it is of a later format, or not whole.
            StorageError: it cannot be read, or the master not be written.
        """
        said = said if isinstance(said, Inventory) else inventory.load(said)
        database.ensure_master(self.master_path)
        connection = database.open_master(self.master_path, writable=True)
        try:
            with database.translate_errors("note receipt in", self.master_path):
                return receipts.note_inventory(connection, said, force=force)
        finally:
            connection.close()

    def export(
        self,
        target: str | os.PathLike[str],
        *,
        since_hub: str | None = None,
        ranges: str | os.PathLike[str] | Inventory | None = None,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> ExportReport:
        """Write the rows that another database lacks into one file, a bundle, to be carried there and merged.

        The bundle needs no file beside it, has a checksum, and appears under its name whole, or not at all. Like a
        snapshot it holds what has been merged, as it is at this moment, while writers and mergers go on.

        Args:
            target: the file to make, in a folder that exists.
            since_hub: the id of the database that it is for, in hexadecimal, or its first digits (6 or more): what the
                last `receipt` of that says it has, or had, is left out.
            ranges: the same by what a file that ``edgeshard ranges`` wrote there says, or what `ranges` returned.
                With neither, all is written.
            force: replace a file that has this name.
            progress: called with (rows written, rows to write) as it goes on.

        Raises:
            ConfigurationError: there is such a file already, no such folder, no receipt of such a database, or both
                `since_hub` and `ranges` are given.
            StorageBusyError: somebody else is making this very file.
            StorageError: the master cannot be read, or the bundle not be written.
        """
        from edgeshard.exchange import bundle  # what only carries rows away costs nobody else

        database.ensure_master(self.master_path)
        unwanted = self._held_by_receiver(since_hub, ranges)
        return bundle.export(self.master_path, target, unwanted, force=force, progress=progress)

    def _held_by_receiver(
        self, hub: str | None, ranges: str | os.PathLike[str] | Inventory | None
    ) -> Mapping[bytes, Sequence[Range]]:
        if hub is not None and ranges is not None:
            raise ConfigurationError("export", self.master_path, "give one of since_hub and ranges, not both")
        if ranges is not None:
            return (ranges if isinstance(ranges, Inventory) else inventory.load(ranges)).streams
        if hub is None:
            return {}
        connection = database.open_master(self.master_path, writable=False)
        try:
            with database.translate_errors("read receipts of", self.master_path), sqlite.read_snapshot(connection):
                peer = find(connection, hub, str(self.master_path))
                return ever_held_by(connection, peer.database_id)
        finally:
            connection.close()


@contextlib.contextmanager
def querying(path: Path) -> Iterator[sqlite.Connection]:
    """The master at `path`, read-only, for SQL of the user's; what is wrong with that becomes a QueryError.

    Nothing but SQL belongs into the block: an OSError of something else would be taken for the master's.

    Raises:
        QueryError: SQLite refused the statement.
        StorageError: the master cannot be read.
    """
    connection = database.open_master(path, writable=False)
    try:
        with sqlite.translate_errors("query", str(path)):
            try:
                yield connection
            except UnicodeDecodeError as error:
                raise QueryError("query", path, _NOT_TEXT) from error
            except sqlite.QUERY_MISTAKES as error:
                raise QueryError("query", path, _explain_query(connection, error)) from error
    finally:
        connection.close()


def _table_name(table: str | type | None) -> str | None:
    return declare.table_of(table).name if isinstance(table, type) else table


def _budget_of(root: Path, max_bytes: str | int | None, on_full: str | None) -> Budget | None:
    try:
        if max_bytes is None and on_full is not None:
            raise ValueError("on_full is of a budget: give max_bytes as well")
        return None if max_bytes is None else policy.parse_budget(rules.size_bytes(max_bytes), on_full or "error")
    except (ValueError, TypeError, OverflowError) as error:
        cause = f"max_bytes={max_bytes!r}, on_full={on_full!r}: {error}"
        raise ConfigurationError("open store", root, cause) from error


def _open_shard(
    folder: Path,
    agent: str,
    durability: Durability,
    thrift_: WriteProfile,
    lookups: Lookups | None = None,
    bound: Bound | None = None,
) -> Shard:
    """Open an agent's shard for writing, and make it where there is none.

    Raises:
        ConfigurationError: the name or the durability is none.
        ShardInUseError: another handle has it open.
        AccessError, StorageIOError, DamagedError, FormatError: the file cannot be opened as this agent's shard.
    """
    if durability not in DURABILITIES:
        raise ConfigurationError("open shard", "", f"durability is 'process' or 'power', not {durability!r}")
    stem = paths.shard_stem(agent)
    folders.make_folder(folder)
    folder = Path(os.path.realpath(folder))  # SQLite is told to follow no link
    # a merger that removes the empty shard of an agent that is gone has it for some milliseconds
    held = locks.lock(folder / f"{stem}.lock", _REMOVAL_WAIT_S)
    path = folder / f"{stem}.db"
    if held is None:
        raise ShardInUseError("open shard", path, f"agent {agent!r} has it open already, in this process or another")
    try:
        made_bytes = _make_shard(path, agent, thrift_.page_bytes, bound)
        if bound is not None:
            return BoundedShard(path, agent, durability, held, lookups, made_bytes, bound=bound)
        return Shard(path, agent, durability, held, lookups, made_bytes)
    except BaseException:
        held.release()
        raise


def _make_shard(path: Path, agent: str, page_bytes: int, bound: Bound | None) -> int:
    """Make the shard's file, unless it is there; how many bytes were written for that."""
    found = scan.find_database(str(path))
    if found is None:
        if bound is not None:
            bound.ensure_room_for_shard(path)
        script = (
            format.TABLES
            + "INSERT INTO edgeshard_database(database_id, role, agent_id) VALUES (randomblob(16), 'shard', ?)"
        )
        with sqlite.translate_errors("make shard", str(path)):
            for half_made in path.parent.glob(f"{glob.escape(path.name)}.*.new*"):
                half_made.unlink()  # of an opening that was killed; we hold the lock
            # where room is short a merge must be able to take it back in pieces: 4 % of a writer's rate (measured)
            shrinkable = bound is not None
            with write_stats.counted() as count:
                sqlite.create(str(path), page_bytes, script, (agent,), format.IDENTITY, shrinkable=shrinkable)
            return count.bytes
    elif found.problem:
        cause = f"{found.problem}. Move it away (its rows may be recovered from it), then open it again"
        raise DamagedError("open shard", found.path, cause)
    return 0


def _explain_query(connection: sqlite.Connection, error: Exception) -> str:
    if sqlite.is_write(error):
        return f"{error}. A query only reads; rows come into the master through shards and a merge"
    if isinstance(error, KeyError):
        return f"no value was given for the parameter {error}"
    listed = ", ".join(catalog.record_tables(connection))
    return f"{error}. The master has the tables {listed}; a table comes with the first merge of its rows"
