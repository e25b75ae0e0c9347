"""A folder with a store, which the tests of a module copy."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeshard
from tests.support.records import NOON, Reading


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that has merged and pending rows, an older snapshot of it, and a file to import."""
    folder = tmp_path_factory.mktemp("prepared")
    store = edgeshard.Store(folder / "data")
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard.write_many(Reading("inlet", float(n), NOON) for n in range(20))
        store.merge()
        store.snapshot(folder / "snapshot.db")
        shard.write_many(Reading("inlet", float(n), NOON) for n in range(20, 30))
    (folder / "rows.ndjson").write_text('{"n": 1}\n{"n": 2}\n')
    return folder
