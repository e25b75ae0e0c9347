"""Measure how much of the disk a store uses, and keep its budget in ``budget.json`` for every process that opens it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Final

import attrs

from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage
from edgeshard.errors import ConfigurationError
from edgeshard.files import atomic_file, fingerprint, folders, modes, paths
from edgeshard.files.os_errors import explain_os_error

#: If a WAL was written to within this time, its agent is at work, in seconds.
_ACTIVE_S: Final = 2.5

#: The endings of files in the folder of shards that count as shards; a WAL counts on its own.
_COUNTED: Final = (paths.SHARD, paths.SHM, paths.JOURNAL, paths.UNFINISHED)


def measure(root: Path) -> Usage:
    """Measure what the store uses, by the sizes of its files. A file that comes or goes meanwhile may count or not.

    Raises:
        AccessError, StorageIOError: the folder cannot be read.
    """
    shards = paths.shards(root)
    try:
        usage = _measure_shards(shards, time.time() - _ACTIVE_S)
        master = sum(map(fingerprint.size, [str(paths.master(root)), *paths.side_files(paths.master(root))]))
        free = min(_free_bytes(path) for path in (root, shards))
    except OSError as error:
        raise explain_os_error(error, "measure store", root) from error
    return attrs.evolve(usage, master=master, free=free)


def current_limit(root: Path) -> int | None:
    """Return what the store may use now, in bytes, or None if it has no budget.

    Raises:
        ConfigurationError: the recorded budget is invalid.
        AccessError, StorageIOError: the folder cannot be read.
    """
    budget = load_budget(root)
    return None if budget is None else policy.current_limit(budget, measure(root))


def _measure_shards(folder: Path, active_since_s: float) -> Usage:
    shards = wals = open_ = active = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            is_wal = entry.name.endswith(paths.WAL)
            if not is_wal and not entry.name.endswith(_COUNTED):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if is_wal:
                wals += found.st_size
                open_ += 1
                active += found.st_mtime > active_since_s
            else:
                shards += found.st_size
    return Usage(shards, wals, open=open_, active=active)


def _free_bytes(path: Path) -> int:
    try:
        found = os.statvfs(path)
    except FileNotFoundError:
        return 1 << 62
    return found.f_bavail * found.f_frsize


# -- budget.json ------------------------------------------------------------------------------------------------------


def load_budget(root: Path) -> Budget | None:
    """Return the store's budget, or None if it has none.

    Raises:
        ConfigurationError: the recorded budget is invalid.
        AccessError, StorageIOError: it cannot be read.
    """
    path = paths.budget(root)
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise explain_os_error(error, "read budget", path) from error
    except ValueError as error:
        raise ConfigurationError("read budget", path, f"it is not text: {error}. {_REPAIR}") from error
    try:
        return policy.parse_json(json.loads(text))
    except ValueError as error:
        raise ConfigurationError("read budget", path, f"{error}. {_REPAIR}") from error


_REPAIR: Final = "Set the budget again, or delete the file: then the store has no budget"


def save_budget(root: Path, budget: Budget) -> None:
    """Record the store's budget, in place of the one before.

    Raises:
        AccessError, DiskFullError, StorageIOError: it cannot be written.
    """
    path = paths.budget(root)
    with contextlib.suppress(ConfigurationError):  # an invalid file is overwritten
        if load_budget(root) == budget:
            return
    folders.make_folder(root)
    unfinished = paths.unfinished(str(path), secrets.token_hex(4))
    try:
        with open(modes.create_file(unfinished), "w") as file:
            file.write(json.dumps(attrs.asdict(budget)) + "\n")
        atomic_file.publish(unfinished, str(path), replace=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise explain_os_error(error, "save budget", path) from error
