"""A simulated disk: files and folders, which of their changes are durable, and what a crash may leave of the rest.

Files are inodes, not names: a file that lost its name can still be written and synced by processes that have it open. An
fsync of a file makes its data durable, whoever wrote them, but not its name: the name belongs to its folder, which must
be synced separately (POSIX promises no more).
"""

from __future__ import annotations

import enum
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import attrs

#: A sector: the disk writes it whole or not at all.
SECTOR_BYTES = 512
#: The tick of the clock of many file systems: changes within one tick do not show in the times of a file.
TICK_NS = 4_000_000

#: A write of bytes at an offset, or, with None, a cut to that size.
Change = tuple[int, bytes | None]


class Crash(enum.Enum):
    """The ways in which everything can end."""

    KILL = "kill"  # each process dies; the kernel has all they wrote, and may write it to the disk some day
    POWER = "power"  # of what was not synced any part is missing
    TORN = "torn"  # the same, and writes are missing by the sector, or garbage


@attrs.define(eq=False)
class Inode:
    """A file.

    Attributes:
        number: its number, which is never used again.
        durable: its bytes that survive a power cut.
        unsynced: the changes since then, in order.
        time_ns: when it was last changed, as processes see it.
        durable_time_ns: the same, as it survives a power cut.
    """

    number: int
    durable: bytearray = attrs.Factory(bytearray)
    unsynced: list[Change] = attrs.Factory(list)
    time_ns: int = 0
    durable_time_ns: int = 0

    def sync(self) -> None:
        """Make all changes durable."""
        for change in self.unsynced:
            apply(self.durable, change)
        self.unsynced.clear()
        self.durable_time_ns = self.time_ns

    def content(self) -> bytes:
        """Return what a reader sees."""
        content = bytearray(self.durable)
        for change in self.unsynced:
            apply(content, change)
        return bytes(content)


#: The names that one step changes, all or none: (name, what it names from now on, if anything).
Entries = tuple[tuple[str, "Inode | Folder | None"], ...]


@attrs.define(eq=False)
class Folder:
    """A folder, in which each name is durable or not."""

    number: int
    names: dict[str, Inode | Folder] = attrs.Factory(dict)
    durable: dict[str, Inode | Folder] = attrs.Factory(dict)
    unsynced: list[Entries] = attrs.Factory(list)
    time_ns: int = 0

    def change(self, entries: Entries) -> None:
        """Add and remove names, in one step."""
        _enter(self.names, entries)
        self.unsynced.append(entries)

    def sync(self) -> None:
        """Make the names durable."""
        self.durable = dict(self.names)
        self.unsynced.clear()


