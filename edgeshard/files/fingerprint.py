"""Identify files, and tell whether they changed, without opening them.

A file's *identity* says which file has a name now. Its *state* changes whenever its content does.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

#: The state of a file: inode, size, modification time. Of a database in a folder of shards: also the change time of the
#: file, followed by the state of its WAL, if it has one that is not empty.
State = tuple[int, ...]

_FILE_FIELDS = 4


def identity(
    path: str | os.PathLike[str], *, follow_symlinks: bool = False, folder: int | None = None
) -> tuple[int, int] | None:
    """Return device and inode of the file that has this name, or None if there is none.

    Args:
        path: the file.
        follow_symlinks: whether to return those of the file that a symbolic link leads to.
        folder: a descriptor of the folder to which a relative path is relative; None: the working directory.

    Raises:
        OSError: it cannot be determined.
    """
    try:
        found = os.stat(path, dir_fd=folder) if follow_symlinks else os.lstat(path, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def identity_of_open(handle: int) -> tuple[int, int]:
    """Return device and inode of an open file."""
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


def exists(path: str | os.PathLike[str]) -> bool:
    """Return whether anything has this name, even a symbolic link that leads nowhere.

    Where something would be lost if a file were overlooked, use this and not `os.path.exists` or `os.path.lexists`,
    which take an error for "no".

    Raises:
        OSError: it cannot be determined.
    """
    return identity(path) is not None


def mode(path: str | os.PathLike[str]) -> int:
    """Return the type and the permissions of the file that has this name (`st_mode`), or 0 if there is none.

    Symbolic links are followed.

    Raises:
        OSError: they cannot be determined.
    """
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def size(path: str | os.PathLike[str]) -> int:
    """Return the size of a file in bytes, or 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def state(path: str | os.PathLike[str]) -> State | None:
    """Return the state of a file, or None if there is none. Symbolic links are followed.

    Raises:
        OSError: it cannot be determined.
    """
    try:
        return content_state(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def content_state(found: os.stat_result) -> State:
    """Return what changes whenever the content of a file does, or another file takes its name."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def database_state(found: os.stat_result, wal: os.stat_result | None) -> State:
    """Return what changes whenever a database does.

    Args:
        found: the file.
        wal: its WAL; None if there is none, or an empty one.
    """
    state = (*content_state(found), found.st_ctime_ns)
    # not the WAL's change time: as root, SQLite sets the owner of the WAL each time it opens it
    return state if wal is None else (*state, *content_state(wal))


def files(state: State) -> State:
    """Return the part of a database's state that stays the same while rows are appended to its WAL.

    It changes if another file takes the place of the database or of its WAL (the time of the database's change tells
    a file with the inode of a deleted one), and whenever a checkpoint copies the WAL.
    """
    return state[: _FILE_FIELDS + 1]


def file_bytes(state: State) -> int:
    """Return the size of the database file without its WAL; 0 if its state is unknown."""
    return state[1] if state else 0


def wal_bytes(state: State) -> int:
    """Return the size of the WAL in a database's state."""
    return state[_FILE_FIELDS + 1] if len(state) > _FILE_FIELDS else 0


def wal_state(state: State) -> State:
    """Return the part of a database's state that is its WAL's; () if it has none."""
    return state[_FILE_FIELDS:]


def change_times(state: State) -> State:
    """Return the times in a database's state, in nanoseconds since 1970."""
    return (*state[2:_FILE_FIELDS], *state[_FILE_FIELDS + 2 :])


def format_state(state: State) -> str:
    """Return a state as text, to be stored."""
    return " ".join(map(str, state))


def parse_state(text: str) -> State:
    """Return the state that `format_state` formatted, or () for any other text."""
    try:
        return tuple(map(int, text.split()))
    except ValueError:
        return ()


@functools.cache
def boot_id() -> str:
    """Return an id of this boot of the system, or "" if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
