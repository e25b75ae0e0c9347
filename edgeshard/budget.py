"""How much of a disk a store may take, as pure values and decisions: what writers may add, and what a merge may copy.

    +--------------------- limit: the budget, or less where the file system has no more ----------------------+
    | what is used: shards, their logs, the master and its log | writers' room, shared out | the merger's share |
    +----------------------------------------------------------------------------------------------------------+

A row is for a moment in its shard and in the master, twice there: in the log and in the file. So writers leave a share
for the merger, or it could never drain what they wrote. A writer asks nobody before it writes: it has a *grant*, a part
of the room that was there when it last looked, and among as many as write. Grants are small after a quiet time, and
at the most half of an even share, so that all of them together, each somewhat old, do not exceed the room by much.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import attrs

OnFull = Literal["error", "drop-oldest"]
ON_FULL: Final[tuple[OnFull, ...]] = get_args(OnFull)

#: The smallest budget, in bytes.
LEAST_BYTES: Final = 1_000_000
#: The part of the limit that is kept for merging, ...
MERGE_SHARE: Final = 0.12
#: ... and that the logs of all shards may have together, and one of them; each at least and at most so much, in bytes.
LOG_SHARE, ONE_LOG_SHARE, LOG_LEAST, LOG_MOST = 0.15, 0.05, 48 << 10, 4 << 20
#: How large the log of a shard becomes at first: as a part of the limit.
FIRST_LOG_SHARE: Final = 0.001
#: The part of the limit in use from which on a warning is logged, and below which there may be another.
WARN_SHARE, CALM_SHARE = 0.8, 0.7
#: The part in use above which shards are truncated at once, and merged in turns.
TIGHT_SHARE: Final = 0.4
#: With "drop-oldest", the part in use from which on rows are dropped, and that is left then.
DROP_SHARE, DROP_TO_SHARE = 0.78, 0.70
#: The first grant after a quiet time, and the smallest, in bytes.
FIRST_GRANT, LEAST_GRANT = 64 << 10, 4 << 10
#: How often a writer looks, in seconds: rarely, and often where the room comes to an end.
LOOK_MOST_S, LOOK_LEAST_S = 1.0, 0.1
#: A chunk of a merge is no smaller than this, in bytes; and it is taken to need so many times its size in the master.
CHUNK_LEAST, GROWTH_FIRST, GROWTH_MARGIN = 64 << 10, 1.6, 1.2
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
        count: how many shards there are.
        active: how many of them were written just now.
    """

    shards: int = 0
    logs: int = 0
    master: int = 0
    free: int = 1 << 62
    count: int = 0
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
    """How large the log of one of `count` shards should become under a limit."""
    wanted = min(most * LOG_SHARE / max(1, count), most * ONE_LOG_SHARE)
    return max(LOG_LEAST, min(LOG_MOST, int(wanted)))


def writers_room(most: int, usage: Usage) -> int:
    """What all writers may add to their files, beside their logs, and what these are yet to bring into the files."""
    logs = log_bytes(most, usage.count) * usage.count
    to_come = max(0, logs - usage.logs) + min(logs, usage.logs) // 4
    return most - int(most * MERGE_SHARE) - usage.used - to_come


def share(most: int, usage: Usage, spent: int, log: int) -> Share:
    """What a writer may do.

    Args:
        most: the limit.
        usage: what is used.
        spent: what this writer added since it last looked, in bytes.
        log: how large its log could become until now; it may become twice that: the first of many does not know how
            many there will be.
    """
    room = max(0, writers_room(most, usage))
    wide = room // max(1, usage.active)
    least = LEAST_GRANT if room >= LEAST_GRANT else 0
    grant = max(least, min(wide // 2, max(FIRST_GRANT, 2 * spent)))
    look_s = max(LOOK_LEAST_S, min(LOOK_MOST_S, 2 * room / max(1, most)))
    log = min(log_bytes(most, usage.count), max(LOG_LEAST, int(most * FIRST_LOG_SHARE), 2 * log))
    return Share(room, grant, max(grant, wide), log, look_s)


def merge_room(most: int, usage: Usage) -> int:
    """By how much a merge may make the store larger, while writers go on with what was granted to them."""
    return most - usage.used - max(0, writers_room(most, usage)) // 2


def chunk_bytes(room: int, free: int, growth: float) -> int:
    """How much one transaction of a merge may copy: it takes room in the log, and in the file what is not free there.

    Args:
        room: `merge_room`.
        free: what lies free in the master's file.
        growth: how much larger rows are in the master than in a shard.
    """
    return max(0, int(min(room, (room + free) / 2) / growth))


def is_tight(most: int, usage: Usage) -> bool:
    """Whether shards should give back at once what the master holds."""
    return usage.used > TIGHT_SHARE * most


def bytes_to_drop(most: int, usage: Usage) -> int:
    """How much the master should give back, where rows may be dropped."""
    return max(0, usage.used - int(DROP_TO_SHARE * most))


def is_drop_due(most: int, usage: Usage) -> bool:
    """Whether to drop rows before there is no room at all."""
    return usage.used > DROP_SHARE * most


def of_json(found: Any) -> Budget:
    """A budget as it is noted.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(found, dict) or found.keys() != {"max_bytes", "on_full"}:
        raise ValueError("max_bytes and on_full are wanted, and nothing else")
    return of(found["max_bytes"], found["on_full"])


def of(max_bytes: int, on_full: str) -> Budget:
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
        f"{_size(usage.master)}), and may take {_size(most)}, of which an eighth is kept for merging"
    )
    if most < budget.max_bytes:
        text += f", since its file system has {_size(usage.free)} left (the budget is {_size(budget.max_bytes)})"
    return text


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
