"""``edgeshard status --html``: a page that needs no other file, whatever the store and its names are."""

from __future__ import annotations

import datetime
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard import cli
from edgeshard.cli import exits, status_charts, status_page
from edgeshard.errors import DamagedError
from edgeshard.reports import Activity, AgentRows, Gap
from tests.support.damaged_masters import damage
from tests.support.html_pages import Page
from tests.support.processes import command
from tests.support.stores import new_store, shard_path

#: A name that would leave its place if it were not escaped, and one that would turn the text around it.
HOSTILE = "</title></script><script>alert('1')</script>&amp;\"'<b onclick=x>"
REVERSED = "\u202edoor\n\x1b[31m"


def page_of(store: edgeshard.Store, code: int = exits.DONE) -> tuple[Page, str]:
    """The page of a store, read, and as it is written."""
    path = store.root.parent / "page.html"
    assert code == cli.main(["status", str(store.root), "--html", str(path)])
    text = path.read_text()
    page = Page(text)
    assert_self_contained(page)
    return page, text


def assert_self_contained(page: Page) -> None:
    """Check the structure of any page: one document, nothing of it elsewhere, and charts that fit and have a name."""
    names = page.names()
    assert [1] * 4 == [names.count(name) for name in ("html", "head", "body", "h1")]
    assert set(names) & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "foreignobject"} == set()
    assert [] == page.addresses()
    assert [] == [name for _, values in page.elements for name in values if name.startswith("on")]
    charts = [values for name, values in page.elements if name == "svg"]
    assert all({"viewbox", "role"} <= values.keys() and "width" not in values for values in charts)
    # a title of its own for each chart, and one for the document
    assert 1 + len(charts) == len(page.texts_of("title"))


def write(store: edgeshard.Store, agent: str, rows: int = 3) -> None:
    """Write rows as an agent that ends."""
    with store.shard(agent) as shard:
        shard.write_many({"n": number} for number in range(rows))


def test_a_page_has_the_verdict_the_charts_and_a_table_for_each(store: edgeshard.Store) -> None:
    write(store, "door", 30)
    store.merge()
    write(store, "gps", 5)
    page, text = page_of(store)
    assert ["green"] == page.texts_of("strong")
    assert [
        "Rows per minute, last hour",
        "Rows per minute, last 24 hours",
        "Pending rows by shard",
        "Staleness by shard",
        "Size",
        "Bytes written per day",
        "Shards",
    ] == page.texts_of("h2")
    assert page.names().count("svg") == page.names().count("details")
    assert {"door: 30 rows", "rows and indexes: "} <= {
        item if "door" in item else item[:18] for item in page.texts_of("li")
    }
    assert ("gps: 5", "5") == (next(t for t in page.texts_of("text") if "gps" in t), page.texts_of("dd")[1])
    assert "refresh" not in text


def test_a_store_without_rows_has_a_page(tmp_path: Path) -> None:
    page, _ = page_of(new_store(tmp_path / "data"))
    assert "No arrival is recorded" in " ".join(page.texts_of("p"))
    assert "No rows are pending." in page.texts_of("p")


def test_a_store_whose_rows_are_all_pending_has_a_page(store: edgeshard.Store) -> None:
    write(store, "door")
    page, _ = page_of(store)
    assert "door: 3" in page.texts_of("text")
    assert "Nothing is recorded yet." in page.texts_of("p")


def test_names_are_shown_as_they_are_and_do_nothing(store: edgeshard.Store) -> None:
    for agent in (HOSTILE, REVERSED):
        write(store, agent)
    store.merge()
    for agent in (HOSTILE, REVERSED):
        write(store, agent)
    page, text = page_of(store)
    assert "<script" not in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert not set(text) & {"\u202e", "\x1b"}
    cells = page.texts_of("td")
    assert r"\u202edoor\n\u001b[31m" in cells
    assert status_charts.short(HOSTILE) in cells
    assert f"{status_charts.short(HOSTILE)}: 3 rows" in page.texts_of("li")


