"""A store works where only its own volume is writable, or where the folder for temporary files is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeshard.sqlite import temp_files
from tests.support.users import as_root

# in a mount namespace of its own: what it mounts ends with it
_MOUNTS = """
set -e
mount -t tmpfs none "$1"
{mounts}
cd /
exec "$2" -B -c "$3" "$1"
"""

_READ_ONLY_ROOT = """
mount --rbind / /
mount -o remount,ro,bind /
mount -o remount,ro,bind /tmp 2>/dev/null || true
"""

# the first of the folders in which SQLite looks; /tmp itself may have the interpreter, the checkout and this store
_FULL_FOLDER = """
mkdir "$1/small"
mount -t tmpfs -o size=64k none "$1/small"
export SQLITE_TMPDIR="$1/small"
"""

_SCRIPT = """
import decimal, os, shutil, sys
import attrs
import edgeshard
from edgeshard import table
from edgeshard.sqlite import temp_files

assert not temp_files._has_space(temp_files.find_folder()), temp_files.find_folder()
root = os.path.join(sys.argv[1], "data")
store = edgeshard.Store(root)

@table(name="t")
@attrs.frozen
class Old:
    k: int
    x: str

@table(name="t", index=["x"])
@attrs.frozen
class New:
    k: decimal.Decimal
    x: str

def done(what, value):
    print(what, value, flush=True)

with store.shard("a") as shard:
    for n in range(8):
        shard.write_many(Old((n * 1000 + i) * 7919 % 99991, "y" * 150) for i in range(1000))
    done("large merge", store.merge().rows)
    shard.write_many(Old(i, "z" * 100) for i in range(6_000))
    done("many keys", store.merge(keep_empty=True).rows)
done("sort", len(store.query("select * from t order by x, k desc")))
done("group", len(store.query("select k, count(*) from t group by x, k")) > 4_000)
with store.shard("b") as shard:
    shard.write(New(decimal.Decimal("1.5"), "z"))
done("wider column and index", store.merge().rows)
done("verify", store.verify(deep=True).ok)
store.snapshot(root + "/snapshot.db")
store.export(root + "/bundle.db")
hub = edgeshard.Store(root + "-hub")
hub.init()
done("dry run of a hub", hub.merge([root + "/bundle.db"], dry_run=True).rows)
done("hub", hub.merge([root + "/snapshot.db", root + "/bundle.db"]).rows)
done("prune", store.prune(keep_rows=10, shrink=True).rows)
"""

_DONE = """large merge 8000
many keys 6000
sort 14000
group True
wider column and index 1
verify True
dry run of a hub 14001
hub 14001
prune 8000
"""


@as_root
@pytest.mark.parametrize(
    "mounts",
    [
        pytest.param(_READ_ONLY_ROOT, id="read-only root"),
        pytest.param(_FULL_FOLDER, id="full folder", marks=pytest.mark.slow),
    ],
)
def test_nothing_needs_a_folder_for_temporary_files(tmp_path: Path, mounts: str) -> None:
    shell = _MOUNTS.format(mounts=mounts)
    command = ["unshare", "-m", "sh", "-c", shell, "sh", str(tmp_path), sys.executable, _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (_DONE, "") == (done.stdout, done.stderr)


def test_a_folder_that_does_not_exist_or_has_no_space_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(temp_files, "_FOLDERS", (None, str(tmp_path / "none"), str(tmp_path / "file"), str(tmp_path)))
    assert str(tmp_path) == temp_files.find_folder()
    assert temp_files._has_space(str(tmp_path))
    monkeypatch.setattr(temp_files, "_FREE_BYTES_MIN", 1 << 60)
    assert not temp_files._has_space(str(tmp_path))
    monkeypatch.setattr(temp_files, "_FOLDERS", (str(tmp_path / "none"), ""))
    assert temp_files.find_folder() is None
