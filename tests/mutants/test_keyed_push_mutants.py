"""Break a push of keyed tables on purpose, and expect a test of such pushes to fail."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from edgeshard.postgres import conflicts, own_tables
from tests.property.test_push_laws import check_law
from tests.support import keyed_model
from tests.support.keyed_model import Lww

pytest.importorskip("psycopg")

from tests.support.postgres_server import do

if TYPE_CHECKING:
    from edgeshard.postgres.plan import Piece
    from edgeshard.postgres.schema import Table
    from edgeshard.postgres.server import Server

from tests.support.keyed_pushes import rivals, versions

pytestmark = pytest.mark.slow


def test_the_law_finds_a_push_that_settles_nothing(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "settle", lambda server, keyed, chunk: None)
    with pytest.raises((AssertionError, ExceptionGroup)):
        check_law(Lww, False, pg, monkeypatch, settings(max_examples=200, phases=keyed_model.UNSHRUNK))


def test_that_finds_pushers_that_do_not_lock_the_table(
    pg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let each pusher settle before it sees what the other is about to commit."""
    one, other = rivals(tmp_path, 2)
    with one.shard("b") as shard:
        shard.write(Lww("q", 1, 1))  # the table is there before the two meet
    one.merge()
    one.push(pg)
    do(pg, "DELETE FROM cell", "DELETE FROM edgeshard_ranges")
    settle, barrier = conflicts.settle, threading.Barrier(2)

    def together(server: Server, keyed: list[Table], chunk: list[Piece]) -> None:
        settle(server, keyed, chunk)
        barrier.wait(30)

    monkeypatch.setattr(own_tables, "lock_keyed_tables", lambda server, keyed: None)
    monkeypatch.setattr(conflicts, "settle", together)
    threads = [threading.Thread(target=store.push, args=(pg,)) for store in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows, keys = versions(pg)
    assert rows > keys
