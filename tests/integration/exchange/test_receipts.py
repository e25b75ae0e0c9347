"""Receipts: what peers said that they hold is noted, replaced by what they say next, and read back by either question."""

from __future__ import annotations

import base64
import datetime
import json
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeshard
from edgeshard import format, sqlite
from edgeshard.errors import ConfigurationError, DamagedError, FormatError, StorageBusyError
from edgeshard.exchange import encoding, inventory
from edgeshard.exchange.encoding import encode
from edgeshard.exchange.inventory import Inventory
from edgeshard.exchange.receipts import record_receipt
from edgeshard.format.ranges import Range, intersect, subtract, union
from edgeshard.master import database, receipts
from edgeshard.master.receipts import Peer
from edgeshard.reports import PruneReport, ReceiptReport
from edgeshard.sqlite import Connection
from tests.support.few_examples import QUIET
from tests.support.processes import command, unwrapped
from tests.support.pruning import add, note
from tests.support.pruning import said as spoken
from tests.support.records import NOON
from tests.support.stores import entries_without_stream, new_store, numbers

HUB, OTHER, SERVER = bytes(15) + b"\1", bytes(15) + b"\2", bytes(15) + b"\3"


def stream_of(connection: Connection, agent: str) -> bytes:
    """The id of an agent's only stream."""
    sql = "select stream_id from _edgeshard_streams where agent_id = ?"
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


@pytest.fixture
def hub(tmp_path: Path) -> edgeshard.Store:
    """A hub with an empty master."""
    hub = new_store(tmp_path / "hub")
    hub.merge()
    return hub


