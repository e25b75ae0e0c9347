"""How much of a disk a store may take, as pure values and decisions: what writers may add, and what a merge may copy.

    +--------------------- limit: the budget, or less where the file system has no more ----------------------+
    | what is used: shards, their logs, the master and its log | writers' room, shared out | the merger's share |
    +----------------------------------------------------------------------------------------------------------+

A row is for a moment in its shard and in the master, twice there: in the log and in the file. So writers leave a share
for the merger, or it could never drain what they wrote, and the size of all logs once more, since what is in a log is
yet to come into its file. A writer asks nobody before it writes: it has a *grant*, a part of the room that was there
when it last looked, and among as many as write. Grants are small after a quiet time, at the most half of an even share,
and no older than the time in which the store grows by a small part: so all of them together do not exceed the room by
much.

The merger's share is taken in this order, and each part has its bound, so that none relies on another's being small:

    what writers may add beyond their room, between two looks (LOOK_GROWTH_SHARE)         never given to anybody
    a drop's log: it is at work where there is no room (drop_bytes)                       not given to a chunk
    a chunk: in the log and then in the file as well (chunk_bytes, of what is left)       at least one of the least size

A chunk is copied only where it fits with both others still free (merge_room). It takes of the writers' room at the most
the half that is not granted to them. What a shard's truncation writes is a part of the same room: it begins once the
chunk is in the master's file, and the master's log is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import attrs

OnFull = Literal["error", "drop-oldest"]

ON_FULL: Final[tuple[OnFull, ...]] = get_args(OnFull)

#: The smallest budget, in bytes.
LEAST_BYTES: Final = 1_000_000

#: The part of the limit that is kept for merging: more of a small one, up to so many bytes, ...
MERGE_SHARE, MERGE_SHARE_MOST, MERGE_LEAST = 0.12, 0.25, 1_000_000

#: ... and that the logs of all shards may have together, and one of them; each at least and at most so much, in bytes.
LOG_SHARE, ONE_LOG_SHARE, LOG_LEAST, LOG_MOST = 0.10, 0.05, 48 << 10, 4 << 20

#: How large the log of a shard becomes at first: as a part of the limit.
FIRST_LOG_SHARE: Final = 0.001

#: A warning is logged where writers have less room than this part of the limit, and again once they had more.
WARN_SHARE, CALM_SHARE = 0.08, 0.18

#: The part in use above which shards are truncated at once, and merged in turns.
TIGHT_SHARE: Final = 0.4

#: With "drop-oldest": rows are dropped where writers have less room than this part of the limit, until they have that.
DROP_SHARE, DROP_TO_SHARE = 0.10, 0.18

#: The first grant after a quiet time, and the smallest, in bytes.
FIRST_GRANT, LEAST_GRANT = 64 << 10, 4 << 10

#: How often a writer looks, in seconds: rarely, and often where the room comes to an end ...
LOOK_MOST_S, LOOK_LEAST_S = 1.0, 0.1

#: ... or where the store grows by this part of its limit in less time; at least so far apart.
LOOK_GROWTH_SHARE, LOOK_SHORTEST_S = 0.02, 0.02

#: A chunk of a merge is no smaller than this, in bytes; and it is taken to need so many times its size in the master.
CHUNK_LEAST, GROWTH_FIRST, GROWTH_MARGIN = 64 << 10, 1.6, 1.2

#: A chunk of the least size needs so many times its size, in the log and in the file, where rows are as at first.
LEAST_TIMES: Final = 2 * GROWTH_FIRST

#: The part of the limit that the master's log may take before it is copied into the master, and its bounds in bytes ...
MASTER_LOG_SHARE, MASTER_LOG_LEAST, MASTER_LOG_MOST = 0.04, 256 << 10, 32 << 20

#: ... and that of a prune, which has a log of that size, one transaction more of the same, and rests.
PRUNE_LOG_SHARE, PRUNE_LOG_LEAST, PRUNE_LOGS = 0.02, 64 << 10, 3

#: Where rows are dropped: agents that have less than this part of an even share of the rows lose none to the others.
SPARED_SHARE: Final = 0.5

#: What is left of a file system for others: a part of the budget, up to so much, in bytes.
_FREE_SHARE, _FREE_MOST = 0.05, 64 << 20


@attrs.frozen
class Budget:
    """What a store may take, and what happens where that is not enough.

    Attributes:
        max_bytes: all files together, in bytes.
        on_full: "error" refuses writes, and merges for which there is no room; "drop-oldest" deletes the oldest rows of
            the master for them.
    """

    max_bytes: int
    on_full: OnFull = "error"


@attrs.frozen
class Usage:
    """What a store takes, in bytes.

    Attributes:
        shards: the shards, without their logs.
        logs: the logs of the shards.
        master: the master and its log.
        free: what the file system has left.
        open: how many shards have a log: agents have them open, or died.
        active: how many of these were written just now.
    """

    shards: int = 0
    logs: int = 0
    master: int = 0
    free: int = 1 << 62
    open: int = 0
    active: int = 0

    @property
    def used(self) -> int:
        """All of it."""
        return self.shards + self.logs + self.master


@attrs.frozen
class Share:
    """What one writer may do until it looks again.

    Attributes:
        room: what all writers together may add, in bytes.
        grant: by how much this one's file may grow, one row after the other.
        wide: the same within a transaction, which would be undone whole.
        log: how large its log should become.
        look_s: when to look again, in seconds.
    """

    room: int
    grant: int
    wide: int
    log: int
    look_s: float


def limit(budget: Budget, usage: Usage) -> int:
    """What the store may take now: its budget, or less where the file system is smaller than that."""
    kept = min(int(budget.max_bytes * _FREE_SHARE), _FREE_MOST)
    return max(0, min(budget.max_bytes, usage.used + usage.free - kept))


def log_bytes(most: int, count: int) -> int:
    """How large the log of one of `count` open shards should become under a limit."""
    wanted = min(most * LOG_SHARE / max(1, count), most * ONE_LOG_SHARE)
    return max(LOG_LEAST, min(LOG_MOST, int(wanted)))


def merge_bytes(most: int) -> int:
    """What is kept for merging, under a limit: a transaction of a merge, its log, and what a shard gives back by.

    It is enough for the smallest chunk also where writers have added a little more than there was room for.
    """
    least = drop_bytes(most) + 2 * _unseen(most) + LEAST_TIMES * CHUNK_LEAST
    return int(max(most * MERGE_SHARE, min(most * MERGE_SHARE_MOST, MERGE_LEAST), least))


def drop_bytes(most: int) -> int:
    """How large the master's log becomes while rows are dropped."""
    return PRUNE_LOGS * prune_log_bytes(most)


