"""Find the files that could be shards; say which of them changed, and why one cannot be a database.

Nothing here opens a file (see paths). A file that did not change costs one `stat`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from edgeshard.files import fingerprint, paths
from edgeshard.files.fingerprint import State
from edgeshard.files.os_errors import explain_os_error

#: A file that changed this recently may change again without its times showing it, in seconds (2 s is the resolution
#: of FAT).
FRESH_S = 3.0

#: Each name has a WAL of its own, and a database that is written with two WALs gets damaged.
_HARD_LINKED = "another name in the folder stands for the same file (a hard link); remove one of them"


@attrs.frozen
class ShardFile:
    """A file that could be a shard.

    Attributes:
        path: the file.
        state: what changes whenever the file or its WAL does; () if it has a defect.
        defect: why it cannot be a shard, or "".
        name: the file's name in its folder.
    """

    path: str
    state: State
    defect: str = ""
    name: str = attrs.field(init=False)

    @name.default
    def _name_in_folder(self) -> str:
        return os.path.basename(self.path)

    @property
    def file_bytes(self) -> int:
        """The size of the file without its WAL; 0 if it has a defect."""
        return fingerprint.file_bytes(self.state)

    @property
    def wal_bytes(self) -> int:
        """The size of its WAL."""
        return fingerprint.wal_bytes(self.state)


@attrs.frozen
class ScanResult:
    """What a scan found in the folder.

    Attributes:
        changed: the files whose state differs from the known one, ordered by path.
        names: the names of all files that could be shards, printable.
        locks: the stems of lock files that have no shard.
        unfinished: the names of files that a shard's creation has left, or is still building.
    """

    changed: tuple[ShardFile, ...]
    names: frozenset[str]
    locks: frozenset[str]
    unfinished: frozenset[str]


@attrs.frozen
class _Entry:
    """A name that a shard could have, with the inodes of the file and of its WAL."""

    name: str
    path: str
    inode: int | None
    wal_inode: int | None
    is_hard_linked: bool


@attrs.frozen
class _Listing:
    """The names in a folder, and the state that the folder had when they were read; None: read it again."""

    folder: tuple[int, ...] | None
    all: frozenset[str]
    entries: tuple[_Entry, ...]
    names: frozenset[str]
    locks: frozenset[str]
    unfinished: frozenset[str]


class Folder:
    """The folder of shards, scanned again and again.

    Attributes:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listing: _Listing | None = None

    def scan(self, known: Mapping[str, State] | None = None) -> ScanResult:
        """Find the files that could be shards, and which of them changed.

        Args:
            known: the state that each file had when it was last examined, by name.

        Raises:
            AccessError, StorageIOError: the folder, or a file in it, cannot be examined.
        """
        known = known or {}
        listing = self._list()
        changed = []
        for entry in listing.entries:
            if entry.is_hard_linked:
                changed.append(ShardFile(printable(entry.path), (), _HARD_LINKED))
                continue
            state = known.get(entry.name)
            if state is not None and _is_unchanged(entry, state):
                continue
            side_files = [suffix for suffix in paths.SIDE_FILES if entry.name + suffix in listing.all]
            found = _examine(entry.path, side_files)
            if found is not None and (found.defect or found.state != state):
                changed.append(found)
        changed.sort(key=lambda file: file.path)
        return ScanResult(tuple(changed), listing.names, listing.locks, listing.unfinished)

    def _list(self) -> _Listing:
        """Return the names in the folder; read them again only if the folder's times say that they may have changed."""
        before = _stat(str(self.path))
        now = None if before is None else (before.st_dev, before.st_ino, before.st_mtime_ns, before.st_ctime_ns)
        if self._listing is None or now is None or self._listing.folder != now:
            # a name may still come or go in the same tick of the file system's clock
            settled = now is not None and _are_past(now[2:], time.time_ns())
            self._listing = self._read(now if settled else None)
        return self._listing

    def _read(self, folder: tuple[int, ...] | None) -> _Listing:
        try:
            inodes = {entry.name: entry.inode() for entry in os.scandir(self.path)}
        except FileNotFoundError:
            inodes = {}
        except OSError as error:
            raise explain_os_error(error, "read folder", self.path) from error
        # a WAL without its database is listed under the name that the database would have
        names = {
            name.removesuffix(paths.WAL) for name in inodes if name.endswith((paths.SHARD, paths.wal(paths.SHARD)))
        }
        prefix = f"{self.path}{os.sep}"
        names_of_inode = Counter(inodes[name] for name in names if name in inodes)
        entries = (
            _Entry(
                name, prefix + name, inode, inodes.get(paths.wal(name)), names_of_inode[inode] > 1 if inode else False
            )
            for name in names
            for inode in (inodes.get(name),)
        )
        locks = {name.removesuffix(paths.LOCK) for name in inodes if name.endswith(paths.LOCK)}
        return _Listing(
            folder,
            frozenset(inodes),
            tuple(entries),
            frozenset(map(printable, names)),
            frozenset(stem for stem in locks if f"{stem}{paths.SHARD}" not in names),
            frozenset(filter(paths.UNFINISHED_SHARD.fullmatch, inodes)),
        )


