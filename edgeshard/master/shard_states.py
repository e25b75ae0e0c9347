"""Own _edgeshard_shards: the saved part of merge/shard_cache. Losing it costs one rescan."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from edgeshard import format, sqlite
from edgeshard.files import fingerprint
from edgeshard.files.fingerprint import State
from edgeshard.sqlite import Connection


def load_states(connection: Connection) -> dict[str, tuple[State, str, bool]]:
    """Return (state, reason, is_denied) of each shard file by name, as the last merges found it.

    The state is () if the file may have something new. It is also () if another version of edgeshard recorded it, or if
    it was recorded before the last boot: a later version may read what an earlier one could not, and a power cut may
    undo the change of a file's times but not that of its content. The reason says why the file is quarantined, or is
    "", and is_denied whether it is only that the merger had no permission.
    """
    states = {}
    for name, text, reason, is_denied in sqlite.fetch(
        connection, "SELECT name, state, reason, is_denied FROM main._edgeshard_shards"
    ):
        mark, _, state = text.partition(" ")
        states[name] = (fingerprint.parse_state(state) if mark == _validity_mark() else (), reason, bool(is_denied))
    return states


def load_notes(connection: Connection) -> list[tuple[str, str, str, int, str | None]]:
    """Return (name, state as it is stored, reason, is_denied, when rows last came) of each recorded shard file."""
    return sqlite.fetch(connection, "SELECT name, state, reason, is_denied, merged_at FROM main._edgeshard_shards")


def save_states(connection: Connection, states: Iterable[tuple[str, State, str, bool]], removed: Iterable[str]) -> None:
    """Record (name, state, reason, is_denied) of shard files, and forget removed ones; see `load_states`."""
    connection.executemany(
        "INSERT INTO main._edgeshard_shards(name, state, reason, is_denied) VALUES (?, ?, ?, ?) "
        "ON CONFLICT(name) DO UPDATE "
        "SET state = excluded.state, reason = excluded.reason, is_denied = excluded.is_denied",
        [(name, format_state(state), reason, int(is_denied)) for name, state, reason, is_denied in states],
    )
    connection.executemany("DELETE FROM main._edgeshard_shards WHERE name = ?", [(name,) for name in removed])


def format_state(state: State) -> str:
    """Return a state as it is stored."""
    return f"{_validity_mark()} {fingerprint.format_state(state)}" if state else ""


def _validity_mark() -> str:
    """Return the mark of the states that are valid: those that this version recorded since the last boot."""
    return f"{format.VERSION}/{fingerprint.boot_id()}"


def record_merge(connection: Connection, name: str) -> None:
    """Record that rows of a shard file were merged just now, in the same transaction."""
    connection.execute(
        "INSERT INTO main._edgeshard_shards(name, merged_at) VALUES (?1, ?2) "
        "ON CONFLICT(name) DO UPDATE SET merged_at = ?2",
        (name, datetime.datetime.now(datetime.UTC).isoformat()),
    )
