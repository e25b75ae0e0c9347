"""Streams of which every row was pruned take little space, keep their rows from coming back, and can be forgotten."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from unittest import mock

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import format, sqlite, units
from edgeshard.cli import main
from edgeshard.master import database, retired, retirement
from edgeshard.master.clock_trust import TrustedClock
from edgeshard.master.retired import GROUP_S, Group
from edgeshard.merge.merger import Merger
from edgeshard.retention import bookkeeping, rules
from tests.support import history
from tests.support.clocks import DAY_S
from tests.support.hostile_shards import edit
from tests.support.pruning import add
from tests.support.row_history import copy_database
from tests.support.stores import entries_without_stream, new_store, numbers, shard_path
from tests.support.wall_clock import Wall

#: All tables whose size a retired stream could add to, indexes included.
_OWN_BYTES = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%edgeshard_%'"


def own_bytes(store: edgeshard.Store) -> int:
    """Return what the format's own tables and their indexes take in a master."""
    connection = apsw.Connection(str(store.master_path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        ((found,),) = connection.execute(_OWN_BYTES)
        return int(found)
    finally:
        connection.close()


def retired_streams(store: edgeshard.Store) -> int:
    return store.status().master.retired_streams


def add_openings(store: edgeshard.Store, *given: int) -> None:
    """Write each of these numbers in an opening of its own, and merge each."""
    for number in given:
        add(store, "agent", number)


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    """A store, and an opening after which the ones before it are not the last."""
    return edgeshard.Store(tmp_path / "device")


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_retired_stream_takes_at_most_30_bytes(store: edgeshard.Store, streams: int) -> None:
    add(store, "agent", 0)
    store.prune(keep_rows=1)
    before = own_bytes(store)
    history.grow(store, "streams", streams)
    with mock.patch.multiple(bookkeeping, pause=lambda took_s: None):
        report = store.prune(keep_rows=1)
    assert streams <= report.retired_streams
    assert own_bytes(store) - before <= retired.STREAM_BYTES * report.retired_streams
    assert store.verify().ok
    assert (
        store.status().space.retired_bytes <= retired.STREAM_BYTES * report.retired_streams + 2 * 4_096
    )  # whole pages of two tables


@edgeshard.table(key="name")
@attrs.frozen
class Level:
    """The newest level of a tank."""

    name: str
    value: int


@pytest.mark.slow
def test_streams_of_which_all_rows_were_superseded_retire(store: edgeshard.Store, tmp_path: Path) -> None:
    copies = [tmp_path / f"{number}.db" for number in range(40)]
    for number, copy in enumerate(copies):
        with store.shard("agent") as shard:
            shard.write_many([Level("a", number), Level("b", number)])
        copy_database(shard_path(store, "agent"), copy)
        store.merge()
    before = store.verify(deep=True)
    assert (2, 78) == (before.states.present, before.states.superseded)
    assert 39 == store.prune(older_than="1000d").retired_streams
    after = store.verify(deep=True)
    assert (True, before.states, before.pruned) == (after.ok, after.states, after.pruned)
    assert 78 == store.status().master.superseded_rows
    for copy in copies:
        store.merge([copy])
    assert {("a", 39), ("b", 39)} == {(each.name, each.value) for each in store.read(Level)}
    assert before.states == store.verify(deep=True).states
    with store.shard("agent") as shard:
        shard.write(Level("a", 40))
    store.merge()
    assert {("a", 40), ("b", 39)} == {(each.name, each.value) for each in store.read(Level)}


@pytest.mark.slow
def test_an_agent_started_for_each_row_does_not_eat_up_a_small_budget(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="2M", on_full="drop-oldest")
    add(store, "agent", 0)
    for number in range(1, 8):
        history.grow(store, "streams", 1_200)
        add(store, "agent", number, merge=False)
        with mock.patch.multiple(bookkeeping, pause=lambda took_s: None):
            store.merge()
        assert number in numbers_of_agent(store)
    master = store.status().master
    assert master.rows > 1_000
    assert 7 * 1_200 < master.retired_streams + master.rows
    assert store.verify().ok


def numbers_of_agent(store: edgeshard.Store) -> list[int]:
    return [n for (n,) in store.query("SELECT data ->> 'n' FROM agent_data WHERE data ->> 'n' IS NOT NULL")]


@pytest.mark.slow
def test_a_writer_started_for_each_row_is_never_refused_for_good(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="1M", on_full="drop-oldest")
    for number in range(4_000):
        with store.shard("job") as shard:
            shard.write({"n": number})
        if number % 20 == 19:
            store.merge()
    assert numbers(store)[-1] == 3_999
    assert store.verify().ok
    assert 0 < store.status().space.bookkeeping_bytes < 500_000


def test_status_says_what_fills_the_store_by_kind(store: edgeshard.Store, capsys: pytest.CaptureFixture[str]) -> None:
    add_openings(store, 1, 2, 3)
    store.prune(keep_rows=1)
    with store.shard("agent") as shard:
        shard.write({"n": 4})
        (store.root / "notes.txt").write_text("mine")
        space = store.status().space
        sizes = [path.stat().st_size for path in store.root.rglob("*") if path.is_file()]
    assert sum(sizes) == space.total_bytes
    page = 4_096
    assert page <= space.rows_bytes <= 2 * page
    assert (0, page * 2, 0) == (space.indexes_bytes, space.retired_bytes, space.free_bytes)
    assert 20 * page < space.bookkeeping_bytes < 45 * page
    assert space.shards_bytes > 0 < space.shard_wals_bytes
    notes = (store.root / "removed-shards.db").stat().st_size
    assert 4 <= space.other_bytes - notes < 1_000
    assert 0 == main(["status", str(store.root)])
    assert "disk space  bookkeeping" in capsys.readouterr().out


def test_without_statistics_bookkeeping_is_an_estimate(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_openings(store, 1, 2, 3)
    store.prune(keep_rows=1)
    monkeypatch.setattr(sqlite, "has_statistics", lambda: False)
    space = store.status().space
    assert (2 * retired.STREAM_BYTES, None) == (space.bookkeeping_bytes, space.indexes_bytes)
    assert sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file()) == space.total_bytes


# -- old copies -------------------------------------------------------------------------------------------------------


def test_a_copy_of_a_shard_does_not_bring_the_rows_of_a_retired_stream_back(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "agent", 1, 2, 3, merge=False)
    copy_database(shard_path(store, "agent"), tmp_path / "copy.db")
    store.merge()
    add(store, "agent", 4)
    assert 1 == store.prune(keep_rows=1).retired_streams
    copy_database(tmp_path / "copy.db", shard_path(store, "agent"))
    report = store.merge()
    assert (0, 3, 1, ()) == (report.rows, report.truncated, report.removed, report.quarantined)
    assert not shard_path(store, "agent").exists()
    assert ([4], True) == (numbers(store), store.verify().ok)
    add(store, "agent", 5)
    assert 1 <= store.prune(keep_rows=1).retired_streams


def test_rows_of_a_retired_stream_stay_in_a_file_that_the_master_never_read(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "agent", 1, 2, 3, merge=False)
    copy_database(shard_path(store, "agent"), tmp_path / "copy.db")
    store.merge()
    add(store, "agent", 4)
    store.prune(keep_rows=1)
    copy_database(tmp_path / "copy.db", shard_path(store, "other"))
    for _ in range(2):
        report = store.merge()
        assert (0, 0, 0) == (report.rows, report.truncated, report.removed)
        (quarantined,) = report.quarantined
        assert "3 rows stay in it" in quarantined.reason
        store.prune(keep_rows=1)  # the stream may retire again
    assert shard_path(store, "other").exists()
    assert [4] == numbers(store)


def test_a_stream_of_an_agent_that_goes_on_does_not_retire(store: edgeshard.Store) -> None:
    add(store, "other", 0)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        store.merge()
        add(store, "other", 2)
        report = store.prune(keep_rows=1)
        assert (2, 1) == (report.rows, report.retired_streams)  # that of the other agent
        shard.write({"n": 3})
        assert 1 == store.merge().rows
    assert ([2, 3], True) == (numbers(store), store.verify().ok)


def test_a_retired_stream_that_goes_on_is_restored(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write_many([{"n": 1}, {"n": 2}])
        store.merge()
        shutil.move(store.root / "shards", tmp_path / "elsewhere")
        add(store, "other", 10)
        add(store, "other", 11)
        assert 2 == store.prune(keep_rows=1).retired_streams
        shutil.rmtree(store.root / "shards")
        shutil.move(tmp_path / "elsewhere", store.root / "shards")
        shard.write({"n": 3})
        report = store.merge()
        assert (1, ()) == (report.rows, report.quarantined)
    store.merge()
    assert not shard_path(store, "agent").exists()
    verified = store.verify()
    assert ([3, 11], True) == (numbers(store), verified.ok)
    assert ({"keep rows": 3}, 3) == (verified.pruned, verified.states.pruned)


# -- hubs, bundles, receipts ------------------------------------------------------------------------------------------


def make_device(folder: Path) -> tuple[edgeshard.Store, Path]:
    """Return a store of which four streams have retired, and its master as it was before."""
    store = edgeshard.Store(folder / "device")
    add_openings(store, 1, 2, 3, 4, 5)
    store.snapshot(folder / "before.db")
    assert 4 == store.prune(keep_rows=1).retired_streams
    return store, folder / "before.db"


def test_a_hub_knows_what_a_retired_stream_had(tmp_path: Path) -> None:
    device, before = make_device(tmp_path)
    bundle = tmp_path / "device.bundle"
    device.export(bundle)
    for number, source in enumerate((device.master_path, bundle)):
        hub = new_store(tmp_path / f"hub {number}")
        for rows in (1, 0):
            report = hub.merge([source])
            assert (rows, 4) == (report.rows, report.missing_rows)
        verified = hub.verify()
        assert not verified.errors
        assert {("agent", "pruned", device.verify().database)} == {
            (loss.gap.agent, loss.cause, loss.database) for loss in verified.losses
        }
        assert 4 == hub.merge([before]).rows
        assert ([1, 2, 3, 4, 5], True) == (numbers(hub), hub.verify().ok)
        assert (0, 0) == ((again := hub.merge([source, before])).rows, again.missing_rows)


def test_rows_that_a_hub_pruned_do_not_come_back_from_a_device(tmp_path: Path) -> None:
    device, before = make_device(tmp_path)
    hub = new_store(tmp_path / "hub")
    hub.merge([before])
    assert 3 <= hub.prune(keep_rows=1).retired_streams
    for source in (before, device.master_path, before):
        assert 0 == (report := hub.merge([source])).rows + report.missing_rows
    assert ([5], True) == (numbers(hub), hub.verify().ok)
    assert 3 <= retired_streams(hub)  # nothing was news


def test_the_order_of_merges_does_not_matter(tmp_path: Path) -> None:
    device, before = make_device(tmp_path)
    device.export(tmp_path / "bundle.db")
    sources = [before, device.master_path, tmp_path / "bundle.db"]
    found = []
    for number, order in enumerate((sources, sources[::-1], [sources[1], sources[0], sources[2]])):
        hub = new_store(tmp_path / f"hub {number}")
        for source in order:
            hub.merge([source])
        verified = hub.verify()
        found.append((numbers(hub), verified.states, verified.errors, verified.gaps))
    assert found[0] == found[1] == found[2]


def test_an_export_leaves_out_what_the_receiver_retired(tmp_path: Path) -> None:
    device, before = make_device(tmp_path)
    hub = new_store(tmp_path / "hub")
    hub.merge([before])
    hub.prune(keep_rows=1)
    sender = new_store(tmp_path / "sender")
    sender.merge([before])
    assert 0 == sender.export(tmp_path / "bundle.db", ranges=hub.ranges()).rows
    assert 5 == len(hub.ranges().streams)
    assert 0 == device.receipt(hub.ranges(), trust=True).unknown
    empty = tmp_path / "for the hub.db"
    device.export(empty, ranges=hub.ranges())
    bundle = apsw.Connection(str(empty), flags=apsw.SQLITE_OPEN_READONLY)
    assert [(0,)] == list(bundle.execute("SELECT count(*) FROM _edgeshard_retired"))
    bundle.close()


def test_an_older_master_that_is_put_back_counts_what_its_newer_copy_had_retired_as_pruned(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "agent", 0)
    store.snapshot(tmp_path / "older.db")
    add_openings(store, 1, 2, 3)
    store.prune(keep_rows=1)
    store.snapshot(tmp_path / "newer.db")
    for path in store.root.glob("master.db*"):
        path.unlink()
    shutil.copy(tmp_path / "older.db", store.master_path)
    with mock.patch.object(Merger, "_due", return_value=[]):
        report = store.merge([tmp_path / "newer.db"])
    assert (1, 0) == (report.rows, report.missing_rows)
    assert ([0, 3], True) == (numbers(store), store.verify().ok)


# -- nothing names a retired stream -----------------------------------------------------------------------------------


def restored(folder: Path) -> edgeshard.Store:
    """A master that was put back, and knows that a newer copy of it had pruned the row 1, which came from a hub again.

    The row is the only one of stream number 2; so is 3, of stream number 4, the newest row.
    """
    store, hub = edgeshard.Store(folder / "device"), new_store(folder / "hub")
    add(store, "x", 0)
    store.snapshot(folder / "older.db")
    add_openings(store, 1, 2)
    hub.merge([store.master_path])
    assert 2 == store.prune(keep_rows=1).rows
    replaced = store.restore(folder / "older.db").replaced
    assert replaced is not None
    store.merge([replaced])
    assert 1 == store.merge([hub.master_path]).rows
    add(store, "b", 3)
    assert ([0, 1, 2, 3], 0) == (numbers(store), store.status().master.missing_rows)
    return store


def test_what_a_newer_copy_pruned_is_forgotten_with_the_stream(tmp_path: Path) -> None:
    store = restored(tmp_path)
    assert 3 == store.prune(keep_rows=1).retired_streams
    assert [] == entries_without_stream(store.master_path)
    for _ in range(2):
        add(store, "c", 4)
        assert 0 == store.merge(dry_run=True).missing_rows
        verified = store.verify(deep=True)
        assert (True, {"keep rows": 3}, 3) == (verified.ok, verified.pruned, verified.states.pruned)
    for path in (*tmp_path.glob("device/replaced-master-*.db"), tmp_path / "hub" / "master.db", tmp_path / "older.db"):
        assert 0 == store.merge([path]).rows
    assert ([3, 4, 4], 0) == (numbers(store), store.prune(keep_rows=3).rows)
    assert 1 == store.erase("agent_data", "data ->> 'n' = 3").rows


def test_what_a_device_pruned_is_forgotten_with_the_stream_at_the_hub(tmp_path: Path) -> None:
    device, hub = edgeshard.Store(tmp_path / "device"), new_store(tmp_path / "hub")
    add(device, "a", *range(5))
    add(device, "b", *range(5, 10))
    device.export(tmp_path / "old.db")
    device.prune(keep_rows=8)
    assert 2 == hub.merge([device.master_path]).missing_rows
    assert 2 == hub.merge([tmp_path / "old.db"]).rows
    add(hub, "h", 10)
    assert 2 == hub.prune(keep_rows=1).retired_streams
    assert [] == entries_without_stream(hub.master_path)
    assert 0 == (report := hub.merge([tmp_path / "old.db", device.master_path])).rows + report.missing_rows
    assert ([10], True, 2) == (numbers(hub), hub.verify().ok, retired_streams(hub))


def test_a_stream_retires_whose_rows_were_pruned_before_its_file_went(tmp_path: Path) -> None:
    store = restored(tmp_path)
    with mock.patch.object(bookkeeping, "retire"):
        store.prune(keep_rows=1)
    assert 0 == retired_streams(store)
    assert (0, 3) == ((report := store.prune(keep_rows=1)).rows, report.retired_streams)
    assert [] == entries_without_stream(store.master_path)


_NOTED_AT = "'2026-01-01T00:00:00+00:00'"

#: An entry about stream number 1 for each table that names streams by number, with what makes it valid.
_ENTRIES = {
    "_edgeshard_ranges": [],
    "_edgeshard_truncations": ["INSERT INTO _edgeshard_truncations VALUES (1, 1, 1, x'70')"],
    "_edgeshard_pruned_ranges": [
        f"INSERT INTO _edgeshard_pruned_ranges VALUES (0, x'{number:02x}', 1, 1, 1, 'budget', {_NOTED_AT})"
        for number in range(3)
    ],
    "_edgeshard_written_off": [f"INSERT INTO _edgeshard_written_off VALUES (1, 1, 1, 'x', {_NOTED_AT})"],
    "_edgeshard_superseded": ["INSERT INTO _edgeshard_superseded VALUES (1, 0)"],
    "_edgeshard_missing": ["INSERT INTO _edgeshard_missing VALUES (1, 0)"],
    "_edgeshard_receipts": [
        f"INSERT INTO _edgeshard_peers VALUES (x'70', 'postgresql', {_NOTED_AT}, {_NOTED_AT}, 0, NULL, 1)",
        "INSERT INTO _edgeshard_receipts VALUES (x'70', 1, 1, 1, 0)",
    ],
    "_edgeshard_rejected": [
        "INSERT INTO _edgeshard_rejections VALUES (1, x'70', 'nul', '', '', '', '', '', NULL)",
        "INSERT INTO _edgeshard_rejected VALUES (x'70', 1, 1, 1, 1, 1)",
    ],
    "_edgeshard_proven": ["INSERT INTO _edgeshard_proven VALUES ('other.db', 1, 1, 1)"],
    "_edgeshard_deleted_by_hand": ["INSERT INTO _edgeshard_deleted_by_hand VALUES (1, 1)"],
}

#: The tables in which a stream that can retire has no entry.
_KEEPING = {"_edgeshard_blocks", "_edgeshard_blocked"}


def test_every_table_that_names_streams_forgets_one_that_retires(store: edgeshard.Store) -> None:
    found = {table for table in format.REQUIRED_TABLES[format.MASTER] if "stream_no INTEGER" in format.DDL[table]}
    assert found == _ENTRIES.keys() | _KEEPING | {"_edgeshard_streams"}
    add_openings(store, 1, 2)
    with mock.patch.object(bookkeeping, "retire"):
        store.prune(keep_rows=1)
    edit(store.master_path, *(statement for statements in _ENTRIES.values() for statement in statements))
    connection = database.open_master(store.master_path, writable=True)
    counted = [f"(SELECT count(*) FROM {table} WHERE stream_no = 1)" for table in _ENTRIES]
    assert all(sqlite.fetch(connection, f"SELECT {', '.join(counted)}")[0])
    with sqlite.immediate(connection):
        assert retirement.retire(connection, 1, rules.FORGETTABLE, lambda name: False, 0)
    assert not any(sqlite.fetch(connection, f"SELECT {', '.join(counted)}")[0])
    connection.close()
    assert [] == entries_without_stream(store.master_path)


# -- forgetting -------------------------------------------------------------------------------------------------------


def test_streams_are_forgotten_after_the_given_age(store: edgeshard.Store, tmp_path: Path, wall: Wall) -> None:
    add(store, "agent", 1, merge=False)
    copy_database(shard_path(store, "agent"), tmp_path / "copy.db")
    store.merge()
    add(store, "agent", 2)
    assert 1 == store.prune(keep_rows=1).retired_streams
    wall.advance(364)
    assert 0 == store.prune(forget_after="365d").forgotten_streams
    wall.advance(2)
    assert 1 == store.prune(forget_after="365d", dry_run=True).forgotten_streams
    assert 1 == retired_streams(store)
    report = store.prune(forget_after="365d")
    assert (1, 0) == (report.forgotten_streams, report.rows)
    assert "forgot 1 stream" in str(report)
    assert (0, True) == (retired_streams(store), store.verify().ok)
    copy_database(tmp_path / "copy.db", shard_path(store, "agent"))
    assert 1 == store.merge().rows  # this is what it costs


class Terminal(io.StringIO):
    """Somebody who gives an answer."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "options", "code", "left"),
    [("n\n", [], 1, 1), ("y\n", [], 0, 0), ("", ["--yes"], 0, 0), ("", ["--dry-run"], 0, 1)],
)
def test_the_command_asks_before_it_forgets(
    store: edgeshard.Store,
    monkeypatch: pytest.MonkeyPatch,
    wall: Wall,
    answer: str,
    options: list[str],
    code: int,
    left: int,
) -> None:
    add_openings(store, 1, 2)
    store.prune(keep_rows=1)
    wall.advance(40)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert code == main(["prune", str(store.root), "--forget-after", "30d", *options])
    assert left == retired_streams(store)


def test_a_rule_of_the_store_forgets_streams(tmp_path: Path, wall: Wall) -> None:
    store = edgeshard.Store(tmp_path, prune=[{"keep_rows": 1}, {"forget_after": "30d"}])
    add_openings(store, 1, 2)
    assert 1 == retired_streams(store)
    wall.advance(40)
    report = store.merge()
    assert report.pruned is not None
    assert 1 == report.pruned.forgotten_streams


def test_a_clock_that_was_not_set_forgets_nothing(store: edgeshard.Store, wall: Wall) -> None:
    add_openings(store, 1, 2)
    store.prune(keep_rows=1)
    wall.us.now_us = 0
    assert 0 == store.prune(forget_after=0).forgotten_streams


def test_beyond_its_part_of_the_budget_the_oldest_streams_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retired, "GROUP_STREAMS", 10)
    monkeypatch.setattr(bookkeeping, "FORGET_STREAMS", 7)
    monkeypatch.setattr(bookkeeping, "max_streams", lambda limit_bytes: 80)
    monkeypatch.setattr(bookkeeping, "pause", lambda took_s: None)
    store = edgeshard.Store(tmp_path, max_bytes="1M", on_full="drop-oldest")
    add(store, "agent", 1)
    history.grow(store, "streams", 75)
    store.prune(keep_rows=1)
    before = set(store.query("SELECT stream_id FROM _edgeshard_retired WHERE group_no > 2"))
    assert 70 < (streams := retired_streams(store)) <= 80
    history.grow(store, "streams", 20)
    report = store.prune(keep_rows=1)
    assert streams + report.retired_streams - report.forgotten_streams == retired_streams(store)
    assert 60 < retired_streams(store) <= 70
    assert f"has forgotten {units.count(report.forgotten_streams, 'stream')} of which" in caplog.text
    assert store.verify().ok
    assert before & set(store.query("SELECT stream_id FROM _edgeshard_retired"))
    (oldest,) = store.query("SELECT min(group_no) AS number FROM _edgeshard_retirements")
    assert oldest.number > 2


def _groups(*given: tuple[int, int, int]) -> list[Group]:
    """Return groups of (day when it was opened, day when the last stream retired, streams)."""
    return [
        Group(number, "", "", 0, int(opened * DAY_S), int(last * DAY_S), streams, {})
        for number, (opened, last, streams) in enumerate(given, start=1)
    ]


def test_no_group_is_forgotten_too_early_and_none_is_kept_because_a_clock_was_ahead() -> None:
    def older(groups: list[Group], now: int | None) -> list[int]:
        now_s = 0.0 if now is None else now * DAY_S
        clock = TrustedClock("boot", 0.0, now_s, now_s, is_known=now is not None)
        return [group.number for group in bookkeeping._older_than(groups, clock, 365 * DAY_S)]

    plain = _groups((0, 29, 1), (5, 10, 1), (40, 41, 1))
    assert [] == older(plain, 374)
    assert [2] == older(plain, 376)
    assert [1, 2] == older(plain, 400)
    assert [] == older(plain, None)
    ahead = _groups((0, 7_000, 1), (7_000, 7_001, 1), (20, 25, 1))
    assert [] == older(ahead, 389)
    assert [3] == older(ahead, 391)
    assert [1, 2, 3] == older(ahead, 367 + 20 + GROUP_S // int(DAY_S))


def test_as_few_groups_as_possible_are_forgotten_beyond_the_budget() -> None:
    groups = _groups((0, 1, 100), (1, 2, 100), (2, 3, 600))
    assert [] == bookkeeping._beyond(groups, 800)
    assert [1] == [group.number for group in bookkeeping._beyond(groups, 799)]
    assert [1, 2] == [group.number for group in bookkeeping._beyond(groups, 750)]


# -- groups and checks ------------------------------------------------------------------------------------------------


def test_many_agents_share_a_group(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(retired, "OPEN_GROUPS", 2)
    for number in range(5):
        add(store, f"agent {number}", number)
    store.prune(keep_rows=1)
    rows = store.query("SELECT agent_id, shard <> '', streams FROM _edgeshard_retirements")
    assert [("agent 0", 1, 1), ("agent 1", 1, 1), ("", 0, 2)] == [tuple(row) for row in rows]
    assert store.verify().ok
    hub = new_store(tmp_path / "hub")
    assert 4 == hub.merge([store.master_path]).missing_rows
    assert {"agent 0", "agent 1", ""} == {gap.agent for gap in hub.verify().gaps}


def test_an_unknown_agent_is_named_by_a_copy_that_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retired, "OPEN_GROUPS", 0)
    device, before = make_device(tmp_path)
    hub = new_store(tmp_path / "hub")
    for source in (device.master_path, before, device.master_path):
        assert not hub.merge([source]).quarantined
    assert [("agent",)] == [tuple(row) for row in hub.query("SELECT DISTINCT agent_id FROM _edgeshard_streams")]


def test_streams_retire_in_short_transactions(store: edgeshard.Store) -> None:
    longest = []
    for streams in (300, 1_200):
        history.grow(store, "streams", streams)
        with history.counted_transactions() as work, mock.patch.multiple(bookkeeping, pause=lambda took_s: None):
            store.prune(keep_rows=1)
        longest.append(max(work))
    assert longest[1] < 6 * longest[0]  # one transaction retires at most five times as many as the first


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE _edgeshard_retirements SET streams = streams + 1", "1 stream with 1 row, and 2 with 1 recorded"),
        ("UPDATE _edgeshard_retired SET last_seq = 2", "1 stream with 2 rows, and 1 with 1 recorded"),
        ("DELETE FROM _edgeshard_retirements", "1 stream retired in group 1, which is not listed"),
        (
            "INSERT INTO _edgeshard_retired SELECT stream_id, 1, 1 FROM _edgeshard_streams",
            "is listed as if it were not",
        ),
    ],
)
def test_verify_finds_what_is_wrong_with_retired_streams(store: edgeshard.Store, change: str, finding: str) -> None:
    add_openings(store, 1, 2)
    store.prune(keep_rows=1)
    edit(store.master_path, change)
    assert finding in "; ".join(store.verify().errors)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE _edgeshard_retired SET last_seq = 1 << 40",
        "UPDATE _edgeshard_retired SET last_seq = -1",
        "UPDATE _edgeshard_retired SET stream_id = substr(stream_id, 2)",
        "UPDATE _edgeshard_retirements SET retired_at = 1 << 60",
        "UPDATE _edgeshard_retirements SET rows = '{'",
        "UPDATE _edgeshard_retirements SET rows = '{}'",
        "UPDATE _edgeshard_retirements SET rows = '[1]'",
        "UPDATE _edgeshard_retirements SET agent_id = printf('%.300c', 'a')",
        "UPDATE _edgeshard_retirements SET database_id = x'00'",
    ],
)
def test_a_source_with_invalid_retired_streams_harms_only_itself(tmp_path: Path, change: str) -> None:
    device, _ = make_device(tmp_path)
    edit(device.master_path, change)
    hub = new_store(tmp_path / "hub")
    add(hub, "own", 1)
    report = hub.merge([device.master_path])
    assert report.quarantined or report.missing_rows < 4
    assert ([1], ()) == (numbers(hub)[:1], hub.verify().errors)
