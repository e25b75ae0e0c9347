"""Watch a folder, and notify once that something in it changed. The only user of watchdog.

A notification only means "scan again", and its absence means nothing: the periodic rescan is the guarantee. Events are
known to get lost when the kernel's queue overflows (16,384 events, fs.inotify.max_queued_events): watchdog then
discards all that its own threads had not yet passed on, possibly including the first one.

watchdog is imported when the first watch is made: a merge from cron needs none.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgeshard.errors import StorageError, StorageIOError
from edgeshard.files import paths
from edgeshard.files.os_errors import explain_os_error, is_out_of_descriptors
from edgeshard.log_fields import fields

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver


logger = logging.getLogger(__name__)

#: The files that change even when a shard is only opened or read: SQLite's index of the WAL, and lock files.
_IGNORED = (paths.SHM, paths.LOCK)

#: The observers that open none of the files they watch. kqueue's does, and closing a file drops SQLite's locks on it.
_NATIVE = ("InotifyObserver", "FSEventsObserver")

#: How long `close` waits, in seconds. watchdog takes up to half a second if a file was just moved.
_CLOSE_S = 2.0

# both are the kernel's limits for one user, across all of its processes
_LIMITS = {
    errno.EMFILE: "too many inotify instances, or open files; raise the sysctl fs.inotify.max_user_instances, or "
    "the process's limit of open files (ulimit -n, LimitNOFILE=)",
    errno.ENOSPC: "too many inotify watches; raise the sysctl fs.inotify.max_user_watches",
}


class Watch:
    """Notify once that a file in a folder was written, made, renamed or deleted. Watching starts at once.

    It ignores subfolders, lock files and SQLite's -shm files, and that a file was opened, read, closed or given other
    permissions. It does not report earlier changes either: after making a watch, scan once more.

    Args:
        folder: the folder; a symbolic link is followed.
        notify: called at the first event, in another thread, and never again. It must neither block nor raise:
            watchdog waits for it, and an exception kills its thread.

    Raises:
        AccessError: the folder cannot be read.
        StorageIOError: there is no such folder, one of the kernel's limits is reached (the cause names the sysctl), or
            this system has no native way to watch a folder.
    """

    def __init__(self, folder: Path, notify: Callable[[], None]) -> None:
        self._folder = folder
        self._handler = _FirstEvent(notify)
        # kept open: otherwise a folder that replaces this one may get the same inode number. Opening it also checks the
        # permission to read, without which watchdog silently watches nothing
        self._handle: int | None = _open(folder)
        self._observer: BaseObserver | None = None
        self._threads: tuple[threading.Thread, ...] = ()
        try:
            self._start()
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, RuntimeError)):  # RuntimeError: no more threads
                raise _explain(error, folder) from error
            raise

    def _start(self) -> None:
        from watchdog import events, observers

        if observers.Observer.__name__ not in _NATIVE:  # type: ignore[attr-defined]  # it is a class
            raise StorageIOError("watch folder", self._folder, "watchdog has no native way to watch a folder here")
        relevant = [events.FileModifiedEvent, events.FileCreatedEvent, events.FileMovedEvent, events.FileDeletedEvent]
        self._observer = observers.Observer()
        handler = cast("FileSystemEventHandler", self._handler)
        # inotify does not follow a symbolic link, but watches the link itself
        self._observer.schedule(handler, os.path.realpath(self._folder), event_filter=list(relevant))
        self._threads = tuple(_threads(self._observer))
        self._observer.start()

    def is_alive(self) -> bool:
        """Return whether it still works: its threads live, and the path still leads to the watched folder."""
        if self._handle is None or not all(thread.is_alive() for thread in self._threads):
            return False
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._folder))
        except OSError:
            return False

    def close(self) -> None:
        """Stop watching. Waits up to two seconds for watchdog's threads to end, and raises nothing."""
        observer, self._observer = self._observer, None
        if observer is not None:
            self._stop(observer)
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _stop(self, observer: BaseObserver) -> None:
        """Stop watchdog in a thread of its own, because it joins its threads without a timeout."""
        stopper = threading.Thread(target=_stop_quietly, args=(observer, self._threads), daemon=True)
        try:
            stopper.start()
        except RuntimeError:  # no more threads
            _stop_quietly(observer, self._threads)
        else:
            stopper.join(_CLOSE_S)
            if stopper.is_alive():
                logger.warning(
                    "stop watching %s: its threads do not end; they are left behind",
                    self._folder,
                    extra=fields(file=self._folder),
                )


class _FirstEvent:
    """The handler of watchdog's events."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify: Callable[[], None] | None = notify

    def dispatch(self, event: FileSystemEvent) -> None:
        """Notify, if this is the first relevant event."""
        names = (os.fsdecode(path) for path in (event.src_path, event.dest_path) if path)
        if self._notify is not None and not all(name.endswith(_IGNORED) for name in names):
            notify, self._notify = self._notify, None
            notify()


def _open(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise explain_os_error(error, "watch folder", folder) from error


def _threads(observer: BaseObserver) -> Iterator[threading.Thread]:
    """Yield the threads that must live: the observer, its emitters, and the reader of the kernel's events (private)."""
    yield observer
    yield from observer.emitters
    yield from (value for value in vars(observer).values() if isinstance(value, threading.Thread))


def _explain(error: OSError | RuntimeError, folder: Path) -> StorageError:
    if isinstance(error, RuntimeError):
        return StorageIOError("watch folder", folder, str(error))
    if error.errno in _LIMITS and not is_out_of_descriptors():
        return StorageIOError("watch folder", folder, _LIMITS[error.errno])
    return explain_os_error(error, "watch folder", folder)


def _stop_quietly(observer: BaseObserver, threads: tuple[threading.Thread, ...]) -> None:
    """Stop an observer, and hide the error that watchdog logs if events are still to come, as after a notification."""
    idents = {thread.ident for thread in threads}
    watchdog_logger = logging.getLogger("watchdog.observers.inotify")

    def is_from_others(record: logging.LogRecord) -> bool:
        return record.thread not in idents

    watchdog_logger.addFilter(is_from_others)
    try:
        observer.stop()
        if observer.ident is not None:  # it had been started
            observer.join()
    except Exception:
        logger.warning("stop watching: watchdog failed", exc_info=True)
    finally:
        watchdog_logger.removeFilter(is_from_others)
