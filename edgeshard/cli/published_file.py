"""Files that other programs read while a command keeps them up to date: metrics, and pages for a web server.

Their readers run as other users, so everybody may read these files. Each is replaced as a whole: a reader sees the old
one or the new one, and never a part of it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from edgeshard.errors import ConfigurationError
from edgeshard.store import ensure_free_for_user, explain_os_error

#: Everybody may read it, whatever the umask is.
_MODE = 0o644


class PublishedFile:
    """A file that is replaced again and again.

    Args:
        path: the file.
        action: what writing it is called in errors, such as "write metrics".
        beginning: how each content of it begins, by which an existing file is known as one of ours.
        root: the store that the command is about, or None.

    Attributes:
        path: the file, absolute.

    Raises:
        ConfigurationError: its folder does not exist, or something is there that must not be replaced: a part of a
            store, a folder, a link, a device, or a file that begins otherwise.
        AccessError, DiskFullError, StorageIOError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], action: str, beginning: bytes, root: Path | None = None) -> None:
        self.path = os.path.abspath(path)
        self._action = action
        self._beginning = beginning
        self._root = root
        self._check()

    def replace(self, content: bytes) -> None:
        """Replace the file.

        Raises:
            ConfigurationError: meanwhile something else was put there, which stays.
            AccessError, DiskFullError, StorageIOError: it cannot be written; the old file stays.
        """
        try:
            self._ensure_replaceable()
            self._replace(content)
        except OSError as error:
            raise explain_os_error(error, self._action, self.path) from error

    def _replace(self, content: bytes) -> None:
        """Write the file anew under another name, which no reader looks for, and let it take the old one's place."""
        unfinished = f"{self.path}.{secrets.token_hex(4)}.new"
        handle = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _MODE)
        try:
            with open(handle, "wb") as file:
                os.fchmod(handle, _MODE)
                file.write(content)
            os.replace(unfinished, self.path)
        except BaseException:
            os.unlink(unfinished)
            raise

    def _check(self) -> None:
        """Raise an error now, and not when the content has been made, if the file cannot be written."""
        import tempfile  # slow to import, and most commands publish nothing

        folder = os.path.dirname(self.path)
        try:
            self._ensure_replaceable()
            with tempfile.TemporaryFile(dir=folder):
                pass
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigurationError(self._action, self.path, f"there is no folder {folder}; create it") from error
        except OSError as error:
            raise explain_os_error(error, self._action, self.path) from error

    def _ensure_replaceable(self) -> None:
        ensure_free_for_user(self.path, self._root, self._action)
        try:
            # O_NOFOLLOW and O_NONBLOCK: a link or a FIFO may have come since we looked
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            found = os.read(handle, len(self._beginning))
        finally:
            os.close(handle)
        if found not in (b"", self._beginning):  # a power cut may leave an empty file
            cause = "this file exists already, and edgeshard did not write it; choose another name, or remove it"
            raise ConfigurationError(self._action, self.path, cause)