def test_hundreds_of_agents_make_a_page_with_the_busiest(store: edgeshard.Store) -> None:
    write(store, "door")
    store.merge()
    write(store, "door")
    status, activity = store.status(), store.activity()
    shards = [attrs.evolve(status.shards[0], agent=f"agent-{n:03}", pending_rows=n, oldest_age_s=n) for n in range(500)]
    assert activity.last_hour is not None
    hour = attrs.evolve(
        activity.last_hour,
        agents=tuple(AgentRows(f"agent-{n:03}", (1_000 - n,) * 60) for n in range(7)),
        other_agents=493,
        other_rows=(493,) * 60,
    )
    text = status_page.page(
        attrs.evolve(status, shards=tuple(shards)), attrs.evolve(activity, last_hour=hour), store.root
    )
    page = Page(text)
    assert_self_contained(page)
    assert "and 400 more" in page.texts_of("p")
    bars = [item for item in page.texts_of("text") if "agent-" in item]
    assert [f"agent-{n}: {n}" for n in range(488, 500)] == bars[:12]
    assert "493 other agents: 29,580 rows" in page.texts_of("li")
    assert len(text) < 600_000


def test_a_page_with_a_budget_shows_how_much_is_used(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", max_bytes="50M", on_full="drop-oldest")
    write(store, "door")
    store.merge()
    page, _ = page_of(store)
    assert any(item.startswith("budget: 50.0 MB") for item in page.texts_of("text"))
    assert any("of a disk budget of 50.0 MB" in item and "drop-oldest" in item for item in page.texts_of("p"))


def test_problems_come_with_the_commands_that_help(store: edgeshard.Store) -> None:
    write(store, "door")
    store.merge()
    shard_path(store, "broken").write_bytes(b"no database" * 100)
    page, _ = page_of(store, exits.INCOMPLETE)
    assert ["red", "red"] == page.texts_of("strong")
    (salvage, _) = page.texts_of("pre")
    assert salvage == f"edgeshard salvage {store.root} {shard_path(store, 'broken')}"
    assert any("could not be read" in text for text in page.texts_of("p"))


def test_gaps_are_drawn_on_one_line_per_agent(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("door") as shard:
        for number in range(4):
            shard.write_many({"n": number} for _ in range(5))
            store.merge()
            if number == 1:
                store.snapshot(tmp_path / "old.db")
    store.restore(tmp_path / "old.db")
    page, _ = page_of(store, exits.INCOMPLETE)
    assert ["Gaps"] == page.texts_of("h2")[:1]
    assert "door: 10" in page.texts_of("text")
    assert "11 to 20" in page.texts_of("td")


def test_a_line_of_gaps_has_all_parts_and_each_gap_can_be_seen() -> None:
    gaps = [Gap("door", "aa", 11, 20), Gap("door", "aa", 31, 31), Gap("door", "bb", 1, 5)]
    activity = Activity(at=datetime.datetime.now(datetime.UTC), last_seqs={"aa": 10_000, "bb": 100})
    line = status_charts.line_of_gaps(gaps, activity)
    assert 7 == len(line)
    held, missing = line[::2], line[1::2]
    assert [10, 10, 9_969, 95] == [round(part / held[0] * 10) for part in held]
    assert all(part >= 0.01 for part in missing)
    assert 1 == pytest.approx(sum(line))


def test_a_line_of_many_gaps_ends_with_all_that_are_not_drawn_one_by_one() -> None:
    gaps = [Gap("door", "aa", 10 * n, 10 * n + 4) for n in range(1, 31)]
    line = status_charts.line_of_gaps(gaps, Activity(at=datetime.datetime.now(datetime.UTC), last_seqs={"aa": 305}))
    assert 26 == len(line)
    assert [5 / 305, 18 * 5 / 305] == pytest.approx([line[1], line[-1]])
    assert 1 == pytest.approx(sum(line))


def test_a_damaged_master_has_a_page_that_says_so(store: edgeshard.Store) -> None:
    write(store, "door")
    store.merge()
    damage(store, "row")
    assert store.verify().errors  # which tells mergers, and status
    page, _ = page_of(store, exits.INCOMPLETE)
    assert any("damaged" in text for text in page.texts_of("p"))


def test_a_master_that_cannot_be_read_has_a_page_that_says_so(store: edgeshard.Store) -> None:
    write(store, "door")
    store.merge()
    store.master_path.write_bytes(store.master_path.read_bytes()[:1_000] + bytes(50_000))
    with pytest.raises(DamagedError) as caught:
        store.status()
    page, _ = page_of(store, exits.DATA_ERROR)
    assert [f": {caught.value}"] == [item for item in page.texts_of("p") if "master" in item]
    assert ["red"] == page.texts_of("strong")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_page_can_be_read_by_a_web_server_and_replaces_an_older_one(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "door")
    path = tmp_path / "status.html"
    path.write_text(f"{status_page.BEGINNING}old")
    before = os.umask(0o077)
    try:
        done = cli.main(["status", str(store.root), "--html", str(path)])
    finally:
        os.umask(before)
    assert (exits.DONE, 0o644) == (done, stat.S_IMODE(path.stat().st_mode))
    assert "</html>" in path.read_text()
    assert ["data", "status.html"] == sorted(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--html", "x.html", "--json"], "--json"),
        (["--html", "x.html", "--watch"], "use --every"),
        (["--every", "30"], "requires --html"),
        (["--html", ""], "must not be empty"),
        (["--html", "x.html", "--every", "0"], "--every"),
    ],
    ids=["json", "watch", "every", "empty", "zero"],
)
def test_options_that_do_not_go_together_are_refused(
    store: edgeshard.Store, capsys: pytest.CaptureFixture[str], options: list[str], advice: str
) -> None:
    write(store, "door")
    with pytest.raises(SystemExit) as caught:
        cli.main(["status", str(store.root), *options])
    assert exits.USAGE == caught.value.code
    assert advice in capsys.readouterr().err


def test_a_page_that_cannot_be_written_and_a_store_that_is_not_there_are_named(
    store: edgeshard.Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none" / "page.html"
    assert exits.CONFIGURATION == cli.main(["status", str(tmp_path / "none"), "--html", str(tmp_path / "page.html")])
    assert [] == os.listdir(tmp_path)
    write(store, "door")
    assert exits.CONFIGURATION == cli.main(["status", str(store.root), "--html", str(path)])
    assert f"write page {path}: there is no folder {path.parent}; create it" in capsys.readouterr().err


def test_without_pygal_the_error_says_what_to_install(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(store, "door")
    monkeypatch.setitem(sys.modules, "pygal", None)
    path = store.root.parent / "page.html"
    assert exits.CONFIGURATION == cli.main(["status", str(store.root), "--html", str(path)])
    assert "pip install 'edgeshard[report]'" in capsys.readouterr().err
    assert not path.exists()


def test_a_command_in_a_process_of_its_own_writes_the_page(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "door")
    path = tmp_path / "status.html"
    done = command("status", store.root, "--html", path)
    assert (exits.DONE, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith(f"{path}: yellow: ")
    assert_self_contained(Page(path.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_few_seconds_the_page_is_written_again_until_a_signal(
    store: edgeshard.Store, tmp_path: Path, number: signal.Signals
) -> None:
    write(store, "door")
    path = tmp_path / "status.html"
    arguments = [sys.executable, "-m", "edgeshard", "status", str(store.root), "--html", str(path), "--every", "0.1"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(path.exists)
        assert 'http-equiv="refresh"' in path.read_text()
        with path.open() as first:
            write(store, "gps")
            until(lambda: "gps" in path.read_text())
            assert os.fstat(first.fileno()).st_nlink == 0  # it is replaced as a whole
        moved = store.root.rename(tmp_path / "away")
        until(lambda: "there is no such folder" in path.read_text())
        moved.rename(store.root)
        until(lambda: "gps" in path.read_text())
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert exits.DONE == process.returncode
    assert 1 == errors.count("there is no such folder")
    assert ["data", "status.html"] == sorted(os.listdir(tmp_path))


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not condition():
        time.sleep(0.02)
