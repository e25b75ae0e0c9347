"""Compare a run with an earlier one, the base, and tell what became worse from what is noise.

The rule: a figure became worse if its median fell by more than its noise. The noise is the larger of

* 3 %, because rounds of one run may agree better than two runs do;
* five standard errors of the ratio, from the rounds of both runs, plus the drift: how far the others, which did not
  change, moved from the base to this run under the same workload (or, if it has no others, under all).

The rounds of one run share a machine's state, so they say too little about the difference between two runs; the drift
makes up for that. Without drift, five standard errors of 3 rounds are exceeded by chance once in 250 times (of normally
distributed figures), and of 5 rounds once in 1,500 times. Fewer than 3 rounds are not judged.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from statistics import median, stdev
from typing import Final, Literal

import attrs

from edgeshard.bench.machine import Machine
from edgeshard.bench.samples import FIGURES, Key, Samples
from edgeshard.bench.spread import Spread

#: How many rounds both runs must have before a figure is judged.
MIN_ROUNDS: Final = 3
_MIN_NOISE: Final = 0.03
_STANDARD_ERRORS: Final = 5.0

#: "not judged": too few rounds. "other": the figure of a system that is not edgeshard.
Verdict = Literal["worse", "better", "within noise", "not judged", "other"]


class NotComparableError(Exception):
    """Two runs cannot be compared; the text says why, and what to do."""


@attrs.frozen
class Ratio:
    """A figure of this run, relative to the base.

    Attributes:
        key: what was measured.
        base: median of the base.
        now: median of this run.
        ratio: how many times as good as the base it is: above 1 is better, whatever the figure. Its range is from the
            worst round of this run and the best of the base to the opposite.
        noise: how much lower than 1 the ratio may be by chance; None if there are too few rounds to tell.
        verdict: what that means.
    """

    key: Key
    base: float
    now: float
    ratio: Spread
    noise: float | None
    verdict: Verdict


@attrs.frozen
class Comparison:
    """All ratios of a run to its base.

    Attributes:
        ratios: figures that both have, in the order of this run.
        only_in_base: workloads that only the base has.
        only_in_run: workloads that only this run has.
    """

    ratios: list[Ratio]
    only_in_base: list[str]
    only_in_run: list[str]

    @property
    def judged(self) -> list[Ratio]:
        """The figures of edgeshard with enough rounds to tell what is noise."""
        return [ratio for ratio in self.ratios if ratio.key.is_ours and ratio.noise is not None]

    @property
    def worse(self) -> list[Ratio]:
        """The figures that became worse."""
        return [ratio for ratio in self.ratios if ratio.verdict == "worse"]


def check_comparable(base_machine: Machine, machine: Machine, base: Collection[str], run: Collection[str]) -> None:
    """Check that two runs were made on the same machine and have a workload in common.

    Args:
        base_machine: the machine of the base.
        machine: the machine of the run.
        base: the workloads of the base.
        run: the workloads of the run.

    Raises:
        NotComparableError: they cannot be compared.
    """
    if base_machine.hardware != machine.hardware:
        raise NotComparableError(
            f"it is from another machine: {base_machine.hardware}; this one is {machine.hardware}. A ratio would "
            "compare the machines. Measure the older version here, with --json, and compare with that file"
        )
    if not set(base) & set(run):
        raise NotComparableError(
            "it has none of the workloads of this run: other agents, classes, rates, payloads, rows per commit or "
            f"lengths. Measure with the options of the base. Its workloads are: {'; '.join(base) or 'none'}"
        )


def compare(base: Samples, run: Samples) -> Comparison:
    """Compare the figures that two runs have in common."""
    values = {key: (list(base[key].values()), list(run[key].values())) for key in run if key in base}
    others = {key: _ratio(key, *both).median for key, both in values.items() if not key.is_ours}
    ratios = [_compare_one(key, *both, _drift(key, others)) for key, both in values.items()]
    workloads = {key.workload: None for key in run}, {key.workload: None for key in base}
    in_run, in_base = map(list, workloads)
    return Comparison(
        ratios,
        [name for name in in_base if name not in in_run],
        [name for name in in_run if name not in in_base],
    )


def _compare_one(key: Key, base: Sequence[float], run: Sequence[float], drift: float) -> Ratio:
    ratio = _ratio(key, base, run)
    is_judged = min(len(base), len(run)) >= MIN_ROUNDS
    noise = noise_of(base, run, drift) if is_judged else None
    return Ratio(key, median(base), median(run), ratio, noise, _verdict(key, ratio.median, noise))


def _ratio(key: Key, base: Sequence[float], run: Sequence[float]) -> Spread:
    """Return how many times as good the run is."""
    better, worse = (run, base) if FIGURES[key.figure].is_higher_better else (base, run)
    return Spread(median(better) / median(worse), min(better) / max(worse), max(better) / min(worse))


def _drift(key: Key, others: dict[Key, float]) -> float:
    """Return how far those moved that did not change: under the same workload if possible, otherwise under all."""
    same = [ratio for other, ratio in others.items() if (other.workload, other.figure) == (key.workload, key.figure)]
    moved = same or list(others.values())
    return abs(1 - median(moved)) if moved else 0.0


def noise_of(base: Sequence[float], run: Sequence[float], drift: float) -> float:
    """Return how far the ratio of two medians may be below 1 by chance.

    Args:
        base: the values of the base's rounds, at least two.
        run: the values of this run's rounds, at least two.
        drift: how far the figures of others moved.
    """
    error = math.hypot(*(stdev(values) / math.sqrt(len(values)) / median(values) for values in (base, run)))
    return max(_MIN_NOISE, _STANDARD_ERRORS * error + drift)


def _verdict(key: Key, ratio: float, noise: float | None) -> Verdict:
    if not key.is_ours:
        return "other"
    if noise is None:
        return "not judged"
    if ratio < 1 - noise:
        return "worse"
    return "better" if ratio > 1 + noise else "within noise"
