"""Receipts: what peers said that they hold is noted, replaced by what they say next, and read back by either question."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, DamagedError, FormatError
from edgeshard.exchange import inventory
from edgeshard.exchange.inventory import Inventory
from edgeshard.exchange.receipts import record_receipt
from edgeshard.format.ranges import Range
from edgeshard.master import database, receipts
from edgeshard.sqlite import Connection
from tests.support.processes import command
from tests.support.records import NOON

HUB, OTHER, SERVER = bytes(15) + b"\1", bytes(15) + b"\2", bytes(15) + b"\3"


def stream_of(connection: Connection, agent: str) -> bytes:
    """The id of an agent's only stream."""
    sql = "select stream_id from edgeshard_streams where agent_id = ?"
    found: bytes = sqlite.scalar(connection, sql, (agent,))
    return found


@pytest.fixture
def opened(store: edgeshard.Store) -> Iterator[Connection]:
    """The master of a store with 10 rows of agent a and 5 of agent b, open for writing."""
    for agent, count in (("a", 10), ("b", 5)):
        with store.shard(agent) as shard:
            shard.write_many({"n": n} for n in range(count))
    store.merge()
    connection = database.open_master(store.master_path, writable=True)
    yield connection
    connection.close()


def test_what_a_peer_holds_is_noted_and_what_this_master_does_not_know_is_counted(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    held = {a: [Range(1, 3), Range(4, 6)], b: [Range(2, 2)], bytes(16): [Range(1, 9)]}
    assert 1 == receipts.record(opened, HUB, receipts.EDGESHARD, held)
    assert {a: [Range(1, 6)], b: [Range(2, 2)]} == receipts.held_by(opened, HUB)
    assert {} == receipts.held_by(opened, OTHER)


def test_the_next_receipt_of_a_peer_takes_the_place_of_the_last(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    receipts.record(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 6)], b: [Range(1, 5)]})
    receipts.record(opened, OTHER, receipts.EDGESHARD, {a: [Range(1, 10)]})
    receipts.record(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 2), Range(5, 10)]})
    assert {a: [Range(1, 2), Range(5, 10)]} == receipts.held_by(opened, HUB)
    assert {a: [Range(1, 10)]} == receipts.held_by(opened, OTHER)


def test_rows_that_a_peer_pruned_are_not_held_but_were(opened: Connection) -> None:
    a = stream_of(opened, "a")
    receipts.record(opened, HUB, receipts.EDGESHARD, {a: [Range(4, 8)]}, pruned={a: [Range(1, 5)]})
    assert {a: [Range(4, 8)]} == receipts.held_by(opened, HUB)
    assert {a: [Range(1, 8)]} == receipts.ever_held_by(opened, HUB)
    assert {a: [Range(4, 8)]} == receipts.held_elsewhere(opened, [receipts.EDGESHARD])


def test_what_is_held_elsewhere_is_the_union_over_peers_of_the_kinds_asked_for(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    receipts.record(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 2)]})
    receipts.record(opened, OTHER, receipts.EDGESHARD, {a: [Range(3, 4)], b: [Range(1, 1)]})
    receipts.record(opened, SERVER, receipts.POSTGRESQL, {a: [Range(9, 9)]})
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
    receipts.record(opened, HUB, receipts.EDGESHARD, {a: [Range(1, 10)]})
    opened.execute("ROLLBACK")
    assert ({}, []) == (receipts.held_by(opened, HUB), receipts.peers(opened))


# -- which of two is the later ----------------------------------------------------------------------------------------


def said(stream: bytes, last: int, *, hours: int, generation: int, gone: int = 0) -> Inventory:
    """What the hub said some hours after noon: it has held the stream up to `last`, and pruned up to `gone`."""
    at = NOON + datetime.timedelta(hours=hours)
    pruned = {stream: (Range(1, gone),)} if gone else {}
    return Inventory(HUB, at, generation, {stream: (Range(1, last),)}, pruned)


def held(connection: Connection) -> list[tuple[int, int]]:
    """What the hub holds now of the only stream that it spoke of."""
    return [(item.first, item.last) for items in receipts.held_by(connection, HUB).values() for item in items]


def test_a_later_receipt_takes_the_place_of_an_earlier_one_in_whatever_order_they_come(opened: Connection) -> None:
    a = stream_of(opened, "a")
    earlier, later = said(a, 4, hours=1, generation=1), said(a, 9, hours=2, generation=2, gone=2)
    assert "next" == record_receipt(opened, earlier).outcome
    assert "next" == record_receipt(opened, later).outcome
    assert [(3, 9)] == held(opened)
    report = record_receipt(opened, earlier)
    assert ("older", 7, 1) == (report.outcome, report.rows, report.streams)
    assert [(3, 9)] == held(opened)
    assert "next" == record_receipt(opened, later).outcome
    assert (NOON + datetime.timedelta(hours=2), 2) == ((peer := receipts.peers(opened)[0]).issued_at, peer.generation)


