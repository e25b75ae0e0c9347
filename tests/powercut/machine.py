"""A machine that edgeshard runs on unknowingly: its files, its clock and its dice are the simulation's.

Every database that edgeshard opens goes through an apsw VFS that is the default one meanwhile. It passes everything on
to real files (so that locks and the shared memory are real), and tells the simulated disk of each write, truncation,
sync, creation and deletion. What edgeshard does itself through ``os`` (the names of new files, syncs of folders, locks)
is told to it likewise. Syncs are not passed on: the real files need not survive anything.

Which syncs of folders SQLite makes was seen with strace: a handle on a log or a journal syncs the folder with its own
first sync; deleting one does only where xDelete is told to.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import secrets
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import attrs

import edgeshard
from edgeshard import files, scan, shard
from edgeshard.merge import cycle

from .disk import TICK_NS, Disk, Entries, Folder, Inode
from .scheduler import Killed, Scheduler

#: SQLite syncs the folder with the first sync of a handle on one of these.
_JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_DEVICE = 1

#: An operation as it is logged: actor, what, path, where, how long, checksum.
Logged = tuple[str, str, str, int, int, int]


@attrs.define(eq=False)
class Machine:
    """One stretch between two crashes.

    Attributes:
        root: the folder of real files that stands for the disk's root.
        disk: what it does to the disk.
        scheduler: whose actors use it.
        rng: what edgeshard takes for chance.
        boot: which start of the system it is.
        log: every operation that changed the disk.
    """

    root: str
    disk: Disk
    scheduler: Scheduler
    rng: random.Random
    boot: str
    log: list[Logged] = attrs.Factory(list)

    def inside(self, path: Any) -> str | None:
        """A path relative to the root; None where it is outside."""
        text = os.fspath(path)
        if isinstance(text, str) and text.startswith(self.root + os.sep):
            return text[len(self.root) + 1 :]
        return "" if text == self.root else None

    def note(self, what: str, path: str, at: int = 0, length: int = 0, checksum: int = 0) -> None:
        """Log an operation."""
        self.log.append((self.scheduler.running.name, what, path, at, length, checksum))

    def now_ns(self) -> int:
        """The time of the file system's clock."""
        return int(self.scheduler.now_s * 1e9) // TICK_NS * TICK_NS

    # -- what was done ------------------------------------------------------------------------------------------------

    def enter(self, what: str, path: str, *entries: tuple[str, Inode | Folder | None]) -> None:
        """Names of one folder came or went."""
        folder, _ = self.disk.parent(path)
        folder.change(tuple(entries))
        folder.time_ns = self.now_ns()
        self.note(what, path)

    def make_file(self, path: str) -> Inode:
        """A file was made, if there was none."""
        found = self.disk.find(path)
        if found is None:
            found = self.disk.new_file()
            found.time_ns = self.now_ns()
            self.enter("make", path, (os.path.basename(path), found))
        assert isinstance(found, Inode), path
        return found

    def change(self, path: str, inode: Inode, offset: int, data: bytes | None) -> None:
        """A file was written, or cut."""
        inode.unsynced.append((offset, data))
        inode.time_ns = self.now_ns()
        if data is None:
            self.note("cut", path, offset)
        else:
            self.note("write", path, offset, len(data), zlib.crc32(data))

    def sync(self, path: str, node: Inode | Folder) -> None:
        """A file or a folder was synced."""
        self.scheduler.operation(sync=True)
        node.sync()
        self.note("sync", path)
        self.scheduler.synced()

    def sync_folder_of(self, path: str) -> None:
        """The folder of a file was synced."""
        folder = os.path.dirname(path)
        node = self.disk.find(folder)
        assert node is not None
        self.sync(folder + "/", node)

    def delete(self, path: str, remove: Callable[[], None]) -> None:
        """Take a name away."""
        self.scheduler.operation()
        remove()
        self.enter("delete", path, (os.path.basename(path), None))


_machine: Machine | None = None


def _running(path: Any) -> tuple[Machine, str] | None:
    """The machine, and the path on its disk, where an actor asks for one."""
    if _machine is None or not _machine.scheduler.is_actor():
        return None
    inside = _machine.inside(path)
    return None if inside is None else (_machine, inside)


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[None]:
    """Everything that edgeshard does in the block happens on this machine."""
    global _machine
    assert _machine is None
    _machine = machine
    apsw.randomness(0)  # SQLite seeds its dice anew from _PowerVFS.xRandomness
    with _taps(machine):
        try:
            yield
        finally:
            _machine = None


