"""A wall clock, set by hand, for all devices of a test: the fixture `wall`."""

from __future__ import annotations

import datetime
import time
from types import SimpleNamespace
from typing import Any

import pytest

from edgeshard.master import pruned_ranges, receipts
from edgeshard.shard import shard
from tests.support import keyed_model
from tests.support.clocks import DAY_S
from tests.support.keyed_model import NOON_US


class Wall:
    """The clock of all devices, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.us = keyed_model.set_clock(monkeypatch, NOON_US)
        monkeypatch.setattr(time, "time", lambda: self.us.now_us / 1e6)

        class Datetime(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return datetime.datetime.fromtimestamp(time.time(), tz)

        for module in (shard, pruned_ranges, receipts):
            monkeypatch.setattr(module, "datetime", SimpleNamespace(datetime=Datetime, UTC=datetime.UTC))

    def advance(self, days: float) -> None:
        self.us.now_us += int(days * DAY_S * 1_000_000)
