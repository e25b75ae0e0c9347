"""Cut the connections of pushes after any byte, and account for every row.

The devices, and what they write, are those of `push_devices`; what happens between two pushes, too. Here the pushes run
in this process, through a proxy, alone or two at the same time. The proxy cuts a connection after a random number of
bytes, once or several times in a row, or at a COMMIT that is sent, or whose answer is on its way.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Final
from unittest import mock

import attrs
from psycopg import conninfo

from edgeshard.errors import PostgresUnavailableError
from edgeshard.postgres import plan
from edgeshard.postgres.options import ON_INVALID
from tests.crash.kills import push_accounts
from tests.crash.kills.push_accounts import Account
from tests.crash.kills.push_devices import Devices, Life, lives, opened
from tests.support.postgres_server import PgServer, Proxy

#: Cuts in one life of a database: then tables are created again.
_LIFE: Final = 25

_SIZES: Final = (1, 1, 2, 20)


@attrs.define
class CutTally:
    """Counts of what was done."""

    pushes: int = 0
    unavailable: int = 0
    cuts: int = 0
    by_copy: int = 0
    by_insert: int = 0
    distributing: int = 0
    account: Account = attrs.field(factory=Account)


def _push(
    made: Devices, device: int, proxy: Proxy, life: Life, rng: random.Random, tally: CutTally
) -> Callable[[], object]:
    """Choose a push of a device through the proxy, and return a function that makes it."""
    inserts = rng.choice([True, False]) if life.inserts is None else life.inserts
    distributes = made.is_cluster and rng.randrange(4) > 0
    on_invalid = rng.choice([*ON_INVALID, "reject"])
    made.permit(on_invalid)
    tally.pushes += 1
    tally.by_insert += inserts
    tally.by_copy += not inserts
    tally.distributing += distributes
    return partial(
        made.stores[device].push,
        conninfo.make_conninfo(made.dsn, port=proxy.port),
        batch=rng.choice([5, 20, 1_000]),
        inserts=inserts,
        on_invalid=on_invalid,
        retry_rejected=rng.randrange(4) == 0,
        distribute=distributes,
    )


def _choose_place(proxy: Proxy, rng: random.Random) -> int:
    """Return after how many bytes to cut: any, or one of the first, with which a push connects and asks what is there."""
    longest = max(proxy.longest, 1_000)
    return rng.choice([rng.randrange(longest), int(longest ** rng.random())])


def _run(pushes: list[Callable[[], object]]) -> int:
    """Make pushes at the same time; return how many could not reach the server."""
    errors: list[BaseException] = []

    def run(push: Callable[[], object]) -> None:
        try:
            push()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(push,)) for push in pushes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, PostgresUnavailableError):
            raise error
    return len(errors)


def play(
    server: PgServer,
    cuts: int,
    seed: int,
    *,
    inserts: bool | None = None,
    is_cluster: bool | None = None,
    progress: Callable[[CutTally], object] = lambda tally: None,
) -> CutTally:
    """Cut connections, and account for every row.

    Args:
        server: the server.
        cuts: how often to cut a connection, at least.
        seed: seed of all random choices.
        inserts: whether to push only by INSERT; None: choose at random.
        is_cluster: whether to push as if to a Citus cluster; None: in every second life of the database.
        progress: called at the end of each life of the database.
    """
    rng, tally = random.Random(seed), CutTally()
    for life in lives(cuts, _LIFE, inserts, is_cluster):
        proxy = Proxy(server.port)
        try:
            # a server that is there need not be waited for
            with opened(server, life, rng) as made, mock.patch.object(plan, "back_off_s", return_value=0.1):
                while proxy.cut < life.length:
                    _cut(made, proxy, life, rng, tally)
                tally.account += push_accounts.finish(made, inserts=rng.choice([True, False]))
        finally:
            proxy.close()
        tally.cuts += proxy.cut
        progress(tally)
    return tally


def _cut(made: Devices, proxy: Proxy, life: Life, rng: random.Random, tally: CutTally) -> None:
    """Push once or twice at the same time, while the proxy may cut."""
    chosen = made.choose()
    made.write(chosen, rng.randrange(5, 60), _SIZES)
    made.disturb()
    proxy.cuts = rng.choice([1, 1, 2, 4])
    proxy.on_commit = rng.choice(["", "", "", "before", "after"])
    proxy.cut_after = None if proxy.on_commit else _choose_place(proxy, rng)
    tally.unavailable += _run([_push(made, device, proxy, life, rng, tally) for device in chosen[: rng.choice([1, 2])]])
    proxy.cuts = 0
    made.settle()
    made.check_receipts()
    push_accounts.check_between(made)
