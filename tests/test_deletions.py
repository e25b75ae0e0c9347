"""Deletions of keyed tables go once nothing older can come and all others know of them, and not before."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import keyed_model
import pytest
from helpers import command, shard_path, sql
from test_keyed import NOON_US, LastKnown, Reading, values

import edgeshard
from edgeshard import arrivals, prunings, receipts
from edgeshard import shard as shards
from edgeshard.prune import deletions, passed, step

DAY_S = 86_400
GRACE = "10d"
GRACE_US = 10 * DAY_S * 1_000_000


class Wall:
    """The clock of all devices, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.us = keyed_model.set_clock(monkeypatch, NOON_US)
        monkeypatch.setattr(time, "time", lambda: self.us.now_us / 1e6)

        class Datetime(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return datetime.datetime.fromtimestamp(time.time(), tz)

        for module in (shards, prunings, receipts):
            monkeypatch.setattr(module, "datetime", SimpleNamespace(datetime=Datetime, UTC=datetime.UTC))

    def advance(self, days: float) -> None:
        self.us.now_us += int(days * DAY_S * 1_000_000)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The clock of all devices."""
    return Wall(monkeypatch)


def gone(store: edgeshard.Store) -> int:
    """How many deletions it says that it pruned; and it contradicts itself nowhere."""
    report = store.verify(deep=True)
    assert () == report.errors
    return report.pruned.get("deletion", 0)


def there(store: edgeshard.Store) -> list[str]:
    """The keys of which it has a deletion."""
    return [sensor for (sensor,) in store.query("SELECT sensor FROM last_known_deleted ORDER BY 1")]


def collect(store: edgeshard.Store, **options: Any) -> Any:
    """Prune by this rule alone."""
    return store.prune(deletions_older_than=GRACE, **options)


def deleted(store: edgeshard.Store, sensor: str = "inlet", agent: str = "a") -> None:
    """An agent writes a row, deletes it, and ends; all is merged."""
    with store.shard(agent) as shard:
        shard.write(LastKnown(sensor, 1.0))
        shard.delete(LastKnown, sensor)
    store.merge()


# -- what goes --------------------------------------------------------------------------------------------------------


def test_a_deletion_goes_once_the_grace_period_has_passed(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    wall.advance(9.9)
    assert (0, ["inlet"]) == (collect(store).rows, there(store))
    wall.advance(0.2)
    assert 1 == collect(store, dry_run=True).rows
    assert ["inlet"] == there(store)
    report = collect(store)
    assert (1, {"deletion": 1}, 0, 0) == (
        report.rows,
        report.by_reason,
        report.deletions_behind,
        report.deletions_unheard,
    )
    assert ([], 1, {}) == (there(store), gone(store), values(store))
    assert 0 == collect(store).rows
