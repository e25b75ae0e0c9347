"""Laws of merging: any databases, merged in any order, again, through any hops, give the same rows, once each.

The laws are tried on real files of random fleets (`tests.support.fleet_model`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import edgeshard
from tests.support.few_examples import FEW, QUIET
from tests.support.fleet_model import Content, Fleet, content, play
from tests.support.forms import short_and_full
from tests.support.stores import new_store

# -- the laws ---------------------------------------------------------------------------------------------------------


@contextmanager
def pile(data: st.DataObject) -> Iterator[tuple[Path, list[Path]]]:
    """A folder for hubs, and some databases, of all kinds: masters, shards that agents have open, copies, bundles."""
    fleet = Fleet()
    chance = random.Random(data.draw(st.integers(0, 1_000_000), "seed"))
    try:
        while len(fleet.databases()) < 3:
            play(fleet, chance.choice, data.draw(st.integers(5, 30), "steps"))
        # not all of them: gaps are to stay
        yield fleet.folder, data.draw(st.lists(st.sampled_from(fleet.databases()), min_size=2, unique=True), "some")
    finally:
        fleet.remove()


def merged(hub: Path, *parts: Sequence[Path]) -> Content:
    """What a hub holds after it merged each of these lists, one after the other."""
    store = new_store(hub)
    for paths in parts:
        assert () == store.merge(paths).quarantined
    return content(store.master_path)


def through_hubs(data: st.DataObject, folder: Path, paths: list[Path]) -> Path:
    """The databases, merged by a random tree of hubs: what its root sends on."""
    if len(paths) == 1:
        return paths[0]
    at = data.draw(st.integers(1, len(paths) - 1), "divided at")
    parts = [through_hubs(data, folder, part) for part in (paths[:at], paths[at:])]
    hub = new_store(folder / f"hub{len(list(folder.iterdir()))}")
    assert () == hub.merge(parts).quarantined
    return sent_on(hub, data.draw(st.sampled_from(("master", "snapshot", "bundle")), "sent as"))


def sent_on(hub: edgeshard.Store, kind: str) -> Path:
    """What a hub holds, as a file for the next one."""
    if kind == "master":
        return hub.master_path
    path = hub.root / f"{kind}.db"
    if kind == "snapshot":
        hub.snapshot(path)
    else:
        hub.export(path)
    return path


@pytest.mark.slow  # a random topology, below, merges again as well
@FEW
@given(st.data())
def test_merging_again_changes_nothing(data: st.DataObject) -> None:
    with pile(data) as (folder, paths):
        hub = new_store(folder / "again")
        once = merged(hub.root, paths)
        for path in data.draw(st.permutations(paths), "again"):
            assert 0 == hub.merge([path]).rows
        assert once == content(hub.master_path)


@pytest.mark.slow  # a random topology, below, merges in any order as well
@FEW
@given(st.data())
def test_the_order_of_merging_makes_no_difference(data: st.DataObject) -> None:
    with pile(data) as (folder, paths):
        together = merged(folder / "together", paths)
        one_by_one = merged(folder / "one by one", *([path] for path in data.draw(st.permutations(paths), "order")))
        assert together == one_by_one


@pytest.mark.slow  # a random topology, below, has hubs as well
@FEW
@given(st.data())
def test_hubs_between_make_no_difference(data: st.DataObject) -> None:
    with pile(data) as (folder, paths):
        directly = merged(folder / "directly", paths)
        (folder / "hubs").mkdir()
        top = through_hubs(data, folder / "hubs", data.draw(st.permutations(paths), "order"))
        assert directly == merged(folder / "top", [top])


@pytest.mark.slow  # a random topology, below, merges parts before as well
@FEW
@given(st.data())
def test_a_part_merged_before_makes_no_difference_to_the_whole(data: st.DataObject) -> None:
    with pile(data) as (folder, paths):
        part = data.draw(st.lists(st.sampled_from(paths)), "part")
        assert merged(folder / "whole", paths) == merged(folder / "part first", part, paths)


# -- random topologies ------------------------------------------------------------------------------------------------


class FleetMachine(RuleBasedStateMachine):
    """Four stores that merge anything into one another; see `Fleet`, whose every step is checked."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.failed = False

    def step(self, name: str, data: st.DataObject) -> None:
        def pick(choices: Sequence[Any]) -> Any:
            return data.draw(st.sampled_from(choices))

        try:
            getattr(self.fleet, name)(pick)
        except BaseException:
            self.failed = True
            raise

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        self.step("write", data)

    @rule(data=st.data())
    def write_more(self, data: st.DataObject) -> None:
        self.step("write", data)

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.step("close", data)

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        self.step("drain", data)

    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        self.step("copy", data)

    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        self.step("snapshot", data)

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        self.step("put_back", data)

    @rule(data=st.data())
    def plant(self, data: st.DataObject) -> None:
        self.step("plant", data)

    @rule(data=st.data())
    def say_ranges(self, data: st.DataObject) -> None:
        self.step("say_ranges", data)

    @rule(data=st.data())
    def receipt(self, data: st.DataObject) -> None:
        self.step("receipt", data)

    @rule(data=st.data())
    def export(self, data: st.DataObject) -> None:
        self.step("export", data)

    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        self.step("merge", data)

    @rule(data=st.data())
    def merge_more(self, data: st.DataObject) -> None:
        self.step("merge", data)

    def teardown(self) -> None:
        try:
            if not self.failed:
                self.fleet.settle()
        finally:
            self.fleet.remove()


@pytest.mark.parametrize("examples", short_and_full(5, 16))
def test_whatever_merges_into_whatever_all_rows_end_everywhere_once(examples: int) -> None:
    run_state_machine_as_test(
        FleetMachine,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=QUIET),
    )
