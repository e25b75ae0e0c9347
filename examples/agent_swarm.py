"""A hundred agents write at the same time, each into its own shard; a merge every second brings the rows together.

    python examples/agent_swarm.py [FOLDER] [--agents N] [--seconds N] [--rate ROWS] [--merge-every S]

Every agent is a process that calls ``shard.write({...})`` at a steady pace: one call, one committed row. At the end the
master must hold exactly the rows that were acknowledged to the agents, each once; otherwise this exits with an error.
Ctrl-C ends the agents early.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import attrs

import edgeshard

# -- agents -----------------------------------------------------------------------------------------------------------


@attrs.define
class Tally:
    """What was acknowledged to an agent, and how many writes took how many microseconds."""

    rows: int = 0
    latencies_us: Counter[int] = attrs.Factory(Counter)


def agent_data(chance: random.Random) -> dict[str, Any]:
    file = f"src/module_{chance.randrange(40)}.py"
    return {"action": "generated_code", "file": file, "tokens": chance.randrange(50, 2_000)}


def run_agent(agent: str, folder: str, rate: float, stop: Connection, result: Connection) -> None:
    """Write to the agent's own shard until told to stop, then send the tally."""
    tally = Tally()
    chance = random.Random(agent)  # a fork copies the state of the module's global generator
    try:
        with edgeshard.Store(folder).shard(agent) as shard:
            for _ in ticks(1 / rate, stop):
                agent_write(shard, agent_data(chance), tally)
    except (edgeshard.EdgeshardError, OSError) as error:
        sys.exit(f"{agent}: {error}")
    finally:
        with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
            result.send(tally)


def agent_write(shard: edgeshard.Shard, data: dict[str, Any], tally: Tally) -> None:
    began = time.perf_counter()
    shard.write(data)
    # it returned, so the row is acknowledged
    tally.latencies_us[round((time.perf_counter() - began) * 1e6)] += 1
    tally.rows += 1


def ticks(interval_s: float, stop: Connection) -> Iterator[int]:
    """Count up at an interval, until the other end of `stop` is closed, also if its owner dies."""
    began = time.monotonic()
    for number in itertools.count():
        if (
            stop.poll(max(0.0, began + number * interval_s - time.monotonic())) and number
        ):  # even a late agent writes once
            return
        yield number


# -- the parent: starts the agents, merges, and checks ----------------------------------------------------------------


@attrs.frozen
class Swarm:
    """The running agents, and the ends of the pipes to them."""

    processes: list[multiprocessing.process.BaseProcess]
    results: list[Connection]
    stop: Connection

    def finish(self) -> list[Tally]:
        """End the agents and return the tallies of those that were not killed."""
        self.stop.close()
        tallies = [received(result) for result in self.results]
        for process in self.processes:
            process.join()
        return [tally for tally in tallies if tally is not None]


def start_swarm(folder: str, agents: int, rate: float) -> Swarm:
    # a fork takes 2 ms, a fresh interpreter 100 ms (measured). Forking is safe here because nothing of edgeshard is
    # open: a Store opens its files only during a call. Never open a shard before a fork.
    context = multiprocessing.get_context("fork")
    stopped, stop = context.Pipe(duplex=False)
    swarm = Swarm([], [], stop)
    # Ctrl-C reaches every process of the terminal; only the parent reacts to it
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in range(agents):
        ours, theirs = context.Pipe(duplex=False)
        agent = f"agent-{number:03}"
        arguments = (stop, agent, folder, rate, stopped, theirs)
        process = context.Process(target=in_child, args=arguments, name=agent, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the agent
        swarm.processes.append(process)
        swarm.results.append(ours)
    signal.signal(signal.SIGINT, handler)
    return swarm


def in_child(stop: Connection, *arguments: Any) -> None:
    stop.close()  # the fork copied the parent's end; no agent would see it closed while a copy is open
    run_agent(*arguments)


def received(result: Connection) -> Tally | None:
    try:
        tally = result.recv()
    except EOFError:
        return None
    return tally if isinstance(tally, Tally) else None


def merge_repeatedly(store: edgeshard.Store, deadline: float, interval_s: float) -> None:
    """Merge at an interval, until the deadline or Ctrl-C."""
    try:
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, interval_s))
            print(store.merge(lock_wait=-1), flush=True)
    except KeyboardInterrupt:
        print("interrupted; no more rows are written", flush=True)


