"""Say who may not do what with which file, and who may: the causes of errors about permissions."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard.files import paths

_ADVICE: Final = "share the store with a group that both users are in: `edgeshard help operating`, Permissions"


def is_read_only(path: str | os.PathLike[str]) -> bool:
    """Return whether the file system of a path is mounted read-only; False if that cannot be determined."""
    for each in (Path(path), *Path(path).absolute().parents):
        try:
            return bool(os.statvfs(each).f_flag & os.ST_RDONLY)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return False


def explain_read_only() -> str:
    """Return the cause of an error of a read-only medium."""
    return (
        "permission denied: its file system is a read-only medium. Remount it for writing (`mount -o remount,rw`; the "
        "kernel makes one read-only after an error of the disk, see dmesg), or read a snapshot or a bundle instead"
    )


def explain_denied(path: str | os.PathLike[str], named: str | os.PathLike[str] = "") -> str:
    """Return which file or folder on the way to `path` this user may not use, whose it is, and what to do.

    A database is denied if a file that SQLite keeps next to it is.

    Args:
        path: the file or folder.
        named: the path that the error names.
    """
    user = user_name(os.geteuid())
    for each, needed, verb in _needed(path):
        if not _may(each, needed):
            try:
                found = os.stat(each)
            except OSError:
                break  # it was removed, or it is in a folder that may not be entered
            owner, group = user_name(found.st_uid), _group_name(found.st_gid)
            mode = stat.S_IMODE(found.st_mode)
            what = "it" if each == os.fspath(named or path) else each
            return (
                f"permission denied: user {user} may not {verb} {what}, which belongs to user {owner} and group "
                f"{group} and has mode {mode:04o}. Run this as that user (`sudo -u {sudo_user(found.st_uid)} ...`), or "
                f"{_ADVICE}"
            )
    return (
        f"permission denied to user {user}, although the modes allow it: an access list, a security module, the sticky "
        "bit of its folder or an attribute forbids it (`getfacl`, `lsattr`, the system's log)"
    )


def is_denied(path: str | os.PathLike[str]) -> bool:
    """Return whether this user may not read and write a database, or not make files next to it."""
    return any(not _may(each, needed) for each, needed, _ in _needed(path))


def _needed(path: str | os.PathLike[str]) -> Iterator[tuple[str, int, str]]:
    """Yield what must be permitted to use a database or a file: a path, the bits for access(), and a verb."""
    absolute = Path(path).absolute()
    for folder in reversed(absolute.parents):
        yield str(folder), os.X_OK, "enter"
    for each in (os.fspath(path), *paths.side_files(path)):
        if os.path.isdir(each):
            yield each, os.R_OK | os.X_OK, "list"
        if os.path.lexists(each):
            yield each, os.R_OK, "read"
            yield each, os.W_OK, "write to"
    yield str(absolute.parent), os.W_OK, "create or remove files in"


def _may(path: str, needed: int) -> bool:
    return not os.path.lexists(path) or os.access(path, needed, effective_ids=True)


def user_name(uid: int) -> str:
    """Return a user's name, or the id if the user has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def sudo_user(uid: int) -> str:
    """Return a user as `sudo -u` takes it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
