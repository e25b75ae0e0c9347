"""Answer edgeshard's calls of the operating system with the simulated machine.

New files, writes to files that are no databases, syncs of folders and locks go through ``os``, and change the disk like
SQLite's own writes. What Python's own file objects write is seen once the file is synced or renamed. The clock, random
numbers, and the times and numbers of files are the machine's, so that a seed replays exactly.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from edgeshard.files import fingerprint, folders, lock_holder, scan
from edgeshard.master import pruned_ranges, shard_states
from edgeshard.merge import merger
from edgeshard.records import machine_clock
from edgeshard.shard import handle, quota, shard
from tests.crash.powercut import vfs
from tests.crash.powercut.disk import Entries, Folder, Inode
from tests.crash.powercut.machine import Machine, Patch, acting, located, made_current, patched

_DEVICE = 1


class _Real:
    """The real functions of the operating system."""

    open, fsync, link, rename, unlink, mkdir = os.open, os.fsync, os.link, os.rename, os.unlink, os.mkdir
    pwrite, ftruncate, posix_fallocate = os.pwrite, os.ftruncate, os.posix_fallocate
    sleep, monotonic, monotonic_ns, time, time_ns, perf_counter = (
        staticmethod(function)
        for function in (time.sleep, time.monotonic, time.monotonic_ns, time.time, time.time_ns, time.perf_counter)
    )
    token_bytes, token_hex = staticmethod(secrets.token_bytes), staticmethod(secrets.token_hex)


def _open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
    found = located(path)
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
    machine = acting()
    if machine is None:
        _Real.fsync(handle)
        return
    found = _what_is_open(machine, os.fstat(handle))
    if found is not None:  # folders above the disk's root need none
        _absorb(machine, *found)
        machine.sync(*found)


def _absorb(machine: Machine, path: str, node: Inode | Folder | None) -> None:
    """Record what was written to a file without passing through here."""
    if isinstance(node, Inode) and not machine.scheduler.running.is_killed:
        with io.open(os.path.join(machine.root, path), "rb") as file:  # noqa: UP020
            content = file.read()
        if content != node.content():
            machine.change(path, node, 0, content)
            machine.change(path, node, len(content), None)


def _opened(handle: int) -> tuple[Machine, str, Inode] | None:
    """Return the machine and the file that an actor has open, or None if it is no file of the machine's."""
    machine = acting()
    found = None if machine is None else _what_is_open(machine, os.fstat(handle))
    if machine is None or found is None:
        return None
    path, node = found
    assert isinstance(node, Inode), path
    machine.scheduler.operation()
    return machine, path, node


def _pwrite(handle: int, data: bytes, offset: int) -> int:
    found = _opened(handle)
    written = _Real.pwrite(handle, data, offset)
    if found is not None:
        machine, path, node = found
        machine.change(path, node, offset, bytes(data[:written]))
    return written


def _ftruncate(handle: int, length: int) -> None:
    found = _opened(handle)
    _Real.ftruncate(handle, length)
    if found is not None:
        machine, path, node = found
        machine.change(path, node, length, None)


def _posix_fallocate(handle: int, offset: int, length: int) -> None:
    found = _opened(handle)
    _Real.posix_fallocate(handle, offset, length)
    if found is not None and os.fstat(handle).st_size > len(found[2].content()):
        machine, path, node = found
        machine.change(path, node, offset + length, None)


def _what_is_open(machine: Machine, status: os.stat_result) -> tuple[str, Inode | Folder] | None:
    paths = machine.disk.folders() if stat.S_ISDIR(status.st_mode) else (path for path, _ in machine.disk.files())
    for path in ("", *paths):
        if os.path.samestat(status, os.lstat(os.path.join(machine.root, path))):
            node = machine.disk.find(path)
            assert node is not None
            return path, node
    return None


def _link(source: Any, target: Any, **options: Any) -> None:
    found, there = located(source), located(target)
    if found is None or there is None:
        _Real.link(source, target, **options)
        return
    machine = found[0]
    _absorb(machine, found[1], machine.disk.find(found[1]))
    machine.scheduler.operation()
    _Real.link(source, target, **options)
    machine.enter("link", there[1], (os.path.basename(there[1]), machine.disk.find(found[1])))


def _rename(source: Any, target: Any, **options: Any) -> None:
    found, there = located(source), located(target)
    if found is None or there is None:
        _Real.rename(source, target, **options)
        return
    machine = found[0]
    assert os.path.dirname(found[1]) == os.path.dirname(there[1])
    _absorb(machine, found[1], machine.disk.find(found[1]))
    machine.scheduler.operation()
    _Real.rename(source, target, **options)
    entries: Entries = (
        (os.path.basename(there[1]), machine.disk.find(found[1])),
        (os.path.basename(found[1]), None),
    )
    machine.enter("rename", there[1], *entries)


