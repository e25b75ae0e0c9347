"""Make a private folder for a temporary database, and remove those that killed processes left.

The folder's name has a prefix and a random part. The folder is locked while it is used. A killed process leaves its
folder, unlocked, and the next process that makes one in the same place removes it: only a folder of such a name that is
not locked, and in it only the database and what belongs to it.

Where others make files as well, that is not enough: a user may have copied such a folder. There the folder has a
marker, a file that holds the folder's name, and only a folder with its marker is removed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import Final

import attrs

from edgeshard.errors import StorageError
from edgeshard.files import fingerprint, folders, locks, modes, paths

logger = logging.getLogger("edgeshard.files")

#: How a folder is opened: its content is used by the descriptor, so nobody can put a link to another in its place.
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.frozen
class PrivateFolders:
    """The private folders that are made for one purpose.

    Attributes:
        prefix: how the names of these folders begin; 16 random hexadecimal digits follow.
        database: the name of the database in each. It, its unfinished forms and the files that SQLite has next to them
            are removed, and nothing else.
        marker: the name of the marker in each; "" if they have none.
    """

    prefix: str
    database: str
    marker: str = ""

    @contextlib.contextmanager
    def make(self, parent: str | os.PathLike[str]) -> Iterator[str]:
        """Make a folder, and yield the path of the database to make in it; both are removed at the end of the block.

        Args:
            parent: where to make the folder.

        Raises:
            AccessError, StorageIOError: the folder cannot be locked, or would belong to root, and `parent` to another
                user.
            OSError: the folder cannot be made or removed.
        """
        with contextlib.ExitStack() as cleanup:
            while (path := self._make_locked(parent, cleanup)) is None:
                pass
            if self.marker:
                self._mark(path)
            yield os.path.join(path, self.database)

    def _make_locked(self, parent: str | os.PathLike[str], cleanup: contextlib.ExitStack) -> str | None:
        """Make a folder, and lock it until `cleanup` removes it.

        Returns:
            Its path; None if another process took it for a leftover, and removed it, before it was locked.
        """
        path = os.path.join(os.path.realpath(parent), f"{self.prefix}{secrets.token_hex(8)}")
        modes.create_private_folder(path)
        with contextlib.ExitStack() as own:
            try:
                folder = os.open(path, _FOLDER_FLAGS)
            except FileNotFoundError:
                return None
            own.callback(os.close, folder)
            own.callback(self._remove, path, folder)
            found = os.fstat(folder)
            if not locks.lock_open_file(folder, path) or fingerprint.identity(path) != (found.st_dev, found.st_ino):
                return None
            cleanup.push(own.pop_all())
        return path

    def remove_leftovers(self, parent: str | os.PathLike[str]) -> None:
        """Remove the folders that killed processes left. What this user may not look into stays.

        Args:
            parent: where they were made.

        Raises:
            OSError: `parent` cannot be listed, or a leftover cannot be removed.
        """
        name_of_ours = re.compile(re.escape(self.prefix) + "[0-9a-f]{16}")
        for name in sorted(filter(name_of_ours.fullmatch, os.listdir(parent))):
            self._remove_leftover(os.path.join(parent, name))

    def _remove_leftover(self, path: str) -> None:
        with contextlib.ExitStack() as cleanup:
            try:
                folder = os.open(path, _FOLDER_FLAGS)
                cleanup.callback(os.close, folder)
                # in this order: whoever makes it locks it before it has its marker, and must get the lock
                is_left = self._is_marked(path, folder) and locks.lock_open_file(folder, path)
            except (OSError, StorageError) as error:  # it is not a folder, has no marker, or is another user's
                logger.debug("left %s: %s", path, error)
                return
            if is_left:
                self._remove(path, folder)

    def _mark(self, path: str) -> None:
        marker = modes.create_file(os.path.join(path, self.marker))
        try:
            os.write(marker, _content_of_marker(path))
            # a power cut must not leave a large database in a folder that is not marked
            os.fsync(marker)
        finally:
            os.close(marker)
        folders.sync_folder(path)

    def _is_marked(self, path: str, folder: int) -> bool:
        if not self.marker:
            return True
        # O_NONBLOCK: opening a FIFO of this name would wait for its writer
        marker = os.open(self.marker, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            return stat.S_ISREG(os.fstat(marker).st_mode) and os.pread(marker, 1_000, 0) == _content_of_marker(path)
        finally:
            os.close(marker)

    def _remove(self, path: str, folder: int) -> None:
        """Remove a folder of ours, which is open as `folder`; if somebody put another file into it, that file stays."""
        # not tempfile.TemporaryDirectory: where deleting is denied, it tries again until Python's stack is used up.
        # The marker is the last: without it, nobody would remove the rest
        for name in sorted(filter(self._is_ours, os.listdir(folder)), key=lambda name: name == self.marker):
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                error.filename = os.path.join(path, name)  # whoever explains the error looks at this path
                raise
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise

    def _is_ours(self, name: str) -> bool:
        base = next((name.removesuffix(suffix) for suffix in paths.SIDE_FILES if name.endswith(suffix)), name)
        return name == self.marker or base == self.database or paths.is_unfinished(base, self.database)


def _content_of_marker(path: str) -> bytes:
    return os.fsencode(os.path.basename(path))
