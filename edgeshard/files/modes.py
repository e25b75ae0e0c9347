"""Access to what edgeshard makes: it belongs to the store's owner alone, whatever the umask is and whoever makes it.

A file that root makes in the folder of another user would lock that user out: one `sudo edgeshard merge` would stop the
store's own merger for good. So root gives what it makes to the owner of the folder. It does so by descriptor, and only
with files that it has just created, because a name may lead elsewhere by then. SQLite does the same for a WAL.
"""

from __future__ import annotations

import os
import pwd
from typing import Final

from edgeshard.errors import AccessError

FILE: Final = 0o600

FOLDER: Final = 0o700


def create_file(path: str | os.PathLike[str]) -> int:
    """Create a file of a store, and return its descriptor.

    Raises:
        FileExistsError: there is something with this name.
        AccessError: it would belong to root, and the folder to another user.
        OSError: it cannot be created.
    """
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE)
    try:
        _give_to_owner(handle, path)
    except BaseException:
        os.close(handle)
        os.unlink(path)
        raise
    return handle


def create_folder(path: str | os.PathLike[str]) -> None:
    """Create a folder of a store; for errors see `create_file`."""
    os.mkdir(path, FOLDER)
    if os.geteuid() != 0:
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give_to_owner(handle, path)
    except BaseException:
        os.rmdir(path)
        raise
    finally:
        os.close(handle)


def _give_to_owner(handle: int, path: str | os.PathLike[str]) -> None:
    if os.geteuid() != 0:
        return
    folder = os.stat(os.path.dirname(os.path.abspath(path)))
    if os.fstat(handle).st_uid == folder.st_uid:
        return
    try:
        os.fchown(handle, folder.st_uid, folder.st_gid)
    except OSError as error:  # a root without the capability CAP_CHOWN, as in some containers
        user = _user_name(folder.st_uid)
        cause = (
            f"its folder belongs to user {user}, who could not use a file of root's ({error.strerror}); run the same "
            f"command as that user: sudo -u {user} ..."
        )
        raise AccessError("create", path, cause) from error


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"  # as sudo takes it
