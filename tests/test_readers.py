"""The master is an ordinary SQLite file: readers that no one here wrote, while a writer and a merger are at work."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path

import apsw.sqlite_extra
import pytest

import edgeshard

# as in the stored facts of apsw: the package ships SQLite's own shell, so that there always is one to test with
SHELLS = {"system": shutil.which("sqlite3"), "apsw's": str(apsw.sqlite_extra.path("sqlite3_shell"))}


@pytest.mark.parametrize("which", SHELLS)
def test_the_sqlite3_shell_reads_the_live_master(store: edgeshard.Store, which: str) -> None:
    shell = SHELLS[which]
    if shell is None or not Path(shell).exists():
        pytest.skip(f"this machine has no {which} sqlite3 shell")
    stop = threading.Event()

    def work() -> None:
        with store.shard("agent") as shard:
            n = 0
            while not stop.is_set():
                shard.write({"n": n})
                n += 1
                if n % 50 == 0:
                    store.merge()

    store.merge()
    worker = threading.Thread(target=work)
    worker.start()
    try:
        counts: list[int] = []
        while len(counts) < 20 or counts[-1] == counts[0]:
            sql = (
                "select count(*) as n, count(distinct data) as d, count(distinct _seq) as s, min(agent_id) as a "
                "from agent_data join edgeshard_streams using(agent_id)"
            )
            done = subprocess.run(
                [shell, "-cmd", ".timeout 5000", "-json", store.master_path, sql],
                capture_output=True,
                text=True,
                check=False,
            )
            assert (0, "") == (done.returncode, done.stderr)
            (row,) = json.loads(done.stdout)
            assert row["n"] == row["d"] == row["s"]
            counts.append(row["n"])
        assert sorted(counts) == counts
    finally:
        stop.set()
        worker.join()
    store.merge()
    assert store.verify().ok


def test_the_dump_of_a_master_is_loaded_by_the_shell(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    shell = str(SHELLS["apsw's"])
    dump = subprocess.run([shell, store.master_path, ".dump"], capture_output=True, check=True).stdout
    subprocess.run([shell, tmp_path / "again.db"], input=dump, check=True)
    count = subprocess.run(
        [shell, tmp_path / "again.db", "select count(*) from agent_data"], capture_output=True, text=True, check=True
    )
    assert "1" == count.stdout.strip()
