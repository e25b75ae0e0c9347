"""The model of a store finds a package that is broken on purpose."""

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


def no_new_stream(shard: Shard) -> None:
    """A handle goes on in the shard's last stream, where the rows in the file end."""
    last = sqlite.scalar(shard._connection, "SELECT max(stream_no) FROM edgeshard_streams")
    if last is None:
        return BEGIN_STREAM(shard)
    tables = sqlite.fetch(shard._connection, "SELECT DISTINCT table_name FROM edgeshard_columns")
    highest = [sqlite.scalar(shard._connection, f"SELECT max(_id) FROM {quote(name)}") or 0 for (name,) in tables]
    gone = sqlite.scalar(shard._connection, "SELECT max(last) FROM edgeshard_truncations WHERE stream_no = ?", (last,))
    shard._next_id = max(*highest, 0, format.row_id(last, gone or 0)) + 1
    return None


BEGIN_STREAM = Shard._begin_stream


def truncate_everything(connection: Any, shard: Any, durable: Any, master_id: Any, *_: Any) -> Any:
    """The whole shard is emptied, whatever the master holds."""
    with sqlite.immediate(connection):
        gone = truncations.record(connection, durable, master_id)
        return truncations.delete_all(connection, [table.name for table in shard.tables]), gone


def nothing_is_put_back(connection: Any, tables: Any, kept: Any = ()) -> int:
    """A shard is cleared with the rows that came after those that the master holds."""
    return DELETE_ALL(connection, tables)


def copied_is_not_noted(connection: Any, number: int, held: Any, copied: Any) -> Any:
    """The ranges are not written with the rows."""
    return union([*held, *copied])


def ranges_are_not_asked(stream: Any, *_: Any) -> Any:
    """Whatever a source has is copied."""
    return list(stream.blocks)


def copy_commits_nothing(connection: Any, jobs: Any, totals: Any) -> None:
    """Shards are truncated before the master's commit, which then fails."""
    COMMIT_CHUNK(connection, jobs, totals)
    for job in jobs:
        if job.own and job.copied.durable:
            truncate.truncate(job.source, job.copied.durable, b"0" * 16)
    connection.execute("DELETE FROM agent_data")  # what the commit would have brought


COMMIT_CHUNK = chunk.commit_chunk


DELETE_ALL = truncations.delete_all


def last_row_is_not_forgotten(block: Any, error: Any = None) -> None:
    """After a rollback, the account of seqs believes that the row that was undone is there."""
    connection = block._handle._connection
    last = connection.last_insert_rowid()
    UNDO_BLOCK(block, error)
    connection.set_last_insert_rowid(last)


UNDO_BLOCK = Transaction._undo


MUTANTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "no new stream an opening": (Shard, "_begin_stream", no_new_stream),
    "truncate everything": (truncate, "_truncate", truncate_everything),
    "what came meanwhile is not put back": (truncations, "delete_all", nothing_is_put_back),
    "ranges are not written": (extents, "add_ranges", copied_is_not_noted),
    "ranges are not asked": (diff, "missing_blocks", ranges_are_not_asked),
    "the row that was undone is not forgotten": (Transaction, "_undo", last_row_is_not_forgotten),
    "truncate before the commit": (chunk, "commit_chunk", copy_commits_nothing),
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