def run(store: edgeshard.Store, options: argparse.Namespace) -> int:
    store.init()
    store.merge(lock_wait=-1)  # do not count what an earlier run left in its shards
    before = store.verify().rows
    print(f"the master is {store.master_path}; open it with any SQLite tool, even now", flush=True)
    deadline = time.monotonic() + options.seconds
    swarm = start_swarm(str(store.root), options.agents, options.rate)
    merge_repeatedly(store, deadline, options.merge_every)
    tallies = swarm.finish()
    print(store.merge(lock_wait=-1))
    right = check(store, before, tallies)
    return 0 if unharmed(swarm) and right else 1


def unharmed(swarm: Swarm) -> bool:
    """Return whether no agent failed or was killed: one that was killed could not report its tally."""
    failed = [process for process in swarm.processes if process.exitcode != 0]
    for process in failed:
        print(f"{process.name} ended with exit code {process.exitcode}", file=sys.stderr)
    return not failed


def check(store: edgeshard.Store, before: int, tallies: Sequence[Tally]) -> bool:
    """Print the figures, and return whether the master holds every acknowledged row exactly once."""
    verified = store.verify()
    acknowledged, arrived = sum(tally.rows for tally in tallies), verified.rows - before
    ((duplicated,),) = store.query(DUPLICATED)
    show_figures(acknowledged, arrived, duplicated, tallies)
    show(("busiest agents", "rows", "tokens"), store.query(BUSIEST))
    for finding in (*verified.errors, *verified.gaps):
        print(finding, file=sys.stderr)
    return verified.ok and acknowledged == arrived and not duplicated


# a row's address is its stream and its seq
DUPLICATED = "SELECT count(*) - count(DISTINCT _stream << 32 | _seq) FROM agent_data"
BUSIEST = """
SELECT agent_id, count(*) AS written, sum(data ->> 'tokens') AS tokens
FROM agent_data GROUP BY agent_id ORDER BY written DESC, tokens DESC LIMIT 5
"""


def show_figures(acknowledged: int, arrived: int, duplicated: int, tallies: Sequence[Tally]) -> None:
    latencies_us: Counter[int] = Counter()
    for tally in tallies:
        latencies_us.update(tally.latencies_us)
    median_us = statistics.median(latencies_us.elements()) if latencies_us else 0
    print()
    print(f"rows acknowledged    {acknowledged}")
    print(f"rows in the master   {arrived}")
    print(f"rows duplicated      {duplicated}")
    print(f"write, median        {median_us / 1000:.3f} ms")
    print(f"write, worst         {max(latencies_us, default=0) / 1000:.3f} ms")


def show(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = [heads, *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Many agents write into their own shards while merges run.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="the store (default: a fresh temporary folder)")
    parser.add_argument("--agents", type=int, default=100, metavar="N", help="how many processes (default: 100)")
    parser.add_argument("--seconds", type=positive, default=5.0, metavar="N", help="for how long (default: 5)")
    parser.add_argument(
        "--rate", type=positive, default=50.0, metavar="ROWS", help="rows per second and agent (default: 50)"
    )
    parser.add_argument("--merge-every", type=positive, default=1.0, metavar="S", help="in seconds (default: 1)")
    return parser.parse_args()


def main() -> int:
    options = parse()
    store = edgeshard.Store(options.folder or tempfile.mkdtemp(prefix="edgeshard-swarm-"))
    try:
        return run(store, options)
    except edgeshard.EdgeshardError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
