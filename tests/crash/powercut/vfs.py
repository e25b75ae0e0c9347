"""Put SQLite's files on the simulated disk: an apsw VFS that is the default while trials are played.

It passes everything on to real files (so that locks and the shared memory are real), and reports all changes of the disk
to the machine. Syncs are not passed on: the real files need not survive anything.

We found out with strace which folders SQLite syncs: a handle on a WAL or a journal syncs the folder with its own first
sync; deleting one syncs the folder only if xDelete is told to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import apsw

from tests.crash.powercut.machine import Machine, acting, current, located
from tests.crash.powercut.scheduler import Killed

#: SQLite syncs the folder with the first sync of a handle on one of these.
_JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class _File(apsw.VFSFile):
    """A file that SQLite has open."""

    def __init__(self, filename: Any, flags: list[int]) -> None:
        path = filename.filename() if isinstance(filename, apsw.URIFilename) else filename
        found = None if path is None else located(path)
        if found is not None:
            _begin_open(*found)
        super().__init__("unix", filename, flags)
        self._is_ours = False
        self._is_read_only = bool(flags[1] & apsw.SQLITE_OPEN_READONLY)
        if found is not None:
            self._is_ours = True
            self._machine, self._path = found
            self._inode = self._machine.make_file(self._path)
            self._syncs_folder = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & _JOURNALS)

    def _is_live(self) -> bool:
        return self._is_ours and self._machine is acting()

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._is_live() and not self._machine.scheduler.running.is_killed:
            self._machine.scheduler.step()
        return super().xRead(amount, offset)

    def xLock(self, level: int) -> None:
        if self._is_live():
            if self._machine.scheduler.running.is_killed:
                raise apsw.BusyError  # a dead process takes no locks as its handles close, so its WAL is not checkpointed
            self._machine.scheduler.step()
        try:
            super().xLock(level)
        except apsw.IOError as error:
            if not self._is_read_only:
                raise
            # a read-only handle cannot lock; SQLite tries as it closes, and continues, but apsw would raise
            raise apsw.BusyError from error

    def xWrite(self, data: Any, offset: int) -> None:
        if self._is_live():
            self._machine.scheduler.operation()
            self._machine.change(self._path, self._inode, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        if self._is_live():
            self._machine.scheduler.operation()
            self._machine.change(self._path, self._inode, newsize, None)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        if not self._is_live():
            return
        self._machine.sync(self._path, self._inode)
        if self._syncs_folder:
            self._syncs_folder = False
            self._machine.sync_folder_of(self._path)

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> bool:
        return _unless_killed(etype, evalue)


def _begin_open(machine: Machine, path: str) -> None:
    if machine.disk.find(path) is None:
        machine.scheduler.operation()
    else:
        machine.scheduler.step()


def _unless_killed(etype: Any, evalue: Any) -> bool:
    """Ignore the end of a process where no error can be reported."""
    if not issubclass(etype, Killed):
        raise evalue
    return True


class _PowerVFS(apsw.VFS):
    """The unix VFS, with each change of the disk reported."""

    def __init__(self) -> None:
        super().__init__("powercut", base="unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        found = located(filename)
        if found is None:
            super().xDelete(filename, syncdir)
            return
        machine, path = found
        machine.delete(path, lambda: apsw.VFS.xDelete(self, filename, False))
        if syncdir:
            machine.sync_folder_of(path)

    def xRandomness(self, numbytes: int) -> bytes:
        machine = current()
        return super().xRandomness(numbytes) if machine is None else machine.rng.randbytes(numbytes)

    def xSleep(self, microseconds: int) -> int:
        machine = acting()
        if machine is None:
            return super().xSleep(microseconds)
        if not machine.scheduler.running.is_killed:
            machine.scheduler.sleep(microseconds / 1e6)
        return microseconds

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> bool:
        return _unless_killed(etype, evalue)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Send everything that SQLite opens in the block through this VFS, unless another is named."""
    vfs = _PowerVFS()
    try:
        yield
    finally:
        vfs.unregister()


def reseed() -> None:
    """Reseed SQLite's random generator from the machine's."""
    apsw.randomness(0)
