"""Load all of this package at once, and keep two versions of it out of one process.

Much is loaded when it is first used, which may be long after the package was upgraded on the disk. A merge of the new
version on top of file formats of the old one could do anything, so it is refused: the process must be restarted. What
runs as a service loads all at its start, and goes on with what it has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Final

from edgeshard.errors import UpgradedError
from edgeshard.format import constants

_PACKAGE: Final = "edgeshard"

#: What no other program uses: the commands, and what only they use.
_COMMANDS: Final = ("__main__", "bench", "charts", "cli")


class _Guard:
    """A finder of modules that finds none, but is asked first, and may refuse.

    Args:
        path: the file that has the version in it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._content = _read(path)
        self._state = _state(path)

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:  # noqa: ARG002
        """Refuse to load a module of this package next to those of another version.

        Raises:
            UpgradedError: the version on the disk is another one, or there is none any more.
        """
        if not fullname.startswith(f"{_PACKAGE}.") or self._content is None or _state(self._path) == self._state:
            return
        if _read(self._path) != self._content:
            cause = (
                f"edgeshard {constants.VERSION} was upgraded or removed while this process runs, and this part of it "
                "was not loaded yet; restart the process"
            )
            raise UpgradedError("load", fullname, cause)


def guard() -> None:
    """Refuse to load what is left of this package once its version on the disk is another one."""
    if not any(isinstance(finder, _Guard) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Guard(constants.__file__))


def load_all() -> None:
    """Load all that a program may use later, instead of at its first use.

    This takes about as long as a first merge. Call it in a program that runs for long, so that an upgrade of the
    package does not stop it before it is restarted; before it forks workers, which then share the memory; and before it
    gives up the right to read the installed files, as by ``chroot`` or ``setuid``.
    """
    package = sys.modules[_PACKAGE]
    for module in _modules(package.__path__, f"{_PACKAGE}."):
        import_module(module)


def _modules(folders: Iterable[str], prefix: str) -> Iterable[str]:
    import pkgutil

    for found in pkgutil.iter_modules(folders, prefix):
        if found.name.removeprefix(prefix) in _COMMANDS:
            continue
        yield found.name
        if found.ispkg:
            yield from _modules(sys.modules[found.name].__path__, f"{found.name}.")


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: str) -> bytes | None:
    """Return a file's content, or None if there is no such file, as in an archive of modules."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