def _is_unchanged(entry: _Entry, state: State) -> bool:
    """Return whether a shard still has this state, by one `stat`: of its WAL, if any, which each commit changes."""
    try:
        if entry.wal_inode is None:
            return fingerprint.database_state(os.lstat(entry.path), None) == state
        wal = fingerprint.content_state(os.lstat(paths.wal(entry.path)))
    except OSError:  # a full examination finds out what is wrong
        return False
    return (entry.inode, *wal) == (*state[:1], *fingerprint.wal_state(state))


def shard_files(path: Path) -> Iterable[ShardFile]:
    """Return all files in a folder that could be shards, ordered by path.

    Raises:
        AccessError, StorageIOError: the folder cannot be read.
    """
    return Folder(path).scan().changed


def find_database(path: str) -> ShardFile | None:
    """Examine the file at `path` without opening it; return None if neither it nor a WAL of it exists."""
    return _examine(path, paths.SIDE_FILES)


def find_state(path: str) -> State:
    """Return the state of the file at `path` and of its WAL, without examining what could be wrong with them.

    It is () if there is no such file.

    Raises:
        AccessError, StorageIOError: they cannot be examined.
    """
    found = _stat(path)
    return () if found is None else fingerprint.database_state(found, _unless_empty(_stat(paths.wal(path))))


def _unless_empty(wal: os.stat_result | None) -> os.stat_result | None:
    return None if wal is not None and stat.S_ISREG(wal.st_mode) and wal.st_size == 0 else wal


def _examine(path: str, suffixes: Sequence[str]) -> ShardFile | None:
    """Examine a file and those of its side files that may be there."""
    found, sides = _look(path, suffixes)
    # side files alone count only if they are seen twice: another process may have made the database between the calls
    while found is None and sides:
        before = sides
        found, sides = _look(path, suffixes)
        if found is None and sides.keys() == before.keys():
            break
    wal = _unless_empty(sides.get(paths.WAL))
    if found is None:
        # SQLite would delete the WAL when it makes the database again, or replay it into one that is put there
        left = "WAL (-wal)" if wal is not None else "journal (-journal)" if _has_bytes(sides.get(paths.JOURNAL)) else ""
        cause = f"its database is missing, but its {left} is there, with rows in it; bring the .db file back"
        return ShardFile(printable(path), (), cause) if left else None
    defect = _defect(path, found, sides)
    if defect:
        return ShardFile(printable(path), (), defect)
    return ShardFile(path, fingerprint.database_state(found, wal))


def _look(path: str, suffixes: Sequence[str]) -> tuple[os.stat_result | None, dict[str, os.stat_result]]:
    """Return what is known of a file, and of its side files, as far as they are there."""
    found = _stat(path)
    return found, {suffix: side for suffix in suffixes if (side := _stat(path + suffix)) is not None}


def _has_bytes(found: os.stat_result | None) -> bool:
    return found is not None and found.st_size > 0


def _defect(path: str, found: os.stat_result, sides: dict[str, os.stat_result]) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link, and those are not followed"
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    for suffix, side in sides.items():
        if not stat.S_ISREG(side.st_mode):
            return f"its {suffix} file is not a regular file"  # a FIFO would block SQLite
    if found.st_size == 0:
        # SQLite deletes the WAL of an empty database when it opens it
        has_wal = paths.WAL in sides and sides[paths.WAL].st_size > 0
        return "it is empty (zero length)" + (", but its WAL (-wal) is not" if has_wal else "")
    if printable(path) != path:
        return "its name is not valid UTF-8"
    return ""


def printable(path: str) -> str:
    """Return a path as text that can be printed, whatever bytes it contains."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return None
        raise explain_os_error(error, "examine file", path) from error


def is_settled(state: State, now_ns: int) -> bool:
    """Return whether any further change would show in this state.

    The clock of a file system ticks every few milliseconds, or seconds. A change in the same tick as our `stat` leaves
    the times as they were. (Git has the same problem with its index.)
    """
    return _are_past(fingerprint.change_times(state), now_ns)


def _are_past(times: Sequence[int], now_ns: int) -> bool:
    """Return whether these times of changes are so far back that a change from now on would get another time."""
    return bool(times) and max(times) < now_ns - int(FRESH_S * 1e9)
