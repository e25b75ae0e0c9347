"""The policy of the disk budget: histories of writers and a merger over it, and its decisions one by one."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage
from tests.support import budget_model
from tests.support.budget_model import BrokenPromiseError
from tests.support.few_examples import QUIET

MB = 1_000_000

SIZES = st.integers(0, 200 * MB)

USAGES = st.builds(
    Usage,
    shards=SIZES,
    promised=SIZES,
    master=SIZES,
    other=st.integers(0, MB),
    reserve=st.integers(0, policy.MAX_RESERVE_BYTES),
    free=st.integers(0, 1 << 40),
    open=st.integers(0, 600),
)

BUDGETS = st.builds(Budget, st.integers(MB, 1_000 * MB), st.sampled_from(policy.ON_FULL))


# -- histories --------------------------------------------------------------------------------------------------------


# a seed cannot be made simpler
@settings(max_examples=30, deadline=None, suppress_health_check=QUIET, phases=[Phase.generate])
@given(st.integers(0, 1 << 32))
def test_no_history_gets_stuck_or_exceeds_the_budget_or_drops_rows_in_vain(seed: int) -> None:
    budget_model.play(seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shard_bytes", lambda file, _, growth: file + growth),  # a WAL does not count
        ("left_for_writers", lambda budget, usage: budget.max_bytes - usage.used),  # writers may take the reserve
        ("side_files_max", lambda *_: 600),  # all closed shards are read at once
    ],
)
def test_a_policy_with_a_fault_is_caught(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, name, value)
    with pytest.raises(BrokenPromiseError):
        for seed in range(300):
            budget_model.play(seed)


# -- the picture ------------------------------------------------------------------------------------------------------


@given(BUDGETS, USAGES)
def test_the_limit_is_within_the_budget_and_within_what_the_file_system_has(known: Budget, usage: Usage) -> None:
    limit = policy.current_limit(known, usage)
    assert 0 <= limit <= known.max_bytes
    assert limit <= usage.used + usage.reserve + usage.free


@given(BUDGETS, USAGES)
def test_what_is_left_for_writers_leaves_the_whole_reserve_to_the_merger(known: Budget, usage: Usage) -> None:
    left = policy.left_for_writers(known, usage)
    if left >= 0 and usage.free > policy.MAX_RESERVE_BYTES:
        assert policy.left_for_merger(known, usage) >= policy.reserve_bytes(known)
        assert usage.used + usage.promised + left + policy.reserve_bytes(known) <= known.max_bytes


@given(BUDGETS, USAGES, SIZES, st.integers(0, 8 * MB), st.integers(0, 64 * MB), SIZES)
def test_a_quota_is_within_what_is_left_and_covers_the_shard(
    known: Budget, usage: Usage, file: int, wal: int, wanted: int, needed: int
) -> None:
    quota = policy.writer_quota(known, usage, file, wal, wanted, needed)
    assert policy.MIN_WAL_BYTES <= quota.wal_bytes <= policy.MAX_WAL_BYTES
    assert 0 <= quota.growth_bytes <= max(wanted, needed)
    if quota.total_bytes:
        assert quota.total_bytes <= policy.left_for_writers(known, usage)
        # in one transaction all growth is in the WAL, and then in the file
        assert quota.total_bytes >= file + 2 * quota.growth_bytes + max(wal, quota.wal_bytes) + policy.SHM_BYTES
    else:
        assert quota.growth_bytes == 0


@pytest.mark.parametrize("max_bytes", [MB, 10 * MB, 1000 * MB])
def test_a_transaction_takes_few_quotas_until_it_is_as_large_as_may_be(max_bytes: int) -> None:
    known, usage = Budget(max_bytes), Usage()
    size, most = policy.EMPTY_SHARD_BYTES, policy.largest_transaction(known, usage)
    sizes = [0]  # each time that it has used up its quota
    while len(sizes) == 1 or sizes[-1] > sizes[-2]:
        grown = sizes[-1]
        needed, wanted = grown + policy.MIN_GROWTH_BYTES, grown + max(grown, policy.FIRST_GROWTH_BYTES)
        quota = policy.writer_quota(known, usage, size, 0, min(most, wanted), min(most, needed))
        sizes.append(quota.growth_bytes)
    assert 0.85 * most < sizes[-1] <= most
    assert len(sizes) <= 100, "each is measured under a lock, and noted durably"


@given(BUDGETS, USAGES, SIZES, st.floats(1.0, 10.0), st.floats(1.0, 10.0))
def test_a_chunk_leaves_space_for_deleting_rows(
    known: Budget, usage: Usage, free_pages: int, in_wal: float, in_file: float
) -> None:
    chunk = policy.chunk_bytes(known, usage, free_pages, in_wal, in_file)
    space = policy.left_for_merger(known, usage)
    if chunk:
        grown = max(0.0, chunk * in_file - free_pages)
        assert policy.COMMIT_BYTES + chunk * in_wal + grown <= space + 2
        assert grown <= max(0, space - policy.delete_bytes(known)) + 2


@pytest.mark.parametrize("shards", [0, 1, 4, 5, 10, 107, 600])
def test_with_the_least_budget_so_many_agents_write_and_with_less_one_is_refused(shards: int) -> None:
    def admitted(max_bytes: int) -> int:
        usage, count = Usage(), 0
        while count < 700:
            quota = policy.writer_quota(Budget(max_bytes), usage, policy.EMPTY_SHARD_BYTES)
            if not quota.growth_bytes:
                break
            count += 1
            # each takes no more than it must
            usage = Usage(promised=count * policy.LEAST_SHARD_BYTES, open=count)
        return count

    least = policy.least_budget(shards)
    assert shards <= admitted(least)
    if least > policy.MIN_BUDGET_BYTES:
        assert admitted(least - 2 * policy.LEAST_SHARD_BYTES) < shards


def test_the_least_budgets_are_those_of_the_guide() -> None:
    assert [1.0, 1.6, 11.5, 67.6] == [round(policy.least_budget(n) / 1e6, 1) for n in (1, 10, 100, 600)]


# -- dropping ---------------------------------------------------------------------------------------------------------


@given(BUDGETS, USAGES, SIZES, st.booleans())
def test_rows_are_dropped_only_if_enough_of_them_can_be(
    known: Budget, usage: Usage, droppable: int, for_merge: bool
) -> None:
    dropped = policy.bytes_to_drop(known, usage, droppable, for_merge=for_merge)
    assert 0 <= dropped <= droppable
    if dropped and not for_merge:
        assert policy.left_for_writers(known, usage) < policy.wanted_left(known)
        assert policy.left_for_writers(known, usage) + droppable >= policy.needed_left(usage)


@given(st.lists(st.integers(1, 10**9)).map(lambda rows: {str(agent): count for agent, count in enumerate(rows)}))
def test_agents_that_are_spared_have_less_than_half_of_the_rows(rows: dict[str, int]) -> None:
    quiet = policy.agents_with_few_rows(rows)
    assert 2 * sum(rows[agent] for agent in quiet) < sum(rows.values()) or not rows
    assert not quiet or max(rows[agent] for agent in quiet) < max(rows.values())


@given(BUDGETS)
def test_a_budget_is_noted_as_it_is(known: Budget) -> None:
    assert known == policy.parse_json(json.loads(json.dumps(attrs.asdict(known))))
