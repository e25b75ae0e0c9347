"""Kill pushers and the PostgreSQL server: the short form of the campaign `push_kills`."""

from __future__ import annotations

import pytest

pytest.importorskip("psycopg")

from tests.crash.kills import pushers
from tests.support.postgres_server import PgServer


@pytest.mark.slow
@pytest.mark.parametrize("inserts", [False, True], ids=["copy", "insert"])
def test_every_row_is_there_once_after_kills_of_the_pusher_and_of_the_server(
    pg_server: PgServer, inserts: bool
) -> None:
    tally = pushers.play(pg_server, kills=4, seed=7, inserts=inserts)
    assert (True, True) == (tally.pushers_killed > 0, tally.servers_killed > 0)
    assert 0 < tally.rejected < tally.rows
    assert 4 == tally.pushers_killed + tally.servers_killed
