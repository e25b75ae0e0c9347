"""Tell whether a file may be written where a user says: a snapshot, a bundle, a page, metrics.

Nothing of a store is ever replaced, and nothing is put where a store keeps its own files, whatever option is given. In
the store's folder itself, a user may keep files under all other names. What exists must be a regular file. Nothing here
opens a file (see `paths`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgeshard.errors import ConfigurationError
from edgeshard.files import fingerprint, paths, store_folder


def resolve_target(target: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file to be made, with symbolic links resolved in its folder but not in its name."""
    return os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(target))), os.path.basename(target))


def ensure_free_for_user(target: str | os.PathLike[str], root: Path | None, action: str) -> None:
    """Refuse a path at which no file of a user's may be written, even to replace one.

    Args:
        target: the path as the user gave it.
        root: the store that the command is about, or None.
        action: what is being done, for errors.

    Raises:
        ConfigurationError: see `find_obstacle`.
        OSError, AccessError, StorageIOError: it cannot be determined.
    """
    cause = find_obstacle(target, root)
    if cause:
        raise ConfigurationError(action, resolve_target(target), cause)


def find_obstacle(target: str | os.PathLike[str], root: Path | None) -> str:
    """Return why no file of a user's may be written at a path, with what to do instead, or "" if it may.

    The folders on the way to it need not exist.

    Args:
        target: the path as the user gave it.
        root: the store that the command is about, or None. It is guarded even if it has neither shards nor a master.

    Raises:
        OSError, AccessError, StorageIOError: it cannot be determined.
    """
    path = resolve_target(target)
    if root is not None and fingerprint.mode(path) and _is_same(path, paths.master(root)):
        return "it is the master itself; choose another name"
    for spelling in dict.fromkeys((path, os.path.abspath(target))):
        cause = _part(Path(spelling), root)
        if cause:
            return cause
    neighbour = _database_next_to_it(path)
    if neighbour:
        return f"it belongs to the database {neighbour} next to it; choose another name"
    if path.endswith(paths.SHARD) and fingerprint.exists(path) and fingerprint.exists(paths.lock_path(path)):
        # the folder of another store's shards may be a symbolic link, and its own path does not show whose it is
        lock = os.path.basename(paths.lock_path(path))
        return f"it is a shard, whose lock {lock} is next to it; choose another name"
    return _kind(path)


def _kind(path: str) -> str:
    if not fingerprint.exists(path):
        return ""
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(fingerprint.mode(path)):
        return "it is a folder; name a file in it"
    if stat.S_ISLNK(mode):
        return "it is a symbolic link, which is not replaced; name the file itself, or choose another name"
    if not stat.S_ISREG(mode):
        return "it is not a regular file, and is not replaced; choose another name"
    return ""


def _part(path: Path, root: Path | None) -> str:
    """Return in which part of a store a path is, or "".

    Upper and lower case are not told apart: a file system may fold them.
    """
    for folder in path.parents:
        first, *further = path.relative_to(folder).parts
        if paths.is_own_name(first) and (_is_root(folder, root) or store_folder.is_store(folder)):
            if not further:
                return f"in the store {folder}, edgeshard keeps something of its own under this name; choose another"
            return f"it is in the folder {first} of the store {folder}; choose a path outside of it"
        if root is not None and further and _is_same(folder / first, paths.shards(root)):
            return f"it is in the folder of the shards of the store {root}; choose a path outside of it"
    return ""


def _is_root(folder: Path, root: Path | None) -> bool:
    return root is not None and (folder == root or _is_same(folder, root))


def _is_same(path: str | os.PathLike[str], other: Path) -> bool:
    """Return whether both names lead to the same file or folder, by whatever links and mounts."""
    found = fingerprint.identity(path, follow_symlinks=True)
    return found is not None and found == fingerprint.identity(other, follow_symlinks=True)


def _database_next_to_it(path: str) -> str:
    """Return the name of the database whose WAL, journal or lock this path is, or ""."""
    return next((os.path.basename(name) for name in _databases_of(path) if fingerprint.exists(name)), "")


def _databases_of(path: str) -> Iterator[str]:
    for suffix in paths.SIDE_FILES:
        if path.endswith(suffix):
            yield path.removesuffix(suffix)
    if path.endswith(paths.LOCK):
        yield path.removesuffix(paths.LOCK) + paths.SHARD
