"""Put a snapshot in the place of a store's master, and keep the old master under another name.

    1. Lock ``watch.lock`` and ``merge.lock``. Remove what a killed restore left.
    2. Copy the snapshot into a file next to the master, and tell the copy which rows it lacks: those that the notes of
       removed shards and the shards themselves record. Make it a WAL database without a WAL, durably. Check it deeply,
       and remove what reading it left next to it.
    3. Lock the old master as SQLite does: no other process has it open, or can read it. Copy its WAL into it, and
       remove the WAL, durably: from here on no WAL or journal has the master's name.
    4. Give the old master its second name (``replaced-master-TIME-XXXXXXXX.db``), durably.
    5. Rename the copy to ``master.db``, durably.    <- the commit point
    6. Release the locks.

After a kill or a power cut before 5, the old master is in its place with all of its rows. In 3 it may have become a
database with a rollback journal; the next merge turns it back. After 4 it has two names; the next merge, or restore,
removes the second one, because a database that is written under two names gets damaged. After 5 the new master is in
its place. What was left of the copy is removed by the next merge or restore.

If SQLite cannot read the old master, it cannot copy its WAL into it. Then step 3 locks the file itself, and records
that it is damaged, so that no merge writes to it; and step 4 also renames its WAL and journal, durably. Before 5 a
damaged master may then be in its place without its WAL, which the next merge or restore renames back.

Whoever opened the old master before 3, and has not read it yet, waits for the lock. Then edgeshard finds that another
file has the name, and opens that (`database.open_master`). Other programs read the old master to their end: it needs
no other file.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, DamagedError, MergeInProgressError, StorageBusyError, StorageError
from edgeshard.exchange import replaced_rows
from edgeshard.files import atomic_file, fingerprint, folders, modes, paths
from edgeshard.inspect import absences, verify
from edgeshard.log_fields import fields
from edgeshard.master import damage, database, identity, known_rows, leftovers, replaced
from edgeshard.merge import locks
from edgeshard.reports import RestoreReport

logger = logging.getLogger("edgeshard.restore")

_ACTION: Final = "restore"

#: How long to wait for other processes that read the master, in seconds: agents do so for milliseconds as they start.
_BUSY_TIMEOUT_S = 5.0


def restore(
    root: Path,
    snapshot: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RestoreReport:
    """Put a snapshot in the place of a store's master; see `Store.restore`."""
    master = paths.master(root)
    source = Path(os.path.realpath(snapshot))
    with sqlite.translate_errors(_ACTION, str(master)):
        _check_paths(source, master)
    with _locks_of(root), sqlite.translate_errors(_ACTION, str(master)):
        _remove_leftovers(root)
        _ensure_same_master(source, master)
        with _staged(root) as copy:
            with _snapshots_fault(source):
                _prepare(source, copy, root, progress)
                report = verify.check(copy, master, deep=True)
                if report.errors:
                    raise DamagedError(_ACTION, source, report.errors[0])
            _remove_side_files(copy)
            losses, peers, is_readable = replaced_rows.locate(master, copy, report.losses)
            restored = RestoreReport(
                snapshot=str(source),
                database=report.database,
                rows=report.rows,
                streams=report.streams,
                gaps=report.gaps,
                losses=losses,
                peers=peers,
                unnamed=report.unnamed,
                dry_run=dry_run,
            )
            if dry_run:
                return restored
            kept = _put_in_place(copy, master)
            damage.forget(master, is_deep=True)
    return attrs.evolve(restored, replaced="" if kept is None else str(kept), is_replaced_readable=is_readable)


# -- what is restored -------------------------------------------------------------------------------------------------


def _check_paths(source: Path, master: Path) -> None:
    """Refuse paths that cannot be meant.

    Raises:
        ConfigurationError: the snapshot is no file, or is the master; or the master is no regular file.
    """
    if not source.exists():
        raise ConfigurationError(
            _ACTION, source, "there is no such file; name a file that Store.snapshot (`edgeshard snapshot`) made"
        )
    if not source.is_file():
        raise ConfigurationError(
            _ACTION, source, "it is not a regular file; name a file that Store.snapshot (`edgeshard snapshot`) made"
        )
    if master.is_symlink():
        cause = f"it is a symbolic link to {os.path.realpath(master)}; remove the link, or restore where it leads"
        raise ConfigurationError(_ACTION, master, cause)
    if fingerprint.exists(master):
        if not master.is_file():
            raise ConfigurationError(_ACTION, master, "it is not a regular file; move it away")
        if os.path.samefile(source, master):
            raise ConfigurationError(_ACTION, source, "it is the store's own master; name a snapshot of it")


