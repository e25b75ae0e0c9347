"""Own _edgeshard_retired and _edgeshard_retirements: streams of which the master held and pruned every row.

An agent that is started once for each row makes a stream for each row. Long after its rows are pruned, the master must
still know that it has held them, or an old copy of a shard would bring them back. A *retired* stream keeps only what
that takes: its id, its last seq, and the number of its *group*: about 28 bytes, indexes included. What the streams of a
group have in common, or nearly so, is recorded once for all of them. `edgeshard.master.retirement` moves streams here,
and back as soon as another database has something new about them.

A group has at most `GROUP_STREAMS` streams, of one agent and one shard's file, which retired within `GROUP_S` of one
another. The streams of agents that are too many for that share a group, which does not say who wrote them.

Retired streams are forgotten by group, the oldest group first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

import attrs

from edgeshard import sqlite, units
from edgeshard.master import identity
from edgeshard.records.json_values import to_json
from edgeshard.sqlite import Connection, quote

#: The names of the tables.
TABLES: Final = ("_edgeshard_retired", "_edgeshard_retirements")

#: The most streams of a group.
GROUP_STREAMS: Final = 1_000

#: For how long streams are added to a group, in seconds.
GROUP_S: Final = 30 * 86_400

#: To how many groups streams are added at a time: of so many agents with their shards. They are looked for among the
#: newest groups only, so that adding a stream costs the same however many there are.
OPEN_GROUPS: Final = 100
_NEWEST_GROUPS: Final = 4 * OPEN_GROUPS

#: What a retired stream takes at most, in bytes: its entry, and its part of the group's. Measured by a test.
STREAM_BYTES: Final = 30

#: `Group.began_at` if it is not known when its streams began.
UNKNOWN: Final = -1

#: SQL: the numbers of groups in the parameter ?2, which is JSON.
_LISTED: Final = "SELECT value FROM json_each(?2)"

_GROUP = "SELECT group_no, agent_id, shard, began_at, opened_at, retired_at, streams, rows FROM "


@attrs.frozen
class Group:
    """What some retired streams have in common.

    Attributes:
        number: its number; older groups have lower numbers.
        agent: who wrote all of their rows; "" if these are several.
        shard: the name of the file from which all of their rows are proven; "" if there is none.
        began_at: when the first of them began at the earliest, in seconds since 1970; `UNKNOWN` if that is not known.
        opened_at: when the first of them retired, the same.
        retired_at: when the last of them retired, the same.
        streams: how many there are.
        rows: how many rows they had, by the rule that selected them.
    """

    number: int
    agent: str
    shard: str
    began_at: int
    opened_at: int
    retired_at: int
    streams: int
    rows: Mapping[str, int]


@attrs.frozen
class RetiredStream:
    """A stream of which the master held and pruned every row.

    Attributes:
        stream_id: its 16 random bytes.
        last_seq: its rows are those from 1 to this.
        group: the group it is in.
    """

    stream_id: bytes
    last_seq: int
    group: Group


# -- reading ----------------------------------------------------------------------------------------------------------


def last_seq(connection: Connection, stream_id: bytes) -> int | None:
    """Return the last seq of a retired stream, or None if the stream is not retired."""
    sql = "SELECT last_seq FROM main._edgeshard_retired WHERE stream_id = ?"
    found: int | None = sqlite.scalar(connection, sql, (stream_id,))
    return found


def find(connection: Connection, stream_id: bytes) -> RetiredStream | None:
    """Return a retired stream, or None if the stream is not retired."""
    sql = "SELECT last_seq, group_no FROM main._edgeshard_retired WHERE stream_id = ?"
    rows = sqlite.fetch(connection, sql, (stream_id,))
    if not rows:
        return None
    ((last, number),) = rows
    (group,) = _groups(connection, "WHERE group_no = ?", (number,))
    return RetiredStream(stream_id, last, group)


def in_order_of_id(connection: Connection) -> Iterator[tuple[bytes, int]]:
    """Yield (id, last seq) of each retired stream, in the order of the ids."""
    yield from connection.execute("SELECT stream_id, last_seq FROM main._edgeshard_retired ORDER BY stream_id")


def groups(connection: Connection) -> list[Group]:
    """Return all groups, the oldest first."""
    return list(_groups(connection))


def _groups(connection: Connection, where: str = "", bindings: tuple[int | str, ...] = ()) -> Iterator[Group]:
    sql = f"{_GROUP} main._edgeshard_retirements {where} ORDER BY group_no"
    for number, agent, shard, began_at, opened_at, retired_at, streams, rows in sqlite.fetch(connection, sql, bindings):
        yield Group(number, agent, shard, began_at, opened_at, retired_at, streams, json.loads(rows))


def stream_count(connection: Connection) -> int:
    """Return how many streams are retired."""
    return int(sqlite.scalar(connection, "SELECT coalesce(sum(streams), 0) FROM main._edgeshard_retirements"))


def agents(connection: Connection) -> list[str]:
    """Return the agents that are known of retired streams."""
    sql = "SELECT DISTINCT agent_id FROM main._edgeshard_retirements WHERE agent_id <> ''"
    return [agent for (agent,) in sqlite.fetch(connection, sql)]


def rows_by_reason(connection: Connection) -> Counter[str]:
    """Return how many rows the retired streams had, by the rule that selected them."""
    found: Counter[str] = Counter()
    for group in _groups(connection):
        found.update(group.rows)
    return found


def groups_since(connection: Connection, since_s: float, besides: str) -> list[Group]:
    """Return the groups of which a stream retired since a time.

    Args:
        connection: the master.
        since_s: the time, in seconds since 1970.
        besides: groups whose rows were all pruned for this reason do not count.
    """
    found = _groups(connection, "WHERE retired_at >= ?", (int(since_s),))
    return [group for group in found if group.rows.keys() - {besides}]


# -- adding and removing, in the caller's transaction -----------------------------------------------------------------


def add(
    connection: Connection,
    stream_id: bytes,
    agent: str,
    shard: str,
    began_at: int,
    rows: Mapping[str, int],
    now_s: int,
) -> None:
    """Add a stream.

    Args:
        connection: the master.
        stream_id: its id.
        agent: who wrote it.
        shard: the name of the file from which all of its rows are proven, or "".
        began_at: when it began, in seconds since 1970, or `UNKNOWN`.
        rows: how many rows it had, by the rule that selected them.
        now_s: the time, in seconds since 1970.
    """
    number = _open_group(connection, agent, shard, began_at, now_s)
    (group,) = _groups(connection, "WHERE group_no = ?", (number,))
    connection.execute("INSERT INTO main._edgeshard_retired VALUES (?, ?, ?)", (stream_id, sum(rows.values()), number))
    _write(
        connection,
        attrs.evolve(
            group,
            began_at=min(began_at, group.began_at),
            retired_at=max(now_s, group.retired_at),
            streams=group.streams + 1,
            rows=Counter(group.rows) + Counter(rows),
        ),
    )


def _open_group(connection: Connection, agent: str, shard: str, began_at: int, now_s: int) -> int:
    """Return the number of the group that a stream is added to, which is made if there is none."""
    is_open = (
        "group_no > (SELECT max(group_no) FROM main._edgeshard_retirements) - ? AND streams < ? "
        "AND opened_at BETWEEN ? AND ?"
    )
    bounds = (_NEWEST_GROUPS, GROUP_STREAMS, now_s - GROUP_S, now_s)
    of_agent = (
        f"SELECT group_no FROM main._edgeshard_retirements WHERE {is_open} AND agent_id = ? AND shard = ? LIMIT 1"
    )
    found = sqlite.scalar(connection, of_agent, (*bounds, agent, shard))
    if found is None:
        count = f"SELECT count(*) FROM main._edgeshard_retirements WHERE {is_open}"
        if sqlite.scalar(connection, count, bounds) >= OPEN_GROUPS:
            agent = shard = ""
            found = sqlite.scalar(connection, of_agent, (*bounds, agent, shard))
    if found is not None:
        return int(found)
    connection.execute(
        "INSERT INTO main._edgeshard_retirements(database_id, agent_id, shard, began_at, opened_at, retired_at, "
        f"streams, rows) VALUES ({identity.OWN_ID}, ?, ?, ?, ?, ?, 0, '{{}}')",
        (agent, shard, began_at, now_s, now_s),
    )
    return connection.last_insert_rowid()


def remove(connection: Connection, stream: RetiredStream) -> Mapping[str, int]:
    """Remove a stream; return how many of its rows count for each rule.

    A group only records how many rows of all its streams were pruned by which rule. So which of them were the stream's
    is a choice; in sum it is right.
    """
    rows = _portion(stream.group.rows, stream.last_seq)
    connection.execute("DELETE FROM main._edgeshard_retired WHERE stream_id = ?", (stream.stream_id,))
    left = Counter(stream.group.rows) - Counter(rows)
    _write(connection, attrs.evolve(stream.group, streams=stream.group.streams - 1, rows=left))
    return rows


def _portion(rows: Mapping[str, int], count: int) -> dict[str, int]:
    """Choose `count` of these rows."""
    chosen: dict[str, int] = {}
    for reason, there in sorted(rows.items()):
        taken = min(there, count - sum(chosen.values()))
        if taken:
            chosen[reason] = taken
    return chosen


def _write(connection: Connection, group: Group) -> None:
    if not group.streams:
        connection.execute("DELETE FROM main._edgeshard_retirements WHERE group_no = ?", (group.number,))
        return
    connection.execute(
        "UPDATE main._edgeshard_retirements SET began_at = ?, retired_at = ?, streams = ?, rows = ? WHERE group_no = ?",
        (group.began_at, group.retired_at, group.streams, to_json(dict(group.rows)), group.number),
    )


def copy_all(connection: Connection, schema: str, is_wanted: Callable[[bytes, int], bool]) -> None:
    """Add the retired streams of an attached database that is trusted, into a bundle.

    Args:
        connection: the bundle.
        schema: the name by which the other database is attached.
        is_wanted: returns for the id and the last seq of a stream whether to add it.
    """
    there = quote(schema)
    connection.execute(f"INSERT INTO main._edgeshard_retirements SELECT * FROM {there}._edgeshard_retirements")
    listed = connection.execute(f"SELECT * FROM {there}._edgeshard_retired ORDER BY stream_id")
    connection.executemany(
        "INSERT INTO main._edgeshard_retired VALUES (?, ?, ?)", (row for row in listed if is_wanted(row[0], row[1]))
    )


# -- forgetting -------------------------------------------------------------------------------------------------------


def next_of_groups(connection: Connection, after: bytes, numbers: Collection[int]) -> bytes | None:
    """Return the id of the next retired stream of these groups after an id, or None if there is none."""
    sql = (
        f"SELECT stream_id FROM main._edgeshard_retired WHERE stream_id > ?1 AND group_no IN ({_LISTED}) "
        "ORDER BY stream_id LIMIT 1"
    )
    found: bytes | None = sqlite.scalar(connection, sql, (after, to_json(sorted(numbers))))
    return found


def window_end(connection: Connection, first: bytes, streams: int) -> bytes | None:
    """Return the id of the last of the next `streams` retired streams from an id on, or None if there is no stream."""
    sql = (
        "SELECT max(stream_id) FROM (SELECT stream_id FROM main._edgeshard_retired WHERE stream_id >= ? "
        "ORDER BY stream_id LIMIT ?)"
    )
    found: bytes | None = sqlite.scalar(connection, sql, (first, streams))
    return found


def forget(connection: Connection, after: bytes, last: bytes, numbers: Collection[int]) -> int:
    """Forget the streams of groups with ids after `after` and up to `last`, in the caller's transaction.

    Returns:
        How many were forgotten.
    """
    where = f"stream_id > ?1 AND stream_id <= ?2 AND group_no IN ({_LISTED.replace('?2', '?3')})"
    bindings = (after, last, to_json(sorted(numbers)))
    counted = sqlite.fetch(
        connection,
        f"SELECT group_no, count(*), sum(last_seq) FROM main._edgeshard_retired WHERE {where} GROUP BY group_no",
        bindings,
    )
    connection.execute(f"DELETE FROM main._edgeshard_retired WHERE {where}", bindings)
    for number, streams, rows in counted:
        (group,) = _groups(connection, "WHERE group_no = ?", (number,))
        left = Counter(group.rows) - Counter(_portion(group.rows, rows))
        _write(connection, attrs.evolve(group, streams=group.streams - streams, rows=left))
    return sum(streams for _, streams, _ in counted)


# -- checks -----------------------------------------------------------------------------------------------------------


def errors(connection: Connection) -> Iterator[str]:
    """Check that each retired stream is in a group, that the groups count right, and that none is listed twice."""
    counted = {
        number: (streams, rows)
        for number, streams, rows in connection.execute(
            "SELECT group_no, count(*), sum(last_seq) FROM main._edgeshard_retired GROUP BY group_no"
        )
    }
    for group in _groups(connection):
        streams, rows = counted.pop(group.number, (0, 0))
        recorded = (group.streams, sum(group.rows.values()))
        if recorded != (streams, rows):
            text = f"{units.count(streams, 'stream')} with {units.count(rows, 'row')}"
            text += f", and {recorded[0]:,} with {recorded[1]:,} recorded"
            yield f"group {group.number} of retired streams: it has {text}"
    for number, (streams, _) in counted.items():
        yield f"{units.count(streams, 'stream')} retired in group {number}, which is not listed"
    for stream_id, last in connection.execute(
        "SELECT stream_id, last_seq FROM main._edgeshard_retired WHERE last_seq < 1 OR length(stream_id) <> 16"
    ):
        yield f"stream {stream_id.hex()} is retired, and cannot have {units.count(last, 'row')}"
