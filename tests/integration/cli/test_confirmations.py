"""Verbs that cannot be undone ask on a terminal, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeshard
from tests.support.forms import others_slow
from tests.support.processes import command
from tests.support.stores import numbers
from tests.support.terminals import on_terminal


@pytest.fixture
def merged(store: edgeshard.Store) -> edgeshard.Store:
    """A store whose master has three rows."""
    with store.shard("agent") as shard:
        for n in range(3):
            shard.write({"n": n})
    store.merge()
    return store


@pytest.mark.parametrize("typed", others_slow(["n\n", "\n", "\x04", "nonsense\n"], ["\n"]))
def test_a_prune_that_is_not_confirmed_deletes_nothing_and_exits_1(merged: edgeshard.Store, typed: str) -> None:
    code, shown = on_terminal("prune", merged.root, "--keep-rows", "1", typed=typed, columns=1000)
    assert 1 == code, shown
    assert f"Delete rows of {merged.master_path} for good (--keep-rows)?" in shown
    assert "[y/N]" in shown
    assert "edgeshard prune: not confirmed; nothing was changed" in shown
    assert [0, 1, 2] == numbers(merged)


@pytest.mark.parametrize(
    ("options", "typed", "is_asked", "left"),
    [
        (["--keep-rows", "1"], "y\n", True, [2]),
        pytest.param(["--keep-rows", "1"], "YES\n", True, [2], marks=pytest.mark.slow),
        (["--keep-rows", "1", "--yes"], "", False, [2]),
        pytest.param(["--keep-rows", "1", "-y"], "", False, [2], marks=pytest.mark.slow),
        pytest.param(["--keep-rows", "1", "--dry-run"], "", False, [0, 1, 2], marks=pytest.mark.slow),
    ],
)
def test_a_prune_on_a_terminal(
    merged: edgeshard.Store, options: list[str], typed: str, is_asked: bool, left: list[int]
) -> None:
    code, shown = on_terminal("prune", merged.root, *options, typed=typed)
    assert (0, is_asked) == (code, "[y/N]" in shown), shown
    assert left == numbers(merged)


def test_nobody_is_asked_to_confirm_what_cannot_be_done(merged: edgeshard.Store) -> None:
    code, shown = on_terminal("prune", f"{merged.root}x", "--keep-rows", "1")
    assert (78, False) == (code, "[y/N]" in shown), shown


def test_a_table_is_dropped_once_it_is_confirmed(merged: edgeshard.Store) -> None:
    code, shown = on_terminal("prune", merged.root, "--drop-table", "--table", "reading", typed="n\n", columns=1000)
    assert (1, True) == (code, "Delete table reading of " in shown), shown


@pytest.mark.parametrize(
    ("typed", "options", "code", "is_asked", "is_made"),
    [("n\n", [], 1, True, False), ("y\n", [], 0, True, True), ("", ["--yes"], 0, False, True),
     ("", ["--dry-run"], 0, False, False)],
)  # fmt: skip
def test_init_asks_before_it_makes_a_store(
    tmp_path: Path, typed: str, options: list[str], code: int, is_asked: bool, is_made: bool
) -> None:
    root = tmp_path / "data"
    found, shown = on_terminal("init", root, *options, typed=typed, columns=1000)
    assert (code, is_asked) == (found, f"Make a store in {root}? [y/N]" in shown), shown
    assert (is_made, is_made) == (edgeshard.Store(root).exists(), root.exists())


def test_init_of_a_store_asks_nothing(merged: edgeshard.Store) -> None:
    code, shown = on_terminal("init", merged.root, columns=1000)
    assert (0, f"{merged.root} is a store already; nothing was changed") == (code, shown.strip())


@pytest.mark.parametrize(
    ("typed", "options", "code", "is_asked", "left"),
    [("n\n", [], 1, True, [0, 1, 2, 3]), ("y\n", [], 3, True, [0, 1, 2]),
     pytest.param("", ["--yes"], 3, False, [0, 1, 2], marks=pytest.mark.slow),
     pytest.param("", ["--dry-run"], 3, False, [0, 1, 2, 3], marks=pytest.mark.slow)],
)  # fmt: skip
def test_restore_asks_before_it_replaces_the_master(
    merged: edgeshard.Store, tmp_path: Path, typed: str, options: list[str], code: int, is_asked: bool, left: list[int]
) -> None:
    merged.snapshot(tmp_path / "older.db")
    with merged.shard("agent") as shard:
        shard.write({"n": 3})
    merged.merge()
    found, shown = on_terminal("restore", merged.root, tmp_path / "older.db", *options, typed=typed, columns=1000)
    question = f"Replace the master {merged.master_path} with the snapshot {tmp_path / 'older.db'}? [y/N]"
    assert (code, is_asked) == (found, question in shown), shown
    assert left == numbers(merged)


def test_scripts_are_not_asked(merged: edgeshard.Store, tmp_path: Path) -> None:
    assert 0 == command("prune", merged.root, "--keep-rows", "1").returncode
    assert [2] == numbers(merged)
    assert 0 == command("init", tmp_path / "new").returncode
