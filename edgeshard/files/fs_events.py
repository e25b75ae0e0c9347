"""The one door to watchdog: a notice, given once, that something in a folder changed.

A notice only ever means "look again", and its absence means nothing: the periodic rescan is the guarantee. What is
known to get lost is in the few lines that watchdog discards when the kernel's queue of events overflows (16,384 of
them, fs.inotify.max_queued_events): all that its own threads had not yet passed on, and so perhaps the first.

watchdog is imported when the first watch is armed: a merge from cron needs none.
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
from edgeshard.files.os_errors import explain_os_error

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver


logger = logging.getLogger(__name__)

#: SQLite's index of a log, and the lock files: whoever only reads or opens a shard changes them.
_NO_NEWS = ("-shm", ".lock")

#: Those that open none of the files that they watch. kqueue does, and a file that is closed drops SQLite's locks.
_NATIVE = ("InotifyObserver", "FSEventsObserver")

#: How long `close` waits; watchdog takes up to half a second where a file was just moved.
_CLOSE_S = 2.0

# both are the kernel's limits for one user, over all of its processes
_LIMITS = {
    errno.EMFILE: "too many inotify instances, or open files; raise the sysctl fs.inotify.max_user_instances, or "
    "the process's limit of open files (ulimit -n, LimitNOFILE=)",
    errno.ENOSPC: "too many inotify watches; raise the sysctl fs.inotify.max_user_watches",
}


class Watch:
    """Notices, once, that a file in a folder was written, made, renamed or deleted. Armed as soon as it is made.

    What happens to files of other folders below it, to lock files and to SQLite's -shm files is no news, nor that a
    file was opened, read, closed, or given other permissions. Whatever happened before is not noticed: look once more
    after arming.

    Args:
        folder: the folder; a symbolic link is followed.
        notify: called at the first event, in another thread, and never again. It must neither block nor raise:
            watchdog waits for it, and dies of what it raises.

    Raises:
        AccessError: the folder may not be read.
        StorageIOError: there is no such folder, one of the kernel's limits is reached (the cause names the sysctl), or
            this system has no native way to watch one.
    """

    def __init__(self, folder: Path, notify: Callable[[], None]) -> None:
        self._folder = folder
        self._news = _FirstNews(notify)
        # held open: else a folder that replaces this one may get its inode number. It also asks for the permission
        # to read, the lack of which watchdog passes over in silence, and watches nothing
        self._handle: int | None = _open(folder)
        self._observer: BaseObserver | None = None
        self._threads: tuple[threading.Thread, ...] = ()
        try:
            self._arm()
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, RuntimeError)):  # RuntimeError: no more threads
                raise _explained(error, folder) from error
            raise

    def _arm(self) -> None:
        from watchdog import events, observers

        if observers.Observer.__name__ not in _NATIVE:  # type: ignore[attr-defined]  # it is a class
            raise StorageIOError("watch folder", self._folder, "this system has no native way that watchdog knows")
        news = [events.FileModifiedEvent, events.FileCreatedEvent, events.FileMovedEvent, events.FileDeletedEvent]
        self._observer = observers.Observer()
        handler = cast("FileSystemEventHandler", self._news)
        # inotify does not follow a link, and would watch the link itself
        self._observer.schedule(handler, os.path.realpath(self._folder), event_filter=list(news))
        self._threads = tuple(_threads(self._observer))
        self._observer.start()

    def is_alive(self) -> bool:
        """Whether it would still notice: its threads live, and the folder at the path is the one that is watched."""
        if self._handle is None or not all(thread.is_alive() for thread in self._threads):
            return False
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._folder))
        except OSError:
            return False

    def close(self) -> None:
        """Stop noticing. Waits up to two seconds for watchdog's threads to end; raises nothing."""
        observer, self._observer = self._observer, None
        if observer is not None:
            self._stop(observer)
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _stop(self, observer: BaseObserver) -> None:
        """Stop watchdog in a thread of its own: it joins its threads without a limit of time."""
        stopper = threading.Thread(target=_stop_quietly, args=(observer, self._threads), daemon=True)
        try:
            stopper.start()
        except RuntimeError:  # no more threads
            _stop_quietly(observer, self._threads)
        else:
            stopper.join(_CLOSE_S)
            if stopper.is_alive():
                logger.warning("a watch of %s does not end; it is left behind", self._folder)


class _FirstNews:
    """What watchdog calls a handler."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify: Callable[[], None] | None = notify

    def dispatch(self, event: FileSystemEvent) -> None:
        """Notify, if it is the first event that is news."""
        names = (os.fsdecode(path) for path in (event.src_path, event.dest_path) if path)
        if self._notify is not None and not all(name.endswith(_NO_NEWS) for name in names):
            notify, self._notify = self._notify, None
            notify()


def _open(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise explain_os_error(error, "watch folder", folder) from error


def _threads(observer: BaseObserver) -> Iterator[threading.Thread]:
    """All that must live: the observer, its emitters, and what reads the kernel's events, which has no public name."""
    yield observer
    yield from observer.emitters
    yield from (value for value in vars(observer).values() if isinstance(value, threading.Thread))


def _explained(error: OSError | RuntimeError, folder: Path) -> StorageError:
    if isinstance(error, RuntimeError):
        return StorageIOError("watch folder", folder, str(error))
    if error.errno in _LIMITS:
        return StorageIOError("watch folder", folder, _LIMITS[error.errno])
    return explain_os_error(error, "watch folder", folder)


def _stop_quietly(observer: BaseObserver, threads: tuple[threading.Thread, ...]) -> None:
    """End an observer; watchdog logs an error where events are still to come, as they are after a notice."""
    idents = {thread.ident for thread in threads}
    of_watchdog = logging.getLogger("watchdog.observers.inotify")

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread not in idents

    of_watchdog.addFilter(is_of_others)
    try:
        observer.stop()
        if observer.ident is not None:  # it was started
            observer.join()
    except Exception:
        logger.warning("a watch ended with an error", exc_info=True)
    finally:
        of_watchdog.removeFilter(is_of_others)
