"""Ask SQLite whether a master is sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from edgeshard import format, sqlite
from edgeshard.master import catalog
from edgeshard.sqlite import Connection, quote


def findings(connection: Connection, check: Literal["quick_check", "integrity_check"], limit: int) -> Iterator[str]:
    """Yield what SQLite's own check finds, at most `limit` findings of each table."""
    try:
        found = sqlite.fetch(connection, f"PRAGMA {check}({limit:d})")
    except sqlite.DATA_ERRORS as error:
        if not sqlite.is_bad_schema(error):
            raise
        # a table that was made by hand has a collation that only its maker's program knows: check our own tables
        names = [*format.REQUIRED_TABLES[format.MASTER], *catalog.present_tables(connection)]
        found = [row for name in names for row in sqlite.fetch(connection, f"PRAGMA {check}({quote(name)})")]
    yield from (finding for (finding,) in found if finding != "ok")
