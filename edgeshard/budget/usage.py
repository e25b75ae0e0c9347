"""What a store takes of the disk, measured; and its budget, noted in its folder for each process that opens it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from pathlib import Path

import attrs

from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage
from edgeshard.errors import ConfigurationError
from edgeshard.files import atomic_file, fingerprint, folders, paths
from edgeshard.files.os_errors import explain_os_error

#: A log that was written so lately says that its agent is at work, in seconds.
_ACTIVE_S = 2.5

#: What counts of a folder of shards, beside the logs.
_COUNTED = (paths.SHARD, paths.SHM, paths.JOURNAL, paths.UNFINISHED)


def measure(root: Path) -> Usage:
    """What the store takes, by the sizes of its files; a file that comes or goes meanwhile counts or not.

    Raises:
        AccessError, StorageIOError: the folder cannot be looked at.
    """
    shards = paths.shards(root)
    try:
        usage = _of_shards(shards, time.time() - _ACTIVE_S)
        master = sum(map(fingerprint.size, [str(paths.master(root)), *paths.side_files(paths.master(root))]))
        free = min(_free(path) for path in (root, shards))
    except OSError as error:
        raise explain_os_error(error, "measure store", root) from error
    return attrs.evolve(usage, master=master, free=free)


def limit(root: Path) -> int | None:
    """What the store may take now, in bytes; None: it has no budget.

    Raises:
        ConfigurationError: what is noted is no budget.
        AccessError, StorageIOError: the folder cannot be looked at.
    """
    known = load_budget(root)
    return None if known is None else policy.limit(known, measure(root))


def _of_shards(folder: Path, since_s: float) -> Usage:
    shards = logs = open_ = active = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            is_log = entry.name.endswith(paths.WAL)
            if not is_log and not entry.name.endswith(_COUNTED):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if is_log:
                logs += found.st_size
                open_ += 1
                active += found.st_mtime > since_s
            else:
                shards += found.st_size
    return Usage(shards, logs, open=open_, active=active)


def _free(path: Path) -> int:
    try:
        found = os.statvfs(path)
    except FileNotFoundError:
        return 1 << 62
    return found.f_bavail * found.f_frsize


# -- the note ---------------------------------------------------------------------------------------------------------


def load_budget(root: Path) -> Budget | None:
    """The budget that the store has; None where it has none.

    Raises:
        ConfigurationError: what is noted is no budget.
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
        raise ConfigurationError("read budget", path, f"it is no text: {error}") from error
    try:
        return policy.of_json(json.loads(text))
    except ValueError as error:
        cause = f"{error}. Give the budget anew, or delete the file: the store then has none"
        raise ConfigurationError("read budget", path, cause) from error


def save_budget(root: Path, wanted: Budget) -> None:
    """Give the store this budget from now on, in the place of another.

    Raises:
        AccessError, DiskFullError, StorageIOError: it cannot be written.
    """
    path = paths.budget(root)
    with contextlib.suppress(ConfigurationError):  # what is no budget is replaced
        if load_budget(root) == wanted:
            return
    folders.make_folder(root)
    made = paths.unfinished(str(path), secrets.token_hex(4))
    try:
        with open(made, "x") as file:
            file.write(json.dumps(attrs.asdict(wanted)) + "\n")
        atomic_file.publish(made, str(path), replace=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(made)
        raise explain_os_error(error, "note budget", path) from error
