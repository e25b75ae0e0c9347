"""Play fleets by number: each trial has its own fleet and its own seed, and can be played again alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import attrs

from tests.support.fleets import (
    agents,
    carrying,
    clocks,
    conflicts,
    ending,
    hostile,
    importing,
    merging,
    pruning,
    pushing,
    steps,
    upstream,
)
from tests.support.fleets.fleet import STORES, Fleet
from tests.support.fleets.shapes import DECK_WITH_DISPUTES

#: The modules whose steps are registered.
FAMILIES = (agents, merging, carrying, pruning, conflicts, clocks, hostile, importing, pushing)

LONGEST = 60

#: How many trials go by until one ends in PostgreSQL.
PUSH_EVERY = 20

#: How many trials go by until one pushes to PostgreSQL again and again. The others play what they played before.
PUSHES_EVERY = 3

#: How many trials go by until one has imports. The others play what they played before there were any.
IMPORTS_EVERY = 2


@attrs.frozen
class Options:
    """What to play.

    Attributes:
        seed: the seed of the campaign.
        form: "honest" or "hostile".
        without: the names of steps to leave out.
        longest: the most steps of a fleet.
        dsn: a PostgreSQL server, in which each fleet that pushes gets a schema of its own; None if there is none.
    """

    seed: int = 0
    form: str = "honest"
    without: Collection[str] = ()
    longest: int = LONGEST
    dsn: str | None = None


@attrs.define
class Result:
    """How one trial ended, and after how many seconds."""

    number: int
    counts: Counter[str]
    error: str = ""
    log: str = ""
    seconds: float = 0.0


def play_steps(fleet: Fleet, pick: Any, count: int) -> None:
    """Take steps chosen by `pick`."""
    deck = steps.deck(fleet.form, fleet.without)
    for _ in range(count):
        chosen = pick(deck)
        fleet.say(chosen.name)
        if chosen.play(fleet, pick) is False:
            fleet.log.pop()
        else:
            fleet.counts[chosen.name] += 1


def play_trial(options: Options, number: int, *, verbose: bool = False) -> Counter[str]:
    """Play one fleet, from its first row until everything is everywhere.

    Raises:
        AssertionError: a promise was broken; the steps were printed.
    """
    seed = f"{options.seed}-{number}-{options.form}"
    has_server = options.dsn is not None and number % PUSHES_EVERY == 0 and "push" not in options.without
    without = {
        *options.without,
        *(importing.NAMES if number % IMPORTS_EVERY else ()),
        *(() if has_server else pushing.NAMES),
    }
    chance, fleet = random.Random(seed), Fleet(options.form, without, seed)
    schemas = contextlib.ExitStack()
    try:
        if has_server and options.dsn is not None:
            fleet.server = upstream.Upstream(schemas.enter_context(_schema(options.dsn)))
        if chance.choice((True, False)):
            fleet.deck = DECK_WITH_DISPUTES
        play_steps(fleet, chance.choice, chance.randrange(5, options.longest))
        fleet.say("settle")
        ending.settle(fleet)
        if fleet.server is not None:
            fleet.say("push all")
            pushing.finish(fleet)
            fleet.counts["fleets that push"] += 1
        elif options.dsn is not None and number % PUSH_EVERY == 0 and "push" not in options.without:
            fleet.say("push")
            with _schema(options.dsn) as dsn:
                ending.push(fleet, dsn, chance.choice(STORES))
            fleet.counts["push"] += 1
    except BaseException:
        print("\n".join(fleet.log), file=sys.stderr)
        print(f"fleet {number} failed: --form {options.form} --seed {options.seed} --only {number}", file=sys.stderr)
        raise
    finally:
        schemas.close()
        fleet.remove()
    if verbose:
        print("\n".join(fleet.log))
    fleet.counts["fleets that lost a file"] += fleet.is_lossy
    return fleet.counts


@contextlib.contextmanager
def _schema(dsn: str) -> Iterator[str]:
    """Yield a DSN with a schema of its own."""
    import uuid

    from psycopg.conninfo import make_conninfo

    from tests.support.postgres_server import do

    name = f"s{uuid.uuid4().hex}"
    do(dsn, f"CREATE SCHEMA {name}")
    try:
        yield make_conninfo(dsn, options=f"-csearch_path={name}")
    finally:
        do(dsn, f"DROP SCHEMA {name} CASCADE")


def _result(options: Options, number: int) -> Result:
    log: list[str] = []
    try:
        with contextlib.redirect_stderr(_Lines(log)):
            return Result(number, play_trial(options, number))
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        return Result(number, Counter(), cause[:1_500], "".join(log) + traceback.format_exc())


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.append(text)
        return len(text)

    def flush(self) -> None:
        pass


def _begin(given: tuple[Options, int, float]) -> Result | None:
    """Play a trial, unless its time is over; a pool takes all numbers at once, long before it plays them."""
    options, number, deadline = given
    return _result(options, number) if time.monotonic() < deadline else None


def play_trials(
    options: Options,
    numbers: Collection[int],
    *,
    jobs: int = 1,
    seconds: float = float("inf"),
    on_result: Callable[[Result], None] = lambda result: None,
) -> Counter[str]:
    """Play trials; those that fail are reported to `on_result`, and the others go on.

    Args:
        options: what to play.
        numbers: which trials.
        jobs: in how many processes.
        seconds: begin no trial later than that.
        on_result: is told how each trial ended.
    """
    deadline = time.monotonic() + seconds
    total: Counter[str] = Counter()
    wanted = [(options, number, deadline) for number in numbers]
    with contextlib.ExitStack() as stack:
        results: Any = map(_begin, wanted)
        if jobs > 1:
            pool = stack.enter_context(multiprocessing.get_context("fork").Pool(jobs))
            results = pool.imap_unordered(_begin, wanted)
        for result in results:
            if result is None:
                continue
            total.update(result.counts)
            total["fleets"] += 1
            total["failed"] += bool(result.error)
            on_result(result)
    return total
