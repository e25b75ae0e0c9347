"""Who may use what edgeshard makes: the store's owner, and the group that the owner shares the folder with.

Like the files that SQLite keeps next to a database, what we make takes the group of its folder, and the folder's
permissions for that group, whatever the umask is. So services with different uids can share a store in a folder of
their group (`chmod 2770`), and nobody else is let in by it: others never get anything, and a group only if what we make
really belongs to it.

A file that root makes in the folder of another user would lock that user out: one `sudo edgeshard merge` would stop the
store's own merger for good. So root gives what it makes to the owner of the folder. It does so by descriptor, and only
with files that it has just created, because a name may lead elsewhere by then. SQLite does the same for a WAL.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from edgeshard.errors import AccessError
from edgeshard.files import access

#: What the owner alone may use.
FILE: Final = 0o600
FOLDER: Final = 0o700


def file_mode(folder_mode: int, *, in_store: bool) -> int:
    """Return the mode of a file in a folder of this mode; see `_group_bits`."""
    return FILE | (_group_bits(folder_mode, in_store=in_store) & 0o060)


def folder_mode(parent_mode: int, *, in_store: bool) -> int:
    """Return the mode of a folder in a folder of this mode; see `_group_bits`.

    If a group may use it, it has the setgid bit, so that the files that SQLite makes in it get the group as well.
    """
    bits = _group_bits(parent_mode, in_store=in_store)
    return FOLDER | bits | (stat.S_ISGID if bits else 0)


def _group_bits(folder_mode: int, *, in_store: bool) -> int:
    """Return what a group may do with what is made in a folder of this mode.

    Args:
        folder_mode: the folder's mode.
        in_store: whether the folder belongs to a store. Any other must clearly be meant to be shared: it has the setgid
            bit, or the group may write to it. (Most folders let a group read them, without anybody's intention.)
    """
    if folder_mode & stat.S_IWOTH:  # it is everybody's, such as /tmp, and not a group's
        return 0
    if not in_store and not folder_mode & (stat.S_ISGID | stat.S_IWGRP):
        return 0
    return folder_mode & stat.S_IRWXG


def create_file(path: str | os.PathLike[str], *, in_store: bool = True) -> int:
    """Create a file with the permissions that its folder calls for, and return its descriptor.

    Args:
        path: the file.
        in_store: whether it is a file of a store, which belongs to the owner of its folder. Any other belongs to the
            user who makes it.

    Raises:
        FileExistsError: there is something with this name.
        AccessError: it would belong to root, and the folder to another user.
        OSError: it cannot be created.
    """
    folder = _folder_of(path)
    handle = os.open(
        path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, _first_mode(folder, in_store=in_store)
    )
    try:
        if in_store:
            _give_to_owner(handle, folder, path)
        _share(handle, folder, file_mode(folder.st_mode, in_store=in_store), FILE)
    except BaseException:
        os.close(handle)
        os.unlink(path)
        raise
    return handle


def first_mode(path: str | os.PathLike[str]) -> int:
    """Return the mode with which a program that takes one may create a file of a store."""
    return _first_mode(_folder_of(path), in_store=True)


def _first_mode(folder: os.stat_result, *, in_store: bool) -> int:
    """Return the mode with which to create a file: the final one if the file gets the folder's group by itself."""
    return file_mode(folder.st_mode, in_store=in_store) if _gives_group(folder) else FILE


def _gives_group(folder: os.stat_result) -> bool:
    """Return whether what this process makes in a folder gets the folder's group by itself."""
    return bool(folder.st_mode & stat.S_ISGID) or folder.st_gid == os.getegid()


def _folder_of(path: str | os.PathLike[str]) -> os.stat_result:
    return os.stat(os.path.dirname(os.path.abspath(path)))


def create_folder(path: str | os.PathLike[str], *, in_store: bool) -> None:
    """Create a folder with the permissions that its parent calls for.

    Args:
        path: the folder.
        in_store: whether the parent belongs to the store, too.

    Raises:
        FileExistsError, AccessError, OSError: see `create_file`.
    """
    _create_folder(path, lambda parent_mode: folder_mode(parent_mode, in_store=in_store))


def create_private_folder(path: str | os.PathLike[str]) -> None:
    """Create a folder that no group may use; for errors see `create_file`."""
    _create_folder(path, lambda _: FOLDER)


def _create_folder(path: str | os.PathLike[str], mode_in: Callable[[int], int]) -> None:
    parent = _folder_of(path)
    mode = mode_in(parent.st_mode)
    os.mkdir(path, mode & 0o777 if _gives_group(parent) else FOLDER)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give_to_owner(handle, parent, path)
        _share(handle, parent, mode, FOLDER)
    except BaseException:
        os.rmdir(path)
        raise
    finally:
        os.close(handle)


def _share(handle: int, folder: os.stat_result, mode: int, private_mode: int) -> None:
    """Give what is open to the group of its folder with this mode, or leave it private if it cannot be that group's."""
    made = os.fstat(handle)
    if mode & stat.S_IRWXG and made.st_gid != folder.st_gid:
        try:
            os.fchown(handle, -1, folder.st_gid)
        except PermissionError:  # a user who is not in that group
            mode = private_mode
    if stat.S_IMODE(made.st_mode) != mode:  # the umask took a part of it, or it has another group only now
        try:
            os.fchmod(handle, mode)
        except PermissionError:  # a service that may not set this bit (RestrictSUIDSGID= of its systemd unit)
            if not mode & stat.S_ISGID:
                raise
            os.fchmod(handle, mode & ~stat.S_ISGID)


def _give_to_owner(handle: int, folder: os.stat_result, path: str | os.PathLike[str]) -> None:
    if os.geteuid() != 0 or os.fstat(handle).st_uid == folder.st_uid:
        return
    try:
        os.fchown(handle, folder.st_uid, folder.st_gid)
    except OSError as error:  # a root without the capability CAP_CHOWN, as in some containers
        user = access.sudo_user(folder.st_uid)
        cause = (
            f"its folder belongs to user {user}, who could not use a file of root's ({error.strerror}); run the same "
            f"command as that user: sudo -u {user} ..."
        )
        raise AccessError("create", path, cause) from error
