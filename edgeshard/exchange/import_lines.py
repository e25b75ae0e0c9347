"""Read NDJSON and CSV files for an import.

What was imported is the beginning of the file, and a digest of its bytes says whether it still is. New rows follow it.
The last line of a file may lack its end. If it is a row it is imported, and only a line end may follow it then;
otherwise it is being written, and is left for the next import.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError
from edgeshard.exchange import import_state, text_rows
from edgeshard.exchange.import_parts import BATCH_BYTES, BATCH_ROWS, Batch
from edgeshard.exchange.import_state import ImportState

_ACTION: Final = "import"

_PIECE_BYTES: Final = 1 << 20

_ROWS: Final[dict[str, Callable[..., Iterator[text_rows.NumberedRow]]]] = {
    import_state.NDJSON: text_rows.ndjson_rows,
    import_state.CSV: text_rows.csv_rows,
}

_OTHER_FILE: Final = (
    "So it is another file, or it was changed or rotated. If the old file has another name now, import that first, as "
    "the same agent: it is known again by its rows, and this file is then a new one. Otherwise import this one as "
    "another agent"
)


class LineReader:
    """Reads the rows of a file of lines, as it is now; see `import_parts.Part`.

    Args:
        path: the file.
        form: "ndjson" or "csv".
        table: the table of dicts that its rows go to.
    """

    def __init__(self, path: str, form: str, table: str) -> None:
        self.table = table
        self.form = form
        self.target: str | type | None = table
        self.notes: list[str] = []
        self.unfinished_line = 0
        self._path = path
        self._size = os.stat(path).st_size
        self._digest = hashlib.sha256()
        self._lines_before = 0

    def where_is(self, place: int) -> str:
        """Return how errors name a row."""
        return f"line {place}"

    def why_other(self, state: ImportState) -> str:
        """Return why the file does not begin with what a state counts; "" if it does."""
        if self._size < state.position:
            return f"{state.position:,} bytes of it were imported, and it has only {self._size:,}. {_OTHER_FILE}"
        self._digest, self._lines_before, last = hashlib.sha256(), 0, b""
        with self._opened() as file:
            if hashlib.sha256(file.read(state.head_bytes)).hexdigest() == state.head:
                file.seek(0)
                for piece in _pieces(file, state.position):
                    self._digest.update(piece)
                    self._lines_before += piece.count(b"\n")
                    last = piece[-1:]
            following = file.read(2)
        if self._digest.hexdigest() != state.fingerprint:
            return f"its first {state.position:,} bytes are not the ones that were imported. {_OTHER_FILE}"
        if last != b"\n" and following and not following.startswith((b"\n", b"\r\n")):
            return (
                f"its line {self._lines_before + 1} had no end when it was imported, and was continued since. Import "
                "the file as another agent; all its rows then come as new"
            )
        return ""

    def batches(self, state: ImportState, max_rows: int = BATCH_ROWS) -> Generator[Batch]:
        """Yield the rows after a state, in batches."""
        if not state.rows:
            self._digest, self._lines_before = hashlib.sha256(), 0
        with self._opened() as file:
            head = list(text_rows.split_lines(io.BytesIO(file.read(state.head_bytes)).read))
            file.seek(state.position)
            lines = _AcceptedLines(file, state.position, self._size, self._digest)
            rows = _ROWS[self.form](itertools.chain(head, lines))
            try:
                if head:
                    next(rows)  # it is imported already
                yield from self._batches(state, rows, lines, self._lines_before - len(head), max_rows)
            except text_rows.HeaderError as error:
                raise ConfigurationError(_ACTION, self._path, f"line 1: {error}") from error

    def _batches(
        self,
        state: ImportState,
        rows: Iterator[text_rows.NumberedRow],
        lines: _AcceptedLines,
        lines_before: int,
        max_rows: int,
    ) -> Iterator[Batch]:
        records: list[Any] = []
        places: list[int] = []

        def batch() -> Batch:
            fingerprint = self._digest.copy().hexdigest()
            rows = state.rows + len(records)
            after = attrs.evolve(state, rows=rows, position=lines.position, fingerprint=fingerprint)
            return Batch(records, places, after)

        for number, row in rows:
            if isinstance(row, text_rows.LineError):
                if records:
                    yield batch()
                if lines.has_no_end:
                    self.unfinished_line = number + lines_before
                    return
                cause = f"line {number + lines_before}: {row}"
                raise ConfigurationError(_ACTION, self._path, cause) from row
            lines.accept()
            if not state.head:
                state = attrs.evolve(state, head=self._digest.copy().hexdigest(), head_bytes=lines.position)
            records.append(row)
            places.append(number + lines_before)
            if len(records) >= max_rows or lines.position - state.position >= BATCH_BYTES:
                full = batch()
                yield full
                state, records, places = full.after, [], []
        if records:
            yield batch()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[io.BufferedReader]:
        with sqlite.translate_errors(_ACTION, self._path), open(self._path, "rb") as file:
            yield file


class _AcceptedLines:
    """Yields lines, and counts and digests the bytes of those that were accepted.

    Attributes:
        position: up to where lines were accepted, in bytes.
    """

    def __init__(self, file: io.BufferedReader, position: int, size: int, digest: Any) -> None:
        self.position = position
        self._file = file
        self._size = size
        self._digest = digest
        self._taken: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        left = iter(_pieces(self._file, self._size - self.position))
        for line in text_rows.split_lines(lambda: next(left, b"")):
            self._taken.append(line)
            yield line

    def accept(self) -> None:
        """Accept the lines that were yielded since the last call."""
        taken = self._bytes_taken()
        self._digest.update(taken)
        self.position += len(taken)
        self._taken = []

    @property
    def has_no_end(self) -> bool:
        """Whether the last line that was yielded is the file's last one, and lacks its end."""
        return not self._bytes_taken().endswith(b"\n")

    def _bytes_taken(self) -> bytes:
        taken = b"\n".join([*self._taken, b""])
        return taken[: self._size - self.position]


def _pieces(file: io.BufferedReader, size: int) -> Iterator[bytes]:
    """Yield the next bytes of a file."""
    while size > 0 and (piece := file.read(min(_PIECE_BYTES, size))):
        yield piece
        size -= len(piece)
