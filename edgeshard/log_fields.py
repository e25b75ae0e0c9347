"""The fields that log records carry besides their text: one vocabulary for the whole package.

They are passed as `extra`: the handlers of any application find them, and `--log-format json` writes them. The guide on
monitoring lists them.
"""

from __future__ import annotations

import os
from typing import Any

Path = str | os.PathLike[str]


def fields(
    *,
    store: Path | None = None,
    file: Path | None = None,
    shard: Path | None = None,
    agent: str | None = None,
    table: str | None = None,
    rows: int | None = None,
    pending: int | None = None,
    passes: int | None = None,
    seconds: float | None = None,
    slowest: float | None = None,
    state: str | None = None,
    error: BaseException | None = None,
) -> dict[str, Any]:
    """Return those fields that are known.

    Args:
        store: the store's folder.
        file: the file that it is about, if that is no shard.
        shard: the shard; the record has the name of its file.
        agent: the agent.
        table: the record table.
        rows: how many rows were merged, pruned, pushed or are affected.
        pending: how many rows are pending.
        passes: how many passes, or pushes, were made.
        seconds: how long that took, or which time it is about.
        slowest: how long the slowest pass took, in seconds.
        state: what began or ended, such as "quarantined" or "recovered".
        error: what failed; the record has the name of its class.
    """
    found = {
        "store": None if store is None else os.fspath(store),
        "file": None if file is None else os.fspath(file),
        "shard": None if shard is None else os.path.basename(shard),
        "agent": agent,
        "table": table,
        "rows": rows,
        "pending": pending,
        "passes": passes,
        "seconds": seconds,
        "slowest": slowest,
        "state": state,
        "error": None if error is None else type(error).__name__,
    }
    return {name: value for name, value in found.items() if value is not None}
