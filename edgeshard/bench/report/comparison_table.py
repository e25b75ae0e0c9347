"""Show how a run compares with its base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeshard.bench.comparison import MIN_ROUNDS, Comparison, Ratio, Verdict
from edgeshard.bench.machine import Machine
from edgeshard.bench.report.markdown import grid
from edgeshard.bench.report.tables import NONE, title_of
from edgeshard.bench.samples import FIGURES

_SHOWN: Final[dict[Verdict, str]] = {
    "worse": "WORSE",
    "better": "better",
    "within noise": "within noise",
    "not judged": f"not judged: fewer than {MIN_ROUNDS} rounds",
    "other": "not edgeshard",
}
_HEADS: Final = ("workload", "system", "figure", "base", "now", "ratio (range)", "noise", "verdict")


def comparison_section(name: str, base: Machine, machine: Machine, comparison: Comparison) -> str:
    """Return the comparison as a Markdown section.

    Args:
        name: the file of the base.
        base: the machine of the base.
        machine: the machine of this run, which is the same hardware.
        comparison: the figures.
    """
    body = [_cells(ratio) for ratio in comparison.ratios]
    parts = [f"### Compared with {name}", *_notes(base, machine, comparison), grid(_HEADS, body), _NOTES]
    return "\n\n".join([*parts, _conclusion(comparison)])


def _notes(base: Machine, machine: Machine, comparison: Comparison) -> Iterator[str]:
    changed = base.changes_to(machine)
    yield f"The base is of {base.begun}; {'; '.join(changed) or 'all versions are the same'}."
    for when, one in (("The base", base), ("This run", machine)):
        if not one.is_quiet:
            yield f"{when} began while other programs kept the machine busy (load {one.load:.1f})."
    for where, names in (("the base", comparison.only_in_base), ("this run", comparison.only_in_run)):
        if names:
            yield f"Only in {where}, so not compared: {'; '.join(names)}."


def _cells(ratio: Ratio) -> list[str]:
    key, figure = ratio.key, FIGURES[ratio.key.figure]
    spread = ratio.ratio
    return [
        key.workload,
        title_of(key.contestant),
        figure.title,
        figure.format_value(ratio.base),
        figure.format_value(ratio.now),
        f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})",
        NONE if ratio.noise is None else f"{ratio.noise:.0%}",
        _SHOWN[ratio.verdict],
    ]


_NOTES: Final = """\
* ratio: how many times as good as the base, of medians: above 1 is better for all figures. Its range: the worst round
  of this run against the best one of the base, to the opposite.
* noise: how far a ratio may be below 1 by chance. It is at least 3 %, otherwise five standard errors of the rounds of
  both runs, and how far the other systems moved, which did not change."""


def _conclusion(comparison: Comparison) -> str:
    judged = [ratio for ratio in comparison.ratios if ratio.key.is_ours and ratio.noise is not None]
    if not judged:
        return f"No figure of edgeshard was judged: both runs need at least {MIN_ROUNDS} rounds (--rounds)."
    worse = comparison.worse
    if not worse:
        return f"None of {len(judged)} figures of edgeshard is worse than its noise."
    names = "; ".join(f"{one.key.workload}: {FIGURES[one.key.figure].title} {one.ratio.median:.2f}" for one in worse)
    return f"WORSE than the noise: {len(worse)} of {len(judged)} figures of edgeshard: {names}."
