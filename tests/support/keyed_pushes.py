"""Push versions of the same keys from several devices, and read what PostgreSQL then shows."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from tests.support import keyed_model
from tests.support.keyed_model import Lww

pytest.importorskip("psycopg")
from tests.support.postgres_server import fetch


def rivals(tmp_path: Path, count: int) -> list[edgeshard.Store]:
    """Create devices, each with its own versions of the same keys, merged."""
    stores = keyed_model.world(tmp_path, count)
    for number, store in enumerate(stores):
        with store.shard("a") as shard:
            shard.write_many(Lww("p", n, number) for n in range(500))
        store.merge()
    return stores


def versions(dsn: str) -> tuple[int, int]:
    """Return how many rows and how many keys PostgreSQL has."""
    ((rows, keys),) = fetch(dsn, "SELECT count(*), count(DISTINCT (row, col)) FROM cell")
    return rows, keys


def state(dsn: str) -> list[tuple[tuple[str, int], int | None, int]]:
    """Return what PostgreSQL shows: key, value and timestamp."""
    rows = fetch(dsn, "SELECT row, col, value, _timestamp FROM cell")
    return sorted((((row, col), value, timestamp) for row, col, value, timestamp in rows), key=repr)


def plainly(value: Any) -> Any:
    """Convert a value to a form that SQLite and PostgreSQL share."""
    try:
        return decimal.Decimal(str(value) if isinstance(value, (float, str)) else value)
    except (decimal.InvalidOperation, TypeError, ValueError):
        return None if value is None else str(value)
