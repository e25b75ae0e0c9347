"""Import files of other programs into a store: ordinary SQLite databases, NDJSON and CSV.

Rows are written through the agent's shard, as by any other writer, and merged at the end. Each file is imported on its
own; if one is refused, the others are still imported.

    1  Merge. Then the master knows which rows are missing from it, if an older one was put back.
    2  For each table of a file, find its state: that of a file with the same name, or one whose rows it begins with. If
       there are new rows, open the agent's shard, which keeps other imports of the agent out, and look again.
    3  Write the new rows in batches. Each is one transaction with the state after it, durable in a power cut. *This is
       the commit point.*
    4  Merge.

If it is killed anywhere, the next import continues after the last batch that was committed: its state is in the same
transaction, so it is there if and only if the rows are (see `edgeshard.exchange.import_state`).

A master that lacks rows of the agent lacks their states as well, and would take the rows again. If the missing rows
then came back, they would be there twice. So while rows of an agent are missing, nothing is imported as this agent.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os
import stat
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import (
    ConfigurationError,
    DamagedError,
    EdgeshardError,
    FormatError,
    MergeInProgressError,
    RecordError,
    StorageError,
    printable,
    quoted,
)
from edgeshard.exchange import import_lines, import_state, import_tables
from edgeshard.exchange.import_parts import Batch, Part
from edgeshard.exchange.import_state import ImportState
from edgeshard.files import fingerprint, paths, store_folder
from edgeshard.records import declare, names
from edgeshard.reports import ImportedFile, ImportedTable, ImportReport, MergeReport
from edgeshard.shard.inserts import AGENT_DATA
from edgeshard.shard.shard import Shard
from edgeshard.sources import ordinary
from edgeshard.sources.ordinary import Database, Table

_ACTION: Final = "import"

_SQLITE_HEADER: Final = b"SQLite format 3\0"

_UNKNOWN_FORM: Final = (
    "it is no SQLite database, NDJSON or CSV (fields separated by commas, names in the first line); if it is "
    "compressed, encrypted or of another form, convert it first"
)

#: Opens the shard of an agent.
OpenShard = Callable[[str], Shard]


@attrs.frozen
class Importer:
    """What an import does with each file.

    Attributes:
        root: the store's folder.
        agent: the agent to import as; None: each file as the agent that has its name.
        table: the table to import, or the name that it gets; None: see `Store.import_`.
        open_shard: opens the shard of an agent, at durability "power".
        dry_run: whether nothing is written.
    """

    root: Path
    agent: str | None
    table: str | None
    open_shard: OpenShard
    dry_run: bool

    def agent_of(self, path: str) -> str:
        """Return the agent as which a file is imported."""
        return os.path.splitext(os.path.basename(path))[0] if self.agent is None else self.agent

    def import_file(self, path: str) -> ImportedFile:
        """Import a file, and report on it; why it cannot be imported is in the report."""
        agent = self.agent_of(path)
        imported = ImportedFile(path, printable(agent) if isinstance(agent, str) else quoted(agent))
        try:
            paths.shard_stem(agent)
            real = os.path.realpath(path)
            _ensure_importable(real, self.root)
            if missing := import_state.missing_rows(self.root, agent):
                raise ConfigurationError(_ACTION, path, _explain_missing(missing, agent, self.root))
            run = _FileRun(self, path, agent)
            with contextlib.ExitStack() as stack:
                stack.callback(run.close)
                parts, refused, left_out = self.parts(real, stack)
                tables = [*map(run.import_part, parts), *refused]
                return attrs.evolve(imported, tables=tuple(tables), left_out=left_out)
        except EdgeshardError as error:
            return attrs.evolve(imported, error=str(error))

    def parts(
        self, path: str, stack: contextlib.ExitStack
    ) -> tuple[Sequence[Part], Sequence[ImportedTable], tuple[str, ...]]:
        """Return the parts of a file, the tables that cannot be imported, and what is left out."""
        form = _form_of(path)
        if form != import_state.SQLITE:
            of_dicts = AGENT_DATA if self.table is None else self.table
            declare.dict_table(of_dicts)
            return [import_lines.LineReader(path, form, of_dicts)], (), ()
        database = stack.enter_context(ordinary.opened(path, "" if self.dry_run else str(self.root)))
        parts: list[Part] = []
        refused = []
        for table, name in _chosen_tables(database, self.table):
            if reason := import_tables.why_not_importable(table, name):
                refused.append(ImportedTable(name, form, error=f"table {table.name}: {reason}"))
            else:
                known_types = import_state.column_types(self.root, name)
                parts.append(import_tables.reader(database, table, name, self.agent, known_types))
        return parts, refused, database.left_out


class _FileRun:
    """The import of one file."""

    def __init__(self, importer: Importer, path: str, agent: str) -> None:
        self._importer = importer
        self._path = path
        self._real = os.path.realpath(path)
        self._agent = agent
        self._source = printable(os.path.basename(path))
        self._shard: Shard | None = None

    def close(self) -> None:
        """Close the shard, if it was opened."""
        if self._shard is not None:
            self._shard.close()

    def import_part(self, part: Part) -> ImportedTable:
        """Import the rows of one table, and report on it; why one cannot be imported is in the report."""
        known = rows = 0
        continues = error = ""
        try:
            with contextlib.ExitStack() as reading:
                while True:
                    states = self._load()
                    state = self._find_state(part, states)
                    known, continues = state.rows, "" if state.source == self._source else state.source
                    reading.close()  # an error must not keep the file open
                    batches = reading.enter_context(contextlib.closing(part.batches(state)))
                    first = next(batches, None)
                    if first is None and continues:  # its name is free for another file from now on
                        first = Batch((), (), state)
                    # if another import of the agent was at work until the shard was opened, look again
                    if first is None or not self._open_shard() or self._load() == states:
                        break
                for batch in itertools.chain([first] if first else [], batches):
                    after = attrs.evolve(batch.after, source=self._source)
                    rows += self._write(part, batch, after)
        except EdgeshardError as refusal:
            error = refusal.cause if refusal.path in (self._path, self._real) else str(refusal)
        return ImportedTable(
            part.table, part.form, rows, known, continues, tuple(part.notes), part.unfinished_line, error
        )

    def _open_shard(self) -> bool:
        """Open the agent's shard, unless it is open or nothing is to be written; return whether it was opened now."""
        if self._shard is not None or self._importer.dry_run:
            return False
        self._shard = self._importer.open_shard(self._agent)
        return True

    def _load(self) -> dict[str, ImportState]:
        return import_state.load(self._importer.root, self._agent)

    def _find_state(self, part: Part, known: dict[str, ImportState]) -> ImportState:
        """Return the state that a part continues, or a new one.

        Raises:
            ConfigurationError: another file was imported under this name.
        """
        candidates = [state for state in known.values() if _are_of(part, state)]
        candidates.sort(key=lambda state: (state.source == self._source, state.rows), reverse=True)
        reason = ""
        for state in candidates:
            part.notes.clear()
            why = part.why_other(state)
            if state.source == self._source:
                reason = reason or why
            if not why and (state.source == self._source or not self._is_next_to(state)):
                return state
        if reason:
            raise ConfigurationError(_ACTION, self._path, reason)
        return import_state.begin(self._agent, self._source, part.table, part.form)

    def _is_next_to(self, state: ImportState) -> bool:
        """Return whether the file that a state is of is in this folder, and so was not renamed.

        Raises:
            StorageError: it cannot be read now. Another file must not be taken for it because of that.
        """
        path = os.path.realpath(os.path.join(os.path.dirname(self._path), state.source))
        try:
            with sqlite.translate_errors(_ACTION, path):
                _ensure_importable(path, self._importer.root)
                if os.path.samefile(path, self._real):
                    return False
            with contextlib.ExitStack() as stack:
                parts, _, _ = self._importer.parts(path, stack)
                return any(_are_of(part, state) and not part.why_other(state) for part in parts)
        except (ConfigurationError, DamagedError, FormatError):  # whatever it is now, the rows are not in it
            return False

    def _write(self, part: Part, batch: Batch, after: ImportState) -> int:
        """Commit a batch with the state after it, and return how many rows it has."""
        if self._shard is not None:  # in a dry run there is none
            try:
                with self._shard.transaction():
                    self._shard.write_many(batch.records, table=part.target)
                    self._shard.write(after)
            except RecordError as error:
                place, cause = self._first_refused(self._shard, part, batch) or (batch.places[0], error.cause)
                raise RecordError(_ACTION, self._path, f"{part.where_is(place)}: {cause}") from error
        return len(batch.records)

    def _first_refused(self, shard: Shard, part: Part, batch: Batch) -> tuple[int, str] | None:
        """Return the place of the first row of a batch that the shard refuses, and why; write nothing."""
        refused = None
        with contextlib.suppress(_UndoError), shard.transaction():
            for place, record in zip(batch.places, batch.records, strict=True):
                try:
                    shard.write(record, table=part.target)
                except RecordError as error:
                    refused = place, error.cause
                    raise _UndoError from error
            raise _UndoError
        return refused


