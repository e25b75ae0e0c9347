"""The file of a new shard, which its first transaction makes.

Until then there is a *draft*: a database next to where the shard will be, under a name that says it is unfinished. Only
its writer uses it, so it needs no WAL, and what a failed transaction leaves in it is lost with it.

    1  open the shard: make the draft, with the shard's tables
    2  run the first transaction in it, and commit it there
    3  choose the page size by what it wrote; if it differs, copy the draft: SQLite can change it only in a copy
    4  mark it as a WAL database, and make it durable
    5  link it to the shard's name    <- the commit point of the first transaction
    6  make the folder durable, and remove the draft's name

Steps 4 and 6 are needed at durability "process" as well. Without them, a power cut would leave an empty or torn file
under the shard's name, or a WAL without its database, and neither can be told from damage: the agent would be refused
until a person comes.

If the disk is full before 5, or another program keeps the folder locked, the transaction fails like any other: nothing
of it is written, and the next one has a new draft. If the process is killed before 5, there is no shard, and nothing
was acknowledged. The next opening, or a merge, removes the draft.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, ShardPoisonedError
from edgeshard.files import atomic_file, fingerprint, modes, paths, scan
from edgeshard.master import identity
from edgeshard.shard import write_profile

RESCUE: Final = (
    "Move it and its WAL (-wal) away, salvage its rows there with Store.salvage (`edgeshard salvage`), then open the "
    "shard again"
)


def exists(path: str) -> bool:
    """Return whether a shard has its file.

    Raises:
        DamagedError: what is there cannot be one, or is only its WAL or journal: SQLite would copy old pages from that
            into a new file of this name.
    """
    found = scan.find_database(path)
    if found is not None and found.defect:
        raise DamagedError("open shard", found.path, f"{found.defect}. {RESCUE}")
    return found is not None


def remove_leftovers(path: Path) -> None:
    """Remove what is left of drafts of a shard whose openings were killed. The caller holds its lock."""
    for name in os.listdir(path.parent):
        unfinished = paths.UNFINISHED_SHARD.fullmatch(name)
        if unfinished and unfinished[1] == path.stem:
            os.unlink(path.parent / name)


class Draft:
    """A new shard before its first transaction is committed.

    Args:
        path: the shard's path, whose lock the caller holds.
        agent: the agent's name.
        page_bytes: the page size, if the first transaction is not large.
        is_limited: whether the store has a disk budget. Then free pages can be returned to the file system, because a
            merge must be able to shrink the file in steps; that costs a writer 4 % of its rate (measured). And pages
            stay small, because an empty shard with large ones takes eight times as much.

    Attributes:
        connection: the draft, open for writing.
        is_open: whether it can be written to: it was neither published nor discarded.

    Raises:
        apsw.Error, OSError: it cannot be made. Callers wrap this in `sqlite.translate_errors`.
    """

    def __init__(self, path: Path, agent: str, page_bytes: int, *, is_limited: bool) -> None:
        self._path = str(path)
        self._agent = agent
        self._is_limited = is_limited
        self._names = [self._new_name()]
        self.is_open = True
        self._page_bytes = page_bytes
        with contextlib.ExitStack() as failed:
            failed.callback(self._remove)
            script = format.SHARD_TABLES + identity.INSERT_SHARD
            self.connection = sqlite.create_without_wal(
                self._names[0], page_bytes, script, (agent,), format.IDENTITY, shrinkable=is_limited
            )
            failed.callback(self.connection.close)
            self._empty_bytes = fingerprint.size(self._names[0])  # it has no free pages yet
            failed.pop_all()

    def _new_name(self) -> str:
        name = paths.unfinished(self._path, secrets.token_hex(4))
        os.close(modes.create_file(name))
        return name

    def publish(self, folders: int) -> int:
        """Make the shard of what is committed in the draft, durably, and close the draft.

        Args:
            folders: how many folders to sync, from that of the shard upwards.

        Returns:
            How many bytes were written, for the draft as well.

        Raises:
            DamagedError: a WAL or a journal has the shard's name meanwhile.
            ShardPoisonedError: a file has.
            apsw.Error, OSError: it cannot be made; whether it was is unknown.
        """
        self.is_open = False
        try:
            name = self._with_fitting_pages()
            written = sqlite.wal_pages_written(self.connection) * self._page_bytes
            self.connection.close()
            if name != self._names[0]:
                written += fingerprint.size(name)
            sqlite.mark_as_wal(name)
            if exists(self._path) or not atomic_file.publish(name, self._path, levels=folders):
                cause = "another file got its name after it was opened; none of the rows was written. Open it again"
                raise ShardPoisonedError("make shard", self._path, cause)
            return written
        finally:
            self.discard()

    def _with_fitting_pages(self) -> str:
        """Return the name of the draft, or of a copy that has a page size that fits its first transaction better."""
        written = sqlite.used_bytes(self.connection) - self._empty_bytes
        page_bytes = write_profile.page_bytes(self._page_bytes, written)
        if self._is_limited or page_bytes == self._page_bytes:
            return self._names[0]
        self._names.append(self._new_name())
        try:
            sqlite.copy_with_pages(self.connection, self._names[-1], page_bytes)
        except sqlite.DatabaseFailure:  # such as a full disk: the draft is as good, and only slower
            return self._names[0]
        return self._names[-1]

    def renewed(self) -> Draft:
        """Return a new draft of the same shard.

        Raises:
            apsw.Error, OSError: as for this one.
        """
        return Draft(Path(self._path), self._agent, self._page_bytes, is_limited=self._is_limited)

    def discard(self) -> None:
        """Close the draft, and remove what is left of it."""
        self.is_open = False
        self.connection.close()
        self._remove()

    def _remove(self) -> None:
        for name in self._names:
            atomic_file.remove_unfinished(name)
