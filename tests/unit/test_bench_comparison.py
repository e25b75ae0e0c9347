"""``python -m edgeshard.bench --compare``: what became worse, what is noise, and which runs cannot be compared."""

from __future__ import annotations

import random

import attrs
import pytest

from edgeshard.bench.comparison import (
    Comparison,
    NotComparableError,
    Ratio,
    Verdict,
    check_comparable,
    compare,
    noise_of,
)
from edgeshard.bench.goals.cost import Cost
from edgeshard.bench.machine import Machine
from edgeshard.bench.report.comparison_table import comparison_section
from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.samples import FIGURES, Key, Samples, samples, workload_label
from edgeshard.bench.trials import Trial
from edgeshard.bench.workload import Workload

MACHINE = Machine("Linux 6.1 x86_64", "A processor", 2, 2**34, 0.1, "2026-01-02T03:04+00:00", {"edgeshard": "1"})
RATE = Key("work", "edgeshard", "rows_per_s")
TIME = Key("work", "edgeshard", "cpu_s")
STEADY = [100.0, 101.0, 102.0]


def rounds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def ratio_of(base: list[float], run: list[float], key: Key = RATE, **others: tuple[list[float], list[float]]) -> Ratio:
    """Compare one figure of edgeshard's, in runs that have those of others as well."""
    base_samples, run_samples = ({key: rounds(*values)} for values in (base, run))
    for name, (other_base, other_run) in others.items():
        base_samples[Key(key.workload, name, key.figure)] = rounds(*other_base)
        run_samples[Key(key.workload, name, key.figure)] = rounds(*other_run)
    return compare(base_samples, run_samples).ratios[0]


@pytest.mark.parametrize(
    ("base", "run", "verdict"),
    [
        (STEADY, STEADY, "within noise"),
        (STEADY, [98.0, 99.0, 99.5], "within noise"),  # 2 % less, and the rounds agree: below the least noise
        (STEADY, [91.0, 92.0, 93.0], "worse"),
        (STEADY, [60.0, 80.0, 100.0], "within noise"),  # 21 % less, but these rounds tell little
        (STEADY, [110.0, 111.0, 112.0], "better"),
        ([100.0], [1.0], "not judged"),
        (STEADY, [1.0], "not judged"),
        ([100.0], [1.0, 1.0, 1.0], "not judged"),
        (STEADY, [1.0, 1.0], "not judged"),
        ([100.0] * 5, [90.0] * 5, "worse"),
    ],
)
def test_a_figure_is_worse_if_its_median_fell_by_more_than_its_noise(
    base: list[float], run: list[float], verdict: Verdict
) -> None:
    assert verdict == ratio_of(base, run).verdict
    # of a time, less is better
    inverted_base, inverted_run = ([1 / value for value in values] for values in (base, run))
    assert verdict == ratio_of(inverted_base, inverted_run, TIME).verdict


def test_a_ratio_above_one_is_better_and_its_range_goes_from_the_worst_to_the_best_pair_of_rounds() -> None:
    rate = ratio_of([100.0, 110.0, 120.0], [200.0, 220.0, 240.0]).ratio
    assert (2.0, 200 / 120, 240 / 100) == pytest.approx((rate.median, rate.low, rate.high))
    time = ratio_of([100.0, 110.0, 120.0], [200.0, 220.0, 240.0], key=TIME).ratio
    assert (0.5, 100 / 240, 120 / 200) == pytest.approx((time.median, time.low, time.high))


def test_how_far_others_moved_is_noise() -> None:
    fallen = [80.0, 80.8, 81.6]
    assert "worse" == ratio_of(STEADY, fallen).verdict
    assert "worse" == ratio_of(STEADY, fallen, postgres=(STEADY, STEADY)).verdict
    assert "within noise" == ratio_of(STEADY, fallen, postgres=(STEADY, fallen)).verdict
    # a machine that became faster was another one as well
    assert "within noise" == ratio_of(STEADY, fallen, postgres=(fallen, STEADY)).verdict
    # edgeshard's other systems are no measure of the machine
    hybrid = Key(RATE.workload, "hybrid-edgeshard", RATE.figure)
    ratios = compare({RATE: rounds(*STEADY), hybrid: rounds(*STEADY)}, {RATE: rounds(*fallen), hybrid: rounds(*fallen)})
    assert ["worse", "worse"] == [ratio.verdict for ratio in ratios.ratios]


def test_a_workload_without_others_takes_the_drift_of_all_others() -> None:
    fallen = rounds(80.0, 80.8, 81.6)
    base: Samples = {RATE: rounds(*STEADY), Key("elsewhere", "postgres", "rows_per_s"): rounds(*STEADY)}
    run: Samples = {RATE: fallen, Key("elsewhere", "postgres", "rows_per_s"): rounds(*STEADY)}
    assert ["worse", "other"] == [ratio.verdict for ratio in compare(base, run).ratios]
    run[Key("elsewhere", "postgres", "rows_per_s")] = fallen
    assert ["within noise", "other"] == [ratio.verdict for ratio in compare(base, run).ratios]


