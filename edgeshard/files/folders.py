"""Make folders, and make the names in them survive a power cut."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
from pathlib import Path

from edgeshard.errors import StorageIOError
from edgeshard.files import modes
from edgeshard.files.os_errors import explain_os_error
from edgeshard.log_fields import fields

logger = logging.getLogger("edgeshard.files")

#: File systems that several machines may share: locks and shared memory may not reach all users of a file.
_REMOTE = frozenset(
    ("9p", "afs", "ceph", "cifs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs")
)

#: The types of file systems that a user-space program serves begin with this. They may be remote as well.
_SERVED = "fuse."

_MOUNTS = Path("/proc/self/mountinfo")


def make_folder(path: Path, store: Path | None = None) -> None:
    """Make a folder and those above it, unless they exist, and make their names durable. For their modes see `modes`.

    Logs a warning, once for each file system, if the file system may be on a network.

    Args:
        path: the folder.
        store: the store's folder that it is in; None if it is that folder itself, or in none.

    Raises:
        AccessError: permission denied.
        StorageIOError: the path is not a folder, or the file system failed.
    """
    try:
        if not path.is_dir():
            _make_missing(path, store)
            if not path.is_dir():
                raise StorageIOError("make folder", path, "something else has this name; choose another path")
        _warn_if_remote(path.stat().st_dev)
    except OSError as error:
        raise explain_os_error(error, "make folder", path) from error


def _make_missing(path: Path, store: Path | None) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if missing:
        sync_path(missing[-1].parent, None)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            modes.create_folder(folder, in_store=store is not None and store in folder.parents)
        sync_folder(folder.parent)


@functools.cache
def _warn_if_remote(device: int) -> None:
    type_, mount = _file_system(device)
    if type_ in _REMOTE or type_.startswith(_SERVED):
        text = (
            "%s is a file system of type %s: if other machines use it too, its locks and shared memory do not keep "
            "them apart, and SQLite databases on it may get damaged. Keep a store on a local disk"
        )
        logger.warning(text, mount, type_, extra=fields(file=mount))


def _file_system(device: int) -> tuple[str, str]:
    """Return the type and mount point of the file system with this device number, or two empty strings if unknown."""
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
    """Make the names in a folder, and its own name, survive a power cut.

    A process that makes a folder makes its name durable. But it may not have done so yet, or have died before. So a
    process that relies on the folder does it again.

    Args:
        folder: the folder.
        levels: how many folders to sync, from this one upwards; None: all.
    """
    device = os.stat(folder).st_dev
    for each in itertools.islice((Path(folder), *Path(folder).parents), levels):
        if os.stat(each).st_dev != device:  # the mount point existed before
            return
        try:
            sync_folder(each)
        except PermissionError:  # edgeshard makes no folder in one that it cannot read
            return
