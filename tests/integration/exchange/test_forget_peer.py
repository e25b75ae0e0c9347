"""A peer that will never return is forgotten: what waited for it goes on, and nothing else changes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, StorageBusyError
from edgeshard.format.ranges import Range
from edgeshard.master import database, receipts
from tests.support import keyed_model
from tests.support.keyed_model import First, Lww
from tests.support.processes import command
from tests.support.pruning import said, stream_of
from tests.support.stores import new_store
from tests.support.terminals import on_terminal
from tests.support.wall_clock import Wall

OLD, OTHER = b"\1" * 16, b"\2" * 16


def record(store: edgeshard.Store, peer: bytes, *held: Range, kind: str = receipts.POSTGRESQL) -> None:
    connection = database.open_master(store.master_path, writable=True)
    try:
        receipts.record(connection, peer, kind, said({stream_of(store): list(held)}))
    finally:
        connection.close()


def peers(store: edgeshard.Store) -> list[str]:
    return [peer.database for peer in store.status().peers]


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> edgeshard.Store:
    """A store with old tombstones of seqs 3 and 4, which one peer has no row of; another has all but the last."""
    wall = Wall(monkeypatch)
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        for col in (1, 2):
            shard.write(Lww("p", col, col))
        for col in (1, 2):
            shard.delete(Lww, "p", col)
        shard.write(Lww("p", 3, 3))
    store.merge()
    record(store, OLD, Range(1, 2))
    record(store, OTHER, Range(1, 3))
    wall.advance(11)
    return store


def test_a_peer_of_a_store_whose_keyed_table_has_no_tombstones_is_forgotten(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(First("p", 1, 1))
    store.merge()
    record(store, OLD, Range(1, 1))
    assert (1, 0) == ((report := store.forget_peer(OLD.hex())).rows, report.tombstones)
    assert [] == peers(store)


def test_tombstones_no_longer_wait_for_a_forgotten_peer(waiting: edgeshard.Store) -> None:
    pruned = waiting.prune(deletions_older_than="10d", dry_run=True)
    assert (0, 2) == (pruned.rows, pruned.tombstones_unheard)
    would = waiting.forget_peer(OLD.hex()[:6], dry_run=True)
    assert (1, 0, 0, True) == (would.tombstones, would.rows, would.claimed, would.dry_run)  # seq 4 waits for the other
    assert {OLD.hex(), OTHER.hex()} == set(peers(waiting))
    assert attrs.evolve(would, dry_run=False) == waiting.forget_peer(OLD.hex())
    assert [OTHER.hex()] == peers(waiting)
    assert would.tombstones == waiting.prune(deletions_older_than="10d").rows
    assert waiting.verify().ok
    assert (1, 3) == ((last := waiting.forget_peer(OTHER.hex())).tombstones, last.rows)
    assert 1 == waiting.prune(deletions_older_than="10d").rows


def test_no_rule_deletes_rows_because_a_forgotten_peer_holds_them(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(6):
            shard.write({"n": n})
    store.merge()
    record(store, OLD, Range(1, 4))
    record(store, OTHER, Range(1, 1), kind=receipts.EDGESHARD)
    assert 4 == store.prune(keep_rows=0, only_receipted=True, dry_run=True).rows
    assert 3 == store.forget_peer(OLD.hex()).rows
    assert 1 == store.prune(keep_rows=0, only_receipted=True, dry_run=True).rows


def test_rows_that_a_forgotten_peer_claimed_to_hold_are_counted_and_keep_no_tombstones(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    store.merge(keep_empty=True)
    record(store, OLD, Range(1, 8))
    assert 7 == store.forget_peer(OLD.hex(), dry_run=True).claimed
    with contextlib.closing(database.open_master(store.master_path, writable=True)) as connection:
        assert [1] == receipts.streams_with_unknown_rows(connection)
        store.forget_peer(OLD.hex())
        assert [] == receipts.streams_with_unknown_rows(connection)


def test_a_peer_that_awaits_confirmation_is_forgotten_too(tmp_path: Path, store: edgeshard.Store) -> None:
    hub = new_store(tmp_path / "hub")
    hub.merge()
    with store.shard("a") as shard:
        shard.write({"n": 1})
    store.merge()
    store.receipt(hub.ranges())
    assert ["receipt-unconfirmed"] == [problem.kind for problem in store.status().problems]
    assert (0, 0, 0) == (
        (report := store.forget_peer(hub.ranges().database_id.hex())).tombstones,
        report.rows,
        report.claimed,
    )
    assert ((), []) == (store.status().problems, peers(store))


def test_rows_that_a_forgotten_server_rejected_are_forgotten_too(store: edgeshard.Store, pg: str) -> None:
    with store.shard("a") as shard:
        for n in range(4):
            shard.write({"text": "a\0b" if n % 2 else "ab"})
    store.merge()
    store.push(pg)
    assert 2 == sum(item.rows for item in store.rejected().rejected)
    ((database,),) = (each.split() for each in peers(store))
    store.forget_peer(database)
    assert ((), ()) == (store.rejected().rejected, store.status().problems)


@pytest.mark.parametrize("digits", ["", "0101", "ab" * 16])
def test_a_peer_that_is_not_clear_is_not_forgotten(waiting: edgeshard.Store, digits: str) -> None:
    with pytest.raises(ConfigurationError, match="there are receipts of"):
        waiting.forget_peer(digits)
    assert 2 == len(peers(waiting))


def test_a_receipt_that_arrives_meanwhile_stays(waiting: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = database.open_master(waiting.master_path, writable=True)
    forget_rows = receipts.record

    def interrupted(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        found = forget_rows(*arguments, **options)  # type: ignore[arg-type]
        record(waiting, OLD, Range(1, 5))
        return found

    try:
        peer = receipts.find_any(connection, OLD.hex(), "")
        monkeypatch.setattr(receipts, "record", interrupted)
        with pytest.raises(StorageBusyError, match="another process records a receipt"):
            receipts.forget(connection, peer)
        assert 5 == sqlite.scalar(connection, "SELECT last FROM _edgeshard_receipts WHERE database_id = ?", (OLD,))
    finally:
        connection.close()


def test_the_command_says_what_it_permits_and_asks(waiting: edgeshard.Store) -> None:
    code, shown = on_terminal("forget-peer", waiting.root, OLD.hex(), typed="n\n", columns=1000)
    assert (1, 2) == (code, len(peers(waiting)))
    assert "tombstones that wait for it only and may then be pruned: 1" in shown
    assert "[y/N]" in shown
    done = command("forget-peer", waiting.root, OLD.hex(), "--json")
    assert (0, 1, False) == (done.returncode, (said := json.loads(done.stdout))["tombstones"], said["dry_run"])
    assert 1 == len(peers(waiting))
    assert 78 == command("forget-peer", waiting.root, OLD.hex()).returncode