class _UndoError(Exception):
    """Undoes what was written only to see whether it can be."""


def _are_of(part: Part, state: ImportState) -> bool:
    """Return whether a state is one of a file of this form whose rows go to this table."""
    return (state.table_name.lower(), state.form) == (part.table.lower(), part.form)


# -- files ------------------------------------------------------------------------------------------------------------


def import_files(importer: Importer, files: Sequence[str], merge: Callable[[], MergeReport]) -> ImportReport:
    """Import files, and merge their rows; see `Store.import_`.

    Args:
        importer: what to do with each file.
        files: their paths.
        merge: merges the store.
    """
    began = time.monotonic()
    if not importer.dry_run:
        merge()
    imported = tuple(map(importer.import_file, files))
    written = [path for path, file in zip(files, imported, strict=True) if any(map(_has_news, file.tables))]
    pending = ""
    if written and not importer.dry_run:
        pending = _merge(merge, {paths.shard_stem(importer.agent_of(path)) + paths.SHARD for path in written})
    return ImportReport(imported, pending, time.monotonic() - began, importer.dry_run)


def _has_news(table: ImportedTable) -> bool:
    """Return whether anything was written, even if it is only a state."""
    return bool(table.rows or table.continues or table.notes)


def _merge(merge: Callable[[], MergeReport], shards: Set[str]) -> str:
    """Merge what was written to these shards; return why rows of theirs may be pending still, or ""."""
    try:
        report = merge()
    except (MergeInProgressError, StorageError) as error:
        return str(error)
    found = [(each.path, each.reason) for each in report.quarantined]
    found += [(each.path, each.reason) for each in report.blocked]
    return "; ".join(f"{path}: {reason}" for path, reason in found if os.path.basename(path) in shards)


