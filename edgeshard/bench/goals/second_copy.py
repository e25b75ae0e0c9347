"""The second copy alone: the limit of what edgeshard can store of large rows or in batches, on the machine of the run.

A row of edgeshard counts when it is in the master, so it is written twice: its agent writes it to a shard, and the
merger copies it. Here the agents' files already have all rows, in the cache of the operating system, and nothing else
runs. What remains is the copy that the merger makes, done by SQLite with nothing around it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeshard.bench.costs.timing import scratch
from edgeshard.bench.goals import bare_copy
from edgeshard.bench.goals.cost import Cost
from edgeshard.bench.samples import workload_label
from edgeshard.bench.workload import Workload

SECOND_COPY: Final = "second copy alone"
#: The system after which it is measured, in each round: the one that it is compared with.
COMPARED_WITH: Final = "sqlite-tuned"
#: Page size of a file that gets large rows or many rows in a commit, in bytes.
_FILE_PAGE_BYTES: Final = 8_192
#: Payload of a transaction, in bytes.
_TRANSACTION_BYTES: Final = 32 << 20
#: SQLite's cache of the database, in KiB. With 1,000 or 32,000, rows of 1 KB took a tenth longer (measured).
_CACHE_KIB: Final = 4_000
#: Payload of a file, in bytes, and its most rows: 400 MB, or 1,600,000 rows, in 16 files.
_FILE_BYTES: Final = 25_000_000
_MOST_ROWS: Final = 100_000


def measure(folder: Path, workload: Workload, round_number: int) -> Cost:
    """Time the second copy of a workload's rows.

    Args:
        folder: where to make the files.
        workload: says how many agents have a file, and how large a row is.
        round_number: the round, from 0.
    """
    rows = min(_MOST_ROWS, _FILE_BYTES // workload.payload_bytes)
    with scratch(folder) as root:
        files = bare_copy.make_files(root, workload.agents, rows, workload.payload_bytes, _FILE_PAGE_BYTES)
        transaction_rows = max(1, _TRANSACTION_BYTES // workload.payload_bytes)
        took_s = bare_copy.copy_seconds(root, files, transaction_rows, _CACHE_KIB)
    return Cost(workload_label(workload), SECOND_COPY, round_number, {"rows_per_s": files.total_rows / took_s})
