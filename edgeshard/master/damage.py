"""Remember that a master was found to be damaged, outside of it: in ``master-damaged.json``, next to it.

From then on nothing is written to that file: a merge leaves the rows in the shards, where they are safe. The note holds
for one file, which it names by its inode. It is removed once a check that is at least as deep as the one that
found the damage finds the file sound, and means nothing once another file has the master's name.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from edgeshard import sqlite
from edgeshard.errors import DamagedError
from edgeshard.files import atomic_file, fingerprint, modes, paths
from edgeshard.files.os_errors import explain_os_error

#: Findings that are recorded; `verify` lists all.
_FINDINGS_MAX = 3


@attrs.frozen
class Damage:
    """What is known about a damaged master.

    Attributes:
        inode: the inode of its file.
        found_at: when it was found, ISO 8601, UTC.
        is_deep: whether only a deep check finds it.
        findings: what was found, the first of it.
    """

    inode: int
    found_at: str
    is_deep: bool
    findings: tuple[str, ...]


def find(path: Path) -> Damage | None:
    """Return what is known about the damage of the file that is the master now, or None if nothing is.

    Raises:
        AccessError, StorageIOError: the note cannot be read.
    """
    note = paths.damage_note(path.parent)
    try:
        text = note.read_text()
        here = fingerprint.identity(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise explain_os_error(error, "read note", note) from error
    found = _parse(text)
    if here is None:
        return None
    if found is None:  # half a note says as much: it was written because of damage
        return Damage(here[1], "", True, ("its note cannot be read",))
    return found if found.inode == here[1] else None


def _parse(text: str) -> Damage | None:
    try:
        said: dict[str, Any] = json.loads(text)
        return Damage(
            int(said["inode"]), str(said["found_at"]), bool(said["is_deep"]), tuple(map(str, said["findings"]))
        )
    except (ValueError, TypeError, KeyError):
        return None


def ensure_not_known(path: Path, action: str) -> None:
    """Refuse to change a master that is known to be damaged.

    Raises:
        DamagedError: it is.
        AccessError, StorageIOError: it cannot be determined.
    """
    found = find(path)
    if found is not None:
        root = path.parent
        check = f"Store.verify({'deep=True' if found.is_deep else ''})"
        cause = (
            f"it is known to be damaged ({found.findings[0] if found.findings else 'no details'}); pending rows stay "
            "safe in the shards. Put a snapshot in its place with Store.restore (`edgeshard restore "
            f"{root} SNAPSHOT`); or, if it was repaired, check it with {check}"
        )
        raise DamagedError(action, path, cause)


def confirm(path: Path) -> list[str]:
    """Return what SQLite's quick check finds in the master; [] if it is sound, or cannot be read for another reason."""
    try:
        connection = sqlite.connect(str(path), writable=False)
        try:
            found = sqlite.fetch(connection, f"PRAGMA quick_check({_FINDINGS_MAX})")
            return [finding for (finding,) in found if finding != "ok"]
        finally:
            connection.close()
    except sqlite.DATA_ERRORS as error:
        return [str(error)] if sqlite.is_damage(error) else []


def record(path: Path, findings: Sequence[str], *, is_deep: bool = False) -> None:
    """Record durably that the file that is the master now is damaged.

    Args:
        path: the master.
        findings: what was found.
        is_deep: whether only a deep check finds it.

    Raises:
        AccessError, DiskFullError, StorageIOError: it cannot be recorded.
    """
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    note = paths.damage_note(path.parent)
    unfinished = paths.unfinished(str(note), secrets.token_hex(4))
    try:
        here = fingerprint.identity(path)
        if here is None:
            return
        with open(modes.create_file(unfinished), "w") as file:
            file.write(json.dumps(attrs.asdict(Damage(here[1], at, is_deep, tuple(findings[:_FINDINGS_MAX])))) + "\n")
        atomic_file.publish(unfinished, str(note), replace=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise explain_os_error(error, "record damage in", note) from error


def forget(path: Path, *, is_deep: bool) -> None:
    """Remove the note of a master that was found to be sound.

    Args:
        path: the master.
        is_deep: whether the check was a deep one; a shallow one does not disprove what only a deep one finds.

    Raises:
        AccessError, StorageIOError: it cannot be removed.
    """
    found = find(path)
    if found is not None and found.is_deep and not is_deep:
        return
    note = paths.damage_note(path.parent)
    try:
        os.unlink(note)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise explain_os_error(error, "remove note", note) from error