def _ensure_same_master(source: Path, master: Path) -> None:
    """Refuse a snapshot of another master, whose rows are not this store's.

    Raises:
        ConfigurationError: it is one.
        StorageError: the snapshot cannot be read, or the master is locked.
    """
    with _snapshots_fault(source):
        connection = database.open_master(source, writable=False)
        try:
            with database.translate_errors(_ACTION, source):
                wanted = identity.database_id(connection)
        finally:
            connection.close()
    own = _id_of_old_master(master)
    if own is not None and own != wanted:
        cause = (
            f"it is a snapshot of master {wanted.hex()}, and {master} is {own.hex()}. If you do want that master here, "
            f"move {master}* away first"
        )
        raise ConfigurationError(_ACTION, source, cause)


def _id_of_old_master(master: Path) -> bytes | None:
    """Return the id of the master that is replaced; None if there is none, or it is damaged.

    If a restore was killed while it changed the master's journal, a connection that may write rolls that back.
    """
    if not fingerprint.size(master):  # SQLite would delete the WAL of an empty database
        return None
    try:
        with sqlite.translate_errors("read master", str(master)):
            connection = sqlite.connect(str(master), writable=True, busy_timeout_s=_BUSY_TIMEOUT_S)
            sqlite.disable_checkpoint_on_close(connection)
            try:
                return identity.database_id(connection)
            finally:
                connection.close()
    except StorageBusyError:
        raise
    except StorageError as error:
        logger.warning(
            "%s; whether the snapshot is one of this master cannot be told", error, extra=fields(error=error)
        )
        return None


@contextlib.contextmanager
def _staged(root: Path) -> Iterator[Path]:
    """Yield the path of an empty file in the store's folder; remove it after the block, unless it was renamed."""
    copy = paths.unfinished(str(paths.restored(root)), secrets.token_hex(4))
    os.close(modes.create_file(copy))
    try:
        yield Path(copy)
    finally:
        atomic_file.remove_unfinished(copy)


def _prepare(source: Path, copy: Path, root: Path, progress: Callable[[int, int], None] | None) -> None:
    """Fill the copy, tell it which rows it lacks, and make it durable."""
    connection = database.open_master(source, writable=False)
    try:
        with sqlite.translate_errors(_ACTION, str(source)):
            sqlite.back_up(connection, str(copy), progress)
    finally:
        connection.close()
    connection = sqlite.connect(str(copy), writable=True)
    try:
        with database.translate_errors(_ACTION, source):
            known = absences.find(connection, root)
            with sqlite.immediate(connection):
                known_rows.record(connection, known_rows.select_unknown(connection, known.rows))
                if known.notes[0] is not None:
                    identity.set_notes_known(connection, known.notes)
            # a merge would do this next to readers
            sqlite.ensure_wal(connection, str(copy))
            sqlite.truncate_wal(connection)
    finally:
        connection.close()
    sqlite.sync_file(str(copy))


@contextlib.contextmanager
def _snapshots_fault(source: Path) -> Iterator[None]:
    """Say of damage that is found in the block that it is the snapshot's, and what to do."""
    try:
        yield
    except DamagedError as error:
        cause = f"the snapshot is damaged: {error.cause}. The master was not replaced; name an earlier snapshot"
        raise DamagedError(_ACTION, source, cause) from error


def _remove_side_files(copy: Path) -> None:
    """Remove what reading a WAL database has left next to it; nothing is in these files."""
    for path in paths.side_files(copy):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


# -- what is replaced -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locks_of(root: Path) -> Iterator[None]:
    """Hold the locks of all mergers of a store.

    Raises:
        MergeInProgressError: a merger watches the store, or is at work.
    """
    with contextlib.ExitStack() as stack:
        for take in (locks.watch_lock, locks.merge_lock):
            try:
                held = take(root, 0.0, lambda: False)
            except MergeInProgressError as error:
                cause = "a merger works on it, or watches it; stop it, and restore again"
                raise MergeInProgressError(_ACTION, paths.master(root), cause) from error
            if held is not None:
                stack.callback(held.release)
        yield


def _put_in_place(copy: Path, master: Path) -> Path | None:
    """Rename the copy to the master, and return the name that the old master has now; None if there was none.

    Raises:
        StorageBusyError: another process has the master open.
    """
    kept = paths.replaced_master(
        master.parent, datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S"), secrets.token_hex(4)
    )
    if fingerprint.identity(master) is None:
        is_kept = replaced.move_side_files(master, kept)
        atomic_file.publish(str(copy), str(master), replace=True)
        return kept if is_kept else None
    try:
        with sqlite.exclusively(str(master), busy_timeout_s=_BUSY_TIMEOUT_S) as is_whole:
            if not is_whole:
                damage.record(master, ["SQLite cannot read it"])
            replaced.keep(master, kept)
            atomic_file.publish(str(copy), str(master), replace=True)
    except sqlite.BUSY as error:
        cause = (
            "another process has it open; nothing was changed. Stop the mergers, pushes and readers of this store "
            f"(`fuser {master}` names them), and restore again"
        )
        raise StorageBusyError(_ACTION, master, cause) from error
    return kept


def _remove_leftovers(root: Path) -> None:
    """Remove what a restore that was killed left."""
    leftovers.remove(root)
    replaced.remove_second_names(paths.master(root))
    folders.sync_folder(root)
