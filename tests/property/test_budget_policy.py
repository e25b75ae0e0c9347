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
    limit = policy.current_limit(known, usage)
    assert 0 <= limit <= known.max_bytes
    assert limit <= usage.used + usage.free


@given(BUDGETS, USAGES, SIZES, SIZES)
def test_nothing_is_granted_where_the_room_for_writers_is_used_up(
    known: Budget, usage: Usage, spent: int, log: int
) -> None:
    limit = policy.current_limit(known, usage)
    share = policy.writer_quota(limit, usage, spent, log)
    if usage.used >= limit - policy.merge_reserve(limit):
        assert (0, 0, 0) == (share.left_for_writers, share.row_bytes, share.transaction_bytes)
    assert 0 <= share.row_bytes <= share.transaction_bytes <= share.left_for_writers
    assert usage.used + share.left_for_writers <= limit or not share.left_for_writers
    assert policy.MIN_WAL_BYTES <= share.wal_bytes <= policy.MAX_WAL_BYTES
    assert policy.QUOTA_MIN_S <= share.renew_after_s <= policy.QUOTA_MAX_S


@given(BUDGETS, USAGES)
def test_what_the_logs_hold_is_counted_once_more_for_the_files_that_it_comes_into(known: Budget, usage: Usage) -> None:
    limit = policy.current_limit(known, usage)
    assert policy.left_for_writers(limit, usage) <= limit - policy.merge_reserve(limit) - usage.used - usage.wals
    assert policy.merge_quota(limit, usage) <= limit - usage.used - usage.wals


@given(BUDGETS, USAGES)
def test_no_row_is_dropped_for_a_log_that_somebody_reads_for_long(known: Budget, usage: Usage) -> None:
    limit = policy.current_limit(known, usage)
    longer = attrs.evolve(usage, wals=usage.wals + 100 * MB)
    if usage.wals >= policy.shard_wal_bytes(limit, usage.open) * usage.open:
        assert policy.is_drop_due(limit, usage) == policy.is_drop_due(limit, longer)
        assert policy.bytes_to_drop(limit, usage) == policy.bytes_to_drop(limit, longer)


@given(BUDGETS, USAGES, st.floats(0, 1e9))
def test_a_grant_is_no_older_than_the_time_in_which_the_store_grows_by_a_small_part(
    known: Budget, usage: Usage, rate: float
) -> None:
    limit = policy.current_limit(known, usage)
    look_s = policy.writer_quota(limit, usage, 0, 0, rate).renew_after_s
    assert look_s * rate <= 0.021 * limit or look_s == policy.QUOTA_MIN_S


@given(st.integers(10 * MB, 1_000 * MB), st.integers(1, 200))
def test_even_shares_of_all_who_write_do_not_exceed_the_room(limit: int, writers: int) -> None:
    usage = Usage(open=writers, active=writers)
    share = policy.writer_quota(limit, usage, limit, limit)
    assert writers * max(share.row_bytes, share.transaction_bytes) <= max(
        share.left_for_writers, writers * policy.MIN_QUOTA_BYTES
    )
    assert writers * share.wal_bytes <= max(limit * policy.WALS_SHARE, writers * policy.MIN_WAL_BYTES)


@given(st.integers(0, 100 * MB), SIZES, st.floats(1.0, 10.0), st.floats(1.0, 10.0))
def test_a_chunk_fits_into_the_log_and_into_the_file(room: int, free: int, logged: float, growth: float) -> None:
    chunk = policy.chunk_bytes(room, free, logged, growth)
    assert chunk * logged + max(0, chunk * growth - free) <= room + 1e-6 * room


@given(BUDGETS, USAGES)
def test_a_chunk_leaves_room_for_a_drop_and_for_all_that_writers_were_granted(known: Budget, usage: Usage) -> None:
    limit = policy.current_limit(known, usage)
    share, room = policy.writer_quota(limit, usage, 0, 0), policy.merge_quota(limit, usage)
    granted = usage.active * share.transaction_bytes if share.transaction_bytes > policy.MIN_QUOTA_BYTES else 0
    assert usage.used + usage.wals + granted + room + policy.drop_reserve(limit) <= limit


@given(BUDGETS, USAGES)
def test_where_writers_have_used_all_their_room_the_smallest_chunk_fits(known: Budget, usage: Usage) -> None:
    limit = policy.current_limit(known, usage)
    if policy.left_for_writers(limit, usage) >= -policy.OVERSHOOT_SHARE * limit:
        assert policy.merge_quota(limit, usage) >= policy.MIN_CHUNK_GROWTH * policy.MIN_CHUNK_BYTES - 2


@given(BUDGETS)
def test_a_budget_is_noted_as_it_is(known: Budget) -> None:
    assert known == policy.parse_json(json.loads(json.dumps(attrs.asdict(known))))


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 10**9)))
def test_agents_that_are_spared_have_less_than_half_of_the_rows(rows: dict[str, int]) -> None:
    quiet = policy.agents_with_few_rows(rows)
    assert 2 * sum(rows[agent] for agent in quiet) < sum(rows.values()) or not rows
    assert not quiet or max(rows[agent] for agent in quiet) < max(rows.values())
