"""Put the figures of a release where users read them: ``python -m tests.benchmarks.release_figures``.

The figures of a release are a run of ``python -m edgeshard.bench --goals --json FILE`` on a quiet machine. They are kept
in ``edgeshard/bench/bases/VERSION.json``, as the base that later versions are compared with. From that file come the
table of ``edgeshard/bench/README.md``, the table of the README and its plot. A test compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeshard import format
from edgeshard.bench.goals.goal import outcomes
from edgeshard.bench.report import front_page, json_file, markdown
from edgeshard.bench.samples import samples
from edgeshard.bench.summary import summarize
from tests.support.project import PROJECT

BASE: Final = PROJECT / "edgeshard" / "bench" / "bases" / f"{format.VERSION}.json"
PLOT: Final = PROJECT / "edgeshard" / "docs" / "throughput.svg"
README: Final = PROJECT / "README.md"
BENCH_README: Final = PROJECT / "edgeshard" / "bench" / "README.md"

_BEGIN: Final = "<!-- what `python -m edgeshard.bench --goals` prints -->\n"
_END: Final = "<!-- until here: tests/benchmarks/release_figures.py -->\n"


def expected() -> dict[Path, str]:
    """Return the text of each file that has figures of the release, with those of its base."""
    run = json_file.loads(BASE.read_text(encoding="utf-8"))
    summaries = summarize(run.trials)
    goals = markdown.goals_section(outcomes(samples(run.trials, run.costs))).replace("### ", "#### ", 1)
    section = f"{_BEGIN}\n{run.machine}\n\n{goals}\n\n"
    readme = README.read_text(encoding="utf-8")
    begin = readme.index(front_page.TABLE_HEAD)
    end = readme.index("\n\n", begin)
    bench_readme = BENCH_README.read_text(encoding="utf-8")
    return {
        PLOT: front_page.throughput_svg(summaries, run.machine.processors),
        README: readme[:begin] + front_page.table(summaries) + readme[end:],
        BENCH_README: bench_readme[: bench_readme.index(_BEGIN)] + section + bench_readme[bench_readme.index(_END) :],
    }


def main() -> None:
    """Write the files."""
    for path, text in expected().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