def test_a_peer_that_was_put_back_from_an_older_copy_holds_what_it_says_now(opened: Connection) -> None:
    a = stream_of(opened, "a")
    record_receipt(opened, said(a, 9, hours=1, generation=7))
    assert "put back" == record_receipt(opened, said(a, 4, hours=2, generation=3)).outcome
    assert ([(1, 4)], {a: [Range(1, 4)]}) == (held(opened), receipts.ever_held_by(opened, HUB))


def test_where_a_clock_was_set_back_only_what_both_say_counts(opened: Connection) -> None:
    a = stream_of(opened, "a")
    record_receipt(opened, said(a, 8, hours=5, generation=7))
    pruned = said(a, 10, hours=1, generation=9, gone=3)
    assert "doubtful" == record_receipt(opened, pruned).outcome
    assert ([(4, 8)], {a: [Range(1, 8)]}) == (held(opened), receipts.ever_held_by(opened, HUB))
    report = record_receipt(opened, pruned, force=True)
    assert ("next", [(4, 10)]) == (report.outcome, held(opened))


def test_an_older_receipt_of_one_that_was_put_back_brings_nothing_that_it_lost(opened: Connection) -> None:
    a = stream_of(opened, "a")
    record_receipt(opened, said(a, 4, hours=9, generation=3))
    record_receipt(opened, said(a, 9, hours=1, generation=7))
    assert [(1, 4)] == held(opened)


def test_a_database_gives_itself_no_receipt(store: edgeshard.Store) -> None:
    with pytest.raises(ConfigurationError, match="of this database itself"):
        store.receipt(store.ranges())


# -- the document -----------------------------------------------------------------------------------------------------


def test_what_a_store_holds_travels_as_one_small_line(store: edgeshard.Store, opened: Connection) -> None:
    found = store.ranges()
    text = found.to_json()
    assert (found, 1) == (inventory.parse(text.encode(), "x"), len(text.splitlines()))
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    assert {a: (Range(1, 10),), b: (Range(1, 5),)} == found.streams == found.held
    assert ("pruned" in text, True) == (False, len(text) < 400)
    assert found.streams == store.ranges().streams


