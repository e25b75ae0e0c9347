"""Receipts: what peers said that they hold is noted, replaced by what they say next, and read back by either question."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import edgeshard
from edgeshard import database, master, receipts
from edgeshard.database import Connection
from edgeshard.ranges import Range

HUB, OTHER, SERVER = bytes(15) + b"\1", bytes(15) + b"\2", bytes(15) + b"\3"


def stream_of(connection: Connection, agent: str) -> bytes:
    """The id of an agent's only stream."""
    sql = "select stream_id from edgeshard_streams where agent_id = ?"
    found: bytes = database.scalar(connection, sql, (agent,))
    return found


@pytest.fixture
def opened(store: edgeshard.Store) -> Iterator[Connection]:
    """The master of a store with 10 rows of agent a and 5 of agent b, open for writing."""
    for agent, count in (("a", 10), ("b", 5)):
        with store.shard(agent) as shard:
            shard.write_many({"n": n} for n in range(count))
    store.merge()
    connection = master.open_master(store.master_path, writable=True)
    yield connection
    connection.close()


def test_what_a_peer_holds_is_noted_and_what_this_master_does_not_know_is_counted(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    held = {a: [Range(1, 3), Range(4, 6)], b: [Range(2, 2)], bytes(16): [Range(1, 9)]}
    assert 1 == receipts.note(opened, HUB, receipts.EDGESHARD, held)
    assert {a: [Range(1, 6)], b: [Range(2, 2)]} == receipts.held_by(opened, HUB)
    assert {} == receipts.held_by(opened, OTHER)


def test_the_next_receipt_of_a_peer_takes_the_place_of_the_last(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    receipts.note(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 6)], b: [Range(1, 5)]})
    receipts.note(opened, OTHER, receipts.EDGESHARD, {a: [Range(1, 10)]})
    receipts.note(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 2), Range(5, 10)]})
    assert {a: [Range(1, 2), Range(5, 10)]} == receipts.held_by(opened, HUB)
    assert {a: [Range(1, 10)]} == receipts.held_by(opened, OTHER)


def test_rows_that_a_peer_pruned_are_not_held_but_were(opened: Connection) -> None:
    a = stream_of(opened, "a")
    receipts.note(opened, HUB, receipts.EDGESHARD, {a: [Range(4, 8)]}, gone={a: [Range(1, 5)]})
    assert {a: [Range(4, 8)]} == receipts.held_by(opened, HUB)
    assert {a: [Range(1, 8)]} == receipts.ever_held_by(opened, HUB)
    assert {a: [Range(4, 8)]} == receipts.held_elsewhere(opened, [receipts.EDGESHARD])


def test_what_is_held_elsewhere_is_the_union_over_peers_of_the_kinds_asked_for(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    receipts.note(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 2)]})
    receipts.note(opened, OTHER, receipts.EDGESHARD, {a: [Range(3, 4)], b: [Range(1, 1)]})
    receipts.note(opened, SERVER, receipts.POSTGRESQL, {a: [Range(9, 9)]})
    assert {a: [Range(1, 4)], b: [Range(1, 1)]} == receipts.held_elsewhere(opened, [receipts.EDGESHARD])
    assert {a: [Range(9, 9)]} == receipts.held_elsewhere(opened, {receipts.POSTGRESQL})
    assert {a: [Range(1, 4), Range(9, 9)], b: [Range(1, 1)]} == receipts.held_elsewhere(
        opened, (receipts.EDGESHARD, receipts.POSTGRESQL)
    )
    assert {} == receipts.held_elsewhere(opened, [])
    assert [SERVER, HUB] == [peer.database_id for peer, _ in receipts.holders(opened, a) if peer.database_id != OTHER]


def test_a_note_belongs_to_the_transaction_that_is_open(opened: Connection) -> None:
    a = stream_of(opened, "a")
    opened.execute("BEGIN IMMEDIATE")
    receipts.note(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 10)]})
    opened.execute("ROLLBACK")
    assert ({}, []) == (receipts.held_by(opened, HUB), receipts.peers(opened))
