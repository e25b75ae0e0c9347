"""Fixtures that every test may use: a store on a fresh folder, a clock, a PostgreSQL server, a disk that fills up."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgeshard
from tests.support.clocks import Clock, Machine, set_machine_clock
from tests.support.in_memory import with_space
from tests.support.wall_clock import Wall

if TYPE_CHECKING:
    from edgeshard.postgres.address import Address
    from tests.support.postgres_server import PgServer

# a shell that runs the tests in the background has them ignore Ctrl-C, which the processes of tests would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)
# an environment that forbids compiled modules has each of the many processes that tests start compile edgeshard anew,
# which takes ten times as long as starting, and each worker compile all tests anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# output is buffered, as users have it
os.environ.pop("PYTHONUNBUFFERED", None)


def pytest_xdist_auto_num_workers() -> int:
    """Start two workers per processor: tests spend much of their time waiting for processes and timers."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import another part of the tests in each worker of pytest-xdist, before each collects all of them.

    After a fresh checkout the tests must be compiled, with their assertions, which takes three times as long as the
    collection. So each worker compiles its part, and finds the others' parts compiled. What cannot be imported is
    imported again by the collection, which reports it.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers == 1 or session.config.args != session.config.getini("testpaths"):
        return
    own = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    root = session.config.rootpath
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as in a collection
        for path in sorted((root / "tests").rglob("test_*.py"))[own::workers]:
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape lone surrogates in what a worker of pytest-xdist sends to the main process.

    A captured log record, or the text of a failure, may hold a file name that is not UTF-8, which Python gives as a text
    with lone surrogates. execnet sends texts as UTF-8, cannot encode these, and the worker would die.
    """
    return _escaped((yield))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_escaped, value))
    return value


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    """Return a store that does not exist yet."""
    return edgeshard.Store(tmp_path / "data")


@pytest.fixture
def shard(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    """Yield an open shard of that store."""
    with store.shard("agent") as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let mergers and prunes take the time from a clock that the test sets."""
    made = Clock()
    monkeypatch.setattr(time, "time", made)
    set_machine_clock(monkeypatch, made)
    return made


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine whose clocks the test sets: all of them."""
    return Machine(monkeypatch)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """Return the wall clock of all devices, which the test sets."""
    return Wall(monkeypatch)


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    """Yield a PostgreSQL server of our own. Tests share it; each worker of pytest-xdist has one."""
    postgres_server = pytest.importorskip("tests.support.postgres_server")
    from edgeshard.bench.system import NotRunError

    folder = Path(tempfile.mkdtemp(prefix="edgeshard-pg-", dir=with_space()))
    folder.chmod(0o711)
    try:
        server = postgres_server.PgServer(folder)
    except NotRunError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.kill()  # a clean shutdown would write all of it to the disk, and nobody wants it
        shutil.rmtree(folder)


@pytest.fixture
def pg(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the DSN of a fresh database on the server that EDGESHARD_TEST_PG_DSN names, or else on our own."""
    foreign = os.environ.get("EDGESHARD_TEST_PG_DSN")
    if foreign is None:
        server = request.getfixturevalue("pg_server")
        with server.database() as name:
            yield server.dsn(name)
        return
    from edgeshard.postgres.pusher import Pusher
    from tests.support.postgres_server import cluster_nodes, fetch, foreign_database

    with foreign_database(foreign) as dsn:
        if cluster_nodes(foreign):
            # every record table is distributed as it is created
            made, name = Pusher.__init__, fetch(dsn, "SELECT current_database()")[0][0]

            def distribute(self: Pusher, path: Path, where: Address, **named: Any) -> None:
                made(self, path, where, **(named | {"distribute": True} if name in where.dsn else named))

            monkeypatch.setattr(Pusher, "__init__", distribute)
        yield dsn


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield an empty file system of one megabyte."""
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
