"""No deleted key is shown again, wherever deletions are collected."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeshard.merge import merger
from edgeshard.reports import PRUNED
from tests.support import keyed_model
from tests.support.forms import short_and_full
from tests.support.in_memory import IN_MEMORY
from tests.support.keyed_model import Cell, KeepAll, Lww, Remembered
from tests.support.stores import contradictions, new_store
from tests.support.tombstones import collect
from tests.support.wall_clock import Wall

_DEVICE = st.integers(0, 2)


#: A key is written on a device, and deleted on another that all hear of; then some device collects.
_ROUND = st.tuples(st.just("round"), keyed_model.KEYS, _DEVICE, _DEVICE, _DEVICE, st.integers(-3, 5))


_STEP = st.one_of(
    _ROUND,
    keyed_model.STEP,
    st.tuples(st.just("share"), _DEVICE),
    st.tuples(st.just("advance"), st.sampled_from([1, 11])),
    st.tuples(st.just("collect"), _DEVICE),
)


_STEPS = st.tuples(st.lists(_STEP, max_size=10), _ROUND, st.lists(_STEP, max_size=10))


class Fleet(keyed_model.World):
    """Devices that all have receipts of one another, and collect deletions. What is carried is not long under way."""

    def __init__(self, folder: Path, cls: type[Cell], wall: Wall) -> None:
        super().__init__(folder, cls, wall.us)
        self.clock = wall
        self.collected = 0
        self.do_receipts()

    def do_receipts(self) -> None:
        for one, other in itertools.permutations(self.stores, 2):
            one.receipt(other.ranges(), trust=True)

    def do_share(self, device: int) -> None:
        """The others get what a device has, while what their own shards have waits; and all hear of it."""
        store = self.stores[device]
        store.merge()
        for other in self.stores:
            if other is not store:
                with mock.patch.object(merger.Merger, "_due", return_value=[]):
                    other.merge([store.master_path])
        self.do_receipts()

    def do_round(self, key: tuple[str, int], writer: int, deleter: int, collector: int, moves_us: int) -> None:
        self.do_write(writer, "a", key, 1, False, 1)
        self.do_write(deleter, "b", key, None, True, moves_us)
        self.do_share(deleter)
        self.do_advance(11)
        self.do_collect(collector)

    def do_advance(self, days: int) -> None:
        self.clock.advance(days)

    def do_collect(self, device: int) -> None:
        self.collected += collect(self.stores[device]).rows


@pytest.mark.parametrize("examples", short_and_full(3, 20))
@pytest.mark.parametrize("cls", [Lww, KeepAll, Remembered])
def test_no_deleted_key_is_shown_again_wherever_deletions_are_collected(
    cls: type[Cell], examples: int, wall: Wall
) -> None:
    collected = check_law(cls, wall, settings(max_examples=examples))
    assert collected or examples < 20  # a few histories may happen to collect nothing


def check_law(cls: type[Cell], wall: Wall, profile: settings) -> int:
    """Raise where the law does not hold; how many deletions were collected."""
    collected = [0]

    @settings(profile, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
    @given(_STEPS, st.permutations([0, 1, 2]))
    def law(steps: tuple[list[Any], Any, list[Any]], order: list[int]) -> None:
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            fleet = Fleet(Path(folder), cls, wall)
            try:
                before, one, after = steps
                for step in [*before, one, *after]:
                    fleet.step(step)
            finally:
                fleet.close()
            for store in fleet.stores:
                store.merge()
            hub = new_store(Path(folder) / "hub")
            for number in order:
                hub.merge([fleet.stores[number].master_path])
            for store in fleet.stores:
                store.merge([hub.master_path])
            expected = keyed_model.kept(cls, fleet.log)
            for store in [hub, *fleet.stores]:
                assert expected == keyed_model.state(store)
                report = store.verify()
                assert ((), set()) == (contradictions(report), {loss.cause for loss in report.losses} - {PRUNED})
            collected[0] += fleet.collected

    law()
    return collected[0]
