"""Make folders, and make their entries survive a power cut."""

from __future__ import annotations

import functools
import itertools
import logging
import os
from pathlib import Path

from edgeshard.errors import StorageIOError
from edgeshard.files.os_errors import explain_os_error

logger = logging.getLogger("edgeshard.files")

#: File systems whose locks and shared memory are not those of one machine; and all that a program of its own serves.
_REMOTE = frozenset(
    ("9p", "afs", "ceph", "cifs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs", "virtiofs")
)

_SERVED = "fuse."

_MOUNTS = Path("/proc/self/mountinfo")


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
