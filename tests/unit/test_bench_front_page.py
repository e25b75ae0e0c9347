"""The table and the plot of the README."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import attrs
import pytest

from edgeshard.bench.goals.registry import MANY_AGENTS
from edgeshard.bench.report import front_page
from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.spread import Spread
from edgeshard.bench.summary import Summary
from edgeshard.bench.systems import SYSTEMS

RATES = {
    "sqlite-default": 200.0,
    "sqlite-tuned": 30_000.0,
    "queue": 8_000.0,
    "edgeshard": 90_000.0,
    "postgres": 20_000.0,
}


def line(system: str, rate: float) -> Summary:
    figures = {"rows_per_s": Spread(rate, rate, rate), "commit_p99_s": Spread(0.002, 0.002, 0.002)}
    return Summary(MANY_AGENTS, system, 3, figures, RowCheck(9))


LINES = [line(system, rate) for system, rate in RATES.items()]


def test_the_plot_has_a_bar_for_each_system_as_long_as_its_rate_the_longest_first() -> None:
    svg = ElementTree.fromstring(front_page.throughput_svg(LINES, 2))
    _, *bars = svg.iter("{http://www.w3.org/2000/svg}rect")
    title, *texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "on 2 processors" in title
    ranked = ["edgeshard", "sqlite-tuned", "postgres", "queue", "sqlite-default"]
    assert [SYSTEMS[system].title for system in ranked] == texts[::2]
    assert ["90,000", "30,000", "20,000", "8,000", "200"] == texts[1::2]
    lengths = [float(bar.get("width", "")) for bar in bars]
    assert [lengths[0] * RATES[system] / 90_000 for system in ranked[:-1]] == pytest.approx(lengths[:-1], abs=0.1)
    assert 0 < lengths[-1] < 2  # too short to see, but there
    assert all(float(bar.get("x", "")) + float(bar.get("width", "")) < 740 for bar in bars)


def test_the_table_says_how_many_times_as_many_edgeshard_stores() -> None:
    rows = front_page.table(LINES).splitlines()[2:]
    assert "| **edgeshard** | 90,000 | | 2.0 ms |" == rows[0]
    assert "| shared SQLite, tuned | 30,000 | 3.0 times as many | 2.0 ms |" == rows[1]
    assert "450 times as many" in rows[4]


def test_the_table_has_the_five_fastest_and_edgeshard_wherever_it_is() -> None:
    more = [line(system, 40_000.0) for system in ("sqlite-flock", "sqlite-fair", "turso-threads")]
    names = [re.findall(r"^\| ([^|]*) \|", row)[0] for row in front_page.table([*LINES, *more]).splitlines()[2:]]
    assert ["**edgeshard**", *(SYSTEMS[one.system].title for one in more), "shared SQLite, tuned"] == names
    slow = [*(one for one in [*LINES, *more] if one.system != "edgeshard"), line("edgeshard", 1.0)]
    assert "| **edgeshard** | 1 |" in front_page.table(slow)
    assert "| shared SQLite, tuned | 30,000 | 3.3e-05 times as many |" in front_page.table(slow)


def test_only_systems_that_hold_every_row_are_shown_and_without_edgeshard_nothing_is() -> None:
    lossy = attrs.evolve(line("queue", 99_000.0), row_check=RowCheck(9, lost=1))
    not_run = attrs.evolve(line("turso", 1.0), rounds=0)
    elsewhere = attrs.evolve(line("postgres", 99_000.0), workload=attrs.evolve(MANY_AGENTS, agents=3))
    assert ["edgeshard"] == [
        one.system for one in front_page.ranked([lossy, not_run, elsewhere, line("edgeshard", 10.0)])
    ]
    with pytest.raises(ValueError, match=r"no sound figures of edgeshard .* make one with --goals"):
        front_page.ranked([line("postgres", 10.0)])
