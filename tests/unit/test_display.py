"""Reprs that fit on a screen, and HTML for notebooks, whatever the values are."""

from __future__ import annotations

import datetime
import html.parser
from typing import Any

import pytest

from edgeshard import Rows, display, reports
from edgeshard.records.rows import row_maker
from edgeshard.reports import Gap, MergeReport, PruneReport, Quarantined, Report
from tests.support.report_classes import report_classes
from tests.support.stores import new_store

HOSTILE = "<script>alert('1')</script>\x1b[2J\u202e&amp;\"><img src=x onerror=alert(1)>\r$x$"

GAPS = tuple(Gap("agent", "0123456789abcdef" * 2, n, n + 1) for n in range(100_000))

#: Elements that show, and load or run nothing; and their attributes.
HARMLESS = {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "br"}


class Parsed(html.parser.HTMLParser):
    """HTML as its elements and texts; raises if an element is not closed where it should be."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[tuple[str, str | None]] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert [] == self._open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append(tag)
        self.attributes |= set(attributes)
        if tag != "br":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(shown: Any) -> Parsed:
    """Return the HTML of a value, which must be harmless."""
    source: str = shown._repr_html_()
    found = Parsed(source)
    assert set(found.elements) <= HARMLESS
    assert found.attributes <= {("class", "tex2jax_ignore")}
    assert source.replace("\n", "").isprintable()
    return found


def rows(count: int, *names: str, value: Any = None) -> Rows:
    """Return rows whose values are their numbers, or all the given one."""
    make = row_maker(names)
    return Rows((make([n if value is None else value] * len(names)) for n in range(count)), names)


# -- reprs ------------------------------------------------------------------------------------------------------------


def test_all_reports_have_the_repr_that_fits_on_a_screen() -> None:
    assert len(report_classes()) > 20
    assert {Report.__repr__} == {cls.__repr__ for cls in report_classes()}
    assert {Report._repr_html_} == {cls._repr_html_ for cls in report_classes()}


def test_a_repr_of_a_report_names_its_fields() -> None:
    assert "Gap(agent='a', stream='00', first=1, last=2)" == repr(Gap("a", "00", 1, 2))
    assert "MergeReport(rows=5, truncated=0, " == repr(MergeReport(rows=5))[:33]
    assert "gaps=(Gap(agent='a', stream='00', first=1, last=2),)" in repr(MergeReport(gaps=(Gap("a", "00", 1, 2),)))


def test_printed_a_report_is_whole() -> None:
    assert "x" * 10_000 in str(Quarantined("/a", "x" * 10_000))
    assert "x" * 10_000 not in repr(Quarantined("/a", "x" * 10_000))


@pytest.mark.parametrize(
    "report",
    [
        MergeReport(gaps=GAPS),
        MergeReport(quarantined=tuple(Quarantined(HOSTILE * 100, HOSTILE * 100) for _ in range(1_000))),
        PruneReport(by_reason={f"reason {n}": n for n in range(10_000)}, behind=(HOSTILE,) * 10_000),
    ],
)
def test_what_is_shown_of_a_report_fits_on_a_screen(report: Report) -> None:
    assert len(repr(report)) < 3_000
    assert repr(report).isprintable()
    assert len(report._repr_html_()) < 60_000
    parsed(report)


def test_what_a_store_returns_fits_on_a_screen(tmp_path: Any) -> None:
    store = new_store(tmp_path / "data")
    with store.shard("\x1b[2J" + "a" * 180) as shard:
        shard.write({"n": "x" * 100_000})
        assert (len(repr(shard)) < 1_000, repr(shard).isprintable()) == (True, True)
    for shown in (
        store.merge(),
        store.status(),
        store.verify(),
        store.ranges(),
        store.query("select * from agent_data"),
    ):
        assert len(repr(shown)) < 3_000, shown
        if isinstance(shown, (Report, Rows)):
            parsed(shown)


# -- HTML -------------------------------------------------------------------------------------------------------------


def test_rows_are_a_table_of_the_first_twenty() -> None:
    found = parsed(rows(1_000, "n", "class"))
    assert (1, 21, 2, 40) == tuple(found.elements.count(tag) for tag in ("table", "tr", "th", "td"))
    assert ["n", "class", "0", "0", "1", "1"] == found.texts[:6]
    assert "… 980 more rows" == found.texts[-1]
    assert "more" not in "".join(parsed(rows(20, "n")).texts)
    assert ["n", "class"] == parsed(rows(0, "n", "class")).texts


def test_many_columns_are_cut_too() -> None:
    found = parsed(rows(30, *(f"c{n}" for n in range(50))))
    assert (20, 400) == (found.elements.count("th"), found.elements.count("td"))
    assert "… 10 more rows, 30 more columns" == found.texts[-1]


def test_one_row_is_a_table_of_names_and_values() -> None:
    assert ["column", "value", "n", "0", "class", "0"] == parsed(rows(1, "n", "class")[0]).texts


def test_hostile_text_is_only_text() -> None:
    for shown in (
        rows(2, HOSTILE, value=HOSTILE),
        rows(2, "n", value={HOSTILE: [HOSTILE]}),
        rows(1, HOSTILE, value=HOSTILE)[0],
        MergeReport(quarantined=(Quarantined(HOSTILE, HOSTILE),), prune_error=HOSTILE),
        PruneReport(by_reason={HOSTILE: 1}, behind=(HOSTILE,)),
        Gap(HOSTILE, HOSTILE, 1, 2),
    ):
        assert "<script>alert(" in "".join(parsed(shown).texts)


def test_values_are_shown_as_they_are_and_long_ones_are_cut() -> None:
    assert ["n", "x", "x"] == parsed(rows(2, "n", value="x")).texts
    assert "None" == display.cell(None)
    assert "1.5" == display.cell(1.5)
    assert len(display.cell("x" * 10_000_000)) < 400
    assert len(display.cell(b"x" * 10_000_000)) < 400
    assert "10,000,000 bytes" in display.cell(b"x" * 10_000_000)


def test_lists_of_reports_are_tables_and_dates_are_iso() -> None:
    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    report = reports.ClockReport(wall=at)
    texts = parsed(report).texts
    assert "2026-01-02T00:00:00+00:00" == texts[texts.index("wall") + 1]
    assert "True" == texts[texts.index("complete") + 1]  # a property that as_dict has too
    texts = parsed(MergeReport(gaps=GAPS)).texts
    assert ["agent", "stream", "first", "last"] == texts[texts.index("gaps") + 1 :][:4]
    assert "… 99,980 more rows" in texts


def test_a_repr_of_its_own_that_fails_harms_nothing() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    assert "Bad" in display.short_repr(Bad())
