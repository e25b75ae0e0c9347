"""Keyed tables in PostgreSQL: pushes in any order leave what the conflict rule says."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import keyed_model
from tests.support.keyed_model import CLASSES, NOON_US, Cell, KeepAll, Lww, Remembered

pytest.importorskip("psycopg")
from psycopg.conninfo import make_conninfo

from tests.support.forms import others_slow, short_and_full
from tests.support.keyed_pushes import state
from tests.support.postgres_server import do, fetch

_STEPS = st.lists(st.one_of(keyed_model.STEP, st.tuples(st.just("push"), st.integers(0, 2))), min_size=6, max_size=30)


@pytest.mark.slow
@pytest.mark.parametrize("examples", short_and_full(4, 15))
@pytest.mark.parametrize("cls", others_slow(CLASSES, always=(Lww, KeepAll, Remembered)))
@pytest.mark.parametrize("inserts", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["copy", "insert"])
def test_pushes_in_any_order_leave_what_the_rule_says(
    cls: type[Cell], inserts: bool, examples: int, pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_law(cls, inserts, pg, monkeypatch, settings(max_examples=examples))


def check_law(cls: type[Cell], inserts: bool, pg: str, monkeypatch: pytest.MonkeyPatch, profile: settings) -> None:
    """Raise where the law does not hold."""
    wall = keyed_model.set_clock(monkeypatch, NOON_US)
    numbers = itertools.count(1)

    @settings(profile, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
    @given(_STEPS, st.permutations([0, 1, 2]), st.sampled_from([1, 1000]))
    def law(steps: list[tuple[object, ...]], order: list[int], batch: int) -> None:
        schema = f"s{next(numbers)}"
        do(pg, f"CREATE SCHEMA {schema}")
        dsn = make_conninfo(pg, options=f"-csearch_path={schema}")
        with tempfile.TemporaryDirectory() as folder:
            world = keyed_model.World(Path(folder), cls, wall)
            world.push = lambda store: store.push(dsn, batch=batch, inserts=inserts)
            try:
                for step in steps:
                    world.step(step)
            finally:
                world.close()
            for number in order:
                world.stores[number].merge()
                report = world.stores[number].push(dsn, batch=batch, inserts=inserts)
                assert (0, ()) == (report.remaining, report.rejected)
        if world.log:
            assert keyed_model.kept(cls, world.log) == state(dsn)
            ranges = fetch(dsn, "SELECT sum(last - first + 1) FROM edgeshard_ranges")
            assert [(len(world.log),)] == ranges  # each change once, whether it is still there or not

    law()
