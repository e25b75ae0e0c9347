"""The decisions of a budget, as pure functions of what is used."""

from __future__ import annotations

import json

import attrs
from hypothesis import given
from hypothesis import strategies as st

from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage

MB = 1_000_000

SIZES = st.integers(0, 200 * MB)


USAGES = st.builds(Usage, SIZES, SIZES, SIZES, st.integers(0, 1 << 40), st.integers(0, 200), st.integers(0, 200))


BUDGETS = st.builds(Budget, st.integers(MB, 1_000 * MB), st.sampled_from(policy.ON_FULL))


@given(BUDGETS, USAGES)
def test_the_limit_is_within_the_budget_and_within_what_the_file_system_has(known: Budget, usage: Usage) -> None:
    limit = policy.limit(known, usage)
    assert 0 <= limit <= known.max_bytes
    assert limit <= usage.used + usage.free


@given(BUDGETS, USAGES, SIZES, SIZES)
def test_nothing_is_granted_where_the_room_for_writers_is_used_up(
    known: Budget, usage: Usage, spent: int, log: int
) -> None:
    limit = policy.limit(known, usage)
    share = policy.share(limit, usage, spent, log)
    if usage.used >= limit - policy.merge_bytes(limit):
        assert (0, 0, 0) == (share.room, share.grant, share.wide)
    assert 0 <= share.grant <= share.wide <= share.room
    assert usage.used + share.room <= limit or not share.room
    assert policy.LOG_LEAST <= share.log <= policy.LOG_MOST
    assert policy.LOOK_SHORTEST_S <= share.look_s <= policy.LOOK_MOST_S


@given(BUDGETS, USAGES)
def test_what_the_logs_hold_is_counted_once_more_for_the_files_that_it_comes_into(known: Budget, usage: Usage) -> None:
    limit = policy.limit(known, usage)
    assert policy.writers_room(limit, usage) <= limit - policy.merge_bytes(limit) - usage.used - usage.logs
    assert policy.merge_room(limit, usage) <= limit - usage.used - usage.logs


@given(BUDGETS, USAGES)
def test_no_row_is_dropped_for_a_log_that_somebody_reads_for_long(known: Budget, usage: Usage) -> None:
    limit = policy.limit(known, usage)
    longer = attrs.evolve(usage, logs=usage.logs + 100 * MB)
    if usage.logs >= policy.log_bytes(limit, usage.open) * usage.open:
        assert policy.is_drop_due(limit, usage) == policy.is_drop_due(limit, longer)
        assert policy.bytes_to_drop(limit, usage) == policy.bytes_to_drop(limit, longer)


@given(BUDGETS, USAGES, st.floats(0, 1e9))
def test_a_grant_is_no_older_than_the_time_in_which_the_store_grows_by_a_small_part(
    known: Budget, usage: Usage, rate: float
) -> None:
    limit = policy.limit(known, usage)
    look_s = policy.share(limit, usage, 0, 0, rate).look_s
    assert look_s * rate <= 0.021 * limit or look_s == policy.LOOK_SHORTEST_S


@given(st.integers(10 * MB, 1_000 * MB), st.integers(1, 200))
def test_even_shares_of_all_who_write_do_not_exceed_the_room(limit: int, writers: int) -> None:
    usage = Usage(open=writers, active=writers)
    share = policy.share(limit, usage, limit, limit)
    assert writers * max(share.grant, share.wide) <= max(share.room, writers * policy.LEAST_GRANT)
    assert writers * share.log <= max(limit * policy.LOG_SHARE, writers * policy.LOG_LEAST)


@given(st.integers(0, 100 * MB), SIZES, st.floats(1.0, 10.0), st.floats(1.0, 10.0))
def test_a_chunk_fits_into_the_log_and_into_the_file(room: int, free: int, logged: float, growth: float) -> None:
    chunk = policy.chunk_bytes(room, free, logged, growth)
    assert chunk * logged + max(0, chunk * growth - free) <= room + 1e-6 * room


@given(BUDGETS, USAGES)
def test_a_chunk_leaves_room_for_a_drop_and_for_all_that_writers_were_granted(known: Budget, usage: Usage) -> None:
    limit = policy.limit(known, usage)
    share, room = policy.share(limit, usage, 0, 0), policy.merge_room(limit, usage)
    granted = usage.active * share.wide if share.wide > policy.LEAST_GRANT else 0
    assert usage.used + usage.logs + granted + room + policy.drop_bytes(limit) <= limit


@given(BUDGETS, USAGES)
def test_where_writers_have_used_all_their_room_the_smallest_chunk_fits(known: Budget, usage: Usage) -> None:
    limit = policy.limit(known, usage)
    if policy.writers_room(limit, usage) >= -policy.LOOK_GROWTH_SHARE * limit:
        assert policy.merge_room(limit, usage) >= policy.LEAST_TIMES * policy.CHUNK_LEAST - 2


@given(BUDGETS)
def test_a_budget_is_noted_as_it_is(known: Budget) -> None:
    assert known == policy.of_json(json.loads(json.dumps(attrs.asdict(known))))


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 10**9)))
def test_agents_that_are_spared_have_less_than_half_of_the_rows(rows: dict[str, int]) -> None:
    quiet = policy.spared(rows)
    assert 2 * sum(rows[agent] for agent in quiet) < sum(rows.values()) or not rows
    assert not quiet or max(rows[agent] for agent in quiet) < max(rows.values())
