"""Versions of keyed rows do not depend on the order in which classes come and masters merge."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.forms import short_and_full
from tests.support.keyed_schema_versions import STEPS, Log, agree, dump
from tests.support.schema_versions import (
    gathered,
    merged,
)
from tests.support.stores import new_store


@pytest.mark.parametrize("examples", short_and_full(6, 60))
def test_versions_and_their_columns_do_not_depend_on_the_order_of_classes_and_merges(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(STEPS, st.randoms(use_true_random=False))
    def law(steps: list[tuple[Any, ...]], rng: random.Random) -> None:
        log = Log()
        with tempfile.TemporaryDirectory() as folder:
            stores = [new_store(Path(folder) / str(number)) for number in range(3)]
            for step in steps:
                if len(step) == 5:
                    place, *change = step
                    log.change(stores[place], *change)
                else:
                    merged(stores[step[0]])
                    merged(stores[step[1]], stores[step[0]])
            hub = gathered(Path(folder), stores, rng)
            if log.written:
                merged(stores[0], hub)
                used, rows = log.expected
                for store in (hub, stores[0]):
                    assert (rows, log.kept) == dump(store, used)
                    agree(store)

    law()
