"""A look at ``shards/``: which files could be shards, and which of them changed since they were last known.

Nothing here opens a file: see files. A look at what did not change costs one stat a shard.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from edgeshard.files import paths
from edgeshard.files.os_errors import explain_os_error

#: What changes whenever a file or its log does: inode, size, times of the file; inode, size, time of its log, if any.
State = tuple[int, ...]

#: A file changed this recently may change again without its times showing it (2 s is FAT's resolution).
FRESH_S = 3.0

#: Each name has a log of its own, and a database that is written beside two logs is damaged.
_DOUBLED = "another name in the folder stands for the same file (a hard link); remove one of them"

_SIDE_FILES = ("-wal", "-shm", "-journal")

_FILE_FIELDS = 4


@attrs.frozen
class ShardFile:
    """A file that could be a shard.

    Attributes:
        path: the file.
        state: what changes whenever it does, and otherwise does not; () where that cannot be told.
        problem: why it cannot be a shard, or "".
    """

    path: str
    state: State
    problem: str = ""

    @property
    def name(self) -> str:
        """The file's name in its folder."""
        return os.path.basename(self.path)

    @property
    def file_bytes(self) -> int:
        """The size of the file without its log; 0 where it cannot be a shard."""
        return self.state[1] if self.state else 0

    @property
    def log_bytes(self) -> int:
        """The size of its log."""
        return self.state[_FILE_FIELDS + 1] if len(self.state) > _FILE_FIELDS else 0


@attrs.frozen
class ScanResult:
    """What a look at the folder found.

    Attributes:
        changed: the files that are not as they were known to be, by name.
        names: the names of all, as they can be shown.
        locks: the stems of the lock files that stand beside no shard.
        half_made: the files of openings that did not come to an end, or have not yet.
    """

    changed: tuple[ShardFile, ...]
    names: frozenset[str]
    locks: frozenset[str]
    half_made: frozenset[str]


@attrs.frozen
class _Entry:
    """A name that a shard could have, and the inodes that are listed under it and its log's name.

    Attributes:
        is_doubled: whether another name of a shard stands for the same file.
    """

    name: str
    path: str
    inode: int | None
    log_inode: int | None
    is_doubled: bool


@attrs.frozen
class _Listing:
    """The names in a folder, and the state of the folder in which they were read; None: read it again."""

    folder: tuple[int, ...] | None
    all: frozenset[str]
    entries: tuple[_Entry, ...]
    names: frozenset[str]
    locks: frozenset[str]
    half_made: frozenset[str]


class Folder:
    """The folder of the shards, looked at again and again.

    Attributes:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listing: _Listing | None = None

    def look(self, known: Mapping[str, State] | None = None) -> ScanResult:
        """Find the shards, and which of them changed.

        Args:
            known: the state in which each file, by name, was last known.

        Raises:
            AccessError, StorageIOError: the folder, or a file in it, cannot be looked at.
        """
        known = known or {}
        listing = self._list()
        changed = []
        for entry in listing.entries:
            if entry.is_doubled:
                changed.append(ShardFile(printable(entry.path), (), _DOUBLED))
                continue
            state = known.get(entry.name)
            if state is not None and _is_as_known(entry, state):
                continue
            found = _look(entry.path, {suffix for suffix in _SIDE_FILES if entry.name + suffix in listing.all})
            if found is not None and (found.problem or found.state != state):
                changed.append(found)
        changed.sort(key=lambda file: file.path)
        return ScanResult(tuple(changed), listing.names, listing.locks, listing.half_made)

    def _list(self) -> _Listing:
        """The names in the folder; read anew only where the folder's time says that they may have changed."""
        before = _stat(str(self.path))
        now = None if before is None else (before.st_dev, before.st_ino, before.st_mtime_ns, before.st_ctime_ns)
        if self._listing is None or now is None or self._listing.folder != now:
            # a name may come or go in the very moment of the folder's time
            settled = now is not None and max(now[2:]) < time.time_ns() - int(FRESH_S * 1e9)
            self._listing = self._read(now if settled else None)
        return self._listing

    def _read(self, folder: tuple[int, ...] | None) -> _Listing:
        try:
            inodes = {entry.name: entry.inode() for entry in os.scandir(self.path)}
        except FileNotFoundError:
            inodes = {}
        except OSError as error:
            raise explain_os_error(error, "read folder", self.path) from error
        # a log without its database shows under the name that the database would have
        names = {name.removesuffix("-wal") for name in inodes if name.endswith((".db", ".db-wal"))}
        prefix = f"{self.path}{os.sep}"
        files_named = Counter(inodes[name] for name in names if name in inodes)
        entries = (
            _Entry(name, prefix + name, inode, inodes.get(name + "-wal"), files_named[inode] > 1 if inode else False)
            for name in names
            for inode in (inodes.get(name),)
        )
        locks = {name.removesuffix(".lock") for name in inodes if name.endswith(".lock")}
        return _Listing(
            folder,
            frozenset(inodes),
            tuple(entries),
            frozenset(map(printable, names)),
            frozenset(stem for stem in locks if f"{stem}.db" not in names),
            frozenset(filter(paths.HALF_MADE.fullmatch, inodes)),
        )


