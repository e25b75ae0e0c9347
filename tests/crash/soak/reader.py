"""Read during the soak, as a separate process: ``python -m tests.crash.soak.reader ROOT``."""

from __future__ import annotations

import sys
import time

import edgeshard


def read_for_ever(root: str) -> None:
    """Read again and again, and check that no row that was seen disappears."""
    store = edgeshard.Store(root)
    before = 0
    while True:
        ((rows,),) = store.query(
            "select (select coalesce(sum(last - first + 1), 0) from _edgeshard_ranges) "
            "+ (select coalesce(sum(last_seq), 0) from _edgeshard_retired)"
        )
        ((streams,),) = store.query("select count(*) from _edgeshard_streams")
        assert rows >= before, f"{rows} rows, after {before}"
        assert (rows > 0) <= (streams > 0), "rows without a stream"
        before = rows
        time.sleep(0.2)


if __name__ == "__main__":
    read_for_ever(sys.argv[1])
