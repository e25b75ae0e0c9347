"""The files of a store: what they are called, who may have them open, and what their errors mean.

    ROOT/shards/NAME.db       one agent's shard (with SQLite's -wal and -shm beside it)
    ROOT/shards/NAME.lock     held while a handle has that shard open
    ROOT/master.db            the merged rows
    ROOT/merge.lock           held while a merger works
    ROOT/watch.lock           held as long as a merger watches the store

Nothing here opens a database. A file that SQLite has open in this process must never be opened and closed by other
means: that drops the process's POSIX locks on it (https://sqlite.org/howtocorrupt.html, 2.2). So: stat only.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import itertools
import logging
import os
import re
from pathlib import Path

from filelock import FileLock, Timeout

from edgeshard.errors import AccessError, ConfigurationError, DiskFullError, StorageError, StorageIOError

logger = logging.getLogger("edgeshard.files")

AGENT_NAME_MAX = 200

#: File systems whose locks and shared memory are not those of one machine; and all that a program of its own serves.
_REMOTE = frozenset(
    ("9p", "afs", "ceph", "cifs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs")
)
_SERVED = "fuse."
_MOUNTS = Path("/proc/self/mountinfo")

#: What is left of a shard whose making was killed (see database.create), with the stem of the shard.
HALF_MADE = re.compile(r"(.+)\.db\.[0-9a-f]{8}\.new(?:-journal|-wal|-shm)?")

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# names that Windows gives to devices: a store may be carried there on a stick
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])")


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


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Which file has this name, by device and inode; None where there is none.

    Raises:
        OSError: nobody may tell us.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def size(path: str | os.PathLike[str]) -> int:
    """The size of a file, in bytes; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


@functools.cache
def boot_id() -> str:
    """Which start of this system it is; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, unless it exists, and make its name durable.

    Warns, once for each, of a file system that may be on a network.

    Raises:
        AccessError: not permitted.
        StorageIOError: something other than a folder has that name, or the file system failed.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        if missing:
            sync_path(missing[-1].parent, None)
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        if not path.is_dir():
            raise StorageIOError("make folder", path, "something that is not a folder has this name")
        _warn_where_remote(path.stat().st_dev)
    except OSError as error:
        raise explain_os_error(error, "make folder", path) from error


@functools.cache
def _warn_where_remote(device: int) -> None:
    kind, mount = _file_system(device)
    if kind in _REMOTE or kind.startswith(_SERVED):
        text = (
            "%s is a file system of type %s: where other machines have it, too, its locks and shared memory do not "
            "keep them apart, and SQLite's databases may be damaged. Keep a store on a disk of this machine"
        )
        logger.warning(text, mount, kind)


def _file_system(device: int) -> tuple[str, str]:
    """The type and the mount point of the file system with this device number; "" and "" where nobody says."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return "", ""
    for line in lines:  # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
        mounted, _, described = line.partition(" - ")
        fields = mounted.split()
        if described and len(fields) > 4 and fields[2] == number:
            return described.split()[0], fields[4]
    return "", ""


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_path(folder: str | os.PathLike[str], levels: int | None = 2) -> None:
    """Make the names in a folder, and its own, survive a power cut.

    Whoever makes a folder makes its name durable, but may be about to do that, or have died before: then it is up to
    whoever relies on it.

    Args:
        folder: the folder.
        levels: how many folders to sync, from this one upwards; None: all.
    """
    device = os.stat(folder).st_dev
    for each in itertools.islice((Path(folder), *Path(folder).parents), levels):
        if os.stat(each).st_dev != device:  # a mount point was there before us
            return
        try:
            sync_folder(each)
        except PermissionError:  # we make no folder in one that we cannot read
            return


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


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Whether somebody holds the lock file at `path`. Asks for a shared lock for an instant, and makes no file.

    Raises:
        AccessError, StorageIOError: nobody may tell us.
    """
    try:
        # not blocking: whoever opens a FIFO of this name would wait for its writer
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise explain_os_error(error, "look at lock", path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing it is not enough where a fork has copied it meanwhile
    except BlockingIOError:
        return True
    except OSError as error:
        raise explain_os_error(error, "look at lock", path) from error
    finally:
        os.close(handle)
    return False
