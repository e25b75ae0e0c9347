"""Notices of real changes to real files; and how a watch ends, by itself and by our hand."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.errors import AccessError, StorageIOError
from edgeshard.files import fs_events
from edgeshard.files.fs_events import Watch
from tests.support.processes import python

#: Long after a notice would have come (they take 0.3 ms): a slow machine may overlook one, and never invents one.
SILENCE_S = 0.3
LONG_S = 30.0

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it is about inotify")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a log, an index, and a lock file."""
    made = tmp_path / "shards"
    made.mkdir()
    for name in ("a.db", "a.db-wal", "a.db-shm", "a.lock"):
        (made / name).write_text(name)
    return made


@pytest.fixture
def watches() -> Iterator[list[Watch]]:
    """What is put there is closed at the end."""
    made: list[Watch] = []
    yield made
    for watch in made:
        watch.close()


@pytest.fixture
def watched(folder: Path, watches: list[Watch]) -> threading.Event:
    """Set once a watch of the folder notices something."""
    noticed = threading.Event()
    watches.append(Watch(folder, noticed.set))
    return noticed


def eventually(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONG_S
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.001)
    return is_so()


def threads_named(kind: str) -> list[Any]:
    return [thread for thread in threading.enumerate() if type(thread).__name__ == kind]


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("more")


# -- news -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: append(folder / "a.db-wal"),
        lambda folder: append(folder / "b.db"),
        lambda folder: os.truncate(folder / "a.db-wal", 0),
        lambda folder: (folder / "a.db").unlink(),
        lambda folder: (folder / "a.db").rename(folder / "b.db"),
        lambda folder: (folder / "a.db").rename(folder.parent / "away.db"),
        lambda folder: (folder / "a.lock").rename(folder / "b.db"),
        lambda folder: (folder / "a.db").rename(folder / "b.lock"),
    ],
    ids=["written", "made", "truncated", "deleted", "renamed", "moved away", "lock renamed", "renamed to a lock"],
)
def test_a_change_is_noticed(folder: Path, watched: threading.Event, change: Callable[[Path], object]) -> None:
    assert not watched.is_set()
    change(folder)
    assert watched.wait(LONG_S)


def test_a_file_that_is_moved_into_the_folder_is_noticed(
    folder: Path, tmp_path: Path, watched: threading.Event
) -> None:
    append(tmp_path / "carried.db")
    (tmp_path / "carried.db").rename(folder / "carried.db")
    assert watched.wait(LONG_S)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: append(folder / "a.db-shm"),
        lambda folder: (folder / "a.db-shm").unlink(),
        lambda folder: append(folder / "new.lock"),
        lambda folder: (folder / "a.lock").rename(folder / "b.lock"),
        lambda folder: (folder / "a.db-wal").read_text(),
        lambda folder: (folder / "a.db-wal").open("a").close(),
        lambda folder: (folder / "a.db").chmod(0o640),
        lambda folder: os.utime(folder / "a.db"),
        lambda folder: append(folder.parent / "beside.db"),
    ],
    ids=["index", "index gone", "lock", "lock renamed", "read", "opened to write", "mode", "times", "elsewhere"],
)
def test_what_is_no_news_is_not_noticed_and_what_follows_is(
    folder: Path, watched: threading.Event, change: Callable[[Path], object]
) -> None:
    change(folder)
    assert not watched.wait(SILENCE_S)
    append(folder / "a.db-wal")
    assert watched.wait(LONG_S)


def test_a_row_is_noticed_when_it_is_written(store: edgeshard.Store, watches: list[Watch]) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        noticed = threading.Event()
        watches.append(Watch(store.root / "shards", noticed.set))
        assert not noticed.wait(SILENCE_S)
        shard.write({"n": 2})
        assert noticed.wait(LONG_S)


def test_of_several_changes_one_is_noticed(folder: Path, watches: list[Watch]) -> None:
    noticed: list[int] = []
    watches.append(Watch(folder, lambda: noticed.append(1)))
    for name in "bcdefgh":
        append(folder / f"{name}.db")
    assert eventually(lambda: bool(noticed))
    time.sleep(SILENCE_S)
    assert [1] == noticed


def test_a_folder_behind_a_symbolic_link_is_watched(folder: Path, tmp_path: Path, watches: list[Watch]) -> None:
    (tmp_path / "link").symlink_to(folder)
    noticed = threading.Event()
    watches.append(Watch(tmp_path / "link", noticed.set))
    assert watches[0].is_alive()
    append(folder / "a.db-wal")
    assert noticed.wait(LONG_S)


