"""Tell whether a folder is a store. If it is not, say what it is, and which store was probably meant.

A store is a folder with a folder ``shards`` or a ``master.db`` in it. Reading and merging need one: a mistyped path
must not become a store of its own, in which all seems well. Nothing here creates or opens a file.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from edgeshard.errors import ConfigurationError
from edgeshard.files import paths
from edgeshard.files.os_errors import explain_os_error

_ACTION: Final = "open store"

#: Entries of a folder that are examined to find out what was meant.
_ENTRIES_MAX: Final = 2_000

#: Stores, or files, that an error names.
_NAMED_MAX: Final = 3

#: What `stat` says if a name leads to nothing.
_NOTHING: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


@attrs.frozen
class Finding:
    """What a path that is not a store leads to.

    Attributes:
        root: the path with symbolic links resolved.
        given: the path as the user gave it, absolute.
        kind: "nothing", "file", "other" (a device, a socket, a FIFO), "folder"; or "dangling" or "loop", if the path is
            a symbolic link that leads nowhere.
        names: what is in the folder, as far as it can be read.
        missing: the first folder on the way to it that does not exist, or None.
        owner: the store that it is a part of, or None.
        meant: the stores that were probably meant, the best guess first.
    """

    root: Path
    given: Path
    kind: str
    names: tuple[str, ...] = ()
    missing: Path | None = None
    owner: Path | None = None
    meant: tuple[Path, ...] = ()

    @property
    def path(self) -> Path:
        """The path to name in an error."""
        return self.given if self.kind in ("dangling", "loop") else self.root

    @property
    def databases(self) -> list[str]:
        """The names of the files in the folder that could be databases."""
        return sorted(name for name in self.names if name.endswith(paths.SHARD))


def is_store(root: Path) -> bool:
    """Return whether the folder is a store.

    Raises:
        AccessError, StorageIOError: it cannot be determined.
    """
    try:
        return _is_store(root)
    except OSError as error:
        raise explain_os_error(error, _ACTION, root) from error


def ensure_is_store(root: Path, given: Path) -> None:
    """Refuse a path that is not a store.

    Args:
        root: the folder, with symbolic links resolved.
        given: the same path as the user gave it, absolute.

    Raises:
        ConfigurationError: it is not a store; the cause says what it is, and what was probably meant.
        AccessError, StorageIOError: it cannot be determined.
    """
    if not is_store(root):
        found = _examine(root, given)
        raise ConfigurationError(_ACTION, found.path, ". ".join(filter(None, (describe(found), advise(found)))))


def ensure_can_become_store(root: Path, given: Path) -> None:
    """Refuse to make a store where none can be, or where nobody can want one.

    Raises:
        ConfigurationError: the path is something else than a folder, leads nowhere, or is a part of a store.
        AccessError, StorageIOError: it cannot be determined.
    """
    found = _examine(root, given)
    if found.owner is not None or found.kind not in ("folder", "nothing"):
        raise ConfigurationError("make store", found.path, f"{describe(found)}. Choose another path")


def resolve_shards(root: Path) -> Path:
    """Return the folder of a store's shards, with symbolic links resolved; it need not exist.

    Raises:
        ConfigurationError: it is a symbolic link that leads nowhere, or back to itself. Without this, its shards would
            seem to be gone.
    """
    folder = paths.shards(root)
    real = Path(os.path.realpath(folder))
    if os.path.islink(folder) and not os.path.exists(folder):
        found = Finding(real, folder, "loop" if _is_loop(folder) else "dangling")
        raise ConfigurationError("read folder", folder, describe(found))
    return real


# -- the error --------------------------------------------------------------------------------------------------------


def describe(found: Finding) -> str:
    """Say what is there instead of a store."""
    if found.kind == "dangling":
        return (
            f"it is a symbolic link to {found.root}, which does not exist. Mount the disk that has it, or correct the "
            "link"
        )
    if found.kind == "loop":
        command = f"ln -sfn FOLDER {shlex.quote(str(found.given))}"
        return f"it is a symbolic link that leads back to itself; correct it (`{command}`)"
    if found.owner is not None:
        is_part = "it does not exist, and would be" if found.kind == "nothing" else "it is"
        return f"{is_part} {_part(found, found.owner)} of the store {found.owner}"
    if found.kind == "nothing":
        if found.missing in (None, found.root):
            return "there is no such folder"
        return f"there is no such folder: {found.missing} does not exist"
    if found.kind != "folder":
        return "it is a file, and a store is a folder" if found.kind == "file" else "it is not a folder"
    if not found.names:
        return "it is an empty folder, and not a store. If a disk belongs there, it is not mounted"
    has = f", but databases: {_listed(found.databases)}" if found.databases else ""
    return f"it is not a store: it has no folder shards and no master.db{has}"


def _part(found: Finding, owner: Path) -> str:
    if paths.master(owner) in (found.root, found.given):
        return "the master"
    if paths.shards(owner) in (found.root, found.given):
        return "the folder of the shards"
    return "a shard" if found.root.name.endswith(paths.SHARD) else "in the folder of the shards"


def advise(found: Finding) -> str:
    """Say what to do instead, which store was probably meant, or how to make one; "" if `describe` says it."""
    if found.kind in ("dangling", "loop"):
        return ""
    if found.owner is not None:
        return f"Give the store's folder: {found.owner}"
    path = shlex.quote(str(found.root))
    advice = [f"Did you mean {_listed(map(str, found.meant), ' or ')}?"] if found.meant else []
    if found.kind == "other":
        advice.append("Give the folder of a store")
    elif found.kind == "file" or found.databases:
        file = path if found.kind == "file" else shlex.quote(str(found.root / found.databases[0]))
        advice.append(
            f"To merge what is there into a store, name each database as a source: {file} (Store.merge, "
            "`edgeshard merge`)"
        )
    else:
        advice.append(
            "An agent makes a store with its first write; to make one before that, use "
            f"Store.init (`edgeshard init {path}`)"
        )
    return " ".join(advice)


def _listed(items: Iterable[str], joint: str = ", ") -> str:
    listed = list(items)
    return joint.join(listed[:_NAMED_MAX]) + (", ..." if len(listed) > _NAMED_MAX else "")


# -- the file system --------------------------------------------------------------------------------------------------


def _is_store(root: Path) -> bool:
    mode = _mode(root)
    if mode is None or not stat.S_ISDIR(mode):
        return False
    shards = _mode(paths.shards(root), follow=False)
    if shards is not None and (stat.S_ISDIR(shards) or stat.S_ISLNK(shards)):
        return True
    master = paths.master(root)
    # a WAL without its database has rows, and a link is for whoever opens the master to judge
    return any(_mode(Path(path), follow=False) is not None for path in (master, paths.wal(master)))


def _examine(root: Path, given: Path) -> Finding:
    try:
        mode = _mode(root)
        is_link = mode is None and stat.S_ISLNK(_mode(given, follow=False) or 0)
        if is_link:
            return Finding(root, given, "loop" if _is_loop(given) else "dangling")
        names = tuple(_names(root)) if mode is not None and stat.S_ISDIR(mode) else ()
        missing = next((path for path in reversed((root, *root.parents)) if _mode(path) is None), None)
        return Finding(
            root, given, _kind(mode), names, missing, _owner(root, given), tuple(_meant(root, missing or root, names))
        )
    except OSError as error:
        raise explain_os_error(error, _ACTION, root) from error


def _kind(mode: int | None) -> str:
    if mode is None:
        return "nothing"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"


def _is_loop(link: Path) -> bool:
    try:
        os.stat(link)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _owner(root: Path, given: Path) -> Path | None:
    """Return the store whose master the path is, or whose folder of shards it is or leads through."""
    for path in dict.fromkeys((given, root)):
        for parent in path.parents:
            if (path.is_relative_to(paths.shards(parent)) or path == paths.master(parent)) and _is_store(parent):
                return Path(os.path.realpath(parent))
    return None


def _meant(root: Path, near: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield the stores that were probably meant: with nearly the same path, around it, or in the folder.

    Args:
        root: the path.
        near: the part of it to compare with the names that are there.
        names: what is in the folder.
    """
    import difflib  # for errors only

    others = {name.lower(): name for name in _names(near.parent) if name != near.name}
    close = [others[name] for name in difflib.get_close_matches(near.name.lower(), others, n=5)]
    candidates = (
        *(near.parent / name / root.relative_to(near) for name in close),
        near.parent,
        *(root / name for name in sorted(names)),
    )
    found = 0
    for path in candidates:
        with contextlib.suppress(OSError):  # a folder that we may not enter is not suggested
            if _is_store(path):
                yield path
                found += 1
        if found > _NAMED_MAX:
            return


def _names(folder: Path) -> Iterator[str]:
    """Yield the names in a folder as far as it can be read: they only serve to guess what was meant."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from (entry.name for entry in itertools.islice(entries, _ENTRIES_MAX))


def _mode(path: Path, *, follow: bool = True) -> int | None:
    """Return the mode of what has this name, or None if there is nothing."""
    try:
        return os.stat(path, follow_symlinks=follow).st_mode
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise
