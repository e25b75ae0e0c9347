"""How `edgeshard status` lays out a report: it fits, whatever the names, and each kind of problem is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeshard.cli import output, status
from edgeshard.reports import ProblemKind, ShardStatus, StatusReport
from tests.support.status_reports import PROBLEMS, budget, judged, shard, waiting

ROOT = Path("data")

LONG = "The boiler in the room below the stairs, on the left"

NAMES = ["a", LONG, "x" * 200, "\u6f22\u5b57" * 40, "evil\x1b[2J\n\u202ename", ""]


def lines(report: StatusReport, monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    return status._lines(report, ROOT, is_screen=False)


def width(line: str) -> int:
    """How many columns of a terminal a line takes: these characters are two wide."""
    return len(line) + sum(character in "\u6f22\u5b57" for character in line)


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_each_problem_fits_the_line_and_comes_with_its_commands(
    monkeypatch: pytest.MonkeyPatch, kind: ProblemKind, columns: int
) -> None:
    level, report = PROBLEMS[kind]
    shown = lines(report, monkeypatch, columns)
    assert columns >= max(map(width, shown))
    assert shown[0].startswith(f"{level}: ")
    assert any(
        line.startswith("    ") and any(program in line for program in ("edgeshard", "kill", "ls -ld"))
        for line in shown
    )


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_shards_of_any_number_and_name_fit(monkeypatch: pytest.MonkeyPatch, count: int, columns: int) -> None:
    made: list[ShardStatus] = []
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        made.append(waiting(7_000, name=f"{name[:9]}~{number}.db", agent=name, size_bytes=999_999_999, pid=4_194_304))
    shown = lines(judged(*made), monkeypatch, columns)
    assert columns >= max(map(width, shown))
    assert count == sum(line.startswith("\u2502") and "agent" not in line for line in shown)
    assert not any(character in line for line in shown for character in "\x1b\n\u202e")


def test_a_long_name_is_cut_in_the_middle_and_an_equal_file_name_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = lines(judged(shard(agent=LONG, name=f"{LONG}.db")), monkeypatch)
    assert "file" not in plain[2 + 1]
    assert any(line.startswith("\u2502 The boi") and "on the left" in line for line in plain)
    other = lines(judged(shard(agent="K\xe4the", name="k-the~5cdd.db")), monkeypatch)
    assert any("K\xe4the" in line and "k-the~5cdd.db" in line for line in other)


def test_many_problems_of_a_kind_hide_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [shard(name=f"bad-{number}.db", reason="it is damaged", pending_rows=None) for number in range(20)]
    report = judged(*bad, waiting(1), watching=False, merged_s_ago=None, budget=budget(9_900_000, left=0))
    shown = lines(report, monkeypatch)
    levels = [line.partition(":")[0] for line in shown if line.startswith(("red: ", "yellow: "))]
    assert ["red"] * 5 + ["yellow"] == levels
    assert 3 == sum("is quarantined" in line for line in shown)
    assert any(line.startswith("red: the disk budget is full") for line in shown)
    assert "and 17 more problems; --json has all" in shown


@pytest.mark.parametrize(
    ("kind", "colour"),
    [("quarantined", "\x1b[1;31mred:"), ("pending", "\x1b[1;33myellow:"), (None, "\x1b[1;32mgreen:")],
)
def test_the_verdict_has_its_colour(monkeypatch: pytest.MonkeyPatch, kind: ProblemKind | None, colour: str) -> None:
    monkeypatch.setattr(output, "is_coloured", lambda _: True)
    report = judged(shard()) if kind is None else PROBLEMS[kind][1]
    assert lines(report, monkeypatch)[0].startswith(colour)
