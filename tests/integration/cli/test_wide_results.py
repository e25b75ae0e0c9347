"""Results with too many columns for a table: they are drawn one value per line, and not refused."""

from __future__ import annotations

import re

import pytest

import edgeshard
from edgeshard import sqlite
from tests.support.terminals import on_terminal

_COLOUR = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")

LONG = "a text that is long enough to be wrapped on any of these terminals, however wide they are"


@pytest.fixture
def filled(store: edgeshard.Store) -> edgeshard.Store:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    store.merge()
    return store


def wide(columns: int) -> str:
    values = ", ".join(f"{number} AS column_{number}" for number in range(columns - 3))
    return f"SELECT {values}, NULL AS none, '{LONG}' AS words, x'00ff' AS bytes FROM json_each('[1, 2]')"


def lines(shown: str) -> list[str]:
    return _COLOUR.sub("", shown).replace("\r\n", "\n").splitlines()


def ensure_complete(shown: list[str], columns: int, width: int, null: str) -> None:
    assert width >= max(map(len, shown)), shown
    assert ["1", "2"] == [found[1] for line in shown if (found := re.match(r"─\[ row (\d+) \]", line))]
    pairs = [re.split(" +│ ", line) for line in shown if "│ " in line]
    named = [(name, value) for name, value in pairs if name]
    assert 2 * columns == len(named)
    assert (f"column_{columns - 4}", str(columns - 4)) in named
    assert {("none", null), ("bytes", "00ff")} <= set(named)
    value = " ".join(value for name, value in pairs if name in ("words", ""))
    assert f"{LONG} {LONG}" == value


@pytest.mark.parametrize("width", [80, 30])
@pytest.mark.parametrize("columns", [28, 40])
def test_each_value_has_a_line_of_its_own(filled: edgeshard.Store, columns: int, width: int) -> None:
    code, shown = on_terminal("query", filled.root, wide(columns), columns=width, COLUMNS=str(width))
    assert 0 == code, shown
    ensure_complete(lines(shown), columns, width, "(null)")


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("columns", [28, 40])
def test_the_shell_does_the_same(filled: edgeshard.Store, columns: int, width: int) -> None:
    code, shown = on_terminal("shell", filled.root, wide(columns), columns=width, COLUMNS=str(width))
    assert 0 == code, shown
    ensure_complete(lines(shown), columns, width, "NULL")


def test_the_interactive_shell_goes_on_after_it(filled: edgeshard.Store) -> None:
    typed = f"{wide(28)};\nselect 6 * 7 as answer;\n.mode table\n{wide(28)};\n.exit\n"
    code, shown = on_terminal("shell", filled.root, typed=typed, columns=80)
    assert 0 == code, shown
    assert "can't be fit" not in shown
    assert re.search(r"│ +42 +│", _COLOUR.sub("", shown))
    assert "-[ row 2 ]" in shown


def test_what_fits_is_a_table_and_a_pipe_has_any_width(filled: edgeshard.Store) -> None:
    _, shown = on_terminal("query", filled.root, "select 1 as a, 2 as b", columns=9)
    assert "╭───┬───╮" == lines(shown)[0]
    _, shown = on_terminal("query", filled.root, "select 1 as a, 2 as b", columns=8)
    assert ["─[ row 1", "a │ 1", "b │ 2"] == lines(shown)
    drawn = filled.query_table(wide(40), colour=False, width=1 << 20, unicode=True)
    assert drawn.startswith("╭")


def test_nothing_in_it_controls_the_terminal(filled: edgeshard.Store) -> None:
    columns = ", ".join(f"{number} AS c{number}" for number in range(30))
    sql = f"SELECT {columns}, char(27) || '[2J' || char(10) || 'next' AS \"a\x1b\nb\""
    drawn = filled.query_table(sql, colour=False, width=80, unicode=False)
    assert "\x1b" not in drawn
    assert ["a\\u001b\\nb | \\u001b[2J", "           | next"] == drawn.splitlines()[-2:]


def test_a_long_value_is_cut_and_no_row_is_said(filled: edgeshard.Store) -> None:
    columns = ", ".join(f"{number} AS c{number}" for number in range(30))
    sql = f"SELECT {columns}, replace(hex(zeroblob(5000)), '0', 'x') AS long"
    drawn = filled.query_table(sql, colour=False, width=80, unicode=False)
    assert 4096 == drawn.count("x")
    assert drawn.endswith(" ...\n")
    assert "0 rows\n" == filled.query_table(f"{sql} WHERE false", colour=False, width=80, unicode=False)


def test_reports_fit_a_narrow_terminal_too() -> None:
    drawn = sqlite.draw_rows(["a", "rows", "at"], [["door", 1, "now"]], colour=False, width=12, unicode=False)
    assert 12 >= max(map(len, drawn.splitlines()))
    assert "door" in drawn
