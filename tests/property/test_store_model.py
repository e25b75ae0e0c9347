"""The real store never loses or doubles a row under any sequence of steps; and the model would notice if it did."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.store_model import StoreMachine
from tests.support.few_examples import QUIET
from tests.support.forms import short_and_full


@pytest.mark.parametrize("examples", short_and_full(12, 100))
def test_no_sequence_of_steps_loses_or_doubles_a_row(examples: int) -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=QUIET),
    )
