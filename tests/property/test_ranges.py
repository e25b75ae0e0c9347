"""Interval sets behave as the sets of numbers they stand for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgeshard.format.ranges import Range, add, clip, intersect, prefix, size, subtract, union

ranges = st.lists(st.builds(lambda first, length: Range(first, first + length), st.integers(1, 40), st.integers(0, 8)))


def numbers(items: list[Range]) -> set[int]:
    return {number for item in items for number in range(item.first, item.last + 1)}


def is_canonical(items: list[Range]) -> bool:
    return all(one.last + 1 < other.first for one, other in itertools.pairwise(items))


@given(ranges)
def test_union_keeps_the_numbers_in_as_few_intervals_as_possible(items: list[Range]) -> None:
    assert numbers(items) == numbers(union(items))
    assert is_canonical(union(items))


@given(ranges, ranges)
def test_adding_to_ranges_in_place_is_their_union(items: list[Range], others: list[Range]) -> None:
    grown = union(items)
    add(grown, others)
    assert union([*items, *others]) == grown


@given(ranges, ranges.filter(bool))
def test_clip_is_what_a_set_has_in_an_interval(items: list[Range], to: list[Range]) -> None:
    assert intersect(items, to[:1]) == clip(union(items), to[0])


@given(ranges, ranges)
def test_intersect_is_what_two_sets_have_in_common(items: list[Range], others: list[Range]) -> None:
    assert numbers(items) & numbers(others) == numbers(intersect(items, others))
    assert is_canonical(intersect(items, others))


@given(ranges, ranges)
def test_subtract_is_the_difference_of_sets(items: list[Range], holes: list[Range]) -> None:
    assert numbers(items) - numbers(holes) == numbers(subtract(items, holes))
    assert is_canonical(subtract(items, holes))


@given(ranges)
def test_size_counts_the_numbers_of_disjoint_intervals(items: list[Range]) -> None:
    assert len(numbers(items)) == size(union(items))


@given(ranges, st.integers(1, 40))
def test_prefix_ends_before_the_first_number_that_is_missing(items: list[Range], first: int) -> None:
    last = first - 1
    while last + 1 in numbers(items):
        last += 1
    assert last == prefix(items, first)
