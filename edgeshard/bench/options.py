"""The options of the command line, and the plan that they ask for."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Mapping, Sequence

import attrs

from edgeshard.bench.costs.curve import FULL, SHORT
from edgeshard.bench.costs.registry import CURVES, DESCRIPTIONS
from edgeshard.bench.goals.registry import BATCHES, COSTS
from edgeshard.bench.plan import NOT_IN_SHORT_PROFILE, Plan, full_workloads, goal_contests, short_workloads
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import DURABILITIES, Workload

#: Options that choose other workloads than those of ``--goals``.
_NOT_WITH_GOALS = ("full", "parts", "curves", "classes", "agents", "commit-rows", "payload", "rate", "length")

_EPILOG = """\
examples:
  %(prog)s                                   the short profile: some minutes
  %(prog)s --html report.html                the same, and a page with plots
  %(prog)s --systems edgeshard sqlite-tuned --agents 1 100
                                             only these two systems, with 1 and with 100 agents
  %(prog)s --class power --commit-rows 100 --agents 16 --rounds 5
                                             16 agents, commits of 100 rows that survive a power cut
  %(prog)s --rate 200 --agents 100 --length 10
                                             100 agents that offer 200 rows/s each
  %(prog)s --full --json all.json --html all.html
                                             everything: some hours
  %(prog)s --full --json all.json --resume all.json
                                             continue that run after an interruption
  %(prog)s --parts curves --full             how edgeshard's costs grow, up to 10,000 shards and 10,000,000 rows
  %(prog)s --goals --json now.json --compare base.json
                                             where edgeshard used to be slower than others, and whether
                                             anything became worse than in an earlier run with --json
  %(prog)s --postgres "host=db dbname=test" --systems postgres edgeshard
                                             use your PostgreSQL server (only its schema edgeshard_bench)

systems:
{systems}

curves of edgeshard's own costs:
{curves}

--compare:
  Runs of the same options on the same machine can be compared. A figure is worse if its median fell by more
  than its noise: the larger of 3 %% and of five standard errors of the rounds of both runs plus how far the
  systems moved that did not change. That takes 3 rounds; 5 see less noise.
  To measure an older version with this benchmark, put this version's folder edgeshard/bench into its
  checkout, and run --goals --json there.

exit codes:
  0 done                     1 failed              2 wrong usage
  3 done, but a system failed, or lost or doubled rows, or a figure became worse; the table says which
  74 input/output error     78 no such folder     130 interrupted by Ctrl-C
