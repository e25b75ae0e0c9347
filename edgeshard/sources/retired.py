"""Read the retired streams of a source: their rows were held there, or in the master it was made of, and pruned."""

from __future__ import annotations

import datetime
import json
from typing import Final

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError
from edgeshard.files import paths
from edgeshard.format.ranges import PrunedRange, Range
from edgeshard.sources import bounds, streams
from edgeshard.sources.source import Source, SourceStream
from edgeshard.sqlite import Connection, quote

#: The most retired streams that one transaction merges: each leaves entries in the target, which takes some 0.2 ms.
STREAMS_MAX: Final = 150

_ACTION: Final = "read database"

#: 9999-12-31, the last time that can be written in ISO 8601.
_TIME_MAX_S: Final = 253_402_214_400


def with_news(connection: Connection, source: Source) -> list[SourceStream]:
    """Return retired streams with rows that the main database neither held nor knows to be pruned there.

    Each is a stream without rows, of which all were pruned. There may be more than `STREAMS_MAX` of them, which is how
    many are returned at most; the next transaction reads what is left.

    Args:
        connection: the connection whose main database is the target.
        source: the attached database.

    Raises:
        DamagedError: the source holds values that cannot be right.
    """
    if source.is_shard:
        return []
    schema = quote(source.schema)
    held_to, noted_to = streams.HELD_TO.format("1"), streams.NOTED_TO.format("1", "g.database_id")
    with bounds.bounded(connection, source.schema):
        rows = sqlite.fetch_typed(
            connection,
            source.path,
            (bytes, int, bytes, str, str, int),
            "SELECT r.stream_id, r.last_seq, g.database_id, g.agent_id, g.rows, g.retired_at "
            f"FROM {schema}._edgeshard_retired r JOIN {schema}._edgeshard_retirements g USING (group_no) "
            f"{streams.JOIN_KNOWN.format('r')} WHERE {held_to} < r.last_seq AND {noted_to} < r.last_seq LIMIT ?",
            (STREAMS_MAX,),
        )
    return [_stream(source, *row) for row in rows]


def _stream(
    source: Source, stream_id: bytes, last_seq: int, database_id: bytes, agent: str, rows: str, retired_at: int
) -> SourceStream:
    ids_are_valid = len(stream_id) == len(database_id) == streams.ID_BYTES
    numbers_are_valid = 1 <= last_seq <= format.SEQ_MAX and 0 <= retired_at <= _TIME_MAX_S
    if not ids_are_valid or not numbers_are_valid or len(agent) > paths.AGENT_NAME_MAX:
        raise DamagedError(_ACTION, source.path, "a retired stream has an invalid id, agent, time or number of rows")
    pruned_at = datetime.datetime.fromtimestamp(retired_at, datetime.UTC).isoformat()
    pruned = PrunedRange(Range(1, last_seq), database_id, _reason(source, rows), pruned_at)
    return SourceStream(0, stream_id, agent, "", (), (), last_seq, False, (pruned,))


def _reason(source: Source, rows: str) -> str:
    """Return the rule that selected most rows of a group."""
    try:
        counts = json.loads(rows)
        if not isinstance(counts, dict):
            raise ValueError("not counts")
        reason: str = max(sorted(counts), key=lambda each: int(counts[each]))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DamagedError(_ACTION, source.path, "a group of retired streams has invalid counts") from error
    if len(reason) > streams.REASON_CHARS_MAX:
        raise DamagedError(_ACTION, source.path, "a group of retired streams has invalid counts")
    return reason
