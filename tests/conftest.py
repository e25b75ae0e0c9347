"""What the tests share: a store on a fresh folder, and a disk that fills up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import edgeshard

if TYPE_CHECKING:
    from helpers import Clock
    from postgres import PgServer

sys.path.insert(0, str(Path(__file__).parent))  # tests import helpers.py, and run it in subprocesses

# a shell that runs the tests in the background has them ignore Ctrl-C, which the processes of tests would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    """A store that does not exist yet."""
    return edgeshard.Store(tmp_path / "data")


@pytest.fixture
def shard(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    """An open shard of that store."""
    with store.shard("agent") as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What tells mergers and prunes the time."""
    from helpers import Clock

    made = Clock()
    monkeypatch.setattr(time, "time", made)
    return made


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    """A PostgreSQL server of our own, which the tests share."""
    postgres = pytest.importorskip("postgres")
    from edgeshard.bench.system import NotRunError

    folder = Path(tempfile.mkdtemp(prefix="edgeshard-pg-"))
    folder.chmod(0o711)
    try:
        server = postgres.PgServer(folder)
    except NotRunError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.kill()  # nothing of it is wanted, and ending in good order writes all of it to the disk
        shutil.rmtree(folder)


@pytest.fixture
def pg(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a fresh database: of the server that EDGESHARD_TEST_PG_DSN names, or else of our own."""
    foreign = os.environ.get("EDGESHARD_TEST_PG_DSN")
    if foreign is None:
        server = request.getfixturevalue("pg_server")
        with server.database() as name:
            yield server.dsn(name)
        return
    from postgres import foreign_database

    with foreign_database(foreign) as dsn:
        yield dsn


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
