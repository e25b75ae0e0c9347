"""Kill real pushers and a real PostgreSQL server in the middle of their work, and account for every row.

Three devices write and merge between the kills; `push_devices` says what. Two of them, or two processes of one, push at
the same time, by COPY or by INSERT, and as if to a Citus cluster in every second life of the database. Some try rejected
rows again, replace or escape invalid characters, or distribute the tables. At a random moment, soon after one has begun
a transaction, one of them is killed, or, every fourth time, the server with all of its processes. Between two pushes a
user dismisses rejected rows, the server changes its mind about what it refuses, or workers of the cluster die.

After each kill, no receipt names a row that PostgreSQL lacks, each transaction is there whole or not at all, and no key
is there twice. What must hold in the end is in `push_accounts`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from typing import Final, NoReturn

import attrs
import psycopg

from edgeshard import cli
from edgeshard.cli import exits
from edgeshard.postgres.options import ON_INVALID
from tests.crash.kills import push_accounts
from tests.crash.kills.push_accounts import Account
from tests.crash.kills.push_devices import Devices, Life, lives, opened
from tests.support.postgres_server import PgServer

#: Kills in one life of a database: then tables are created again.
_LIFE: Final = 12

_SIZES: Final = (1, 1, 2, 50, 400)

#: Whether somebody is in a transaction.
_AT_WORK: Final = (
    "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
    "and xact_start is not null"
)


@attrs.define
class Tally:
    """Counts of what was done."""

    pushers_killed: int = 0
    servers_killed: int = 0
    mid_push: int = 0
    in_transaction: int = 0
    by_copy: int = 0
    by_insert: int = 0
    distributing: int = 0
    repairing: int = 0
    retrying: int = 0
    account: Account = attrs.field(factory=Account)


def _start(made: Devices, device: int, life: Life, rng: random.Random, tally: Tally, output: Path) -> Process:
    """Start a pusher of a device."""
    inserts = rng.choice([True, False]) if life.inserts is None else life.inserts
    on_invalid = rng.choice([*ON_INVALID, "reject"])
    retries, distributes = rng.randrange(4) == 0, made.is_cluster and rng.randrange(4) > 0
    tally.by_insert += inserts
    tally.by_copy += not inserts
    tally.repairing += on_invalid != "reject"
    tally.retrying += retries
    tally.distributing += distributes
    made.permit(on_invalid)
    arguments = ["push", str(made.stores[device].root), made.dsn, "--batch", str(rng.choice([20, 100, 5_000])), "-q"]
    arguments += ["--on-invalid", on_invalid]
    arguments += ["--inserts"] * inserts + ["--retry-rejected"] * retries + ["--distribute"] * distributes
    # a fork has imported everything already, so that a kill rarely comes before a push has begun
    pusher = multiprocessing.get_context("fork").Process(target=_push, args=(arguments, output))
    pusher.start()
    return pusher


def _push(arguments: list[str], output: Path) -> NoReturn:
    """Run ``edgeshard`` as this process."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(cli.main(arguments))


def _await_moment(made: Devices, pushers: list[Process], rng: random.Random) -> bool:
    """Wait for a moment to kill; return whether a push is in a transaction."""
    with psycopg.connect(made.dsn, autocommit=True) as connection:
        if rng.randrange(4) > 0:
            while not connection.execute(_AT_WORK).fetchall() and any(each.is_alive() for each in pushers):
                time.sleep(0.005)
        time.sleep(rng.uniform(0, rng.choice([0.0, 0.02, 0.1, 0.4])))
        return bool(connection.execute(_AT_WORK).fetchall())


def _kill(server: PgServer, made: Devices, life: Life, rng: random.Random, tally: Tally, *, is_server: bool) -> None:
    """Have devices write, let two pushers run, kill one of them or the server, and wait for their end."""
    chosen = made.choose()
    made.write(chosen, rng.randrange(100, 600), _SIZES)
    made.disturb()
    outputs = [made.stores[0].root.parent / f"pusher-{number}" for number in range(2)]
    pushers = [_start(made, device, life, rng, tally, output) for device, output in zip(chosen, outputs, strict=True)]
    tally.in_transaction += _await_moment(made, pushers, rng)
    alive = [pusher for pusher in pushers if pusher.is_alive()]
    tally.mid_push += bool(alive)
    if is_server:
        server.kill()
        server.start()
        tally.servers_killed += 1
    else:
        (alive or pushers)[0].kill()
        tally.pushers_killed += 1
    for pusher, output in zip(pushers, outputs, strict=True):
        pusher.join()
        expected = {exits.DONE, exits.INCOMPLETE}
        if is_server or made.has_dead_workers:
            expected.add(exits.UNAVAILABLE)
        if not is_server and pusher is (alive or pushers)[0]:
            expected.add(-signal.SIGKILL)
        assert pusher.exitcode in expected, f"exit code {pusher.exitcode}: {output.read_text()}"


def play(
    server: PgServer,
    kills: int,
    seed: int,
    *,
    inserts: bool | None = None,
    is_cluster: bool | None = None,
    progress: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Kill processes, and account for every row.

    Args:
        server: the server.
        kills: how often to kill.
        seed: seed of all random choices.
        inserts: whether to push only by INSERT; None: choose at random.
        is_cluster: whether to push as if to a Citus cluster; None: in every second life of the database.
        progress: called at the end of each life of the database.
    """
    rng, tally = random.Random(seed), Tally()
    for life in lives(kills, _LIFE, inserts, is_cluster):
        with opened(server, life, rng) as made:
            for kill in range(life.length):
                _kill(server, made, life, rng, tally, is_server=kill % 4 == 3)
                made.check_receipts()
                push_accounts.check_between(made)
            tally.account += push_accounts.finish(made, inserts=rng.choice([True, False]))
        progress(tally)
    return tally
