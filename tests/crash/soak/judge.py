"""Judge the soak: compare every row of the master with what the writers were told.

It reads the master with plain SQL, and trusts nothing of edgeshard but the names of its tables: neither the ranges nor
verify, which are checked separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw
import attrs

from tests.crash.soak.writer import Entry, table_of, text_of


@attrs.frozen
class Written:
    """A session, as its writer recorded it."""

    agent: str
    entry: Entry


@attrs.define
class Verdict:
    """The findings of the judge.

    Attributes:
        acknowledged: number of acknowledged rows.
        found: rows in the master.
        lost: acknowledged rows that are not there.
        doubled: rows that are there more than once.
        wrong: rows with other values, or another address, than written.
        strange: rows that nobody wrote.
        torn: writes that a kill interrupted, and that are there only in part.
    """

    acknowledged: int = 0
    found: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    strange: int = 0
    torn: int = 0

    @property
    def faults(self) -> list[str]:
        """Return the faults, in words."""
        counts = attrs.asdict(self)
        return [
            f"rows {name}: {counts[name]}" for name in ("lost", "doubled", "wrong", "strange", "torn") if counts[name]
        ]


_COLUMNS = {
    "agent_data": "data ->> 'session', data ->> 'n', data ->> 'text'",
    "sample": "session, n, text",
    "measurement": "session, n, text",
    "picture": "session, n, text",
}


def judge(master: Path, sessions: Mapping[int, Written]) -> Verdict:
    """Judge a master to which nobody writes."""
    verdict = Verdict()
    seen = {number: bytearray(written.entry.begun) for number, written in sessions.items()}
    streams: dict[int, bytes] = {}
    for table, agent, stream, seq, number, n, text in _rows(master):
        verdict.found += 1
        written = sessions.get(number)
        if written is None or not 0 <= n < written.entry.begun:
            verdict.strange += 1
            continue
        verdict.doubled += seen[number][n]
        seen[number][n] = 1
        expected = (table_of(n), written.agent, streams.setdefault(number, stream), n + 1, text_of(agent, number, n))
        verdict.wrong += (table, agent, stream, seq, _text(text)) != expected
    for number, written in sessions.items():
        _account(verdict, written, seen[number], streams.get(number, b""))
    return verdict


def _rows(master: Path) -> Iterator[tuple[Any, ...]]:
    connection = apsw.Connection(str(master), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
        streams = dict(_streams(connection))
        for table in [str(name) for (name,) in tables if name in _COLUMNS]:
            for stream_no, *values in connection.execute(f"SELECT _stream, _seq, {_COLUMNS[table]} FROM {table}"):
                yield (table, *streams[stream_no], *values)
    finally:
        connection.close()


def _streams(connection: apsw.Connection) -> Iterator[tuple[int, tuple[str, bytes]]]:
    for number, agent, stream in connection.execute("SELECT stream_no, agent_id, stream_id FROM _edgeshard_streams"):
        yield number, (agent, stream)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _account(verdict: Verdict, written: Written, seen: bytearray, stream: bytes) -> None:
    """Account for a session: all acknowledged rows are there, and the unfinished write whole or not at all."""
    entry = written.entry
    verdict.acknowledged += entry.acknowledged
    verdict.lost += seen[: entry.acknowledged].count(0)
    verdict.torn += len(set(seen[entry.acknowledged :])) > 1
    verdict.wrong += entry.knows_stream and bool(stream) and entry.stream != stream


def sabotage(master: Path, how: str) -> None:
    """Harm a master in a way that the judge must find."""
    connection = apsw.Connection(str(master), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.execute(_SABOTAGE[how])
        assert connection.changes() == 1, "there was no row to harm"
    finally:
        connection.close()


_SABOTAGE = {
    "lose": "DELETE FROM sample WHERE _id = (SELECT min(_id) FROM sample)",
    "double": "INSERT INTO sample(_id, _stream, _seq, session, n, text) SELECT "
    "(SELECT next_id FROM _edgeshard_database), _stream, _seq, session, n, text FROM sample ORDER BY _id LIMIT 1",
    "change": "UPDATE sample SET text = text || '?' WHERE _id = (SELECT min(_id) FROM sample)",
}