def _is_as_known(entry: _Entry, state: State) -> bool:
    """Whether a shard is as it was, by one stat: each commit of a shard with a log changes the log."""
    try:
        if entry.log_inode is None:
            found = os.lstat(entry.path)
            return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) == state
        found = os.lstat(entry.path + "-wal")
    except OSError:  # what is wrong is found by looking at it from all sides
        return False
    log = (found.st_ino, found.st_size, found.st_mtime_ns)
    return (entry.inode, *log) == (*state[:1], *state[_FILE_FIELDS:])


def shard_files(path: Path) -> Iterable[ShardFile]:
    """All that could be a shard, by name.

    Raises:
        AccessError, StorageIOError: the folder cannot be read.
    """
    return Folder(path).look().changed


def find_database(path: str) -> ShardFile | None:
    """What is at `path`, without opening it; None where there is nothing, and no log of it either."""
    return _look(path, {suffix for suffix in _SIDE_FILES if os.path.lexists(path + suffix)})


def _look(path: str, present: set[str]) -> ShardFile | None:
    found = _stat(path)
    sides = {suffix: side for suffix in sorted(present) if (side := _stat(path + suffix)) is not None}
    log = sides.get("-wal")
    log = None if log is not None and stat.S_ISREG(log.st_mode) and log.st_size == 0 else log
    if found is None:
        # SQLite would delete it on making the database anew
        cause = "its database is missing, but its log (-wal) is there, with rows in it; bring the .db file back"
        return None if log is None else ShardFile(printable(path), (), cause)
    problem = _problem(path, found, sides)
    if problem:
        return ShardFile(printable(path), (), problem)
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    # not the log's ctime: SQLite, run by root, sets the log's owner each time it opens it
    return ShardFile(path, state if log is None else (*state, log.st_ino, log.st_size, log.st_mtime_ns))


def _problem(path: str, found: os.stat_result, sides: dict[str, os.stat_result]) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link, and those are not followed"
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    for suffix, side in sides.items():
        if not stat.S_ISREG(side.st_mode):
            return f"the file beside it with {suffix} to its name is not a regular file"  # SQLite would wait for a FIFO
    if found.st_size == 0:
        # SQLite deletes the log of an empty database when it opens it
        has_log = "-wal" in sides and sides["-wal"].st_size > 0
        return "it is empty (zero length)" + (", but its log (-wal) is not" if has_log else "")
    if printable(path) != path:
        return "its name is not valid UTF-8"
    return ""


def printable(path: str) -> str:
    """A path as text that can be shown, whatever bytes it has."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise explain_os_error(error, "look at", path) from error


def is_settled(state: State, now_ns: int | None = None) -> bool:
    """Whether a further change would show in this state: not while its times are those of this moment.

    The clock of a file system ticks every few milliseconds, or seconds. A change in the same tick as our look leaves
    the times as they were (git has the same question about its index).
    """
    changed = (*state[2:_FILE_FIELDS], *state[_FILE_FIELDS + 2 :])
    return bool(changed) and max(changed) < (time.time_ns() if now_ns is None else now_ns) - int(FRESH_S * 1e9)


def state_text(state: State) -> str:
    """A state as it is stored."""
    return " ".join(map(str, state))


def state_of(text: str) -> State:
    """The state that `state_text` made a text of; () of what it did not make."""
    try:
        return tuple(map(int, text.split()))
    except ValueError:
        return ()
