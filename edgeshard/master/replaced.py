"""Keep the file of a master that is about to be replaced, under a second name; see exchange/restore."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from edgeshard import sqlite
from edgeshard.files import atomic_file, fingerprint, folders, modes, paths


def keep(master: Path, kept: Path) -> None:
    """Give a master that nobody has open a second name, durably, and see to it that no side file has its first one.

    Args:
        master: the master.
        kept: its second name, which nobody uses.
    """
    folders.sync_folder(master.parent)  # the WAL may just have been removed
    if not atomic_file.link(master, kept):
        _copy(master, kept)
    folders.sync_folder(master.parent)
    move_side_files(master, kept)


def _copy(master: Path, kept: Path) -> None:
    """Copy the master's file, where there are no hard links, whole or not at all."""
    unfinished = paths.unfinished(str(paths.restored(master.parent)), secrets.token_hex(4))
    try:
        with open(modes.create_file(unfinished), "wb") as file:
            for chunk in sqlite.read_raw(str(master)):
                file.write(chunk)
        atomic_file.publish(unfinished, str(kept), replace=True)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)


def move_side_files(master: Path, kept: Path) -> bool:
    """Rename the WAL and the journal next to a master, durably; return whether there were any."""
    moved = False
    for suffix in paths.SIDE_FILES:
        path = f"{master}{suffix}"
        if not fingerprint.exists(path):
            continue
        if suffix == paths.SHM or not fingerprint.size(path):  # the first only indexes the WAL
            os.unlink(path)
        else:
            os.rename(path, f"{kept}{suffix}")
            moved = True
    folders.sync_folder(master.parent)
    return moved


def remove_second_names(master: Path) -> None:
    """Undo what a killed restore began: a database that is written under two names gets damaged.

    The caller holds ``merge.lock``, as a restore does.
    """
    try:
        found = os.lstat(master)
    except FileNotFoundError:
        return
    if found.st_nlink == 1:
        return
    for name in sorted(os.listdir(master.parent)):
        path = master.parent / name
        if not paths.is_replaced_master(name) or not os.path.samestat(os.lstat(path), found):
            continue
        for suffix in (paths.WAL, paths.JOURNAL):
            if fingerprint.exists(f"{path}{suffix}") and not fingerprint.exists(f"{master}{suffix}"):
                os.rename(f"{path}{suffix}", f"{master}{suffix}")
        folders.sync_folder(master.parent)
        os.unlink(path)
    folders.sync_folder(master.parent)
