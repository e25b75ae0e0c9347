"""An fsync that fails once loses no row that is acknowledged afterwards, or that is deleted from a shard afterwards.

After a failed fsync, Linux takes the pages for written that it could not write. So no later fsync writes them, unless
they are changed again. SQLite in turn finds a commit in a WAL by its checksums, whether it reached the disk or not.

The disk is modelled: it has what was dirty when a sync succeeded. A power cut leaves that.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import EdgeshardError, StorageBusyError
from edgeshard.merge.merger import Merger
from tests.support.processes import python
from tests.support.stores import new_store, numbers, shard_path

PAGE = 4096

#: Makes the rows so large that a commit fills several pages of the kernel.
TEXT = "x" * 3_000


class Disk(apsw.VFS):
    """What has reached the disk of the files whose names end in `name` or its WAL's."""

    def __init__(self, name: str) -> None:
        self.name, self.is_failing = name, False
        self.written: defaultdict[str, bytearray] = defaultdict(bytearray)
        self.dirty: defaultdict[str, set[int]] = defaultdict(set)
        super().__init__("modelled-disk", base="unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        return _File(self, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.written.pop(filename, None)
        self.dirty.pop(filename, None)
        super().xDelete(filename, syncdir)

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> bool:
        """Say nothing: SQLite reports the failure of a sync."""
        return True

    def models(self, path: str) -> bool:
        return path.endswith((self.name, f"{self.name}-wal"))

    def cut_power(self, root: Path) -> Path:
        """Return a copy of a store as it is after a power cut."""
        after = root.with_name("after")
        shutil.copytree(root, after, ignore=shutil.ignore_patterns("*-shm", "*.lock", f"{self.name}*"))
        for path, content in self.written.items():
            (after / Path(path).relative_to(root)).write_bytes(content)
        return after


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk, self._path, self._is_modelled = disk, path, disk.models(path)
        super().__init__("unix", name, flags)

    def excepthook(self, etype: Any, evalue: Any, etraceback: Any) -> bool:
        """Say nothing: SQLite reports the failure of a sync."""
        return True

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        if self._is_modelled:
            self._disk.dirty[self._path].update(range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        if self._is_modelled:
            del self._disk.written[self._path][newsize:]

    def xSync(self, flags: int) -> None:
        if not self._is_modelled:
            super().xSync(flags)
            return
        dirty, self._disk.dirty[self._path] = self._disk.dirty[self._path], set()
        if self._disk.is_failing:
            raise apsw.IOError("the disk did not answer")
        content = self._disk.written[self._path]
        for page in sorted(dirty):
            start = page * PAGE
            data = self.xRead(min(PAGE, self.xFileSize() - start), start)
            content.extend(bytes(max(0, start + len(data) - len(content))))
            content[start : start + len(data)] = data


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    made = Disk(request.param)
    yield made
    made.unregister()


@pytest.mark.parametrize("disk", ["master.db"], indirect=True)
@pytest.mark.parametrize("fails", [False, True])
def test_no_shard_is_truncated_because_of_a_commit_whose_fsync_failed(tmp_path: Path, disk: Disk, fails: bool) -> None:
    store = new_store(tmp_path / "data")
    disk.written[str(store.master_path)] = bytearray(store.master_path.read_bytes())
    with store.shard("agent", durability="power") as shard, store.shard("other") as other:
        shard.write({"n": -1})
        merger = Merger(store.root, watching=True)
        assert 1 == merger.run().rows
        for n in range(50):
            shard.write({"n": n, "text": TEXT})
        disk.is_failing = fails
        if fails:
            with pytest.raises(EdgeshardError):
                merger.run()
        disk.is_failing = False
        for n in range(50, 53):  # rows of others let the merger commit
            other.write({"n": n})
            merger.run()
        assert [] == shard.query("select _id from agent_data")  # all are truncated
        after = edgeshard.Store(disk.cut_power(store.root))
        merger.close()
    disk.unregister()
    after.merge()
    assert [*range(-1, 50)] == [n for n in numbers(after) if n < 50]
    assert after.verify(deep=True).ok


@pytest.mark.parametrize("disk", ["master.db"], indirect=True)
def test_while_a_reader_keeps_such_a_wal_in_use_no_shard_is_truncated(tmp_path: Path, disk: Disk) -> None:
    store = new_store(tmp_path / "data")
    with store.shard("agent", durability="power") as shard:
        merger = Merger(store.root, watching=True)
        shard.write({"n": -1})
        merger.run()
        shard.write({"n": 0})
        disk.is_failing = True
        with pytest.raises(EdgeshardError):
            merger.run()
        disk.is_failing = False
        reader = sqlite.connect(str(store.master_path), writable=True)
        sqlite.disable_checkpoint_on_close(reader)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM agent_data").fetchall()
        with pytest.raises(StorageBusyError, match="an fsync of it failed"):
            merger.run()
        assert [-1, 0] == [row.n for row in shard.query("select data ->> 'n' as n from agent_data")]
        reader.close()
        merger.run()
        merger.close()
    disk.unregister()
    assert [-1, 0] == numbers(store)


_KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
import edgeshard
from tests.crash.test_failed_sync import TEXT
shard = edgeshard.Store(sys.argv[1]).shard("agent", durability="power")
shard.write({"n": 1, "text": TEXT})
os._exit(0)
"""


@pytest.mark.parametrize("disk", ["agent.db"], indirect=True)
@pytest.mark.parametrize("fails", [False, True])
def test_a_shard_at_power_keeps_what_is_acknowledged_after_an_fsync_failed(
    tmp_path: Path, disk: Disk, fails: bool
) -> None:
    store = new_store(tmp_path / "data")
    with store.shard("agent", durability="power") as shard:
        shard.write({"n": 0})
    path = str(shard_path(store, "agent"))
    disk.written[path] = bytearray(Path(path).read_bytes())
    # a process whose fsync failed was killed: what it wrote to the WAL is in the kernel's cache, and on no disk
    root = Path(edgeshard.__file__).parent.parent
    done = python(_KILLED, store.root, root)
    assert 0 == done.returncode, done.stderr
    if not fails:
        disk.written[f"{path}-wal"] = bytearray(Path(f"{path}-wal").read_bytes())
    with store.shard("agent", durability="power") as shard:
        for n in (2, 3):
            shard.write({"n": n})
        after = edgeshard.Store(disk.cut_power(store.root))
    disk.unregister()
    after.merge()
    assert {0, 2, 3} <= set(numbers(after))
    assert after.verify(deep=True).ok