# -- SQLite's files ---------------------------------------------------------------------------------------------------


class _File(apsw.VFSFile):
    """A file that SQLite has open."""

    def __init__(self, filename: Any, flags: list[int]) -> None:
        path = filename.filename() if isinstance(filename, apsw.URIFilename) else filename
        found = None if path is None else _running(path)
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
        return self._is_ours and self._machine is _machine and self._machine.scheduler.is_actor()

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._is_live() and not self._machine.scheduler.running.is_killed:
            self._machine.scheduler.step()
        return super().xRead(amount, offset)

    def xLock(self, level: int) -> None:
        if self._is_live():
            if self._machine.scheduler.running.is_killed:
                raise apsw.BusyError  # a dead process locks nothing as its handles go; a log is not copied then
            self._machine.scheduler.step()
        try:
            super().xLock(level)
        except apsw.IOError as error:
            if not self._is_read_only:
                raise
            # nobody can lock what he may only read; SQLite tries as it closes, and goes on, but apsw would raise
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
    """Where nobody can be told of an error: the end of a process is none."""
    if not issubclass(etype, Killed):
        raise evalue
    return True


class _PowerVFS(apsw.VFS):
    """The unix VFS, listened to."""

    def __init__(self) -> None:
        super().__init__("powercut", base="unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        found = _running(filename)
        if found is None:
            super().xDelete(filename, syncdir)
            return
        machine, path = found
        machine.delete(path, lambda: apsw.VFS.xDelete(self, filename, False))
        if syncdir:
            machine.sync_folder_of(path)

    def xRandomness(self, numbytes: int) -> bytes:
        return super().xRandomness(numbytes) if _machine is None else _machine.rng.randbytes(numbytes)

    def xSleep(self, microseconds: int) -> int:
        if _machine is None or not _machine.scheduler.is_actor():
            return super().xSleep(microseconds)
        if not _machine.scheduler.running.is_killed:
            _machine.scheduler.sleep(microseconds / 1e6)
        return microseconds

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> bool:
        return _unless_killed(etype, evalue)


# -- what edgeshard does through the operating system -----------------------------------------------------------------


class _Real:
    """The operating system, as it is without us."""

    open, fsync, link, rename, unlink, mkdir = os.open, os.fsync, os.link, os.rename, os.unlink, os.mkdir
    sleep, monotonic, time, time_ns, perf_counter = (
        staticmethod(function) for function in (time.sleep, time.monotonic, time.time, time.time_ns, time.perf_counter)
    )
    token_bytes, token_hex = staticmethod(secrets.token_bytes), staticmethod(secrets.token_hex)


def _open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
    found = _running(path)
    if found is not None:
        found[0].scheduler.step()
    if found is None or not flags & os.O_CREAT or found[0].disk.find(found[1]) is not None:
        return _Real.open(path, flags, mode, **options)
    machine, inside = found
    machine.scheduler.operation()
    handle = _Real.open(path, flags, mode, **options)
    machine.make_file(inside)
    return handle


def _fsync(handle: int) -> None:
    if _machine is None or not _machine.scheduler.is_actor():
        _Real.fsync(handle)
        return
    found = _what_is_open(_machine, os.fstat(handle))
    if found is not None:  # folders above the disk's root need none
        _machine.sync(*found)


def _what_is_open(machine: Machine, status: os.stat_result) -> tuple[str, Inode | Folder] | None:
    paths = machine.disk.folders() if stat.S_ISDIR(status.st_mode) else (path for path, _ in machine.disk.files())
    for path in ("", *paths):
        if os.path.samestat(status, os.lstat(os.path.join(machine.root, path))):
            node = machine.disk.find(path)
            assert node is not None
            return path, node
    return None


def _link(source: Any, target: Any, **options: Any) -> None:
    found, there = _running(source), _running(target)
    if found is None or there is None:
        _Real.link(source, target, **options)
        return
    machine = found[0]
    machine.scheduler.operation()
    _Real.link(source, target, **options)
    machine.enter("link", there[1], (os.path.basename(there[1]), machine.disk.find(found[1])))


def _rename(source: Any, target: Any, **options: Any) -> None:
    found, there = _running(source), _running(target)
    if found is None or there is None:
        _Real.rename(source, target, **options)
        return
    machine = found[0]
    assert os.path.dirname(found[1]) == os.path.dirname(there[1])
    machine.scheduler.operation()
    _Real.rename(source, target, **options)
    entries: Entries = (
        (os.path.basename(there[1]), machine.disk.find(found[1])),
        (os.path.basename(found[1]), None),
    )
    machine.enter("rename", there[1], *entries)


def _unlink(path: Any, **options: Any) -> None:
    found = _running(path)
    if found is None or found[1].endswith("-shm"):  # which SQLite makes behind the VFS, and which no crash leaves
        if found is not None:
            found[0].scheduler.step()
        _Real.unlink(path, **options)
        return
    found[0].delete(found[1], lambda: _Real.unlink(path, **options))


def _mkdir(path: Any, *arguments: Any, **options: Any) -> None:
    found = _running(path)
    if found is None:
        _Real.mkdir(path, *arguments, **options)
        return
    machine, inside = found
    machine.scheduler.operation()
    _Real.mkdir(path, *arguments, **options)
    machine.enter("folder", inside, (os.path.basename(inside), machine.disk.new_folder()))


class _Os:
    """The module os, but for the times and numbers of files: those are the disk's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def lstat(self, path: Any) -> Any:
        """What is at a path. Somebody else may come first: between a look and what follows lie many races."""
        found = _running(path)
        if found is not None:
            found[0].scheduler.step()
        real = os.lstat(path)
        node = None if found is None else found[0].disk.find(found[1])
        if node is None:
            return real
        return SimpleNamespace(
            st_mode=real.st_mode,
            st_size=real.st_size,
            st_dev=_DEVICE,
            st_ino=node.number,
            st_mtime_ns=node.time_ns,
            st_ctime_ns=node.time_ns,
        )

    def scandir(self, path: Any) -> Any:
        """The names in a folder, in an order that is the same each time."""
        real = sorted(os.scandir(path), key=lambda entry: entry.name)
        return [SimpleNamespace(name=entry.name, inode=self._number(entry)) for entry in real]

    def _number(self, entry: os.DirEntry[str]) -> Callable[[], int]:
        return lambda: int(self.lstat(entry.path).st_ino)


# -- its clock and its dice -------------------------------------------------------------------------------------------


def _sleep(seconds: float) -> None:
    if _machine is None or not _machine.scheduler.is_actor():
        _Real.sleep(seconds)
    else:
        _machine.scheduler.sleep(seconds)


def _clock(real: Callable[[], Any], unit: Callable[[float], Any] = float) -> Callable[[], Any]:
    def now() -> Any:
        if _machine is None or not _machine.scheduler.is_actor():
            return real()
        return unit(_machine.scheduler.now_s)

    return now


def _token_bytes(length: int) -> bytes:
    if _machine is None or not _machine.scheduler.is_actor():
        return _Real.token_bytes(length)
    return _machine.rng.randbytes(length)


def _token_hex(length: int) -> str:
    return _token_bytes(length).hex()


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.fromtimestamp(time.time(), tz)


_monotonic = _clock(_Real.monotonic)
_PATCHES: list[tuple[Any, str, Any]] = [
    (os, "open", _open),
    (os, "fsync", _fsync),
    (os, "link", _link),
    (os, "rename", _rename),
    (os, "unlink", _unlink),
    (os, "mkdir", _mkdir),
    (time, "sleep", _sleep),
    (time, "monotonic", _monotonic),
    (time, "perf_counter", _clock(_Real.perf_counter)),
    (time, "time", _clock(_Real.time)),
    (time, "time_ns", _clock(_Real.time_ns, lambda now_s: int(now_s * 1e9))),
    (secrets, "token_bytes", _token_bytes),
    (secrets, "token_hex", _token_hex),
    (shard, "monotonic", _monotonic),
    (shard, "datetime", SimpleNamespace(datetime=_Datetime, UTC=datetime.UTC)),
    (edgeshard.master, "datetime", SimpleNamespace(datetime=_Datetime, UTC=datetime.UTC)),
    (scan, "os", _Os()),
    (files, "os", _Os()),
]


@contextlib.contextmanager
def patched(patches: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Replace attributes for the block; thousands of times faster than mock.patch is."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    try:
        for owner, name, value in patches:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


@contextlib.contextmanager
def _taps(machine: Machine) -> Iterator[None]:
    own = [(cycle, "random", machine.rng), (files, "boot_id", lambda: machine.boot)]
    with patched([*_PATCHES, *own]):
        yield


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """SQLite's default VFS tells the running machine of everything."""
    vfs = _PowerVFS()
    try:
        yield
    finally:
        vfs.unregister()


def shared_folder() -> str | None:
    """Where files are in memory, if such a folder is known here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
