"""What can be read of a damaged shard comes into the master once, by its address, and what cannot is named."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import ConfigurationError, FormatError, StorageBusyError, StorageError
from edgeshard.inspect.pages import Pages
from tests.support import damaged_shards
from tests.support.forms import short_and_full
from tests.support.hostile_shards import edit
from tests.support.processes import command, sql
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path


@attrs.frozen
class Note:
    """A table that looks like another one from outside."""

    text: str
    more: str | None = None


@attrs.frozen
class Remark:
    """The other one."""

    text: str
    more: str | None = None


def overwrite(path: Path, page: int, content: bytes = b"\xff" * 1024) -> None:
    with open(path, "r+b") as file:
        file.seek(page * 1024)
        file.write(content)


@pytest.fixture
def bad(store: edgeshard.Store) -> Path:
    """A shard of 300 dicts, without a log."""
    with store.shard("bad") as shard:
        shard.write_many({"n": n, "text": "x" * 60} for n in range(300))
    return shard_path(store, "bad")


def roots(path: Path) -> dict[str, int]:
    """The root pages of a sound shard's tables, counted from 0."""
    rows = sql(path, "select name, rootpage from sqlite_schema where type = 'table'")
    return {name: rootpage - 1 for name, rootpage in rows}


def test_the_rows_beside_a_damaged_page_are_merged_and_those_on_it_are_named(store: edgeshard.Store, bad: Path) -> None:
    pages = os.path.getsize(bad) // 1024
    overwrite(bad, pages - 5)
    before = bad.read_bytes()
    assert 1 == len(store.merge().quarantined)
    report = store.salvage(bad)
    ((first, last),) = [(gap.first, gap.last) for gap in report.gaps]
    missing = set(range(first - 1, last))
    assert (300 - len(missing), 300 - len(missing), 0) == (report.rows, report.merged, report.unassigned)
    assert 1 <= len(missing) < 20
    assert [n for n in range(300) if n not in missing] == numbers(store)
    assert before == bad.read_bytes()
    # and once more: nothing is doubled
    again = store.salvage(bad)
    assert (report.rows, 0, report.gaps) == (again.rows, again.merged, again.gaps)
    assert () == store.verify().errors
    assert {"shards", "master.db", "merge.lock"} == {path.name.split("-")[0] for path in store.root.iterdir()}


def test_a_salvage_that_cannot_attach_what_it_rescued_says_why_and_can_be_repeated(
    store: edgeshard.Store, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise apsw.NoMemError("out of memory")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="merge what was salvaged from") as caught:
        patch.setattr("edgeshard.sources.attach.sqlite.attach", fail)
        store.salvage(bad)
    assert str(bad) == caught.value.path
    assert 300 == store.salvage(bad).merged


def test_a_salvage_removes_what_one_left_that_was_killed(store: edgeshard.Store, bad: Path) -> None:
    left = store.root / f"salvage-{'0' * 16}"
    left.mkdir()
    for name in ("rescued.db", "rescued.db.edgeshard-0123abcd.new"):
        (left / name).touch()
    assert (300, False) == (store.salvage(bad).merged, left.exists())


@pytest.mark.parametrize("page", ["agent_data", "_edgeshard_truncations", "_edgeshard_transactions"])
def test_no_row_is_lost_where_the_page_that_leads_to_them_is_damaged(
    store: edgeshard.Store, bad: Path, page: str
) -> None:
    overwrite(bad, roots(bad)[page])
    report = store.salvage(bad)
    assert (300, 300, True) == (report.rows, report.merged, report.complete)
    assert [*range(300)] == numbers(store)


@pytest.mark.parametrize(
    "header",
    [random.Random(1).randbytes(100), bytes(100), b"\x08" * 100],
    ids=["random", "zero", "with reserved bytes"],
)
def test_a_damaged_header_hides_no_row(store: edgeshard.Store, bad: Path, header: bytes) -> None:
    with open(bad, "r+b") as file:
        file.write(header)
    assert 1 == len(store.merge().quarantined)
    assert (300, True) == (lambda report: (report.rows, report.complete))(store.salvage(bad))
    assert [*range(300)] == numbers(store)


