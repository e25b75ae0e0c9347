"""Own edgeshard_shards: what the last merges found in each shard's file. This is a cache; losing it costs one rescan."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from edgeshard import format, sqlite
from edgeshard.files import fingerprint, scan
from edgeshard.files.scan import State
from edgeshard.sqlite import Connection


def load_states(connection: Connection) -> dict[str, tuple[State, str]]:
    """What the last merges found of the shard files, by name: (state, problem); a state only where there is no news.

    What one version cannot read, a later one may. And a power cut may take the change of a file's time, and leave that
    of what is in it. So a state that another version noted, or that was noted before the last start, is none.
    """
    looks = {}
    for name, text, problem in sqlite.fetch(connection, "SELECT name, state, problem FROM edgeshard_shards"):
        noted_by, _, state = text.partition(" ")
        looks[name] = (scan.state_of(state) if noted_by == _noting() else (), problem)
    return looks


def load_notes(connection: Connection) -> list[tuple[str, str, str, str | None]]:
    """Return (name, state as it is stored, problem, when rows last came) of each shard file that a merge noted."""
    return sqlite.fetch(connection, "SELECT name, state, problem, merged_at FROM main.edgeshard_shards")


def save_states(connection: Connection, looks: Iterable[tuple[str, State, str]], gone: Iterable[str]) -> None:
    """Remember (name, state, problem) of shard files; those with a state need no further look until they change."""
    connection.executemany(
        "INSERT INTO edgeshard_shards(name, state, problem) VALUES (?, ?, ?) "
        "ON CONFLICT(name) DO UPDATE SET state = excluded.state, problem = excluded.problem",
        [(name, state_note(state), problem) for name, state, problem in looks],
    )
    connection.executemany("DELETE FROM edgeshard_shards WHERE name = ?", [(name,) for name in gone])


def state_note(state: State) -> str:
    """A state as it is noted."""
    return f"{_noting()} {scan.state_text(state)}" if state else ""


def _noting() -> str:
    return f"{format.VERSION}/{fingerprint.boot_id()}"


def note_merge(connection: Connection, name: str) -> None:
    """Note that rows of the shard file came just now, in the transaction that brings them."""
    connection.execute(
        "INSERT INTO main.edgeshard_shards(name, merged_at) VALUES (?1, ?2) "
        "ON CONFLICT(name) DO UPDATE SET merged_at = ?2",
        (name, datetime.datetime.now(datetime.UTC).isoformat()),
    )
