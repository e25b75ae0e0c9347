"""What was imported from files of other programs."""

from __future__ import annotations

import attrs

from edgeshard import units
from edgeshard.reports.base import Report


@attrs.frozen(repr=False)
class ImportedTable(Report):
    """What `Store.import_` did with one table of a file; NDJSON and CSV have one.

    Attributes:
        table: the table that the rows went to.
        form: "sqlite", "ndjson" or "csv".
        rows: rows imported now.
        known: rows that had been imported before.
        continues: the name that the file had when these were imported, if it has another one now; otherwise "".
        notes: what should be known of rows that were not imported.
        unfinished_line: the number of the last line, if it has no end yet and is no row: the next import takes it.
        error: why not all rows were imported, or "". Those before the row that it names were.
    """

    table: str
    form: str
    rows: int = 0
    known: int = 0
    continues: str = ""
    notes: tuple[str, ...] = ()
    unfinished_line: int = 0
    error: str = ""


@attrs.frozen(repr=False)
class ImportedFile(Report):
    """What `Store.import_` did with one file.

    Attributes:
        path: the file.
        agent: the agent that its rows are of.
        tables: its tables.
        left_out: what of a SQLite database is not imported: views, virtual tables, columns that SQLite computes.
        error: why nothing of it was imported, or "".
    """

    path: str
    agent: str
    tables: tuple[ImportedTable, ...] = ()
    left_out: tuple[str, ...] = ()
    error: str = ""

    @property
    def errors(self) -> tuple[str, ...]:
        """Each reason why something of it was not imported, with the file."""
        of_tables = (f"import {self.path}: {table.error}" for table in self.tables if table.error)
        return (*([self.error] if self.error else []), *of_tables)


@attrs.frozen(repr=False)
class ImportReport(Report):
    """What `Store.import_` did.

    Attributes:
        files: each file.
        pending: why rows may not be in the master yet, or "". They are in shards, and the next merge takes them.
        seconds: how long it took.
        dry_run: whether nothing was imported.
    """

    _computed = ("rows", "complete")

    files: tuple[ImportedFile, ...] = ()
    pending: str = ""
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def rows(self) -> int:
        """How many rows were imported."""
        return sum(table.rows for file in self.files for table in file.tables)

    @property
    def complete(self) -> bool:
        """Whether all rows were imported and merged, and no note says that some were passed over."""
        notes = [table.notes for file in self.files for table in file.tables if table.notes]
        return not self.pending and not notes and not any(file.errors for file in self.files)

    def _line(self) -> str:
        imported = "would import" if self.dry_run else "imported"
        known = sum(table.known for file in self.files for table in file.tables)
        line = f"{imported} {units.count(self.rows, 'row')} from {units.count(len(self.files), 'file')}"
        line += f", in {self.seconds:.3f} s"
        if known:
            line += f"; {units.count(known, 'row')} had been imported before"
        if errors := sum(len(file.errors) for file in self.files):
            line += f"; {units.count(errors, 'error')}"
        if self.pending:
            line += f"; rows are pending: {self.pending}"
        return line
