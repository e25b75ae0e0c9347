"""Identify a file, and the boot of this machine, without opening it."""

from __future__ import annotations

import functools
import os
from pathlib import Path


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
