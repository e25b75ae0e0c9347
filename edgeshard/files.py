"""The folder of a store: which files it has, what they are called, who may have them open.

    ROOT/shards/NAME.db       one agent's shard (with SQLite's -wal and -shm beside it)
    ROOT/shards/NAME.lock     held while a handle has that shard open
    ROOT/master.db            the merged rows
    ROOT/merge.lock           held while a merger works

Nothing here opens a database. A file that SQLite has open in this process must never be opened and closed by other
means: that drops the process's POSIX locks on it (https://sqlite.org/howtocorrupt.html, 2.2). So: stat only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
from filelock import FileLock, Timeout

from edgeshard.errors import AccessError, ConfigurationError, DiskFullError, StorageError, StorageIOError

AGENT_NAME_MAX = 200

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# names that Windows gives to devices: a store may be carried there on a stick
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")

_SIDE_FILES = ("-wal", "-shm", "-journal")

#: A file changed this recently may change again without its times showing it (2 s is FAT's resolution).
FRESH_S = 3.0


def shard_stem(agent: str) -> str:
    """The file name, without its ending, of an agent's shard.

    Short names of lower-case letters, digits, - and _ are used as they are. All others become a readable part, a ~
    that no plain name has, and a digest of the exact name, so that no two agents share a file even on a file system
    that folds case or normalises Unicode.

    Raises:
        ConfigurationError: the name is empty, longer than 200 characters, or not text that UTF-8 can hold.
    """
    if not isinstance(agent, str):
        raise ConfigurationError("open shard", "", f"an agent's name is a str, not {type(agent).__name__}")
    if not 1 <= len(agent) <= AGENT_NAME_MAX:
        raise ConfigurationError(
            "open shard", "", f"an agent's name has 1 to {AGENT_NAME_MAX} characters, not {len(agent)}"
        )
    if _PLAIN.fullmatch(agent) and not _DEVICES.fullmatch(agent):
        return agent
    try:
        digest = hashlib.sha256(agent.encode()).hexdigest()[:32]
    except UnicodeEncodeError as error:
        raise ConfigurationError("open shard", "", f"the agent's name {agent!r} is not valid Unicode text") from error
    readable = re.sub(r"[^a-z0-9]+", "-", agent.lower()).strip("-")[:32]
    return f"{readable}~{digest}"


def explain_os_error(error: OSError, action: str, path: str | os.PathLike[str]) -> StorageError:
    """Our error for one of the file system's."""
    cause = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessError(action, path, f"permission denied, or a read-only medium ({cause})")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(action, path, f"the disk is full ({cause})")
    if error.errno in (errno.ENOSYS, errno.ENOLCK):
        return StorageIOError(action, path, f"{cause}; edgeshard needs a file system with flock()")
    return StorageIOError(action, path, cause)


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, unless it exists, and make its name durable.

    Raises:
        AccessError: not permitted.
        StorageIOError: something other than a folder has that name, or the file system failed.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        if not path.is_dir():
            raise StorageIOError("make folder", path, "something that is not a folder has this name")
    except OSError as error:
        raise explain_os_error(error, "make folder", path) from error


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(path: Path, wait_s: float = 0.0) -> FileLock | None:
    """Take the lock file at `path`; None where somebody else holds it for `wait_s` seconds (-1: for ever).

    Raises:
        AccessError, StorageIOError: the lock file cannot be made or locked.
    """
    # the soft fallback would be a lock that outlives its holder's death; an object for each thread would be none
    held = FileLock(path, timeout=wait_s, fallback_to_soft=False, thread_local=False, mode=0o600)
    try:
        held.acquire(poll_interval=0.01)
    except Timeout:
        return None
    except OSError as error:
        raise explain_os_error(error, "lock", path) from error
    return held


@attrs.frozen
class ShardFile:
    """A file in ``shards/`` as one look at the folder found it.

    Attributes:
        path: the file.
        state: what changes whenever the file or its log does, and otherwise does not; "" where that cannot be told.
        problem: why it cannot be a shard, or "".
    """

    path: str
    state: str
    problem: str = ""

    @property
    def name(self) -> str:
        """The file's name in its folder."""
        return os.path.basename(self.path)


def shard_files(folder: Path) -> Iterator[ShardFile]:
    """All that could be a shard, by name. Costs two stat calls a file.

    Raises:
        AccessError, StorageIOError: the folder cannot be read.
    """
    try:
        names = {entry.name for entry in os.scandir(folder)}
    except FileNotFoundError:
        return
    except OSError as error:
        raise explain_os_error(error, "read folder", folder) from error
    # a log without its database shows under the name that the database would have
    stems = {name.removesuffix("-wal") for name in names if name.endswith((".db", ".db-wal"))}
    for name in sorted(stems):
        found = _look(os.path.join(folder, name), {suffix for suffix in _SIDE_FILES if name + suffix in names})
        if found is not None:
            yield found


def look(path: str) -> ShardFile | None:
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
        return None if log is None else ShardFile(_printable(path), "", cause)
    problem = _problem(path, found, sides)
    if problem:
        return ShardFile(_printable(path), "", problem)
    state = f"{_state_of(found)}:{found.st_ctime_ns}"
    # not the log's ctime: SQLite, run by root, sets the log's owner each time it opens it
    return ShardFile(path, state if log is None else f"{state} {_state_of(log)}")


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
    if _printable(path) != path:
        return "its name is not valid UTF-8"
    return ""


def _printable(path: str) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise explain_os_error(error, "look at", path) from error


def _state_of(found: os.stat_result) -> str:
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def is_settled(state: str, now_s: float | None = None) -> bool:
    """Whether a further change would show in this state: not while its times are those of this moment.

    The clock of a file system ticks every few milliseconds, or seconds. A change in the same tick as our look leaves
    the times as they were (git has the same question about its index).
    """
    now_ns = int((time.time() if now_s is None else now_s) * 1e9)
    changed = max((int(part) for item in state.split() for part in item.split(":")[2:]), default=now_ns)
    return changed < now_ns - int(FRESH_S * 1e9)