def test_what_was_pruned_is_told_apart(store: edgeshard.Store, opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    opened.execute("delete from edgeshard_blocks where stream_no = (select stream_no from edgeshard_streams "
                   "where agent_id = 'b')")  # fmt: skip
    found = store.ranges()
    assert {a: (Range(1, 10),), b: (Range(1, 5),)} == found.streams
    assert ({b: (Range(1, 5),)}, {a: (Range(1, 10),)}) == (found.pruned, found.held)
    assert found == inventory.parse(found.to_json().encode(), "x")


def test_ranges_are_durable_before_they_are_told(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    sync_file = sqlite.sync_file

    def noting(path: str) -> None:
        sync_file(path)
        synced.append(Path(path + "-wal").exists())

    with store.shard("a") as shard:
        shard.write({"n": 1})
        store.merge()
        connection = database.open_master(store.master_path, writable=True)
        connection.execute("update edgeshard_database set generation = generation + 1")
        monkeypatch.setattr(sqlite, "sync_file", noting)
        assert (1, [True]) == (len(store.ranges().streams), synced)
        connection.close()


WHOLE: dict[str, Any] = {
    "edgeshard": "ranges", "format": 1, "database": "ab" * 16, "kind": "edgeshard", "generation": 3,
    "at": "2026-01-02T12:00:00+00:00", "streams": {"cd" * 16: [[1, 5], [7, 9]]}, "pruned": {"cd" * 16: [[2, 3]]},
}  # fmt: skip
STREAM = "cd" * 16


def test_the_document_that_the_others_are_made_of_is_whole() -> None:
    found = inventory.parse(json.dumps(WHOLE).encode(), "x")
    assert WHOLE == found.as_dict()
    assert (Range(1, 1), Range(4, 5), Range(7, 9)) == found.held[bytes.fromhex(STREAM)]


@pytest.mark.parametrize(
    "change",
    [
        {"database": "AB" * 16}, {"database": "ab" * 15}, {"database": 7}, {"database": "\u0661" * 32},
        {"kind": "mysql"}, {"generation": -1}, {"generation": True}, {"generation": 1.0}, {"generation": 1 << 63},
        {"at": "2026-01-02T12:00:00"}, {"at": 5}, {"at": "yesterday"}, {"at": "0001-01-01T00:00:00+23:59"},
        {"streams": []}, {"streams": {"cd": []}}, {"streams": {STREAM: 5}}, {"streams": {STREAM: [1, 2]}},
        {"streams": {STREAM: [[1, 5, 6]]}}, {"streams": {STREAM: [[0, 5]]}}, {"streams": {STREAM: [[5, 4]]}},
        {"streams": {STREAM: [[1, 5], [5, 9]]}}, {"streams": {STREAM: [[7, 9], [1, 5]]}},
        {"streams": {STREAM: [[1, 1 << 32]]}}, {"streams": {STREAM: [[1.0, 5]]}}, {"streams": {STREAM: [[True, 5]]}},
        {"pruned": {STREAM: [[5, 7]]}}, {"pruned": {"ef" * 16: [[1, 1]]}}, {"pruned": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_document_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match=r"^read ranges somewhere: "):
        inventory.parse(json.dumps({**WHOLE, **change}).encode(), "somewhere")


@pytest.mark.parametrize("key", sorted(WHOLE.keys() - {"pruned", "edgeshard", "format"}))
def test_a_document_that_lacks_a_key_is_refused(key: str) -> None:
    with pytest.raises(DamagedError):
        inventory.parse(json.dumps({name: value for name, value in WHOLE.items() if name != key}).encode(), "x")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", DamagedError),
        (json.dumps(WHOLE).encode()[:-2], DamagedError),
        (b"[" * 1_000_000, DamagedError),
        (b'{"a":' * 100_000, DamagedError),
        (b"9" * 5_000, DamagedError),
        (b"\xff\xfe", DamagedError),
        (b'{"edgeshard": "ranges", "edgeshard": "ranges"}', DamagedError),
        (b" " * (inventory.BYTES_MAX + 1), ConfigurationError),
        (b"[]", ConfigurationError),
        (b"null", ConfigurationError),
        (b'{"name": "a package"}', ConfigurationError),
        (json.dumps({**WHOLE, "format": 2}).encode(), FormatError),
        (json.dumps({**WHOLE, "format": True}).encode(), FormatError),
        (json.dumps({**WHOLE, "format": {}}).encode(), FormatError),
    ],
)
def test_what_is_no_such_document_is_refused(text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        inventory.parse(text, "x")


def test_what_nobody_would_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    found = inventory.parse(json.dumps(WHOLE).encode(), "x")
    monkeypatch.setattr(inventory, "BYTES_MAX", len(found.to_json()) - 1)
    with pytest.raises(ConfigurationError, match="no edgeshard reads"):
        found.to_json()


def test_every_document_that_is_cut_short_is_refused() -> None:
    text = json.dumps(WHOLE).encode()
    for length in range(len(text)):
        with pytest.raises(DamagedError):
            inventory.parse(text[:length], "x")


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda path: None, 78, "there is no such file"),
        (lambda path: path.mkdir(), 78, "it is a folder"),
        (lambda path: path.write_text("{}"), 78, "not what `edgeshard ranges` writes"),
        (lambda path: path.write_text('{"edgeshard": "ra'), 1, "it is incomplete"),
        (lambda path: path.write_text(json.dumps({**WHOLE, "format": 9})), 1, "use the version that wrote it"),
    ],
)
def test_the_commands_say_what_is_wrong_with_a_file(
    store: edgeshard.Store, tmp_path: Path, make: Callable[[Path], None], code: int, words: str
) -> None:
    store.merge()
    path = tmp_path / "hub.json"
    make(path)
    for arguments in (["receipt", store.root, path], ["export", store.root, tmp_path / "b.db", "--ranges", path]):
        done = command(*arguments)
        assert (code, "", 1, True) == (done.returncode, done.stdout, done.stderr.count("\n"), words in done.stderr)
        assert str(path) in done.stderr
    assert ["data", "hub.json"][: 1 + path.exists()] == sorted(item.name for item in tmp_path.iterdir())


def test_a_receipt_from_the_command_line_is_reported_and_noted(store: edgeshard.Store, opened: Connection) -> None:
    a = stream_of(opened, "a")
    text = said(a, 6, hours=1, generation=1).to_json()
    done = command("receipt", store.root, "-", "--json", input=text)
    report = {"database": HUB.hex(), "outcome": "next", "rows": 6, "streams": 1, "unknown": 0}
    assert (0, report) == (done.returncode, json.loads(done.stdout))
    older = said(a, 5, hours=0, generation=1).to_json()
    assert "is older than the one recorded before" in command("receipt", store.root, "-", input=older).stdout
    done = command("receipt", store.root, "-", "--force", "-q", input=older)
    assert (0, "", [(1, 5)]) == (done.returncode, done.stdout, held(opened))
