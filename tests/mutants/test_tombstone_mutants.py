"""Break the collection of tombstones on purpose, and expect a test of tombstones to fail."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from edgeshard import format
from edgeshard.master import arrivals, identity, pruned_ranges, receipts
from edgeshard.merge import late_changes
from edgeshard.retention import own_shards, plan, watermark, window
from edgeshard.retention import tombstones as tombstones_module
from edgeshard.retention.holds import Hold
from edgeshard.retention.peer_cache import PeerCache
from edgeshard.retention.tombstones import ExpiredTombstones, find_expired
from edgeshard.sources import streams
from tests.integration.retention import test_tombstones as tombstones
from tests.property.test_tombstone_law import check_law
from tests.support import keyed_model
from tests.support.keyed_model import Lww
from tests.support.wall_clock import Wall

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["collect tombstones too early", "do not cut the blocks of tombstones"])
def test_the_law_finds(name: str, wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, wrong, _ = MUTANTS[name]
    monkeypatch.setattr(module, attribute, wrong)
    with pytest.raises((AssertionError, ExceptionGroup)):
        check_law(Lww, wall, settings(max_examples=100, phases=keyed_model.UNSHRUNK))


# the fixture of the tests that are run here
other = tombstones.other

_find = find_expired


def _block_is_not_cut(_: Any, number: int, blocks: Any, ids: Any) -> Any:
    return [part for block in blocks for part in plan.cut(block, ids)[1]]


def _find_by_arrival_alone(connection: Any, path: Path, tables: Any, _clock: Any, _: float) -> ExpiredTombstones:
    seen = watermark.load_inputs(path, format.TIMESTAMP_MAX, format.TIMESTAMP_MAX)
    return ExpiredTombstones(tuple(tables), identity.next_id(connection), seen)


#: (owner, attribute, replacement, the test that must find it).
MUTANTS: dict[str, tuple[Any, str, Any, Any]] = {
    "ignore the grace period": (
        tombstones_module, "find_expired", lambda connection, path, tables, clock, _: _find(connection, path, tables, clock, 0.0),
        tombstones.test_a_deletion_goes_once_the_grace_period_has_passed,
    ),
    "ignore when a tombstone arrived": (
        arrivals, "first_since", lambda *_: None, tombstones.test_a_deletion_that_came_late_stays_for_the_grace_period_from_then_on,
    ),
    "ignore the timestamp of a tombstone": (
        tombstones_module, "find_expired", _find_by_arrival_alone,
        tombstones.test_a_deletion_that_was_timestamped_by_a_clock_ahead_stays_until_that_time_is_over,
    ),
    "collect tombstones too early": (
        watermark, "holds", lambda _, inputs: iter([Hold(inputs.since_us, "")]),
        tombstones.test_a_deletion_waits_for_an_older_change_that_waits_in_a_shard,
    ),
    "ignore streams of other stores": (
        watermark, "holds", lambda _, inputs: iter([Hold(inputs.since_us, ""), *inputs.own_shards.holds]),
        tombstones.test_an_agent_elsewhere_holds_deletions_up_until_a_later_change_of_it_comes,
    ),
    "ignore the shards of the store": (
        own_shards, "scan_own_shards", lambda *_: own_shards.OwnShards(),
        tombstones.test_a_deletion_waits_for_an_older_change_that_waits_in_a_shard,
    ),
    "ignore the timestamps of pending changes": (
        own_shards, "_timestamps", lambda *_: iter(()),
        tombstones.test_a_deletion_waits_for_an_older_change_that_waits_in_a_shard,
    ),
    "treat streams of the store as those of others": (
        streams, "stream_ids", lambda *_: set(),
        tombstones.test_an_agent_of_the_store_that_lives_on_without_a_change_holds_nothing_up,
    ),
    "ignore rows truncated by another master": (
        streams, "are_truncated_rows_held", lambda *_: True,
        tombstones.test_a_shard_that_another_master_drained_holds_deletions_up,
    ),
    "ignore gaps": (watermark, "_streams_with_missing_rows", lambda _: set(), tombstones.test_a_gap_holds_deletions_up),
    "ignore rows that only peers hold": (
        receipts, "streams_with_unknown_rows", lambda _: [], tombstones.test_rows_that_another_database_says_it_has_hold_deletions_up,
    ),
    "ignore what peers know": (
        PeerCache, "read", lambda *_: {}, tombstones.test_a_deletion_waits_for_each_database_with_a_receipt_to_hear_of_it,
    ),
    "treat pruned rows as never arrived": (
        pruned_ranges, "streams_since", lambda *_: set(), tombstones.test_what_was_pruned_lately_came_lately,
    ),
    "do not record deleted tombstones": (
        pruned_ranges, "record", lambda *_: None, tombstones.test_a_deletion_goes_once_the_grace_period_has_passed,
    ),
    "do not cut the blocks of tombstones": (
        window, "_cut_blocks", _block_is_not_cut, tombstones.test_a_deletion_goes_once_the_grace_period_has_passed,
    ),
    "do not report late changes": (
        late_changes, "find", lambda *_: [], tombstones.test_an_older_change_that_comes_after_all_is_kept_and_said_so_once,
    ),
    "report every change as late": (
        late_changes, "_select", lambda name, _: f"SELECT ?1, _id FROM main.{name} WHERE _id BETWEEN ?2 AND ?3 AND ?4 > 0",
        tombstones.test_a_change_of_a_key_that_is_known_is_not_taken_for_a_late_one,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_test_finds_every_mutant(
    mutant: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, wrong, test = MUTANTS[mutant]
    given = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters}
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        test(**given)
