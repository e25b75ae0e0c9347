"""Columns and rows do not depend on the order in which versions of a class come and masters merge."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.forms import short_and_full
from tests.support.schema_versions import (
    STEPS,
    dump,
    expected_of,
    gathered,
    merged,
    record_of,
    write,
)
from tests.support.stores import new_store


@pytest.mark.parametrize("examples", short_and_full(8, 60))
def test_columns_and_rows_do_not_depend_on_the_order_of_versions_and_merges(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(STEPS, st.randoms(use_true_random=False))
    def law(steps: list[tuple[int, ...]], rng: random.Random) -> None:
        written: list[Any] = []
        with tempfile.TemporaryDirectory() as folder:
            stores = [new_store(Path(folder) / str(number)) for number in range(3)]
            for step in steps:
                if len(step) == 4:
                    place, agent, which, value = step
                    written.append(record_of(len(written), which, value))
                    write(stores[place], str(agent), written[-1])
                else:
                    merged(stores[step[0]])
                    merged(stores[step[1]], stores[step[0]])
            hub = gathered(Path(folder), stores, rng)
            if written:
                assert expected_of(written) == dump(hub)
                merged(stores[0], hub)
                assert expected_of(written) == dump(stores[0])
                assert hub.verify(deep=True).ok

    law()