"""


def parser() -> argparse.ArgumentParser:
    """Create the parser of the command line."""
    systems = _two_columns({name: entry.title for name, entry in SYSTEMS.items()})
    result = argparse.ArgumentParser(
        prog="python -m edgeshard.bench",
        description="Benchmark ways to store the rows of many agents, on this machine.\n"
        "Every row is read back and compared.",
        epilog=_EPILOG.replace("{systems}", systems).replace("{curves}", _two_columns(DESCRIPTIONS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what_options(result.add_argument_group("what to measure"))
    _add_where_options(result.add_argument_group("where"))
    _add_output_options(result.add_argument_group("output"))
    return result


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    made = parser()
    options = made.parse_args(arguments)
    given = [name for name in _NOT_WITH_GOALS if getattr(options, name.replace("-", "_"))]
    if options.goals and given:
        made.error(f"--goals has workloads of its own: leave out --{given[0].replace('classes', 'class')}")
    return options


def _two_columns(descriptions: Mapping[str, str]) -> str:
    width = max(map(len, descriptions))
    return "\n".join(f"  {name.ljust(width)}  {text}" for name, text in descriptions.items())


def _add_what_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--full", action="store_true", help="all workloads in both classes, three rounds of three seconds"
    )
    group.add_argument(
        "--goals",
        action="store_true",
        help="what edgeshard costs where it used to be slower than others, next to its goals: about six minutes",
    )
    group.add_argument(
        "--parts",
        nargs="+",
        choices=("systems", "curves"),
        help="compare systems, measure how edgeshard's own costs grow, or both "
        "(default: both; only systems if you choose systems or workloads)",
    )
    group.add_argument("--curves", nargs="+", choices=CURVES, metavar="NAME", help="cost curves (default: all)")
    group.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        metavar="NAME",
        help="systems (default: all; the short profile leaves out the hybrids)",
    )
    group.add_argument(
        "--class",
        dest="classes",
        nargs="+",
        choices=DURABILITIES,
        help="what acknowledged rows survive: a kill of the process, or a power cut",
    )
    group.add_argument("--agents", nargs="+", type=_count, metavar="N", help="number of writing processes")
    group.add_argument("--commit-rows", nargs="+", type=_count, metavar="N", help="rows per commit (default: 1)")
    group.add_argument("--payload", nargs="+", type=_count, metavar="BYTES", help="payload of a row (default: 100)")
    group.add_argument(
        "--rate", type=_positive, metavar="ROWS/S", help="rows/s that each agent offers (default: unlimited)"
    )
    group.add_argument("--length", type=_positive, metavar="S", help="how many seconds the agents write")
    group.add_argument(
        "--rounds",
        type=_count,
        metavar="N",
        help="rounds of each workload (default: 2; 3 with --full, --goals or --compare)",
    )


def _add_where_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dir", metavar="FOLDER", help="measure the disk of this folder (default: the folder for temporary files)"
    )
    group.add_argument("--postgres", metavar="DSN", help="use this PostgreSQL server (default: start one)")
    group.add_argument(
        "--redis", metavar="URL", help="use this server that speaks the Redis protocol (default: start one)"
    )


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", metavar="FILE", help="save all figures to a file, after each measurement")
    group.add_argument("--html", metavar="FILE", help="write a page with tables and plots to a file")
    group.add_argument(
        "--compare",
        metavar="FILE",
        help="compare with a run that --json saved, and exit with 3 if a figure fell by more than its noise",
    )
    group.add_argument("--show", metavar="FILE", help="show a run that --json saved, and measure nothing")
    group.add_argument("--resume", metavar="FILE", help="continue a run that --json saved")
    group.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 0 < value < 1_000_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 999999, got {text!r}")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:  # also false for NaN
        raise argparse.ArgumentTypeError(f"must be a number above 0 and below 1000000, got {text!r}")
    return value


def plan_from_options(options: argparse.Namespace) -> Plan:
    """Return the plan for parsed options: a profile, or the workloads that they describe."""
    workload_options = (options.classes, options.agents, options.commit_rows, options.payload, options.rate)
    has_workload = any(option is not None for option in workload_options)
    if has_workload:
        workloads = tuple(_chosen_workloads(options))
    else:
        workloads = tuple(full_workloads()) if options.full else short_workloads()
    if options.length is not None:
        workloads = tuple(attrs.evolve(workload, length_s=options.length) for workload in workloads)
    left_out = () if options.full or has_workload else NOT_IN_SHORT_PROFILE
    systems = options.systems or [name for name in SYSTEMS if name not in left_out]
    default_rounds = 3 if options.full or options.goals or options.compare is not None else 2
    rounds = options.rounds or default_rounds
    if options.goals:
        contests = goal_contests(tuple(systems))
        return Plan(rounds, contests, costs=tuple(COSTS), second_copies=tuple(BATCHES.values()))
    parts = options.parts or (["systems"] if has_workload or options.systems else ["systems", "curves"])
    return Plan(
        rounds,
        dict.fromkeys(workloads, tuple(systems)) if "systems" in parts else {},
        curves=tuple(options.curves or CURVES) if "curves" in parts or options.curves else (),
        scale=FULL if options.full else SHORT,
    )


def _chosen_workloads(options: argparse.Namespace) -> Iterable[Workload]:
    length_s = 1.0 if options.rate is None else 3.0
    combinations = itertools.product(
        options.classes or ["process"],
        options.commit_rows or [1],
        options.payload or [100],
        options.agents or [1, 10, 100],
    )
    for durability, commit_rows, payload_bytes, agents in combinations:
        yield Workload(durability, agents, options.rate, commit_rows, payload_bytes, length_s)