def test_rows_of_the_log_are_salvaged_as_far_as_sqlite_would_believe_it(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("bad") as shard:
        for n in range(50):
            shard.write({"n": n})
        for suffix in ("", "-wal"):
            shutil.copy(f"{shard.path}{suffix}", tmp_path / f"bad.db{suffix}")
    content = bytearray((tmp_path / "bad.db-wal").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.db-wal").write_bytes(content)
    other = new_store(tmp_path / "other")
    report = other.salvage(tmp_path / "bad.db")
    assert 10 < report.rows < 50
    assert [*range(report.rows)] == numbers(other)


def test_rows_that_the_master_has_are_not_doubled_and_rows_that_were_given_up_are_gaps_elsewhere(
    store: edgeshard.Store, bad: Path, tmp_path: Path
) -> None:
    store.merge(keep_empty=True)
    with store.shard("bad") as shard:
        shard.write_many({"n": n} for n in range(300, 600))
    sql(bad, "pragma wal_checkpoint(truncate)")
    overwrite(bad, os.path.getsize(bad) // 1024 - 4)
    report = store.salvage(bad)
    # rows that were deleted are still on pages that were not used again; the master has them
    assert 200 < report.merged < 300 < report.rows
    assert [300 - report.merged] == [len(gap) for gap in report.gaps]
    other = new_store(tmp_path / "other")
    assert 600 == sum(map(len, other.salvage(bad).gaps)) + report.rows


@pytest.mark.parametrize("is_last", [False, True])
def test_large_rows_are_salvaged_where_all_their_pages_are_there(store: edgeshard.Store, is_last: bool) -> None:
    with store.shard("bad") as shard:
        for n in range(20):
            shard.write({"n": n, "text": "x" * 5_000})
    path = shard_path(store, "bad")
    content = path.read_bytes()
    chained = [p for p in range(30, 60) if content[p * 1024 + 4 : p * 1024 + 50] == b"x" * 46]
    if is_last:  # it leads on to another row's page
        page = next(p for p in chained if content[p * 1024 : p * 1024 + 4] == bytes(4))
        overwrite(path, page, (chained[0] + 1).to_bytes(4, "big"))
    else:
        page = next(p for p in chained if content[p * 1024 : p * 1024 + 4] != bytes(4))
        overwrite(path, page, b"\0" * 1024)
    other = new_store(store.root.parent / "other")  # whose merge does not read the shard as well
    report = other.salvage(path)
    assert (19, [1]) == (report.rows, [len(gap) for gap in report.gaps])
    assert all(len(record.data["text"]) == 5_000 for record in other.read(edgeshard.AgentData))


def test_rows_of_tables_that_look_alike_are_told_apart_by_the_tree_they_hang_in(store: edgeshard.Store) -> None:
    with store.shard("bad") as shard:
        for n in range(60):
            shard.write(Note(f"note {n}"))
            shard.write(Remark(f"remark {n}"))
            shard.write(Reading("inlet", float(n), NOON))
    path = shard_path(store, "bad")
    intact = path.read_bytes()
    overwrite(path, roots(path)["_edgeshard_truncations"])
    report = store.salvage(path)
    assert (180, 0) == (report.rows, report.unassigned)
    assert [f"note {n}" for n in range(60)] == [note.text for note in store.read(Note)]
    assert [f"remark {n}" for n in range(60)] == [remark.text for remark in store.read(Remark)]
    assert [float(n) for n in range(60)] == [reading.celsius for reading in store.read(Reading)]
    # without the root of one of them nobody knows whose its rows are, and nobody guesses
    path.write_bytes(intact)
    overwrite(path, roots(path)["note"])
    report = new_store(store.root.parent / "other").salvage(path)
    assert (120, True, 60) == (report.rows, bool(report.gaps), report.unassigned)


@pytest.mark.parametrize("columns", [1, 40, 100, format.COLUMNS_MAX])
def test_rows_of_a_class_of_many_fields_are_salvaged(columns: int, store: edgeshard.Store, tmp_path: Path) -> None:
    fields = {f"c{n}": attrs.field(type=int) for n in range(columns)}
    cls: Callable[..., object] = edgeshard.table(name="wide")(attrs.make_class("Wide", fields, frozen=True))
    with store.shard("a") as shard:
        shard.write_many(cls(*range(n, n + columns)) for n in range(5))
    report = new_store(tmp_path / "other").salvage(shard_path(store, "a"))
    assert (5, 5, 0, ()) == (report.rows, report.merged, report.unassigned, report.gaps)


def test_how_long_rows_are_to_be_kept_is_salvaged_with_them(store: edgeshard.Store) -> None:
    @edgeshard.table(priority=5)
    @attrs.frozen
    class Alarm:
        text: str

    with store.shard("bad") as shard:
        for n in range(60):
            shard.write(Alarm(f"alarm {n}"))
            shard.write(Note(f"note {n}"))
    path = shard_path(store, "bad")
    overwrite(path, roots(path)["_edgeshard_truncations"])
    assert 120 == store.salvage(path).rows
    assert [["alarm", 5]] == [[*row] for row in sql(store.master_path, "select * from _edgeshard_priorities")]


@pytest.mark.parametrize("rows", [10, 300])
def test_a_shard_whose_end_is_cut_off_is_never_called_complete(store: edgeshard.Store, rows: int) -> None:
    with store.shard("cut") as shard:
        shard.write_many({"n": n, "text": "x" * 60} for n in range(rows))
    path = shard_path(store, "cut")
    whole = path.read_bytes()
    pages = len(whole) // 1024
    for kept in range(len(whole) - 1, 1023, -512 if rows == 10 else -7168):
        path.write_bytes(whole[:kept])
        report = store.salvage(path)
        assert (pages - kept // 1024, False) == (report.missing_pages, report.complete)
        assert f"its end is cut off, and with it {report.missing_pages} page" in str(report)
    path.write_bytes(whole[:5000])
    done = command("salvage", store.root, path, "--json")
    found = json.loads(done.stdout)
    assert (3 if found["streams"] else 65, False, pages - 4) == (
        done.returncode,
        found["complete"],
        found["missing_pages"],
    )
    path.write_bytes(whole)
    report = store.salvage(path)
    assert (rows, 0, True) == (report.rows, report.missing_pages, report.complete)


def test_pages_that_are_only_in_the_log_are_not_missing(store: edgeshard.Store, tmp_path: Path) -> None:
    path, copy = shard_path(store, "agent"), tmp_path / "copy.db"
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        shard.write_many({"n": n, "text": "x" * 60} for n in range(1, 200))
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    assert os.path.getsize(copy) < os.path.getsize(path), "the last pages are only in the log"
    report = store.salvage(copy)
    assert (200, 0, True) == (report.rows, report.missing_pages, report.complete)
    # without the log, what is cut off is missing
    log, before = Path(f"{copy}-wal").read_bytes(), copy.read_bytes()
    sql(copy, "pragma wal_checkpoint(truncate)")
    pages = os.path.getsize(copy) // 1024
    os.truncate(copy, len(before))
    report = store.salvage(copy)
    assert (pages - len(before) // 1024, False) == (report.missing_pages, report.complete)
    Path(f"{copy}-wal").write_bytes(log)
    report = store.salvage(copy)
    assert (200, 0, True) == (report.rows, report.missing_pages, report.complete)


@pytest.mark.parametrize("trials", short_and_full(range(20), range(20, 60)))
def test_salvage_of_the_campaigns_shards_brings_nothing_that_was_not_written(tmp_path: Path, trials: range) -> None:
    images = damaged_shards.images(1)
    ways = (
        damaged_shards.overwritten,
        damaged_shards.cut,
        damaged_shards.swapped_pages,
        damaged_shards.doubled_page,
        damaged_shards.cut_log,
    )
    for number in trials:
        rng = random.Random(number)
        image = rng.choice(images)
        content, log = rng.choice(ways)(image, images, rng)
        path = tmp_path / f"{number}.db"
        path.write_bytes(content)
        if log:
            path.with_name(path.name + "-wal").write_bytes(log)
        store = new_store(tmp_path / f"store-{number}")
        report = store.salvage(path)
        rows = damaged_shards.rows_of(store) if report.readable else {}
        assert rows.keys() <= image.rows.keys(), (number, report)
        # within a value, of which only JSON has a form, a page that was swapped for another cannot be noticed
        if image.kind not in ("overflow", "several_tables"):
            assert rows.items() <= image.rows.items(), (number, report)
        if report.readable:
            assert () == store.verify().errors


def test_the_campaigns_whole_shards_are_salvaged_whole(tmp_path: Path) -> None:
    for image in damaged_shards.images(2):
        path = tmp_path / f"{image.kind}.db"
        path.write_bytes(image.database)
        if image.log:
            path.with_name(path.name + "-wal").write_bytes(image.log)
        store = new_store(tmp_path / image.kind)
        report = store.salvage(path)
        lacking = image.rows.keys() - damaged_shards.rows_of(store).keys()
        assert len(lacking) == sum(map(len, report.gaps))
        assert image.kind == "truncated" or not lacking


def test_a_hostile_schema_is_never_executed(store: edgeshard.Store, bad: Path) -> None:
    evil = store.root / "evil"
    edit(
        bad,
        "insert into sqlite_schema values ('table', 'evil', 'evil', 2, "
        f"'CREATE TABLE evil(_id INTEGER PRIMARY KEY, x TEXT); ATTACH ''{evil}'' AS y; CREATE TABLE y.z(x)')",
        "insert into _edgeshard_columns values ('evil', 'x', 'text', 1)",
    )
    assert 300 == store.salvage(bad).rows
    assert not evil.exists()


def test_an_agent_that_has_the_shard_open_is_not_disturbed(store: edgeshard.Store) -> None:
    with store.shard("bad") as shard:
        shard.write({"n": 1})
        with pytest.raises(StorageBusyError):
            store.salvage(shard.path)
        shard.write({"n": 2})
    store.merge()
    assert [1, 2] == numbers(store)


def test_what_is_no_shard_is_not_salvaged(store: edgeshard.Store, tmp_path: Path) -> None:
    store.init()
    with pytest.raises(FormatError):
        store.salvage(store.master_path)
    with pytest.raises(ConfigurationError):
        store.salvage(tmp_path / "missing.db")
    (tmp_path / "noise.db").write_bytes(os.urandom(50_000))
    assert not store.salvage(tmp_path / "noise.db").readable


def test_the_command_names_what_is_missing_and_says_so_by_its_exit_code(
    store: edgeshard.Store, bad: Path, tmp_path: Path
) -> None:
    done = command("salvage", store.root, bad)
    assert (0, True) == (done.returncode, "salvaged 300 rows of 1 stream" in done.stdout)
    overwrite(bad, os.path.getsize(bad) // 1024 - 5)
    other = new_store(tmp_path / "other")
    other.merge()
    done = command("salvage", other.root, bad, "--json")
    report = json.loads(done.stdout)
    assert (3, "bad", False) == (done.returncode, report["gaps"][0]["agent"], report["complete"])
    assert "missing: rows " in command("salvage", other.root, bad).stdout
    bad.write_bytes(os.urandom(5_000))
    assert 65 == command("salvage", other.root, bad).returncode
    assert 78 == command("salvage", other.root, tmp_path / "missing").returncode


def change_id(path: Path, seq: int, false_seq: int) -> None:
    """Let a row of the first stream have another id than it was written with, as changed bits would."""
    content = path.read_bytes()
    before, after = varint((1 << 32) + seq), varint((1 << 32) + false_seq)
    pages = [content[start : start + 1024] for start in range(0, len(content), 1024)]
    leaves = [number for number, page in enumerate(pages) if page[0] == 13 and before in page]
    assert (1, len(before)) == (len(leaves), len(after))
    pages[leaves[0]] = pages[leaves[0]].replace(before, after)
    path.write_bytes(b"".join(pages))


def varint(number: int) -> bytes:
    """As SQLite stores it."""
    groups = [number >> shift & 0x7F for shift in range(0, number.bit_length(), 7)]
    return bytes([*(group | 0x80 for group in groups[:0:-1]), groups[0]])


def last_on_its_page(path: Path, bit: int) -> int:
    """The seq of a row that its page ends with, and that has not this bit."""
    with path.open("rb") as file:
        pages = Pages(file, None, 1024)
        ends = [cells[-1].row_id for n in range(1, pages.count + 1) if (cells := pages.cells(n))]
    return next(seq for end in ends if end is not None and not (seq := end - (1 << 32)) & bit and 10 < seq < 280)


def addresses_are_true(store: edgeshard.Store) -> bool:
    rows = store.query("select _seq, json_extract(data, '$.n') as n from agent_data")
    return all(seq == n + 1 for seq, n in rows)


@pytest.mark.parametrize(
    "false_seq",
    [
        pytest.param(lambda path: (100, 612), id="out of order"),
        pytest.param(lambda path: (last_on_its_page(path, 8), last_on_its_page(path, 8) | 8), id="another row's"),
        pytest.param(lambda path: (300, 300 + (1 << 27)), id="far beyond the end"),
    ],
)
def test_a_row_whose_id_was_damaged_gets_no_false_address(
    store: edgeshard.Store, bad: Path, false_seq: Callable[[Path], tuple[int, int]]
) -> None:
    change_id(bad, *false_seq(bad))
    report = store.salvage(bad)
    assert 290 < report.rows < 300
    assert addresses_are_true(store)
    assert sum(map(len, report.gaps)) <= 4
    assert () == store.verify().errors
