"""``Store.activity()``: what arrived lately by agent and time, and what was written per day."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

import edgeshard
from edgeshard.reports import Arrivals
from tests.support.clocks import DAY_S, Clock, Machine
from tests.support.hostile_shards import edit

MINUTE_S = 60


def write(store: edgeshard.Store, agent: str, rows: int) -> None:
    """Write rows as an agent that opens its shard for that."""
    with store.shard(agent) as shard:
        shard.write_many({"n": number} for number in range(rows))


def counted(found: Arrivals | None) -> dict[str, dict[int, int]]:
    """The rows of each agent by the time at which their period began, periods without rows left out."""
    assert found is not None
    began_s = round(found.begins_at.timestamp())
    return {
        agent.agent: {began_s + n * found.period_s: rows for n, rows in enumerate(agent.rows) if rows}
        for agent in found.agents
    }


def test_rows_are_counted_by_agent_and_minute_as_they_arrived(store: edgeshard.Store, clock: Clock) -> None:
    clock.now_s = began_s = clock.now_s // 1_800 * 1_800 + 15
    with store.shard("door") as door:  # which nobody else interrupts: its rows become one block
        door.write_many({"n": number} for number in range(3))
        store.merge()
        clock.now_s += 10 * MINUTE_S
        door.write_many({"n": number} for number in range(4))
        store.merge()
    clock.now_s += 25 * MINUTE_S
    write(store, "gps", 5)
    store.merge()
    found = store.activity()
    first = int(began_s - 15)
    assert {"door": {first: 3, first + 600: 4}, "gps": {first + 2_100: 5}} == counted(found.last_hour)
    assert {"door": {first: 7}, "gps": {first + 1_800: 5}} == counted(found.last_day)
    assert "12 rows arrived in the last hour, and 12 in the last 24 hours" == str(found)
    assert found.as_dict() == json.loads(json.dumps(found.as_dict()))


def test_the_counts_agree_with_what_was_merged_whatever_the_order(store: edgeshard.Store, clock: Clock) -> None:
    choice = random.Random(22)
    merged: dict[str, Counter[int]] = {}
    shards = {agent: store.shard(agent) for agent in ("a", "b", "c")}
    for _ in range(25):
        written = {agent: choice.randrange(1, 40) for agent in shards if choice.random() < 0.5}
        for agent, rows in written.items():
            shards[agent].write_many({"n": n} for n in range(rows))
        clock.now_s += 600 + choice.randrange(6_000)  # each merge brings a new entry
        store.merge()
        for agent, rows in written.items():
            merged.setdefault(agent, Counter())[int(clock.now_s) // 1_800 * 1_800] += rows
    for shard in shards.values():
        shard.close()
    since = int(clock.now_s) // 1_800 * 1_800 + 1_800 - DAY_S
    expected = {agent: {at: n for at, n in counts.items() if at >= since} for agent, counts in merged.items()}
    assert expected == counted(store.activity().last_day)


def test_the_busiest_agents_are_named_and_the_others_counted_together(store: edgeshard.Store, clock: Clock) -> None:
    for number in range(10):
        write(store, f"agent-{number}", 10 + number)
    store.merge()
    found = store.activity().last_hour
    assert found is not None
    assert [f"agent-{number}" for number in range(9, 2, -1)] == [agent.agent for agent in found.agents]
    assert (3, 10 + 11 + 12) == (found.other_agents, sum(found.other_rows))
    assert 145 == found.total


def test_rows_that_were_pruned_or_are_older_than_a_day_are_not_counted(store: edgeshard.Store, clock: Clock) -> None:
    for rows in (100, 10, 2, 3):
        write(store, "door", rows)
        store.merge()
        clock.now_s += 10 * 3_600
    assert {"door": 5} == {agent: sum(rows.values()) for agent, rows in counted(store.activity().last_day).items()}
    store.prune(keep_rows=3)
    assert {"door": 3} == {agent: sum(rows.values()) for agent, rows in counted(store.activity().last_day).items()}


def test_rows_of_an_hour_ago_are_in_the_last_day_only(store: edgeshard.Store, clock: Clock) -> None:
    write(store, "door", 3)
    store.merge()
    clock.now_s += 59 * MINUTE_S
    assert {"door": 3} == {agent: sum(rows.values()) for agent, rows in counted(store.activity().last_hour).items()}
    clock.now_s += 2 * MINUTE_S
    found = store.activity()
    assert found.last_hour is not None
    assert found.last_day is not None
    assert (0, 3) == (found.last_hour.total, found.last_day.total)


@pytest.mark.parametrize(("age_s", "name"), [(65 * MINUTE_S, "last_hour"), (DAY_S + 3_600, "last_day")])
def test_rows_that_arrived_before_make_no_agent_busier(
    store: edgeshard.Store, clock: Clock, age_s: int, name: str
) -> None:
    clock.now_s = clock.now_s // 3_600 * 3_600 + 35 * MINUTE_S
    with store.shard("busy once") as shard:  # its rows are one block
        shard.write_many({"n": number} for number in range(100))
        store.merge()
        clock.now_s += age_s
        shard.write({"n": 100})
        store.merge()
    write(store, "busy now", 5)
    store.merge()
    found = getattr(store.activity(), name)
    assert [("busy now", 5), ("busy once", 1)] == [(agent.agent, agent.total) for agent in found.agents]


def test_without_a_master_or_a_clock_no_arrival_is_known(store: edgeshard.Store, machine: Machine) -> None:
    machine.show_1970()
    write(store, "door", 3)
    assert (None, None, ()) == (store.activity().last_hour, store.activity().last_day, store.activity().days)
    assert not store.has_master()
    store.merge()
    assert (None, None) == (store.activity().last_hour, store.activity().last_day)


def test_days_have_what_was_written_and_zero_where_nothing_was(store: edgeshard.Store, clock: Clock) -> None:
    for rows in (100, 200):
        write(store, "door", rows)
        store.merge()
        clock.now_s += 3 * DAY_S
    # a merger records its counts a megabyte at a time
    day = store.activity().days[-1].day
    edit(store.master_path, f"insert into _edgeshard_write_stats values (date('{day}', '-5 days'), 700, 7)")
    days = store.activity().days
    assert [700, 0, 0, 0, 0] == [each.bytes for each in days[:5]]
    assert (6, day, 300) == (len(days), days[-1].day, days[-1].rows)
    assert days[-1].bytes == store.status().write_stats.today_bytes > 10_000


def test_days_longer_ago_than_thirty_are_left_out(store: edgeshard.Store, clock: Clock) -> None:
    write(store, "door", 1)
    store.merge()
    today = store.activity().days[-1].day
    for age in (29, 30):
        edit(store.master_path, f"insert into _edgeshard_write_stats values (date('{today}', '-{age} days'), {age}, 1)")
    assert 30 == len(store.activity().days)
    assert 29 == store.activity().days[0].bytes


def test_streams_that_lack_rows_come_with_the_last_row_known_to_exist(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("door") as shard:
        shard.write_many({"n": number} for number in range(5))
        store.merge()
        stale = tmp_path / "stale.db"
        store.snapshot(stale)
        shard.write_many({"n": number} for number in range(3))
        store.merge()
        shard.write_many({"n": number} for number in range(2))
    store.restore(stale)
    store.merge()
    (gap,) = store.status().gaps
    assert (6, 8) == (gap.first, gap.last)
    assert {gap.stream: 10} == store.activity().last_seqs
