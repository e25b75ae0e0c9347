"""Messages below the command line name what a Python program can call, not options of commands.

A program that gets an error from `store.merge()` has no option ``--lock-wait``. The command line adds its options itself
(`edgeshard.cli.hints`). A command without options may be named next to the call, for whoever reads a log.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "edgeshard"

#: These are commands themselves, or describe one.
COMMANDS = ("cli", "bench", "__main__.py", "merge/__main__.py")

#: CSS has custom properties, such as var(--text).
OPTION = re.compile(r"(?<![\w-])(?<!var\()--[a-z]")
COMMAND = re.compile(r"`edgeshard (?!help\b)[a-z-]+")
CALL = re.compile(r"\b[Ss]tore\.[a-z_]+")


def modules() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not any((PACKAGE / name) in (path, *path.parents) for name in COMMANDS)
    ]


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each literal that is no docstring; for what an f-string inserts, {}."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        elif isinstance(node, ast.JoinedStr) and node not in skipped:
            skipped.update(ast.walk(node))
            inner = [part for value in node.values if isinstance(value, ast.FormattedValue) for part in ast.walk(value)]
            parts = [part.value for part in [*node.values, *inner] if isinstance(part, ast.Constant)]
            yield node.lineno, "{}".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.lineno, node.value


def faults(source: str) -> list[str]:
    """Return the lines and texts that name an option, or a command without a call that does the same."""
    return [
        f"{line}: {text}"
        for line, text in texts(ast.parse(source))
        if OPTION.search(text) or (COMMAND.search(text) and not CALL.search(text))
    ]


@pytest.mark.slow
def test_no_message_names_an_option_or_only_a_command() -> None:
    found = {str(path.relative_to(PACKAGE)): faults(path.read_text()) for path in modules()}
    assert len(found) > 100
    assert {} == {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "message",
    [
        "'wait with lock_wait (--lock-wait)'",
        "f'{action}: use --force'",
        "f'verify {root}{\" --deep\" if deep else 1}'",
        "'run `edgeshard salvage` on it'",
        "f'run `edgeshard init {path}`'",
    ],
)
def test_such_messages_are_found(message: str) -> None:
    assert 1 == len(faults(f"cause = ({message})"))


@pytest.mark.parametrize(
    "source",
    [
        '"""Runs --once."""',
        "cause = 'Store.merge (`edgeshard merge`) makes it'",
        "cause = 'see `edgeshard help tables`'",
        "sql = 'SELECT 1 -- one'",
    ],
)
def test_others_are_not(source: str) -> None:
    assert [] == faults(source)