def test_noise_shrinks_with_more_rounds_and_grows_with_their_spread() -> None:
    three, nine = [95.0, 100.0, 105.0], [95.0, 100.0, 105.0] * 3
    assert noise_of(nine, nine, 0.0) < noise_of(three, three, 0.0) < noise_of(three, [90.0, 100.0, 110.0], 0.0)
    assert 0.03 == noise_of([100.0] * 3, [100.0] * 3, 0.0)
    assert pytest.approx(0.1) == noise_of([100.0] * 3, [100.0] * 3, 0.1)


@pytest.mark.parametrize(("count", "most_in_10_000"), [(3, 60), (5, 15)])
def test_equal_runs_are_seldom_told_apart(count: int, most_in_10_000: int) -> None:
    chance = random.Random(1)
    worse = 0
    for _ in range(10_000):
        base, run = ([chance.gauss(100, 5) for _ in range(count)] for _ in range(2))
        worse += ratio_of(base, run).verdict == "worse"
    assert worse <= most_in_10_000


def test_workloads_that_only_one_run_has_are_named_and_not_compared() -> None:
    base: Samples = {RATE: rounds(*STEADY), Key("past", "edgeshard", "cpu_s"): rounds(1.0)}
    run: Samples = {RATE: rounds(*STEADY), Key("new", "edgeshard", "cpu_s"): rounds(9.0)}
    found = compare(base, run)
    assert ([RATE], ["past"], ["new"]) == ([ratio.key for ratio in found.ratios], found.only_in_base, found.only_in_run)
    text = comparison_section("base.json", MACHINE, MACHINE, found)
    assert "Only in the base, so not compared: past." in text
    assert "Only in this run, so not compared: new." in text


@pytest.mark.parametrize(
    "other",
    [
        attrs.evolve(MACHINE, processors=4),
        attrs.evolve(MACHINE, processor="Another"),
        attrs.evolve(MACHINE, memory_bytes=2**33),
        attrs.evolve(MACHINE, memory_bytes=None),
    ],
)
def test_runs_on_different_machines_are_refused(other: Machine) -> None:
    with pytest.raises(
        NotComparableError, match=r"from another machine: .*Measure the older version here, with --json"
    ):
        check_comparable(other, MACHINE, ["work"], ["work"])
    check_comparable(MACHINE, attrs.evolve(MACHINE, system="Linux 6.2 x86_64", load=9.0), ["work"], ["work", "more"])


def test_runs_of_other_options_are_refused() -> None:
    with pytest.raises(
        NotComparableError, match=r"none of the workloads .*with the options of the base.* are: one; two"
    ):
        check_comparable(MACHINE, MACHINE, ["one", "two"], ["three"])


@pytest.mark.parametrize(
    "other",
    [
        Workload("power", 2),
        Workload("process", 3),
        Workload("process", 2, rate=5.0),
        Workload("process", 2, commit_rows=9),
        Workload("process", 2, payload_bytes=99),
        Workload("process", 2, length_s=2.5),
    ],
)
def test_a_workload_with_another_option_is_another_one(other: Workload) -> None:
    assert workload_label(Workload("process", 2)) != workload_label(other)
    assert workload_label(other) == workload_label(attrs.evolve(other))


def test_only_sound_trials_are_compared_by_round() -> None:
    workload = Workload("process", 2)
    figures = {"rows_per_s": 7.0, "commit_p50_s": 1.0, "written_bytes_per_payload_byte": 0.0}
    trials = [
        Trial(workload, "edgeshard", 0, RowCheck(9, lost=1), {"rows_per_s": 99.0}),
        Trial(workload, "edgeshard", 1, RowCheck(9), figures),
        Trial(workload, "edgeshard", 2, failure="it failed"),
    ]
    costs = [Cost("import", "edgeshard", number, {"cpu_s": 0.1 * (1 + number)}) for number in range(2)]
    assert samples(trials, costs) == {
        Key(workload_label(workload), "edgeshard", "rows_per_s"): {1: 7.0},
        Key("import", "edgeshard", "cpu_s"): {0: 0.1, 1: 0.2},
    }


def shown(verdict: Verdict, ratio: float) -> str:
    base = {RATE: rounds(*STEADY)}
    run = {RATE: rounds(*(value * ratio for value in STEADY))}
    if verdict == "not judged":
        run = {RATE: rounds(100.0 * ratio)}
    return comparison_section(
        "base.json", MACHINE, attrs.evolve(MACHINE, versions={"edgeshard": "2"}), compare(base, run)
    )


def test_the_last_line_says_how_it_ended() -> None:
    assert shown("worse", 0.5).endswith("WORSE than the noise: 1 of 1 figures of edgeshard: work: rows/s 0.50.")
    assert shown("within noise", 1.0).endswith("None of 1 figures of edgeshard is worse than its noise.")
    assert shown("not judged", 0.5).endswith("was judged: both runs need at least 3 rounds (--rounds).")
    assert "edgeshard 1 then, 2 now" in shown("better", 2.0)
    busy = attrs.evolve(MACHINE, load=3.0)
    assert "The base began while other programs" in comparison_section("b", busy, MACHINE, Comparison([], [], []))
    assert "This run began while other programs" in comparison_section("b", MACHINE, busy, Comparison([], [], []))


def test_every_figure_has_a_title_and_a_format() -> None:
    for figure in FIGURES.values():
        assert figure.title
        assert figure.format_value(1.5)