class Disk:
    """One disk through a series of crashes.

    Attributes:
        root: its root folder, whose own name is durable.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(100)
        self.root = Folder(next(self._numbers))

    def new_file(self) -> Inode:
        """Create a file without a name."""
        return Inode(next(self._numbers))

    def new_folder(self) -> Folder:
        """Create a folder without a name."""
        return Folder(next(self._numbers))

    def find(self, path: str) -> Inode | Folder | None:
        """Return the file or folder at a path relative to the root."""
        node: Inode | Folder | None = self.root
        for name in filter(None, path.split("/")):
            node = node.names.get(name) if isinstance(node, Folder) else None
        return node

    def parent(self, path: str) -> tuple[Folder, str]:
        """Return the folder of a path, and the name in it."""
        above, _, name = path.rpartition("/")
        folder = self.find(above)
        assert isinstance(folder, Folder), path
        return folder, name

    def files(self) -> Iterator[tuple[str, Inode]]:
        """Return all files that have a name, by path."""
        for path, node in _walk(self.root, ""):
            if isinstance(node, Inode):
                yield path, node

    def folders(self) -> Iterator[str]:
        """Return the paths of all folders below the root, the upper ones first."""
        for path, node in _walk(self.root, ""):
            if isinstance(node, Folder):
                yield path

    def unsynced_bytes(self) -> int:
        """Return how many bytes a power cut could take."""
        return sum(len(data or b"") for _, inode in self.files() for _, data in inode.unsynced)

    def materialise(self, place: Path) -> None:
        """Write everything, as readers see it, into a fresh folder."""
        place.mkdir()
        for path in self.folders():
            (place / path).mkdir()
        links: dict[int, Path] = {}
        for path, inode in self.files():
            if inode.number in links:
                (place / path).hardlink_to(links[inode.number])
            else:
                (place / path).write_bytes(inode.content())
            links[inode.number] = place / path

    def sync(self) -> None:
        """Make everything durable."""
        for _, node in _walk(self.root, ""):
            node.sync()
        self.root.sync()

    def put_back(self, copy: str, path: str) -> None:
        """Durably replace a file by a copy of another, and remove its WAL and journal."""
        source = self.find(copy)
        assert isinstance(source, Inode), copy
        made = self.new_file()
        made.durable = bytearray(source.content())
        made.time_ns = made.durable_time_ns = source.time_ns
        folder, name = self.parent(path)
        folder.change(((name, made), *((name + suffix, None) for suffix in ("-wal", "-journal"))))
        folder.sync()

    def crash(self, how: Crash, rng: random.Random) -> None:
        """End everything. A kill makes nothing more durable; after a power cut, all that is left is durable."""
        if how is Crash.KILL:
            return
        self._lose_names(rng)
        for _, inode in self.files():
            inode.durable = _left_of(inode, how, rng)
            inode.unsynced.clear()
            inode.time_ns = inode.durable_time_ns = rng.choice((inode.time_ns, inode.durable_time_ns))

    def _lose_names(self, rng: random.Random) -> None:
        in_order = rng.random() < 0.5  # as a journal of the file system keeps them
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            _lose_names(folder, rng, in_order=in_order)
            waiting.extend(node for node in folder.names.values() if isinstance(node, Folder))


def _walk(folder: Folder, prefix: str) -> Iterator[tuple[str, Inode | Folder]]:
    for name, node in folder.names.items():
        yield prefix + name, node
        if isinstance(node, Folder):
            yield from _walk(node, f"{prefix}{name}/")


def _enter(names: dict[str, Inode | Folder], entries: Entries) -> None:
    for name, node in entries:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _lose_names(folder: Folder, rng: random.Random, *, in_order: bool) -> None:
    """Keep the durable names and some of the changes; for each name, always the earlier ones."""
    chance = rng.choice((0.0, 0.5, 0.9, 1.0))
    stuck: set[str] = set()
    for entries in folder.unsynced:
        names = {name for name, _ in entries}
        if names & stuck or rng.random() >= chance:
            stuck |= names
            if in_order:
                break
        else:
            _enter(folder.durable, entries)
    folder.unsynced.clear()
    folder.names = dict(folder.durable)


def apply(content: bytearray, change: Change) -> None:
    """Apply a change to a file's bytes."""
    offset, data = change
    if data is None:
        del content[offset:]
        end = offset
    else:
        end = offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data is not None:
        content[offset:end] = data


def _left_of(inode: Inode, how: Crash, rng: random.Random) -> bytearray:
    """Return what a power cut leaves of a file: the durable bytes, and none, some or all of the changes since."""
    content = bytearray(inode.durable)
    way = rng.choice(("none", "first", "some", "all"))
    changes = inode.unsynced
    if way == "none":
        changes = []
    elif way == "first":
        changes = changes[: rng.randint(0, len(changes))]
    elif way == "some":
        changes = [change for change in changes if rng.random() < 0.6]
    for change in changes:
        offset, data = change
        if how is Crash.TORN and data is not None and rng.random() < 0.5:
            for part in _torn(offset, data, rng):
                apply(content, part)
        else:
            apply(content, change)
    return content


def _torn(offset: int, data: bytes, rng: random.Random) -> Iterator[Change]:
    """Tear a write into sectors, each whole, missing or garbage. The bytes around it stay (powersafe overwrite)."""
    at = 0
    while at < len(data):
        end = min(len(data), at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
        fate = rng.random()
        if fate < 0.6:
            yield offset + at, data[at:end]
        elif fate < 0.8:
            yield offset + at, rng.randbytes(end - at)
        at = end