def _in_folder(path: Any, dir_fd: int | None) -> Any:
    """Return the path of a name in an open folder."""
    return path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)


def _unlink(path: Any, *, dir_fd: int | None = None) -> None:
    path = _in_folder(path, dir_fd)
    found = located(path)
    if found is None or found[1].endswith("-shm"):  # which SQLite makes behind the VFS, and which no crash leaves
        if found is not None:
            found[0].scheduler.step()
        _Real.unlink(path)
        return
    found[0].delete(found[1], lambda: _Real.unlink(path))


def _mkdir(path: Any, *arguments: Any, **options: Any) -> None:
    found = located(path)
    if found is None:
        _Real.mkdir(path, *arguments, **options)
        return
    machine, inside = found
    machine.scheduler.operation()
    _Real.mkdir(path, *arguments, **options)
    machine.enter("folder", inside, (os.path.basename(inside), machine.disk.new_folder()))


class _Os:
    """Stands in for the module os; the times and numbers of files are those of the simulated disk."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def lstat(self, path: Any, *, dir_fd: int | None = None) -> Any:
        """Return the status of a path. Another actor may run first, because many races lie between a check and its use."""
        path = _in_folder(path, dir_fd)
        found = located(path)
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

    def fstat(self, handle: int) -> Any:
        """Return the status of an open file."""
        machine, real = acting(), os.fstat(handle)
        found = None if machine is None else _what_is_open(machine, real)
        return real if found is None else SimpleNamespace(st_dev=_DEVICE, st_ino=found[1].number)

    def scandir(self, path: Any) -> Any:
        """Return the names in a folder, always in the same order."""
        real = sorted(os.scandir(path), key=lambda entry: entry.name)
        return [SimpleNamespace(name=entry.name, inode=self._number(entry)) for entry in real]

    def _number(self, entry: os.DirEntry[str]) -> Callable[[], int]:
        return lambda: int(self.lstat(entry.path).st_ino)


# -- its clock and its dice -------------------------------------------------------------------------------------------


def _sleep(seconds: float) -> None:
    machine = acting()
    if machine is None:
        _Real.sleep(seconds)
    else:
        machine.scheduler.sleep(seconds)


def _clock(real: Callable[[], Any], unit: Callable[[float], Any] = float) -> Callable[[], Any]:
    def now() -> Any:
        machine = acting()
        return real() if machine is None else unit(machine.scheduler.now_s)

    return now


def _token_bytes(length: int) -> bytes:
    machine = acting()
    return _Real.token_bytes(length) if machine is None else machine.rng.randbytes(length)


def _token_hex(length: int) -> str:
    return _token_bytes(length).hex()


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.fromtimestamp(time.time(), tz)


_monotonic = _clock(_Real.monotonic)
_PATCHES: list[Patch] = [
    (os, "open", _open),
    (os, "fsync", _fsync),
    (os, "link", _link),
    (os, "rename", _rename),
    (os, "unlink", _unlink),
    (os, "mkdir", _mkdir),
    (os, "pwrite", _pwrite),
    (os, "ftruncate", _ftruncate),
    (os, "posix_fallocate", _posix_fallocate),
    (time, "sleep", _sleep),
    (time, "monotonic", _monotonic),
    (time, "monotonic_ns", _clock(_Real.monotonic_ns, lambda now_s: int(now_s * 1e9))),
    (time, "perf_counter", _clock(_Real.perf_counter)),
    (time, "time", _clock(_Real.time)),
    (time, "time_ns", _clock(_Real.time_ns, lambda now_s: int(now_s * 1e9))),
    (machine_clock, "boottime_s", _clock(machine_clock.boottime_s)),
    (lock_holder, "_uptime_s", _clock(lock_holder._uptime_s)),
    (lock_holder, "_this_process", lambda _pid: lock_holder._Process(1, 1, 1, "simulated")),
    (secrets, "token_bytes", _token_bytes),
    (secrets, "token_hex", _token_hex),
    (shard, "monotonic", _monotonic),
    (handle, "monotonic", _monotonic),
    (quota, "monotonic", _monotonic),
    (shard, "datetime", SimpleNamespace(datetime=_Datetime, UTC=datetime.UTC)),
    (shard_states, "datetime", SimpleNamespace(datetime=_Datetime, UTC=datetime.UTC)),
    (pruned_ranges, "datetime", SimpleNamespace(datetime=_Datetime, UTC=datetime.UTC)),
    (scan, "os", _Os()),
    (fingerprint, "os", _Os()),
    (folders, "os", _Os()),
]


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[None]:
    """Let everything that edgeshard does in the block happen on this machine."""
    own: list[Patch] = [(merger, "random", machine.rng), (fingerprint, "boot_id", lambda: machine.boot)]
    with made_current(machine), patched([*_PATCHES, *own]):
        vfs.reseed()
        yield