def _unseen(most: int) -> int:
    """What writers may have added since they looked, beyond the room that there was."""
    return int(LOOK_GROWTH_SHARE * most)


def _to_come(most: int, usage: Usage) -> int:
    """What the logs hold, or will, that is yet to come into the files; one that somebody reads for long is longer."""
    return max(usage.logs, _logs_wanted(most, usage))


def _logs_wanted(most: int, usage: Usage) -> int:
    return log_bytes(most, usage.open) * usage.open


def _settled(most: int, usage: Usage) -> Usage:
    """What is used once no log is longer than it should be: no row is dropped for one that somebody reads for long."""
    return attrs.evolve(usage, logs=min(usage.logs, _logs_wanted(most, usage)))


def writers_room(most: int, usage: Usage) -> int:
    """What all writers may add to their files; below 0 where they have more than that already."""
    return most - merge_bytes(most) - usage.used - _to_come(most, usage)


def is_nearly_full(most: int, usage: Usage, *, was_warned: bool) -> bool:
    """Whether writers will soon be refused; once that was said it holds until there is clearly more room."""
    return writers_room(most, usage) < most * (CALM_SHARE if was_warned else WARN_SHARE)


def share(most: int, usage: Usage, spent: int, log: int, rate: float = 0.0) -> Share:
    """What a writer may do.

    Args:
        most: the limit.
        usage: what is used.
        spent: what this writer added since it last looked, in bytes.
        log: how large its log could become until now; it may become twice that: the first of many does not know how
            many there will be.
        rate: how fast the store grew since then, in bytes a second.
    """
    room = max(0, writers_room(most, usage))
    wide = room // 2 // max(1, usage.active)
    least = LEAST_GRANT if room >= LEAST_GRANT else 0
    grant = max(least, min(wide, max(FIRST_GRANT, 2 * spent)))
    look_s = max(LOOK_LEAST_S, min(LOOK_MOST_S, 2 * room / max(1, most)))
    look_s = max(LOOK_SHORTEST_S, min(look_s, LOOK_GROWTH_SHARE * most / max(1.0, rate)))
    log = min(log_bytes(most, usage.open), max(LOG_LEAST, int(most * FIRST_LOG_SHARE), 2 * log))
    return Share(room, grant, max(grant, wide), log, look_s)


