"""A simulated machine that edgeshard runs on without knowing it; it records all changes of its disk, in order.

vfs and os_calls report each write, truncation, sync, creation and deletion by SQLite or by edgeshard itself. Before each
of them the scheduler may let another actor continue, kill this one, or end everything.
"""

from __future__ import annotations

import contextlib
import os
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from tests.crash.powercut.disk import TICK_NS, Disk, Folder, Inode
from tests.crash.powercut.scheduler import Scheduler

#: An operation as it is logged: actor, what, path, where, how long, checksum.
Logged = tuple[str, str, str, int, int, int]


@attrs.define(eq=False)
class Machine:
    """A machine from one crash to the next.

    Attributes:
        root: the folder of real files that represents the disk's root.
        disk: its disk.
        scheduler: the scheduler of the actors that use it.
        rng: the source of what edgeshard takes for random numbers.
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
        """Return a path relative to the root, or None if it is outside."""
        text = os.fspath(path)
        if isinstance(text, str) and text.startswith(self.root + os.sep):
            return text[len(self.root) + 1 :]
        return "" if text == self.root else None

    def note(self, what: str, path: str, at: int = 0, length: int = 0, checksum: int = 0) -> None:
        """Log an operation."""
        self.log.append((self.scheduler.running.name, what, path, at, length, checksum))

    def now_ns(self) -> int:
        """Return the time of the file system's clock."""
        return int(self.scheduler.now_s * 1e9) // TICK_NS * TICK_NS

    # -- what was done ------------------------------------------------------------------------------------------------

    def enter(self, what: str, path: str, *entries: tuple[str, Inode | Folder | None]) -> None:
        """Record that names of one folder were added or removed."""
        folder, _ = self.disk.parent(path)
        folder.change(tuple(entries))
        folder.time_ns = self.now_ns()
        self.note(what, path)

    def make_file(self, path: str) -> Inode:
        """Record that a file was created, unless it existed."""
        found = self.disk.find(path)
        if found is None:
            found = self.disk.new_file()
            found.time_ns = self.now_ns()
            self.enter("make", path, (os.path.basename(path), found))
        assert isinstance(found, Inode), path
        return found

    def change(self, path: str, inode: Inode, offset: int, data: bytes | None) -> None:
        """Record that a file was written or truncated."""
        inode.unsynced.append((offset, data))
        inode.time_ns = self.now_ns()
        if data is None:
            self.note("cut", path, offset)
        else:
            self.note("write", path, offset, len(data), zlib.crc32(data))

    def sync(self, path: str, node: Inode | Folder) -> None:
        """Record that a file or a folder was synced."""
        self.scheduler.operation(sync=True)
        node.sync()
        self.note("sync", path)
        self.scheduler.synced()

    def sync_folder_of(self, path: str) -> None:
        """Record that the folder of a file was synced."""
        folder = os.path.dirname(path)
        node = self.disk.find(folder)
        assert node is not None
        self.sync(folder + "/", node)

    def delete(self, path: str, remove: Callable[[], None]) -> None:
        """Record that a name was deleted."""
        self.scheduler.operation()
        remove()
        self.enter("delete", path, (os.path.basename(path), None))


_current: Machine | None = None


def current() -> Machine | None:
    """Return the machine that runs, or None."""
    return _current


def acting() -> Machine | None:
    """Return the machine on which the caller is an actor, or None if it is not one."""
    return _current if _current is not None and _current.scheduler.is_actor() else None


def located(path: Any) -> tuple[Machine, str] | None:
    """The machine, and the path on its disk, where an actor asks for one."""
    machine = acting()
    inside = None if machine is None else machine.inside(path)
    return None if machine is None or inside is None else (machine, inside)


@contextlib.contextmanager
def made_current(machine: Machine) -> Iterator[None]:
    """Make this the machine that runs within the block."""
    global _current
    assert _current is None
    _current = machine
    try:
        yield
    finally:
        _current = None


#: (owner, name, replacement).
Patch = tuple[Any, str, Any]


@contextlib.contextmanager
def patched(patches: list[Patch]) -> Iterator[None]:
    """Replace attributes for the block; thousands of times faster than mock.patch is."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    try:
        for owner, name, value in patches:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)
