"""What the readers of files give to an import: the rows of one table, in batches, each with the state after it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, Protocol

import attrs

from edgeshard.exchange.import_state import ImportState

#: The most rows of a transaction, and bytes of texts and blobs in them, roughly.
BATCH_ROWS: Final = 5_000

BATCH_BYTES: Final = 8 << 20


@attrs.frozen
class Batch:
    """Rows that are committed together.

    Attributes:
        records: what `Shard.write_many` takes.
        places: the rowid, or the number of the line, of each.
        after: the state once they are imported.
    """

    records: Sequence[Any]
    places: Sequence[int]
    after: ImportState


class Part(Protocol):
    """The rows of a file that go to one table.

    Attributes:
        table: the table.
        form: the form of the file; see `import_state`.
        target: what `Shard.write_many` takes as `table`.
        notes: what a user should know of rows that are not imported, once it was read.
        unfinished_line: the number of the last line if it has no end yet, once it was read; otherwise 0.
    """

    table: str
    form: str
    target: str | type | None
    notes: list[str]
    unfinished_line: int

    def why_other(self, state: ImportState) -> str:
        """Return why these are not the rows that a state counts, with more rows after them; "" if they are."""

    def batches(self, state: ImportState, max_rows: int = BATCH_ROWS) -> Generator[Batch]:
        """Yield the rows after a state: a new one, or the one for which `why_other` was called last.

        Raises:
            ConfigurationError: a row cannot be imported; the message names it. The rows before it were yielded.
            StorageError: the file cannot be read.
        """

    def where_is(self, place: int) -> str:
        """Return how errors name a row."""
