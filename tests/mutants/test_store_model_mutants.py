"""Break the package on purpose, and expect the model of a store to find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from edgeshard import format, sqlite
from edgeshard.format.ranges import union
from edgeshard.master import extents
from edgeshard.merge import chunk, truncate
from edgeshard.shard import truncations
from edgeshard.shard.shard import Shard
from edgeshard.shard.transaction import Transaction
from edgeshard.sources import diff
from edgeshard.sqlite import quote
from tests.property.store_model import StoreMachine
from tests.support.few_examples import QUIET

pytestmark = pytest.mark.slow


def continue_last_stream(shard: Shard) -> None:
    """Continue the shard's last stream after the last row in the file, instead of beginning a new stream."""
    last = sqlite.scalar(shard._connection, "SELECT max(stream_no) FROM _edgeshard_streams")
    if last is None:
        return BEGIN_STREAM(shard)
    tables = sqlite.fetch(shard._connection, "SELECT DISTINCT table_name FROM _edgeshard_columns")
    highest = [sqlite.scalar(shard._connection, f"SELECT max(_id) FROM {quote(name)}") or 0 for (name,) in tables]
    gone = sqlite.scalar(shard._connection, "SELECT max(last) FROM _edgeshard_truncations WHERE stream_no = ?", (last,))
    shard._next_id = max(*highest, 0, format.row_id(last, gone or 0)) + 1
    return None


BEGIN_STREAM = Shard._begin_stream


def truncate_everything(connection: Any, shard: Any, durable: Any, master_id: Any, *_: Any) -> Any:
    """Delete all rows of the shard, whatever the master holds."""
    with sqlite.immediate(connection):
        gone = truncations.record(connection, durable, master_id)
        return truncations.delete_all(connection, [table.name for table in shard.tables]), gone


def put_nothing_back(connection: Any, tables: Any, kept: Any = ()) -> int:
    """Truncate a shard together with rows that were written after those that the master holds."""
    return DELETE_ALL(connection, tables)


def do_not_write_ranges(connection: Any, number: int, held: Any, copied: Any) -> Any:
    """Do not write the ranges with the rows."""
    return union([*held, *copied])


def ignore_ranges(stream: Any, *_: Any) -> Any:
    """Copy all rows of a source, even those that the master holds."""
    return list(stream.blocks)


def truncate_before_commit(connection: Any, jobs: Any, totals: Any) -> None:
    """Truncate the shards before the master commits, and let that commit fail."""
    COMMIT_CHUNK(connection, jobs, totals)
    for job in jobs:
        if job.own and job.copied.durable:
            truncate.truncate(job.source, job.attached_file, job.copied.durable, b"0" * 16)
    connection.execute("DELETE FROM agent_data")  # what the commit would have brought


COMMIT_CHUNK = chunk.commit_chunk


DELETE_ALL = truncations.delete_all


def remember_undone_row(block: Any, error: Any = None) -> None:
    """After a rollback, count the undone row as written."""
    connection = block._handle._connection
    last = connection.last_insert_rowid()
    UNDO_BLOCK(block, error)
    connection.set_last_insert_rowid(last)


UNDO_BLOCK = Transaction._undo


MUTANTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "continue the last stream": (Shard, "_begin_stream", continue_last_stream),
    "truncate everything": (truncate, "_truncate", truncate_everything),
    "delete rows written during a truncation": (truncations, "delete_all", put_nothing_back),
    "do not write ranges": (extents, "add_ranges", do_not_write_ranges),
    "copy rows whatever the ranges say": (diff, "missing_blocks", ignore_ranges),
    "remember a row that was rolled back": (Transaction, "_undo", remember_undone_row),
    "truncate before the commit": (chunk, "commit_chunk", truncate_before_commit),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_finds_every_mutant(mutant: str) -> None:
    owner, name, replacement = MUTANTS[mutant]
    with mock.patch.object(owner, name, replacement), pytest.raises(BaseException) as caught:  # noqa: PT011
        run_state_machine_as_test(
            StoreMachine,
            settings=settings(
                max_examples=1_500,
                derandomize=True,  # the same steps each time: what is found once is always found
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=QUIET,
                phases=[Phase.generate],  # found is enough; the shortest example is not needed
            ),
        )
    assert not isinstance(caught.value, (KeyboardInterrupt, SystemExit))
