"""Kill pushers and the PostgreSQL server, and cut their connections: the short forms of the campaign `push_kills`."""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg")

from tests.crash.kills import push_cuts, pushers
from tests.support.postgres_server import PgServer

#: By COPY to a double of Citus, whose errors have no SQLSTATE there, and by INSERT to a plain server.
WAYS = pytest.mark.parametrize(("inserts", "is_cluster"), [(False, True), (True, False)], ids=["copy-citus", "insert"])


@pytest.mark.slow
@WAYS
def test_every_row_is_accounted_for_after_kills_of_pushers_and_of_the_server(
    pg_server: PgServer, inserts: bool, is_cluster: bool
) -> None:
    tally = pushers.play(pg_server, kills=4, seed=7, inserts=inserts, is_cluster=is_cluster)
    assert (3, 1) == (tally.pushers_killed, tally.servers_killed)
    assert 0 < tally.account.rejected < tally.account.pushed


@pytest.mark.slow
@WAYS
def test_every_row_is_accounted_for_after_connections_were_cut(
    pg_server: PgServer, inserts: bool, is_cluster: bool
) -> None:
    tally = push_cuts.play(pg_server, cuts=6, seed=7, inserts=inserts, is_cluster=is_cluster)
    assert 6 <= tally.cuts
    assert 0 < tally.account.rejected < tally.account.pushed
