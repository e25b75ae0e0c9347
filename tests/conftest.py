"""What the tests share: a store on a fresh folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeshard

sys.path.insert(0, str(Path(__file__).parent))  # tests import helpers.py, and run it in subprocesses


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    """A store that does not exist yet."""
    return edgeshard.Store(tmp_path / "data")


@pytest.fixture
def shard(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    """An open shard of that store."""
    with store.shard("agent") as opened:
        yield opened
