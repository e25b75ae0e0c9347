"""Define what agents write: how many agents, how fast, how many rows in a commit, and the content of each row.

A row's payload is computed from its agent and its number, so a reader can tell whether it is the row that was written.
"""

from __future__ import annotations

import base64
import random
from typing import Final, Literal

import attrs

from edgeshard.bench.units import size

#: What an acknowledged row survives: "process", a kill of the process that wrote it; "power", a power cut as well.
Durability = Literal["process", "power"]
DURABILITIES: Final = ("process", "power")

_FILLER_BYTES: Final = 1 << 16
_FILLER: Final = base64.b64encode(random.Random(1).randbytes(_FILLER_BYTES)).decode()  # noqa: S311  # nothing is secret


@attrs.define(eq=False)  # frozen would triple the time to create one, and the systems are what we measure
class Result:
    """A row: one result of an agent.

    Attributes:
        agent: the number of the agent that wrote it, from 0.
        number: its number among that agent's rows, from 0.
        at_ns: time just before it was written, in ns of the monotonic clock that all processes share.
        payload: ASCII text.
    """

    agent: int
    number: int
    at_ns: int
    payload: str


@attrs.frozen
class Workload:
    """The load that a trial puts on a system.

    Attributes:
        durability: what an acknowledged row has to survive.
        agents: number of writing processes.
        rate: rows per second that each agent offers; None means as fast as it can.
        commit_rows: rows in a commit.
        payload_bytes: size of a row's payload.
        length_s: how long the agents write, in seconds.
    """

    durability: Durability
    agents: int
    rate: float | None = None
    commit_rows: int = 1
    payload_bytes: int = 100
    length_s: float = 1.0

    def __str__(self) -> str:
        agents = "1 agent" if self.agents == 1 else f"{self.agents} agents"
        rate = "unlimited rate" if self.rate is None else f"{self.rate:g} rows/s per agent"
        return f"{agents}, {rate}, {rows_per_commit(self.commit_rows)}, {size(self.payload_bytes)} per row"


def rows_per_commit(rows: int) -> str:
    """Format the number of rows in a commit."""
    return "1 row per commit" if rows == 1 else f"{rows} rows per commit"


def payload(agent: int, number: int, length: int) -> str:
    """Return the payload of a row: `length` characters of text that, like real results, hardly compresses."""
    start = f"{agent}.{number}."
    filler_length = length - len(start)
    if filler_length <= 0:
        return start[-length:]
    offset = (agent * 7_919 + number * 104_729) % (len(_FILLER) - filler_length)
    return start + _FILLER[offset : offset + filler_length]
