"""The page of ``python -m edgeshard.bench --html`` as Chromium shows it: no column is cut off on a usual screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeshard.bench.goals.goal import GOALS, Outcome
from edgeshard.bench.machine import current_machine
from edgeshard.bench.report import html
from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.spread import Spread
from edgeshard.bench.summary import Summary
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import Workload
from tests.support import browser

pytestmark = pytest.mark.slow

_CLIPPED = """() => [document.documentElement, ...document.querySelectorAll('.scroll')]
    .map(one => one.scrollWidth - one.clientWidth).filter(hidden => hidden > 0)"""

_FIGURES = {
    "rows_per_s": 888_888.8,
    **{f"commit_{name}_s": 0.888 for name in ("p50", "p99", "p999", "worst")},
    **{f"stale_{name}_s": 0.888 for name in ("p50", "p99", "p999", "worst")},
    "agents_on_pace": 100,
    "cpu_s_per_million_rows": 1888.8,
    "written_bytes_per_payload_byte": 888.8,
    "memory_bytes": 888e6,
    "disk_bytes": 88.8e6,
}


def test_the_tables_fit_into_a_window_of_1100_pixels(tmp_path: Path) -> None:
    figures = {name: Spread(value, value * 0.99, value * 1.1) for name, value in _FIGURES.items()}
    reason = "not run: a second process is refused (pyturso 0.8.3: DatabaseError), and so on and so forth"
    summaries = [
        Summary(Workload("process", 100, rate), name, 3, figures, RowCheck(10))
        if name != "turso"
        else Summary(Workload("process", 100, rate), name, 0, {}, RowCheck(0), reason)
        for rate in (None, 200.0)
        for name in SYSTEMS
    ]
    outcomes = [Outcome(goal, *(Spread(8e-8 * 10**7, 8.1e-1, 9e-1),) * 3) for goal in GOALS]
    path = tmp_path / "page.html"
    path.write_text(html.page(current_machine(), "python -m edgeshard.bench", summaries, [], outcomes))
    with browser.opened() as chromium:
        for width in (1_100, 1_400):
            page = chromium.new_page(viewport={"width": width, "height": 900})
            page.goto(path.as_uri())
            assert [] == page.evaluate(_CLIPPED), width
