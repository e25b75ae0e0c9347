"""Note outside the master what shards had brought before they are removed, and learn from these notes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgeshard import sqlite
from edgeshard.budget.policy import Budget
from edgeshard.errors import StorageError
from edgeshard.format.ranges import Range
from edgeshard.log_fields import fields
from edgeshard.master import identity, known_rows, removed_shards
from edgeshard.master.known_rows import KnownRows
from edgeshard.sources.attach import SourceRun
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.merge")


class RemovalNotes:
    """The notes of removed shards, as one merger writes them.

    Args:
        root: the store's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: tuple[bytes | None, int] | None = None

    def learn(self, connection: Connection) -> None:
        """Let a master that was just opened know what the notes say: if it is an older copy, rows are missing from it.

        What it knows already is only recorded with what else the merge records at its end (`take_known`).
        """
        known = identity.notes_known(connection)
        notes = removed_shards.read(self._root, known, is_merging=True)
        self._known = notes.known if notes.known[0] is not None and notes.known != known else None
        if notes.unnamed:
            logger.warning("%s: %s", self._root, notes.unnamed, extra=fields(store=self._root, state="missing"))
        if known_rows.select_unknown(connection, notes.rows):
            with sqlite.immediate(connection):
                known_rows.record(connection, known_rows.select_unknown(connection, notes.rows))
                identity.set_notes_known(connection, notes.known)
                identity.increment_generation(connection)
            self._known = None

    def note(self, removable: Sequence[SourceRun], master_id: bytes, budget: Budget | None) -> None:
        """Note durably what the shards that are about to be removed had brought; those that cannot be noted stay.

        Args:
            removable: these shards; their rows are committed.
            master_id: the master's id.
            budget: the store's disk budget.
        """
        rows = [
            KnownRows(stream_id, agent, Range(1, last), master_id)
            for run in removable
            for stream_id, agent, last in run.outcome.last_seqs
        ]
        if not rows:
            return
        try:
            limit = removed_shards.limit(None if budget is None else budget.max_bytes)
            self._known = removed_shards.record(self._root, rows, limit)
        except StorageError as error:
            logger.warning(
                "%s; the shards of agents that have ended stay until it can be written",
                error,
                extra=fields(store=self._root, error=error),
            )
            for run in removable:
                run.outcome.is_removable = False

    def take_known(self) -> tuple[bytes | None, int] | None:
        """Return what the master should record as known, once; None if there is nothing new."""
        known, self._known = self._known, None
        return known
