"""Measure how much of the disk a store uses, and keep its budget in ``budget.json`` for every process that opens it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from edgeshard.budget import policy, quotas
from edgeshard.budget.policy import Budget, Usage
from edgeshard.budget.quotas import Granted
from edgeshard.errors import ConfigurationError
from edgeshard.files import atomic_file, folders, locks, modes, paths
from edgeshard.files.os_errors import explain_os_error


def measure(root: Path, *, without: str | None = None, sizes_only: bool = False) -> Usage:
    """Measure what the store takes, by the sizes of its files. A file that comes or goes meanwhile may count or not.

    All files in the store's folder and in its folder of shards count, except for old masters that were kept aside
    (``master.db.*``).

    Args:
        root: the store's folder.
        without: the owner of a shard that does not count, or `quotas.MERGER`, whose step does not count.
        sizes_only: whether to assume that no open shard has more than the least quota.

    Raises:
        AccessError, StorageIOError: the folder cannot be read.
    """
    shards = paths.shards(root)
    try:
        granted = quotas.load(root)
        usage = _measure_root(root)
        merger = granted.get(quotas.owner_key(quotas.MERGER))
        if merger is not None and without != quotas.MERGER and locks.is_locked(paths.merge_lock(root)):
            usage = attrs.evolve(usage, merging=merger.total_bytes)
        usage = _measure_shards(usage, shards, granted, without, sizes_only=sizes_only)
        return attrs.evolve(usage, free=min(_free_bytes(path) for path in (root, shards)))
    except OSError as error:
        raise explain_os_error(error, "measure store", root) from error


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the names and sizes of a folder's files; of one with several names, all but one have no size."""
    linked: set[int] = set()
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if not entry.is_dir(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    yield entry.name, 0 if found.st_ino in linked else found.st_size
                    if found.st_nlink > 1:
                        linked.add(found.st_ino)


def _measure_root(root: Path) -> Usage:
    name = paths.master(root).name
    master_files = {name, *(name + suffix for suffix in paths.SIDE_FILES)}
    master = reserve = other = 0
    for found, size in _sizes(root):
        if found in master_files or paths.is_unfinished(found, name):
            master += size
        elif found == paths.reserve(root).name:
            reserve += size
        elif not paths.is_replaced_master(found) and not found.startswith(f"{name}."):
            other += size
    return Usage(master=master, reserve=reserve, other=other)


def _measure_shards(
    usage: Usage, folder: Path, granted: Mapping[int, Granted], without: str | None, *, sizes_only: bool
) -> Usage:
    databases: dict[str, int] = {}
    sides: dict[str, int] = {}
    for name, size in _sizes(folder):
        stem, _, ending = name.partition(".")
        files = databases if f".{ending}" == paths.SHARD else sides
        files[stem] = files.get(stem, 0) + size
    shards = promised = open_ = largest = 0
    noted, weight = quotas.largest_transaction(granted), quotas.transaction_weight(granted)
    for stem in databases.keys() | sides.keys() | ({without} if without else set()):
        file, side = databases.get(stem, 0), sides.get(stem, 0)
        quota = granted.get(quotas.owner_key(stem)) if granted else None
        is_open = quota is not None and (not quota.is_held or _is_locked(folder, stem))
        # no shard holds a transaction that is larger than its files, or its quota as long as it is not committed
        is_in_transaction = quota is not None and is_open and quota.is_held and stem != without
        counted = quota.total_bytes if quota and is_in_transaction else int((file + side) * weight)
        largest = max(largest, min(noted, counted))
        if stem == without:
            continue
        open_ += is_open
        taken = policy.shard_bytes(file, 0, 0) - policy.SHM_BYTES + side
        if quota is not None and is_open:
            is_current = quota.is_current and not sizes_only
            taken = max(taken, quota.total_bytes if is_current else 0, policy.LEAST_SHARD_BYTES)
        shards += file + side
        promised += taken - file - side
    wanted = quotas.wanted_transaction(granted)
    return attrs.evolve(usage, shards=shards, promised=promised, open=open_, largest=largest, wanted=wanted)


def _is_locked(folder: Path, stem: str) -> bool:
    return locks.is_locked(paths.shard_lock(folder, stem))


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
