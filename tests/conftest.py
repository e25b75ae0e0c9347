"""What the tests share: a store on a fresh folder, and a disk that fills up."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeshard

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