def _write_beyond_the_kernels_queue(folder: Path) -> None:
    """Make more events than the kernel keeps, while no other thread of this process runs."""
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    pwrite = ctypes.PyDLL(None).pwrite  # holds the interpreter's lock, as os.pwrite does not
    pwrite.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long]
    interval_s = sys.getswitchinterval()
    with (folder / "a.db-wal").open("r+b") as one, (folder / "b.db-wal").open("wb") as other:
        logs = [one.fileno(), other.fileno()]
        sys.setswitchinterval(1000)  # nor is the lock given away between two calls
        try:
            # twice as many, because a read that has begun takes a part; and to two files in turn, because the kernel
            # joins events that are alike
            for n in range(2 * kept):
                assert pwrite(logs[n % 2], b"x", 1, 0) == 1
        finally:
            sys.setswitchinterval(interval_s)


@on_linux
def test_a_burst_that_overflows_the_kernels_queue_is_noticed(
    folder: Path, watches: list[Watch], caplog: pytest.LogCaptureFixture
) -> None:
    noticed = threading.Event()
    watches.append(Watch(folder, noticed.set))
    _write_beyond_the_kernels_queue(folder)
    assert eventually(lambda: "watchdog.observers.inotify_c" in [record.name for record in caplog.records])
    assert noticed.wait(LONG_S)
    assert watches[0].is_alive()


# -- how it ends ------------------------------------------------------------------------------------------------------


def test_a_watch_is_alive_until_it_is_closed(folder: Path) -> None:
    watch = Watch(folder, lambda: None)
    assert watch.is_alive()
    watch.close()
    assert not watch.is_alive()
    watch.close()


def test_a_watch_that_noticed_is_still_alive(folder: Path, watches: list[Watch], watched: threading.Event) -> None:
    append(folder / "a.db-wal")
    assert watched.wait(LONG_S)
    assert watches[0].is_alive()


def _delete(folder: Path) -> None:
    shutil.rmtree(folder)


