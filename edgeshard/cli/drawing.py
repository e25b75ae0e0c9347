"""Tables on a terminal or in a pipe, of what a command found, and text of strangers in them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence

from edgeshard import sqlite
from edgeshard.cli import terminal


def table(columns: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    """Rows as a table for stdout, as wide as that is."""
    out = sys.stdout
    named = ", ".join(f"value ->> {n} AS {sqlite.quote(name)}" for n, name in enumerate(columns))
    with contextlib.closing(sqlite.open_in_memory("")) as connection:
        return sqlite.draw_table(
            connection,
            f"SELECT {named} FROM json_each(?)",
            (json.dumps(rows),),
            colour=terminal.is_coloured(out),
            width=terminal.width(out),
            unicode=terminal.has_lines(out),
        )


def printable(text: str) -> str:
    """Text of a stranger that does nothing to the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