def test_what_a_peer_holds_is_noted_and_what_this_master_does_not_know_is_counted(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    held = {a: [Range(1, 3), Range(4, 6)], b: [Range(2, 2)], bytes(16): [Range(1, 9)]}
    recorded = receipts.record(opened, HUB, receipts.EDGESHARD, spoken(held))
    assert (1, 0) == (recorded.unknown, recorded.claimed)
    assert {a: [Range(1, 6)], b: [Range(2, 2)]} == receipts.held_by(opened, HUB)
    assert {} == receipts.held_by(opened, OTHER)


def test_the_next_receipt_of_a_peer_takes_the_place_of_the_last(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    receipts.record(opened, HUB, receipts.EDGESHARD, spoken({a: [Range(1, 6)], b: [Range(1, 5)]}))
    receipts.record(opened, OTHER, receipts.EDGESHARD, spoken({a: [Range(1, 10)]}))
    receipts.record(opened, HUB, receipts.EDGESHARD, spoken({a: [Range(1, 2), Range(5, 10)]}))
    assert {a: [Range(1, 2), Range(5, 10)]} == receipts.held_by(opened, HUB)
    assert {a: [Range(1, 10)]} == receipts.held_by(opened, OTHER)


def test_rows_that_a_peer_pruned_are_not_held_but_were(opened: Connection) -> None:
    a = stream_of(opened, "a")
    receipts.record(opened, HUB, receipts.EDGESHARD, spoken({a: [Range(4, 8)]}, pruned={a: [Range(1, 5)]}))
    assert {a: [Range(4, 8)]} == receipts.held_by(opened, HUB)
    assert {a: [Range(1, 8)]} == receipts.ever_held_by(opened, HUB)
    assert {a: [Range(4, 8)]} == receipts.held_elsewhere(opened, [receipts.EDGESHARD])


def test_what_is_held_elsewhere_is_the_union_over_peers_of_the_kinds_asked_for(opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    receipts.record(opened, HUB, receipts.EDGESHARD, spoken({a: [Range(1, 2)]}))
    receipts.record(opened, OTHER, receipts.EDGESHARD, spoken({a: [Range(3, 4)], b: [Range(1, 1)]}))
    receipts.record(opened, SERVER, receipts.POSTGRESQL, spoken({a: [Range(9, 9)]}))
    assert {a: [Range(1, 4)], b: [Range(1, 1)]} == receipts.held_elsewhere(opened, [receipts.EDGESHARD])
    assert {a: [Range(9, 9)]} == receipts.held_elsewhere(opened, {receipts.POSTGRESQL})
    assert {a: [Range(1, 4), Range(9, 9)], b: [Range(1, 1)]} == receipts.held_elsewhere(
        opened, (receipts.EDGESHARD, receipts.POSTGRESQL)
    )
    assert {} == receipts.held_elsewhere(opened, [])
    assert [SERVER, HUB] == [peer.database_id for peer, _ in receipts.holders(opened, a) if peer.database_id != OTHER]


def test_a_large_receipt_is_recorded_in_steps_and_one_that_is_interrupted_counts_too_little(
    opened: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = stream_of(opened, "a")
    odd, even = ([Range(n, n) for n in range(first, 11, 2)] for first in (1, 2))
    receipts.record(opened, HUB, receipts.EDGESHARD, spoken({a: odd}))
    monkeypatch.setattr(receipts, "STEP_ROWS", 3)
    seen: list[set[int]] = []
    change = receipts._change

    def watched(connection: Connection, peer: Peer, *rows: Any) -> float:
        took_s = change(connection, peer, *rows)
        seen.append({item.first for item in receipts.held_by(connection, HUB).get(a, [])})
        assert not connection.in_transaction
        return took_s

    monkeypatch.setattr(receipts, "_change", watched)
    receipts.record(opened, HUB, receipts.EDGESHARD, spoken({a: even}))
    assert [{7, 9}, {2}, {2, 4, 6, 8}, {2, 4, 6, 8, 10}] == seen
    assert 5 == receipts.peers(opened)[0].revision


def test_of_two_receipts_that_are_recorded_at_once_one_fails(
    store: edgeshard.Store, opened: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = stream_of(opened, "a")
    monkeypatch.setattr(receipts, "STEP_ROWS", 1)
    monkeypatch.setattr(time, "sleep", lambda _: note(store, {}, receipts.EDGESHARD))  # the other one
    with pytest.raises(StorageBusyError, match="another process records a receipt of the same database; try again"):
        receipts.record(opened, b"p" * 16, receipts.EDGESHARD, spoken({a: [Range(1, 2), Range(4, 5)]}))
    assert {} == receipts.held_by(opened, b"p" * 16)


def test_a_stream_that_retires_while_a_receipt_is_recorded_is_left_out(
    store: edgeshard.Store, opened: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = stream_of(opened, "a")
    monkeypatch.setattr(receipts, "STEP_ROWS", 1)
    pruned: list[PruneReport] = []
    pauses = mock.patch.object(time, "sleep")

    def prune_instead(_: float) -> None:
        pauses.stop()
        pruned.append(store.prune(keep_rows=5))

    pauses.start().side_effect = prune_instead
    receipts.record(opened, HUB, receipts.EDGESHARD, spoken({a: [Range(1, 2), Range(4, 5)]}))
    assert [1] == [report.retired_streams for report in pruned]
    assert ([], {}) == (entries_without_stream(store.master_path), receipts.held_by(opened, HUB))
    receipts.forget(opened, receipts.peers(opened)[0])
    assert ([], True) == (receipts.peers(opened), store.verify().ok)


# -- which of two is the later ----------------------------------------------------------------------------------------


def said(stream: bytes, last: int, *, hours: int, generation: int, gone: int = 0) -> Inventory:
    """What the hub said some hours after noon: it has held the stream up to `last`, and pruned up to `gone`."""
    at = NOON + datetime.timedelta(hours=hours)
    return Inventory(
        HUB, at, generation, encode({stream: [Range(1, last)]}, {stream: [Range(1, gone)]} if gone else {})
    )


def recorded(connection: Connection, inventory: Inventory, *, force: bool = False) -> ReceiptReport:
    """Record a receipt of the hub, which is confirmed."""
    return record_receipt(connection, inventory, force=force, trust=True)


def held(connection: Connection) -> list[tuple[int, int]]:
    """What the hub holds now of the only stream that it spoke of."""
    return [(item.first, item.last) for items in receipts.held_by(connection, HUB).values() for item in items]


def test_a_later_receipt_takes_the_place_of_an_earlier_one_in_whatever_order_they_come(opened: Connection) -> None:
    a = stream_of(opened, "a")
    earlier, later = said(a, 4, hours=1, generation=1), said(a, 9, hours=2, generation=2, gone=2)
    assert "next" == recorded(opened, earlier).outcome
    assert "next" == recorded(opened, later).outcome
    assert [(3, 9)] == held(opened)
    report = recorded(opened, earlier)  # or the hub was restored from an older copy, and its clock with it
    assert ("doubtful", 2, 1) == (report.outcome, report.rows, report.streams)
    assert [(3, 4)] == held(opened)
    assert "next" == recorded(opened, later).outcome
    assert [(3, 9)] == held(opened)
    assert (NOON + datetime.timedelta(hours=2), 2) == ((peer := receipts.peers(opened)[0]).issued_at, peer.generation)


def test_a_peer_whose_disk_image_was_put_back_with_its_clock_holds_no_more_than_it_says(opened: Connection) -> None:
    a = stream_of(opened, "a")
    recorded(opened, said(a, 9, hours=5, generation=7))
    assert ("doubtful", 4) == ((report := recorded(opened, said(a, 4, hours=2, generation=3))).outcome, report.rows)
    assert [(1, 4)] == held(opened)
    assert ("doubtful", 4) == ((report := recorded(opened, said(a, 9, hours=3, generation=4))).outcome, report.rows)
    assert ("next", 9) == ((report := recorded(opened, said(a, 9, hours=6, generation=7))).outcome, report.rows)


def test_a_peer_that_was_put_back_from_an_older_copy_holds_what_it_says_now(opened: Connection) -> None:
    a = stream_of(opened, "a")
    recorded(opened, said(a, 9, hours=1, generation=7))
    assert "put back" == recorded(opened, said(a, 4, hours=2, generation=3)).outcome
    assert ([(1, 4)], {a: [Range(1, 4)]}) == (held(opened), receipts.ever_held_by(opened, HUB))


def test_where_a_clock_was_set_back_only_what_both_say_counts(opened: Connection) -> None:
    a = stream_of(opened, "a")
    recorded(opened, said(a, 8, hours=5, generation=7))
    pruned = said(a, 10, hours=1, generation=9, gone=3)
    assert "doubtful" == recorded(opened, pruned).outcome
    assert ([(4, 8)], {a: [Range(1, 8)]}) == (held(opened), receipts.ever_held_by(opened, HUB))
    report = recorded(opened, pruned, force=True)
    assert ("next", [(4, 10)]) == (report.outcome, held(opened))


def test_an_older_receipt_of_one_that_was_put_back_brings_nothing_that_it_lost(opened: Connection) -> None:
    a = stream_of(opened, "a")
    recorded(opened, said(a, 4, hours=9, generation=3))
    recorded(opened, said(a, 9, hours=1, generation=7))
    assert [(1, 4)] == held(opened)


def test_a_database_gives_itself_no_receipt(store: edgeshard.Store) -> None:
    store.init()
    with pytest.raises(ConfigurationError, match="of this database itself"):
        store.receipt(store.ranges())


# -- whose receipts count ---------------------------------------------------------------------------------------------


def test_a_receipt_of_a_database_that_nobody_confirmed_counts_for_nothing(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "a", *range(4))
    hub.merge([store.master_path])
    path, hub_id = tmp_path / "hub.json", hub.status().master.database
    path.write_text(hub.ranges().to_json())
    prune: dict[str, Any] = {"keep_rows": 0, "only_receipted": True}

    done = command("receipt", store.root, path)
    confirm = f"edgeshard receipt {store.root} {path} --trust"
    assert (3, True, True) == (done.returncode, hub_id in done.stdout, confirm in done.stdout)
    report = store.prune(**prune)
    assert (0, 4, (hub_id,)) == (report.rows, report.kept_back, report.awaiting)
    assert f"receipts that await confirmation, see status: {hub_id}" in str(report)
    assert () == store.prune(keep_rows=0, only_pushed=True).awaiting  # it is no PostgreSQL database
    (peer,) = store.status().peers
    assert (hub_id, "edgeshard", None) == (peer.database, peer.kind, peer.trusted_at)
    done = command("status", store.root)
    assert (0, True) == (done.returncode, f"edgeshard receipt {store.root} FILE --trust" in unwrapped(done.stdout))
    for digits in (hub_id, hub_id[:6]):
        with pytest.raises(ConfigurationError, match=r"awaits confirmation; record it once with Store.receipt"):
            store.export(tmp_path / "b.db", since_hub=digits)
    assert (3, "awaiting confirmation") == ((done := command("receipt", store.root, path, "--json", "--force")).returncode,
                                            json.loads(done.stdout)["outcome"])  # fmt: skip

    assert 0 == command("receipt", store.root, path, "--trust", "-q").returncode
    assert None is not store.status().peers[0].trusted_at
    assert "receipts    of 1 confirmed database, the last one " in command("status", store.root).stdout
    assert 0 == store.export(tmp_path / "b.db", since_hub=hub_id).rows
    add(store, "a", 4)
    hub.merge([store.master_path])
    assert ("next", 5, True) == ((said := store.receipt(hub.ranges())).outcome, said.rows, said.complete)
    assert (5, (), 0) == ((report := store.prune(**prune)).rows, report.awaiting, report.kept_back)


def test_a_confirmed_database_does_not_become_one_of_another_type(store: edgeshard.Store, opened: Connection) -> None:
    a = stream_of(opened, "a")
    recorded(opened, said(a, 4, hours=1, generation=1))
    forged = attrs.evolve(said(a, 10, hours=2, generation=2), kind=receipts.POSTGRESQL)
    for trust in (False, True):
        with pytest.raises(ConfigurationError, match="a database of type edgeshard was confirmed under this id"):
            record_receipt(opened, forged, trust=trust)
    assert (0, [(1, 4)]) == (store.prune(keep_rows=0, only_pushed=True).rows, held(opened))


def test_a_receipt_is_not_confirmed_by_mistake_while_a_later_one_awaits_confirmation(opened: Connection) -> None:
    a = stream_of(opened, "a")
    assert "awaiting confirmation" == record_receipt(opened, said(a, 4, hours=90, generation=2)).outcome
    older = said(a, 9, hours=1, generation=1)  # the peer was put back since, and lacks 5 to 9
    assert "awaiting confirmation" == record_receipt(opened, older).outcome
    with pytest.raises(ConfigurationError, match=r"issued later, at .* awaits confirmation"):
        record_receipt(opened, older, trust=True)
    assert ([], [HUB]) == (receipts.peers(opened), [peer.database_id for peer in receipts.awaiting(opened)])
    # somebody else may have made the later one
    assert "next" == record_receipt(opened, older, trust=True, force=True).outcome
    assert ([(1, 9)], []) == (held(opened), receipts.awaiting(opened))


def test_rows_that_were_never_here_do_not_count_even_once_they_arrive(store: edgeshard.Store) -> None:
    """A receipt that claims more than this master ever held is cut to what it held when the receipt came."""
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(4))
        store.merge()
        (stream,) = store.ranges().streams
        claims = Inventory(HUB, NOON, 1, encode({stream: [Range(1, 10)], bytes(16): [Range(1, 5)]}))
        report = store.receipt(claims, trust=True)
        assert (4, 1, 6, 1) == (report.rows, report.streams, report.claimed, report.unknown)
        assert "ignored 6 rows that this master never held; ignored 1 stream" in str(report)
        shard.write_many({"n": n} for n in range(4, 10))
        store.merge()
    pruned = store.prune(keep_rows=0, only_receipted=True)
    assert (4, 6) == (pruned.rows, pruned.kept_back)
    assert (10, 0) == ((again := store.receipt(claims)).rows, again.claimed)  # the peer says it once more


SEQS = st.lists(st.tuples(st.integers(1, 15), st.integers(1, 5)), max_size=4).map(
    lambda items: union(Range(first, first + length) for first, length in items)
)


@settings(deadline=None, suppress_health_check=QUIET)
@given(SEQS, SEQS, SEQS, st.booleans())
def test_a_receipt_counts_for_rows_that_were_here_and_for_no_other(
    ours: list[Range], claims: list[Range], pruned: list[Range], is_doubtful: bool
) -> None:
    """Property: what counts as held was here and is said to be held; in doubt, in the last receipt as well."""
    gone = subtract(pruned, claims)
    here = [(seqs.first, seqs.last) for seqs in ours]
    last = receipts._rows(1, here, [(3, 9, receipts.HELD), (10, 12, receipts.PRUNED)], None)
    runs = encoding.runs([*claims, *gone], gone)
    rows = receipts._rows(1, here, runs, last if is_doubtful else None)
    found = {state: [Range(first, end) for _, first, end, of in rows if of == state] for state in range(3)}
    counted = intersect(ours, [Range(3, 9)]) if is_doubtful else ours
    assert intersect(claims, counted) == found[receipts.HELD]
    assert [] == intersect(ours, found[receipts.CLAIMED])
    assert [] == intersect(found[receipts.HELD], found[receipts.PRUNED])
    assert [] == subtract(found[receipts.PRUNED], ours)
    assert [] == subtract(subtract(claims, ours), found[receipts.CLAIMED])
    assert rows == sorted(rows)


FORGED: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "more rows than there are": lambda stream: {"streams": {stream: [Range(1, format.SEQ_MAX)]}},
    "rows of streams that nobody knows": lambda _: {"streams": {bytes([n] * 16): [Range(1, 9)] for n in range(9)}},
    "of a far future": lambda stream: {"streams": {stream: [Range(1, 9)]}, "at": NOON.replace(year=9999)},
    "of the highest generation": lambda stream: {"streams": {stream: [Range(1, 9)]}, "generation": (1 << 63) - 1},
    "of a PostgreSQL database": lambda stream: {"streams": {stream: [Range(1, 9)]}, "kind": "postgresql"},
    "of nothing": lambda _: {"streams": {}},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_receipt_of_a_stranger_deletes_nothing_and_holds_nothing_up(
    store: edgeshard.Store, hub: edgeshard.Store, what: str
) -> None:
    add(store, "a", *range(4))
    hub.merge([store.master_path])
    store.receipt(hub.ranges(), trust=True)
    add(store, "a", 4, 5)
    before = store.verify(), store.export(store.root / "b.db", since_hub=hub.status().master.database).rows
    made = {"at": NOON, "generation": 1, "kind": "edgeshard", **FORGED[what](next(iter(store.ranges().streams)))}
    forged = Inventory(OTHER, made["at"], made["generation"], encode(made["streams"]), made["kind"])
    path = store.root / "forged.json"
    path.write_text(forged.to_json())
    assert "awaiting confirmation" == store.receipt(path).outcome
    assert "awaiting confirmation" == store.receipt(path, force=True).outcome
    assert before == (store.verify(), store.export(store.root / "c.db", since_hub=hub.status().master.database).rows)
    assert (4, [4, 5]) == (store.prune(keep_rows=0, only_receipted=True).rows, numbers(store))


# -- the document -----------------------------------------------------------------------------------------------------


def test_what_a_store_holds_travels_as_one_small_line(store: edgeshard.Store, opened: Connection) -> None:
    found = store.ranges()
    text = found.to_json()
    assert (found, 1) == (inventory.parse(text.encode(), "x"), len(text.splitlines()))
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    assert {a: (Range(1, 10),), b: (Range(1, 5),)} == found.streams == found.held
    assert ({}, True) == (found.pruned, len(text) < 400)
    assert found.streams == store.ranges().streams


def test_what_was_pruned_is_told_apart(store: edgeshard.Store, opened: Connection) -> None:
    a, b = stream_of(opened, "a"), stream_of(opened, "b")
    opened.execute("delete from _edgeshard_blocks where stream_no = (select stream_no from _edgeshard_streams "
                   "where agent_id = 'b')")  # fmt: skip
    found = store.ranges()
    assert {a: (Range(1, 10),), b: (Range(1, 5),)} == found.streams
    assert ({b: (Range(1, 5),)}, {a: (Range(1, 10),)}) == (found.pruned, found.held)
    assert (True, False, 1) == (b in found.pruned, a in found.pruned, len(found.pruned))
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
        connection.execute("update _edgeshard_database set generation = generation + 1")
        monkeypatch.setattr(sqlite, "sync_file", noting)
        assert (1, [True]) == (len(store.ranges().streams), synced)
        connection.close()


WHOLE: dict[str, Any] = {
    "edgeshard": "ranges", "format": 1, "database": "ab" * 16, "kind": "edgeshard", "generation": 3,
    "at": "2026-01-02T12:00:00+00:00",
}  # fmt: skip
STREAM, NEXT_STREAM = b"\xcd" * 16, b"\xce" * 16
SEQS_OF_WHOLE = encode({STREAM: [Range(1, 5), Range(7, 9)]}, {STREAM: [Range(2, 3)]})


def document(change: dict[str, Any] | None = None, seqs: bytes = SEQS_OF_WHOLE.data) -> dict[str, Any]:
    """Return a document whose checksum is right, whatever else is wrong with it."""
    head = {**WHOLE, **(change or {})}
    streams = base64.b64encode(zlib.compress(seqs)).decode()
    return {**head, "sha256": inventory._checksum(head, seqs), "streams": streams}


def test_the_document_that_the_others_are_made_of_is_whole() -> None:
    found = inventory.parse(json.dumps(document()).encode(), "x")
    assert document() == json.loads(found.to_json())
    assert (Range(1, 1), Range(4, 5), Range(7, 9)) == found.held[STREAM]
    assert (Range(2, 3),) == found.pruned[STREAM]
    assert found == inventory.parse(json.dumps(document(), indent=4).encode(), "x")


@settings(deadline=None, suppress_health_check=QUIET)
@given(st.dictionaries(st.binary(min_size=16, max_size=16), SEQS, max_size=5), SEQS)
def test_a_document_says_what_it_was_made_of(streams: dict[bytes, list[Range]], pruned: list[Range]) -> None:
    said = Inventory(HUB, NOON, 3, encode(streams, dict.fromkeys(streams, pruned)))
    read = inventory.parse(said.to_json().encode(), "x")
    assert said == read
    kept = {stream: (tuple(subtract(seqs, pruned)), tuple(intersect(seqs, pruned))) for stream, seqs in streams.items()}
    assert {stream: tuple(seqs) for stream, seqs in streams.items() if seqs} == read.streams
    assert {stream: held for stream, (held, _) in kept.items() if held} == read.held
    assert {stream: gone for stream, (_, gone) in kept.items() if gone} == read.pruned


@pytest.mark.parametrize(
    "change",
    [
        {"database": "AB" * 16}, {"database": "ab" * 15}, {"database": 7}, {"database": "\u0661" * 32},
        {"kind": "mysql"}, {"kind": "shard"}, {"kind": ["edgeshard"]}, {"generation": -1}, {"generation": True},
        {"generation": 1.0}, {"generation": 1 << 63}, {"at": "2026-01-02T12:00:00"}, {"at": 5}, {"at": "yesterday"},
        {"at": "0001-01-01T00:00:00+23:59"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_document_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match=r"^read ranges somewhere: .*Store.ranges"):
        inventory.parse(json.dumps(document(change)).encode(), "somewhere")


#: A varint of 35 bits, one of 70, and a stream with a single run of the seqs 1 to 5.
HUGE, ENDLESS, ONE = b"\xff\xff\xff\xff\x7f", b"\xff" * 10, b"\1\0\x08"


@pytest.mark.parametrize(
    ("seqs", "words"),
    [
        (b"", "end too early"),
        (b"\1" + STREAM, "end too early"),
        (b"\1" + STREAM + ONE[:-1], "end too early"),
        (HUGE + STREAM + ONE, "end too early"),
        (b"\2" + STREAM + ONE, "end too early"),
        (b"\1" + STREAM + ONE + b"\0", "something follows"),
        (b"\2" + STREAM + STREAM + ONE + ONE, "named twice"),
        (b"\2" + NEXT_STREAM + STREAM + ONE + ONE, "not in order"),
        (b"\1" + STREAM + b"\0", "has no seqs"),
        (b"\1" + STREAM + b"\1\0" + HUGE, "no seq is above"),
        (b"\1" + STREAM + b"\1" + HUGE + b"\0", "no seq is above"),
        (b"\1" + STREAM + b"\2" + b"\0\xfc\xff\xff\xff\x1f" * 2, "no seq is above"),
        (b"\1" + STREAM + b"\1" + ENDLESS + b"\0", "too large"),
        (b"\1" + STREAM + HUGE + b"\0\0" * 9, "more than 2,097,152 runs"),
    ],
)
def test_seqs_that_nobody_encoded_are_refused(seqs: bytes, words: str) -> None:
    with pytest.raises(DamagedError, match=rf"^read ranges x: .*{words}"):
        inventory.parse(json.dumps(document(seqs=seqs)).encode(), "x")


def test_streams_that_expand_a_thousandfold_are_refused_before_they_fill_the_memory() -> None:
    seqs = bytes(3 * encoding.BYTES_MAX)
    made = {**document(seqs=seqs), "sha256": inventory._checksum(WHOLE, seqs[: encoding.BYTES_MAX + 1])}
    text = json.dumps(made).encode()
    del seqs, made
    tracemalloc.start()
    with pytest.raises(DamagedError, match=r"more than 33\.6 MB"):
        inventory.parse(text, "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * encoding.BYTES_MAX


@pytest.mark.parametrize("key", sorted(document().keys() - {"edgeshard", "format"}))
def test_a_document_that_lacks_a_key_is_refused(key: str) -> None:
    with pytest.raises(DamagedError):
        inventory.parse(json.dumps({name: value for name, value in document().items() if name != key}).encode(), "x")


@pytest.mark.parametrize("key", ["database", "kind", "generation", "at", "streams", "sha256"])
def test_a_document_that_was_changed_on_its_way_is_refused(key: str) -> None:
    other = {**document({"database": "ac" * 16, "generation": 4, "kind": "postgresql", "at": "2026-01-03T12:00:00+00:00"}),
             "streams": document(seqs=encode({STREAM: [Range(1, 9)]}).data)["streams"]}  # fmt: skip
    with pytest.raises(DamagedError, match="its checksum is wrong: it was changed on its way"):
        inventory.parse(json.dumps({**document(), key: other[key]}).encode(), "x")


@pytest.mark.parametrize(
    "streams",
    [
        5, None, [], "", "====", "AAAA", "caf\u00e9", document()["streams"][:-4], document()["streams"] + "AAAA",
        base64.b64encode(zlib.compress(SEQS_OF_WHOLE.data)[:-1]).decode(),
        base64.b64encode(zlib.compress(SEQS_OF_WHOLE.data) + b"x").decode(),
    ],
)  # fmt: skip
def test_streams_that_cannot_be_expanded_are_refused(streams: Any) -> None:
    with pytest.raises(DamagedError, match="its streams cannot be read"):
        inventory.parse(json.dumps({**document(), "streams": streams}).encode(), "x")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", DamagedError),
        (json.dumps(document()).encode()[:-2], DamagedError),
        (b"[" * 1_000_000, DamagedError),
        (b'{"a":' * 100_000, DamagedError),
        (b"[" + b"{}," * 1_000_000 + b"{}]", DamagedError),
        (b"9" * 5_000, DamagedError),
        (b"\xff\xfe", DamagedError),
        (b'{"edgeshard": "ranges", "edgeshard": "ranges"}', DamagedError),
        (b" " * (inventory.BYTES_MAX + 1), ConfigurationError),
        (b"[]", ConfigurationError),
        (b"null", ConfigurationError),
        (b'{"name": "a package"}', ConfigurationError),
        (json.dumps(document({"format": 2})).encode(), FormatError),
        (json.dumps(document({"format": True})).encode(), FormatError),
        (json.dumps(document({"format": {}})).encode(), FormatError),
    ],
)
def test_what_is_no_such_document_is_refused(text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        inventory.parse(text, "x")


@pytest.mark.parametrize("limit", ["BYTES_MAX", "RUNS_MAX"])
def test_what_nobody_would_read_is_not_written(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = inventory.parse(json.dumps(document()).encode(), "x")
    assert 4 == found.seqs.run_count
    sizes = {"BYTES_MAX": len(found.seqs.data), "RUNS_MAX": found.seqs.run_count}
    monkeypatch.setattr(encoding, limit, sizes[limit])
    assert document() == json.loads(found.to_json())
    monkeypatch.setattr(encoding, limit, sizes[limit] - 1)
    with pytest.raises(ConfigurationError, match="4 runs of rows of 1 stream, more than any edgeshard reads"):
        next(found.pieces())
    with pytest.raises(DamagedError):
        inventory.parse(json.dumps(document()).encode(), "x")


#: How many streams, and how many runs each, of the largest documents that a store is expected to need.
LARGE = ((1_000_000, 1), (1, 1_000_000))


def test_every_document_that_is_cut_short_is_refused() -> None:
    text = json.dumps(document()).encode()
    for length in range(len(text)):
        with pytest.raises(DamagedError):
            inventory.parse(text[:length], "x")


@pytest.mark.parametrize(
    ("streams", "gaps"), [(1_000, 1), (1, 1_000), *(pytest.param(*of, marks=pytest.mark.slow) for of in LARGE)]
)
def test_a_document_is_compact_and_the_largest_that_a_store_is_expected_to_need_is_read(
    streams: int, gaps: int
) -> None:
    dice = random.Random(19)
    ids = sorted(dice.randbytes(16) for _ in range(streams))
    runs = [(10 * n + 1, 10 * n + dice.randint(1, 9), 0) for n in range(gaps)]
    said = Inventory(HUB, NOON, 3, encoding.encode_runs((stream, runs) for stream in ids))
    pieces = list(said.pieces())
    text = "".join(pieces).encode()
    assert len(text) < 500 + 24 * streams + 3 * gaps
    assert max(map(len, pieces)) < 1 << 20
    assert said == inventory.parse(text, "x")


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda path: None, 78, "there is no such file"),
        (lambda path: path.mkdir(), 78, "it is a folder"),
        (lambda path: path.write_text("{}"), 78, "not of ranges; name a file with what Store.ranges"),
        (lambda path: path.write_text('{"edgeshard": "ra'), 65, "it is incomplete"),
        (lambda path: path.write_text(json.dumps(document({"format": 9}))), 78, "use the version that wrote it"),
    ],
)
def test_the_commands_say_what_is_wrong_with_a_file(
    store: edgeshard.Store, tmp_path: Path, make: Callable[[Path], None], code: int, words: str
) -> None:
    store.init()
    path = tmp_path / "hub.json"
    make(path)
    for arguments in (["receipt", store.root, path], ["export", store.root, tmp_path / "b.db", "--ranges", path]):
        done = command(*arguments)
        assert (code, "", 1, True) == (done.returncode, done.stdout, done.stderr.count("\n"), words in done.stderr)
        assert str(path) in done.stderr
    assert ["data", "hub.json"][: 1 + path.exists()] == sorted(item.name for item in tmp_path.iterdir())


@pytest.mark.slow
def test_a_receipt_from_the_command_line_is_reported_and_noted(store: edgeshard.Store, opened: Connection) -> None:
    a = stream_of(opened, "a")
    text = said(a, 12, hours=1, generation=1).to_json()
    done = command("receipt", store.root, "-", "--trust", "--json", input=text)
    report = {
        "database": HUB.hex(), "kind": "edgeshard", "outcome": "next", "rows": 10, "streams": 1, "unknown": 0,
        "claimed": 2, "complete": True,
    }  # fmt: skip
    assert (0, report) == (done.returncode, json.loads(done.stdout))
    older = said(a, 5, hours=0, generation=1).to_json()
    assert "this receipt is older than the last one" in command("receipt", store.root, "-", input=older).stdout
    done = command("receipt", store.root, "-", "--force", "-q", input=older)
    assert (0, "", [(1, 5)]) == (done.returncode, done.stdout, held(opened))


def test_whether_a_receiver_has_anything_is_found_out_once_however_many_streams_ask() -> None:
    streams = {bytes([n]) * 16: [Range(1, 5)] for n in range(50)}
    with mock.patch.object(encoding, "_varint", wraps=encoding._varint) as decoded:
        pruned, held = (encoding.encode(streams).pruned, encoding.encode(streams).held)
        assert (0, 50) == (len(pruned), len(held))
        before = decoded.call_count
        for _ in streams:
            assert held
            assert not pruned
        assert before == decoded.call_count