def _ensure_importable(path: str, root: Path) -> None:
    """Refuse what is no file, and what belongs to the store itself.

    Raises:
        ConfigurationError: it is one of these.
        AccessError, StorageIOError: it cannot be examined.
    """
    if path != os.fsencode(path).decode(errors="replace"):
        raise ConfigurationError(_ACTION, path, "its path is not valid UTF-8, which SQLite needs; rename it")
    with sqlite.translate_errors(_ACTION, path):
        mode = fingerprint.mode(path)
    if not mode:
        raise ConfigurationError(_ACTION, path, "there is no such file; check the path")
    if stat.S_ISDIR(mode):
        raise ConfigurationError(_ACTION, path, "it is a folder; name the files in it")
    if not stat.S_ISREG(mode):
        raise ConfigurationError(_ACTION, path, "it is not a regular file; copy what it delivers into one")
    own = (paths.budget(root), paths.damage_note(root), paths.erased(root), paths.refresh(root))
    if Path(path) in own or store_folder.resolve_shards(root) in Path(path).parents:
        raise ConfigurationError(_ACTION, path, "it belongs to the store itself; its rows are there already")


def _form_of(path: str) -> str:
    """Return the form of a file, by its content.

    Raises:
        ConfigurationError: it is empty, or of another form.
        StorageError: it cannot be read.
    """
    # not with open(): closing the file would drop the locks that SQLite holds on it, if this process has it open
    with sqlite.translate_errors(_ACTION, path):
        beginning = next(sqlite.read_raw(path), b"")
    text = beginning.removeprefix(codecs.BOM_UTF8).lstrip()
    if beginning.startswith(_SQLITE_HEADER):
        return import_state.SQLITE
    if not text:
        raise ConfigurationError(_ACTION, path, "it is empty; there is nothing to import yet")
    if b"\0" not in beginning and text.startswith((b"{", b"[")):
        return import_state.NDJSON
    header = text.split(b"\n", 1)[0].rstrip()
    if b"\0" in beginning or not (b"," in header or names.is_column_name(header.decode(errors="replace"))):
        raise ConfigurationError(_ACTION, path, _UNKNOWN_FORM)
    return import_state.CSV


def _chosen_tables(database: Database, wanted: str | None) -> list[tuple[Table, str]]:
    """Return the tables to import, each with the name of its record table.

    Raises:
        ConfigurationError: there are none, or none has the name that the user gave.
    """
    if not database.tables:
        raise ConfigurationError(
            _ACTION, database.path, "it has no table with rows of its own; there is nothing to import"
        )
    if wanted is None:
        return [(table, table.name) for table in database.tables]
    for table in database.tables:
        if table.name.lower() == wanted.lower():
            return [(table, table.name)]
    if len(database.tables) == 1:
        return [(database.tables[0], wanted)]
    listed = ", ".join(table.name for table in database.tables)
    raise ConfigurationError(_ACTION, database.path, f"it has no table {wanted!r}; name one of these: {listed}")


def _explain_missing(rows: int, agent: str, root: Path) -> str:
    return (
        f"{rows:,} rows of agent {agent!r} are missing from the master of {root}, and imported ones may be among them, "
        "which would be there twice if both came. Merge the database that has them (Store.verify says which), or "
        "accept their loss (Store.accept_loss), and import again"
    )
