"""Soak the whole system for seconds, and check that the judge notices rows that were harmed."""

from __future__ import annotations

import sys

import pytest

from tests.crash.soak.actors import Options
from tests.crash.soak.campaign import play

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "tempo", "rows"), [(6, 16, 100), (12, 8, 1_000)], ids=["short", "full"])
def test_the_whole_system_loses_doubles_and_leaks_nothing(seconds: float, tempo: float, rows: int) -> None:
    awaited = ("folders replaced", "writers killed")
    outcome = play(Options(seconds=seconds, seed=11, agents=6, tempo=tempo, awaited=awaited))
    assert outcome.faults == []
    assert outcome.verdict.found > rows
    assert outcome.counts["folders replaced"] > 0
    assert outcome.counts["writers killed"] > 0


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("sabotage", ["lose", "double", "change"])
def test_the_judge_finds_a_harmed_row(sabotage: str) -> None:
    outcome = play(Options(seconds=2, seed=1, agents=2, tempo=8, kind="loop", sabotage=sabotage))
    name = {"lose": "lost", "double": "doubled", "change": "wrong"}[sabotage]
    assert f"rows {name}: 1" in outcome.faults
