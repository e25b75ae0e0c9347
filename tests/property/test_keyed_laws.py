"""Keyed tables: merges in any order leave what the conflict rule says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeshard.format import blocks
from tests.support import keyed_model
from tests.support.forms import others_slow, short_and_full
from tests.support.keyed_model import CLASSES, NOON_US, Cell, KeepAll, Lww, Remembered, state
from tests.support.stores import contradictions, new_store


@pytest.mark.parametrize("examples", short_and_full(3, 25))
@pytest.mark.parametrize("cls", others_slow(CLASSES, always=(Lww, KeepAll, Remembered)))
def test_merges_in_any_order_leave_what_the_rule_says(
    cls: type[Cell], examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commutative, associative, idempotent: three devices end as the model says, by whatever way rows went."""
    check_law(cls, monkeypatch, settings(max_examples=examples))


def check_law(cls: type[Cell], monkeypatch: pytest.MonkeyPatch, profile: settings) -> None:
    """Raise where the law does not hold."""
    wall = keyed_model.set_clock(monkeypatch, NOON_US)

    @settings(profile, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
    @given(keyed_model.STEPS, st.permutations([0, 1, 2]), st.sampled_from([1, blocks.CHUNK_BYTES]))
    def law(steps: list[tuple[object, ...]], order: list[int], chunk: int) -> None:
        monkeypatch.setattr(blocks, "CHUNK_BYTES", chunk)
        with tempfile.TemporaryDirectory() as folder:
            world = keyed_model.World(Path(folder), cls, wall)
            try:
                for step in steps:
                    world.step(step)
            finally:
                world.close()
            for store in world.stores:
                store.merge()
            one, other = new_store(Path(folder) / "one"), new_store(Path(folder) / "other")
            one.merge([world.stores[number].master_path for number in order])
            for number in [*reversed(order), *order]:
                other.merge([world.stores[number].master_path])
            expected = keyed_model.kept(cls, world.log)
            assert expected == state(one) == state(other)
            assert keyed_model.addresses(one) == keyed_model.addresses(other)
            for store in [one, other, *world.stores]:
                report = store.verify()
                assert ((), ()) == (contradictions(report), report.gaps)
            if cls is Remembered:
                written = sorted((change.stream, change.seq) for change in world.log if not change.is_deletion)
                assert written == keyed_model.addresses(one, "cell", "cell_history")

    law()
