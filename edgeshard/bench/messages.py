"""The messages that agents, their host process and the benchmark send each other as pickles."""

from __future__ import annotations

import attrs


class AgentError(Exception):
    """An agent failed; the text is its traceback."""


@attrs.frozen
class Ready:
    """All agents are connected and have committed once. Carries their process ids; those of threads are the same."""

    pids: list[int]


@attrs.frozen
class Failed:
    """An agent failed. Carries the text of the AgentError."""

    reason: str


@attrs.frozen
class Finished:
    """An agent has written its last row.

    Attributes:
        rows: acknowledged rows, including the first commit.
        timed_rows: of these, rows written in the measured time.
        ended_ns: when the last of them was acknowledged.
        refused: how many times the system refused a write.
    """

    rows: int
    timed_rows: int
    ended_ns: int
    refused: int


@attrs.frozen
class Timings:
    """What an agent or the reader timed: nanoseconds as the bytes of an array of unsigned 64-bit integers.

    Attributes:
        commits: duration of each commit, including refused attempts.
        behind: for each commit, time from when it was due to its acknowledgement; empty without a fixed rate.
        stale: from the reader: age of each row when it was first seen.
    """

    commits: bytes = b""
    behind: bytes = b""
    stale: bytes = b""