def _delete_and_make(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _move_away(folder: Path) -> None:
    folder.rename(folder.with_name("away"))


def _replace(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    folder.mkdir()


@pytest.mark.parametrize("change", [_delete, _delete_and_make, _move_away, _replace])
def test_a_watch_of_a_folder_that_is_not_there_any_more_is_not_alive(
    folder: Path, watches: list[Watch], watched: threading.Event, change: Callable[[Path], None]
) -> None:
    change(folder)
    assert not watches[0].is_alive()

    folder.mkdir(exist_ok=True)
    noticed = threading.Event()
    watches.append(Watch(folder, noticed.set))
    append(folder / "a.db-wal")
    assert noticed.wait(LONG_S)


def test_a_link_that_leads_elsewhere_now_leaves_the_watch_not_alive(
    folder: Path, tmp_path: Path, watches: list[Watch]
) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(folder)
    watches.append(Watch(link, lambda: None))
    other.mkdir()
    link.unlink()
    link.symlink_to(other)
    assert not watches[0].is_alive()


@on_linux
@pytest.mark.parametrize("kind", ["InotifyObserver", "InotifyEmitter", "InotifyFD"])
def test_a_watch_one_of_whose_threads_ended_is_not_alive_and_a_new_one_notices(
    folder: Path, watches: list[Watch], watched: threading.Event, kind: str
) -> None:
    (thread,) = threads_named(kind)
    thread.stop()
    assert eventually(lambda: not watches[0].is_alive())
    watches[0].close()

    noticed = threading.Event()
    watches.append(Watch(folder, noticed.set))
    assert watches[1].is_alive()
    append(folder / "a.db-wal")
    assert noticed.wait(LONG_S)


def test_nothing_is_noticed_after_the_close(folder: Path) -> None:
    noticed = threading.Event()
    watch = Watch(folder, noticed.set)
    watch.close()
    append(folder / "a.db-wal")
    assert not noticed.wait(SILENCE_S)


def test_a_close_with_events_under_way_is_silent(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(folder, lambda: None)
    (folder / "a.db").rename(tmp_path / "away.db")  # watchdog holds it back for half a second: it may come to a name
    time.sleep(0.05)
    watch.close()
    assert [] == caplog.messages
    assert [] == logging.getLogger("watchdog.observers.inotify").filters


def test_a_close_waits_for_a_notice_that_blocks_only_so_long(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fs_events, "_CLOSE_S", 0.05)
    entered, free = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        free.wait(LONG_S)

    watch = Watch(folder, block)
    append(folder / "a.db-wal")
    assert entered.wait(LONG_S)
    watch.close()
    left = caplog.messages
    free.set()
    assert [f"stop watching {folder}: its threads do not end; they are left behind"] == left
    assert eventually(lambda: threads_named("InotifyObserver") == [])


def test_many_watches_leave_no_thread_and_no_file_behind(folder: Path) -> None:
    Watch(folder, lambda: None).close()
    # a thread of an earlier test may end meanwhile, and the file of an object that nobody uses any more may be closed
    threads, files = set(threading.enumerate()), len(os.listdir("/dev/fd"))
    for _ in range(100):
        Watch(folder, lambda: None).close()
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir("/dev/fd")) <= files


def test_a_merge_imports_no_watchdog(store: edgeshard.Store) -> None:
    code = """
import sys
import edgeshard, edgeshard.files.fs_events
from edgeshard import cli
edgeshard.Store(sys.argv[1]).shard("agent").close()
cli.main(["merge", sys.argv[1], "-q"])
print([name for name in sys.modules if name.startswith("watchdog")])
"""
    done = python(code, store.root)
    assert (0, "[]\n", "") == (done.returncode, done.stdout, done.stderr)


# -- where it cannot be armed -----------------------------------------------------------------------------------------


def test_what_is_no_folder_cannot_be_watched(folder: Path) -> None:
    for path in (folder / "none", folder / "a.db"):
        with pytest.raises(StorageIOError) as raised:
            Watch(path, lambda: None)
        assert ("watch folder", str(path)) == (raised.value.action, raised.value.path)


_STRANGER = """
import os, sys
from pathlib import Path
import watchdog.observers
from edgeshard.files.fs_events import Watch
from edgeshard.errors import AccessError
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    Watch(Path(sys.argv[1]), print)
except AccessError as error:
    print(error.action, error.path)
"""


def test_a_folder_that_may_not_be_read_is_a_matter_of_permission() -> None:
    # not below tmp_path: pytest's folders are closed to the user that root has to become for this
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o311)
        done = python(_STRANGER, folder)
        os.chmod(folder, 0o700)
    assert (f"watch folder {folder}\n", "") == (done.stdout, done.stderr)


def test_a_system_without_native_notices_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from watchdog import observers
    from watchdog.observers.polling import PollingObserver

    monkeypatch.setattr(observers, "Observer", PollingObserver)
    with pytest.raises(StorageIOError, match="no native way"):
        Watch(folder, lambda: None)


@pytest.mark.parametrize(
    ("number", "kind", "cause"),
    [
        (errno.EMFILE, StorageIOError, r"fs\.inotify\.max_user_instances"),
        (errno.ENOSPC, StorageIOError, r"fs\.inotify\.max_user_watches"),
        (errno.EACCES, AccessError, "permission"),
        (errno.EIO, StorageIOError, os.strerror(errno.EIO)),
    ],
)
def test_an_error_of_the_system_is_explained_and_nothing_stays_behind(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    kind: type[Exception],
    cause: str,
) -> None:
    from watchdog import observers

    class Failing(observers.Observer):  # type: ignore[misc, valid-type]  # it is a class
        def on_thread_start(self) -> None:
            raise OSError(number, os.strerror(number))

    Failing.__name__ = "InotifyObserver"
    before = threading.active_count()
    monkeypatch.setattr(observers, "Observer", Failing)
    with pytest.raises(kind, match=cause) as raised:
        Watch(folder, lambda: None)
    assert kind is type(raised.value)
    assert (before, []) == (threading.active_count(), caplog.messages)


def test_a_process_that_may_start_no_thread_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from watchdog.observers.api import EventEmitter

    def fail(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(EventEmitter, "start", fail)
    with pytest.raises(StorageIOError, match="can't start new thread"):
        Watch(folder, lambda: None)


_LIMITED = """
import os, sys
from pathlib import Path
from edgeshard.files.fs_events import Watch
from edgeshard.errors import StorageIOError
Path("/proc/sys/user", sys.argv[2]).write_text("0")
try:
    Watch(Path(sys.argv[1]), print)
except StorageIOError as error:
    print(error.cause)
"""


@on_linux
@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_a_limit_of_the_kernel_is_named_with_its_sysctl(folder: Path, limit: str) -> None:
    own = ["unshare", "--user", "--map-root-user"]  # a user namespace has limits of its own, for nobody else
    if shutil.which("unshare") is None or subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets us make no user namespace")
    command = [*own, sys.executable, "-c", _LIMITED, str(folder), f"max_inotify_{limit}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert f"raise the sysctl fs.inotify.max_user_{limit}" in done.stdout, done.stderr
    assert "" == done.stderr
