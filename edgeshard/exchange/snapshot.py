"""Copy the live master into one file, which appears complete or not at all (see files/atomic_file).

Mergers may write while the copy is made. Their commits stay in the master's WAL until it is done. The copy is checked
before it gets its name, so that a bad one never takes the place of a good one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeshard import sqlite
from edgeshard.errors import DamagedError
from edgeshard.files import atomic_file, fingerprint, targets
from edgeshard.inspect import verify
from edgeshard.master import damage, database
from edgeshard.retention import by_hand

_ACTION: Final = "snapshot to"


def snapshot(
    master_path: Path,
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    check: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy the master into a file of its own; see `Store.snapshot`."""
    path = targets.resolve_target(target)
    with sqlite.translate_errors(_ACTION, path):
        replaces_unchecked = force and not check and fingerprint.exists(path)
    if replaces_unchecked:
        damage.ensure_not_known(master_path, "snapshot")
    if damage.find(master_path) is None:
        by_hand.settle_file(master_path)  # so that those who read the copy find no contradiction
    try:
        _copy(master_path, target, force=force, check=check, progress=progress)
    except _UnrecordedDeletionsError:
        by_hand.settle_file(master_path, thorough=True)
        _copy(master_path, target, force=force, check=check, progress=progress, is_settled=True)


class _UnrecordedDeletionsError(Exception):
    """Rows are gone that another program deleted, and the triggers noted nothing: only the check finds out."""


def _copy(
    master_path: Path,
    target: str | os.PathLike[str],
    *,
    force: bool,
    check: bool,
    progress: Callable[[int, int], None] | None,
    is_settled: bool = False,
) -> None:
    """Copy the master; without a check, or once it is settled, it may lack rows whose deletion nothing records.

    Raises:
        _UnrecordedDeletionsError: it does, and it was not settled before.
    """
    path = targets.resolve_target(target)
    connection = database.open_master(master_path, writable=False)
    try:
        with (
            sqlite.translate_errors(_ACTION, path),
            atomic_file.staged(target, master_path, _ACTION, force=force) as unfinished,
        ):
            try:
                sqlite.back_up(connection, unfinished, progress)
            except sqlite.DATA_ERRORS as error:
                if not sqlite.is_damage(error):
                    raise
                raise _refusal(master_path, path, str(error)) from error
            if check and _check(master_path, Path(unfinished), path) and not is_settled:
                raise _UnrecordedDeletionsError
    finally:
        connection.close()


def _check(master_path: Path, copy: Path, path: str) -> bool:
    """Refuse a copy in which a deep check finds errors; return whether it lacks rows whose deletion nothing records.

    Raises:
        DamagedError: there are some.
    """
    try:
        found = verify.find_errors(copy)
    except DamagedError as error:
        found = verify.Findings((error.cause,))
    if found.errors:
        raise _refusal(master_path, path, found.errors[0])
    return found.are_deletions_unrecorded


def _refusal(master_path: Path, path: str, finding: str) -> DamagedError:
    """Return the error for a bad copy, after finding out whether the master is at fault."""
    try:
        is_masters_fault = bool(verify.verify(master_path, deep=True).errors)
    except DamagedError:
        is_masters_fault = True
    if not is_masters_fault:
        cause = (
            f"the copy is damaged ({finding}), and the master is not; check the medium that it was written to. "
            "Nothing was created or replaced"
        )
        return DamagedError(_ACTION, path, cause)
    root = master_path.parent
    cause = (
        f"the master {master_path} is damaged ({finding}); nothing was created or replaced. Put the last good snapshot "
        f"in its place with Store.restore (`edgeshard restore {root} SNAPSHOT`). To copy the damaged master all the "
        "same, name a new file and leave out the check"
    )
    return DamagedError(_ACTION, path, cause)
