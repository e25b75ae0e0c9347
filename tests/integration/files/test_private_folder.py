"""The private folder of a killed process is removed by the next; what is in use, or somebody else's, stays."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeshard.files import locks, modes
from edgeshard.files.private_folder import PrivateFolders
from tests.support.processes import python
from tests.support.users import User, as_root, run_as

MARKED = PrivateFolders("copy-", "database.db", marker="copy.lock")
UNMARKED = PrivateFolders("copy-", "database.db")

KILLED = """
import os, signal, sys
from pathlib import Path
from edgeshard.files.private_folder import PrivateFolders
with PrivateFolders("copy-", "database.db", marker=sys.argv[2]).make(sys.argv[1]) as path:
    for suffix in ("", "-wal", "-shm", "-journal", ".edgeshard-0123abcd.new", ".edgeshard-0123abcd.new-journal"):
        Path(path + suffix).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""

both = pytest.mark.parametrize("private", [MARKED, UNMARKED], ids=["marked", "not marked"])


def leave(private: PrivateFolders, parent: Path) -> Path:
    """Kill a process that has a private folder; return the folder."""
    before = {*parent.iterdir()}
    assert -signal.SIGKILL == python(KILLED, parent, private.marker).returncode
    (left,) = {*parent.iterdir()} - before
    return left


def make(folder: Path, *names: str) -> list[Path]:
    """Make a folder with empty files; return their paths."""
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@both
def test_what_a_killed_process_left_is_removed(private: PrivateFolders, tmp_path: Path) -> None:
    left = leave(private, tmp_path)
    assert (6 if private == UNMARKED else 7) == len(os.listdir(left))
    private.remove_leftovers(tmp_path)
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("moment", ["opened", "locked"])
def test_a_folder_that_another_process_takes_for_a_leftover_is_made_again(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = (modes, "create_private_folder") if moment == "opened" else (locks, "lock_open_file")
    real: Callable[..., Any] = getattr(owner, name)
    calls: list[object] = []

    def late(*arguments: Any) -> Any:
        calls.append(arguments)
        if moment == "opened":
            real(*arguments)
        if len(calls) == 1:
            UNMARKED.remove_leftovers(tmp_path)
            assert [] == os.listdir(tmp_path)
        return real(*arguments) if moment == "locked" else None

    monkeypatch.setattr(owner, name, late)
    with UNMARKED.make(tmp_path) as path:
        Path(path).touch()
        UNMARKED.remove_leftovers(tmp_path)
        assert os.path.exists(path)
    assert [] == os.listdir(tmp_path)
    assert len(calls) > 1


@both
def test_a_folder_in_use_stays_until_the_end_of_its_block(private: PrivateFolders, tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    with private.make(tmp_path) as path, private.make(tmp_path) as other:
        for each in (path, other):
            Path(each).touch()
        private.remove_leftovers(tmp_path)
        assert (True, True, False) == (os.path.exists(path), os.path.exists(other), path == other)
    assert ([], before) == (os.listdir(tmp_path), len(os.listdir("/dev/fd")))


@as_root
@both
def test_a_folder_of_another_user_stays(private: PrivateFolders, tmp_path: Path) -> None:
    # not tmp_path, which another user may not enter
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o777)
        left = leave(private, Path(parent))
        run_as(User(54_321, 54_321), lambda: private.remove_leftovers(parent))
        assert left.exists()
        private.remove_leftovers(parent)
        assert not left.exists()


@both
def test_a_file_that_somebody_put_into_such_a_folder_stays(private: PrivateFolders, tmp_path: Path) -> None:
    left = leave(private, tmp_path)
    (left / "notes.txt").touch()
    private.remove_leftovers(tmp_path)
    assert ["notes.txt"] == os.listdir(left)
    with private.make(tmp_path) as path:
        Path(path).touch()
        (Path(path).parent / "mine.db").touch()
    assert ["mine.db"] == os.listdir(os.path.dirname(path))


@both
def test_what_is_not_such_a_folder_stays(private: PrivateFolders, tmp_path: Path) -> None:
    kept = [
        path
        for name in (
            "copy",
            "copy-of-mine",
            "copy-20260101",
            f"my-copy-{'0' * 16}",
            f"copy-{'0' * 17}",
            "copi-" + "0" * 16,
        )
        for path in make(tmp_path / name, "database.db", "copy.lock")
    ]
    (tmp_path / f"copy-{'1' * 16}").touch()
    for digit, target in (("2", "copy-of-mine"), ("3", "nothing")):
        (tmp_path / f"copy-{digit * 16}").symlink_to(target)
    names = {*os.listdir(tmp_path)}
    private.remove_leftovers(tmp_path)
    assert ([], names) == ([path for path in kept if not path.exists()], {*os.listdir(tmp_path)})


def test_a_folder_without_its_own_marker_stays(tmp_path: Path) -> None:
    left = leave(MARKED, tmp_path)
    copied, other_marker, no_content, link, fifo, folder = (tmp_path / f"copy-{digit * 16}" for digit in "012345")
    shutil.copytree(left, copied)  # its marker names another folder
    make(other_marker, "database.db", "lock")
    make(no_content, "database.db", "copy.lock")
    for each in (link, fifo, folder):
        make(each, "database.db")
    (tmp_path / "content").write_text(link.name)
    (link / "copy.lock").symlink_to(tmp_path / "content")
    os.mkfifo(fifo / "copy.lock")
    (folder / "copy.lock").mkdir()
    kept = [path for path in tmp_path.rglob("*") if left not in (path, *path.parents)]
    before = len(os.listdir("/dev/fd"))
    MARKED.remove_leftovers(tmp_path)
    assert ([], before) == ([path for path in kept if not path.exists()], len(os.listdir("/dev/fd")))
    assert not left.exists()


def test_a_leftover_that_cannot_be_removed_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, **_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    left = leave(MARKED, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(PermissionError) as caught:
        patch.setattr(os, "unlink", refuse)
        MARKED.remove_leftovers(tmp_path)
    assert (str(left), True) == (os.path.dirname(caught.value.filename), (left / "copy.lock").exists())
    MARKED.remove_leftovers(tmp_path)
    assert not left.exists()


def test_a_leftover_stays_removable_where_its_removal_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(path: Any, **options: Any) -> None:
        if len(os.listdir(left)) < 3:
            raise OSError(errno.EIO, "Input/output error", path)
        unlink(path, **options)

    unlink = os.unlink
    left = leave(MARKED, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(os, "unlink", cut_short)
        MARKED.remove_leftovers(tmp_path)
    assert (2, True) == (len(os.listdir(left)), (left / "copy.lock").exists())
    MARKED.remove_leftovers(tmp_path)
    assert not left.exists()
