"""The operator as algebra: any databases, merged in any order, again, through any hops, give the same rows, once each.

The laws are held against real files of random fleets (fleet_model.py). A mutant of the merge that breaks one of them
must be found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from fleet_model import Content, Fleet, content, play
from hub_trials import play_trials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import edgeshard
from edgeshard import database
from edgeshard.merge import copy, plan, source
from edgeshard.merge import job as jobs
from edgeshard.ranges import Range, subtract, union

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
FEW = settings(max_examples=15, deadline=None, suppress_health_check=QUIET)


# -- the laws ---------------------------------------------------------------------------------------------------------


@contextmanager
def pile(data: st.DataObject) -> Iterator[tuple[Path, list[Path]]]:
    """A folder for hubs, and databases of all kinds: masters, shards that agents have open, copies of either."""
    fleet = Fleet()
    chance = random.Random(data.draw(st.integers(0, 1_000_000), "seed"))
    try:
        while len(fleet.databases()) < 3:
            play(fleet, chance.choice, data.draw(st.integers(5, 30), "steps"))
        yield fleet.folder, fleet.databases()
    finally:
        fleet.remove()


def merged(hub: Path, *parts: Sequence[Path]) -> Content:
    """What a hub holds after it merged each of these lists, one after the other."""
    store = edgeshard.Store(hub)
    for paths in parts:
        assert () == store.merge(paths).quarantined
    return content(store.master_path)


def through_hubs(data: st.DataObject, folder: Path, paths: list[Path]) -> Path:
    """The databases, merged by a random tree of hubs: the master at its root."""
    if len(paths) == 1:
        return paths[0]
    at = data.draw(st.integers(1, len(paths) - 1), "divided at")
    parts = [through_hubs(data, folder, part) for part in (paths[:at], paths[at:])]
    hub = edgeshard.Store(folder / f"hub{len(list(folder.iterdir()))}")
    assert () == hub.merge(parts).quarantined
    return hub.master_path


@FEW
@given(st.data())
def test_merging_again_changes_nothing(data: st.DataObject) -> None:
    with pile(data) as (folder, paths):
        hub = edgeshard.Store(folder / "again")
        once = merged(hub.root, paths)
        for path in data.draw(st.permutations(paths), "again"):
            assert 0 == hub.merge([path]).rows
        assert once == content(hub.master_path)


@FEW
@given(st.data())
def test_the_order_of_merging_makes_no_difference(data: st.DataObject) -> None:
    with pile(data) as (folder, paths):
        together = merged(folder / "together", paths)
        one_by_one = merged(folder / "one by one", *([path] for path in data.draw(st.permutations(paths), "order")))
        assert together == one_by_one


@FEW
@given(st.data())
def test_hubs_between_make_no_difference(data: st.DataObject) -> None:
    with pile(data) as (folder, paths):
        directly = merged(folder / "directly", paths)
        (folder / "hubs").mkdir()
        top = through_hubs(data, folder / "hubs", data.draw(st.permutations(paths), "order"))
        assert directly == merged(folder / "top", [top])


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


def test_whatever_merges_into_whatever_all_rows_end_everywhere_once() -> None:
    run_state_machine_as_test(
        FleetMachine,
        settings=settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=QUIET),
    )


# -- mutants ----------------------------------------------------------------------------------------------------------

ADD_RANGES, ENSURE_STREAM, NOTE_GONE, COPY_PIECE = (
    copy._add_ranges,
    copy._ensure_stream,
    copy._note_gone,
    copy._copy_piece,
)
STREAMS_WITH_NEWS, OF_SOURCE, COPY_STATEMENT = source.streams_with_news, jobs.of_source, copy._copy_statement
COPY, LOAD = copy.copy, copy.Target.load


def held_is_forgotten(connection: Any, number: int, held: list[Range], copied: list[Range]) -> list[Range]:
    """What was held before is no longer in the ranges once more comes."""
    if copied:
        connection.execute("DELETE FROM main.edgeshard_ranges WHERE stream_no = ?", (number,))
        ADD_RANGES(connection, number, [], copied)
    return union([*held, *copied])


def last_seq_is_that_of_the_rows(target: Any, origin: Any, stream: Any) -> int:
    """A stream is known up to what came of it, and not up to what its source knows."""
    last = max((block.last for block in stream.blocks), default=0)
    return ENSURE_STREAM(target, origin, attrs.evolve(stream, last_seq=last))


def a_source_counts_as_our_own(path: Any) -> jobs.Job:
    """What is merged from a source that was named is truncated there."""
    return attrs.evolve(OF_SOURCE(path), own=True)


def ids_from_one(connection: Any) -> copy.Target:
    """Ids are given out again."""
    return attrs.evolve(LOAD(connection), next_id=1)


def or_ignore(schema: str, table: Any) -> str:
    """A row whose id is taken is left out."""
    return COPY_STATEMENT(schema, table).replace("INSERT INTO", "INSERT OR IGNORE INTO")


def not_cut(block: plan.Block | None, gone: int) -> tuple[plan.Block, ...]:
    """What a shard gave up is believed to be in it."""
    return () if block is None else (block,)


def gone_counts_as_held(target: Any, number: int, stream: Any, held: list[Range]) -> None:
    """What a shard gave up to another master counts as held by this one."""
    NOTE_GONE(target, number, stream, held)
    gone = [part for part, _ in source.gone_ranges(stream, held)]
    ADD_RANGES(target.connection, number, held, union(gone))


def only_streams_with_rows(connection: Any, origin: Any) -> list[Any]:
    """A hub passes on no stream of which it has no rows."""
    return [stream for stream in STREAMS_WITH_NEWS(connection, origin) if stream.blocks or origin.is_shard]


def only_streams_that_grew(connection: Any, origin: Any) -> list[Any]:
    """What filled a gap in one hub is no news to the next."""
    known = dict(database.fetch(connection, "SELECT stream_id, last_seq FROM main.edgeshard_streams"))
    streams = STREAMS_WITH_NEWS(connection, origin)
    return [stream for stream in streams if origin.is_shard or stream.last_seq > known.get(stream.stream_id, 0)]


def transactions_are_not_carried(target: Any, origin: Any, number: int, piece: plan.Block) -> None:
    """Where transactions begin and end is not copied."""
    COPY_PIECE(target, origin, number, piece)
    first_id = target.next_id - len(piece)
    target.connection.execute("DELETE FROM main.edgeshard_transactions WHERE first_id >= ?", (first_id,))


def blocks_grow_where_seqs_follow(connection: Any, number: int, block: plan.Block) -> None:
    """A block goes on although the ids do not."""
    connection.execute(
        "INSERT INTO main.edgeshard_blocks VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        (number, block.first, block.last, block.first_id),
    )
    connection.execute(
        "UPDATE main.edgeshard_blocks SET last = ?3 WHERE stream_no = ?1 AND last = ?2 - 1",
        (number, block.first, block.last),
    )
    connection.execute(
        "DELETE FROM main.edgeshard_blocks WHERE stream_no = ?1 AND first = ?2 AND EXISTS ("
        "SELECT 1 FROM main.edgeshard_blocks WHERE stream_no = ?1 AND first < ?2 AND last >= ?2)",
        (number, block.first),
    )


def left_out_counts_as_held(target: Any, origin: Any, room: int, checked: Any = None, unwanted: Any = None) -> Any:
    """A bundle says that it has what was left out of it."""
    copied = COPY(target, origin, room, checked, unwanted)
    numbers = database.fetch(target.connection, "SELECT stream_id, stream_no FROM main.edgeshard_streams")
    for stream_id, number in numbers if unwanted else []:
        held = copy.held_ranges(target.connection, number)
        ADD_RANGES(target.connection, number, held, subtract(unwanted.get(stream_id, ()), held))
    return copied


def nobody_has_anything(*_: Any) -> dict[bytes, Any]:
    """A bundle takes all, whatever its receiver has."""
    return {}


MUTANTS: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "ranges are not joined": [(copy, "union", sorted)],
    "ranges forget what was held": [(copy, "_add_ranges", held_is_forgotten)],
    "the last seq is not carried": [(copy, "_ensure_stream", last_seq_is_that_of_the_rows)],
    "a source is truncated": [(jobs, "of_source", a_source_counts_as_our_own)],
    "ids are given out twice": [(copy.Target, "load", ids_from_one)],
    "ids are given out twice, and OR IGNORE": [
        (copy.Target, "load", ids_from_one),
        (copy, "_copy_statement", or_ignore),
    ],
    "what was given up is offered": [(source, "_beyond", not_cut)],
    "what was given up counts as held": [(copy, "_note_gone", gone_counts_as_held)],
    "a gap does not travel": [(source, "streams_with_news", only_streams_with_rows)],
    "a filled gap does not travel": [(source, "streams_with_news", only_streams_that_grew)],
    "transactions are cut": [(source, "transaction_end", lambda *_: None)],
    "transactions are not carried": [(copy, "_copy_piece", transactions_are_not_carried)],
    "blocks go on where ids do not": [(copy, "_add_block", blocks_grow_where_seqs_follow)],
    "a bundle has what was left out of it": [(copy, "copy", left_out_counts_as_held)],
    "a bundle takes all": [(edgeshard.Store, "_held_by_receiver", nobody_has_anything)],
    "indexes are not carried": [(copy, "_ensure_index", lambda *_: None)],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_random_fleets_find_every_mutant(mutant: str) -> None:
    with ExitStack() as patches:
        for owner, name, replacement in MUTANTS[mutant]:
            patches.enter_context(mock.patch.object(owner, name, replacement))
        with pytest.raises((AssertionError, edgeshard.EdgeshardError)):
            play_trials(200, seed=3)