def merge_room(most: int, usage: Usage) -> int:
    """By how much a merge may make the store larger, while writers use all that they were granted; or below 0.

    Rows can be dropped after that, whatever it took.
    """
    return merge_most(most, usage) - max(0, writers_room(most, usage)) // 2


def merge_most(most: int, usage: Usage) -> int:
    """The same for a writer's transaction, which is not divided: nobody is to wait for ever; or below 0.

    It may take what writers were granted a moment ago.
    """
    return writers_room(most, usage) + merge_bytes(most) - drop_bytes(most) - _unseen(most)


def chunk_bytes(room: int, free: int, logged: float, growth: float) -> int:
    """How much one transaction of a merge may copy: it takes room in the log, and in the file what is not free there.

    Args:
        room: `merge_room`.
        free: what lies free in the master's file.
        logged: how much larger rows are in the master's log than in a shard.
        growth: the same of the master's file.
    """
    return max(0, int(min(room / logged, (room + free) / (logged + growth))))


def master_log_bytes(most: int) -> int:
    """How large the master's log becomes before a merge copies it into the master."""
    return max(MASTER_LOG_LEAST, min(MASTER_LOG_MOST, int(most * MASTER_LOG_SHARE)))


def prune_log_bytes(most: int) -> int:
    """The same of a prune: it is made where there is no room."""
    return max(PRUNE_LOG_LEAST, int(most * PRUNE_LOG_SHARE))


def is_tight(most: int, usage: Usage) -> bool:
    """Whether shards should give back at once what the master holds."""
    return usage.used > TIGHT_SHARE * most


def bytes_to_drop(most: int, usage: Usage) -> int:
    """How much the master should give back, where rows may be dropped, in bytes."""
    return max(0, int(DROP_TO_SHARE * most) - writers_room(most, _settled(most, usage)))


def is_drop_due(most: int, usage: Usage) -> bool:
    """Whether to drop rows before there is no room at all."""
    return writers_room(most, _settled(most, usage)) < DROP_SHARE * most


def spared(rows: Mapping[str, int]) -> tuple[str, ...]:
    """The agents of which no rows are dropped, as long as others have some: whoever fills the store makes the room.

    Args:
        rows: how many each agent has in the master.
    """
    even = sum(rows.values()) / max(1, len(rows))
    return tuple(sorted(agent for agent, count in rows.items() if count < SPARED_SHARE * even))


def of_json(found: Any) -> Budget:
    """A budget as it is noted.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(found, dict) or found.keys() != {"max_bytes", "on_full"}:
        raise ValueError("max_bytes and on_full are wanted, and nothing else")
    return parse_budget(found["max_bytes"], found["on_full"])


def parse_budget(max_bytes: int, on_full: str) -> Budget:
    """A budget of these figures.

    Raises:
        ValueError: they cannot be.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < LEAST_BYTES:
        raise ValueError(f"max_bytes is a number of bytes from {LEAST_BYTES} on, not {max_bytes!r}")
    for known in ON_FULL:
        if known == on_full:
            return Budget(max_bytes, known)
    raise ValueError(f"on_full is one of {ON_FULL}, not {on_full!r}")


def figures(most: int, budget: Budget, usage: Usage) -> str:
    """What a person needs to know: the limit, and who takes how much."""
    text = (
        f"the store takes {_size(usage.used)} (shards {_size(usage.shards)} and their logs {_size(usage.logs)}, master "
        f"{_size(usage.master)}), and may take {_size(most)}, of which {_size(merge_bytes(most))} are kept for merging"
    )
    if most < budget.max_bytes:
        text += f", since its file system has {_size(usage.free)} left (the budget is {_size(budget.max_bytes)})"
    return text


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
