"""What the agents write: how many they are, how fast, how much at once, and each row's contents.

A row's payload follows from its agent and its number, so that whoever reads it back can tell whether it is the one
that was written.
"""

from __future__ import annotations

import base64
import random
from typing import Final, Literal

import attrs

#: What an acknowledged row survives: a kill of the process that wrote it, or a power cut as well.
Durability = Literal["process", "power"]
DURABILITIES: Final = ("process", "power")

_FILLER_BYTES: Final = 1 << 16
_FILLER: Final = base64.b64encode(random.Random(1).randbytes(_FILLER_BYTES)).decode()  # noqa: S311  # nothing is secret


@attrs.define(eq=False)  # not frozen, which takes three times as long to make: it is the systems that are measured
class Result:
    """A row: what an agent found out.

    Attributes:
        agent: the number of the agent that wrote it, from 0.
        number: its number among that agent's rows, from 0.
        at_ns: when it was about to be written, in ns of the clock that all processes share.
        payload: ASCII text.
    """

    agent: int
    number: int
    at_ns: int
    payload: str


@attrs.frozen
class Workload:
    """What is asked of a system.

    Attributes:
        durability: what an acknowledged row has to survive.
        agents: how many processes write.
        rate: rows a second that each of them offers; None: as many as it can.
        commit_rows: rows in a commit.
        payload_bytes: the size of a row's payload.
        length_s: for how long they write, in seconds.
    """

    durability: Durability
    agents: int
    rate: float | None = None
    commit_rows: int = 1
    payload_bytes: int = 100
    length_s: float = 1.0

    def __str__(self) -> str:
        agents = "1 agent" if self.agents == 1 else f"{self.agents} agents"
        pace = "as fast as they can" if self.rate is None else f"{self.rate:g} rows/s each"
        if self.agents == 1:
            pace = pace.replace("they", "it").replace(" each", "")
        commit = "a row a commit" if self.commit_rows == 1 else f"{self.commit_rows} rows a commit"
        return f"{agents}, {pace}, {commit}, {size(self.payload_bytes)} a row"


def size(count: float) -> str:
    """A number of bytes, as people say it."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def payload(agent: int, number: int, length: int) -> str:
    """The payload of a row, `length` characters; of text that does not compress, as results are."""
    start = f"{agent}.{number}."
    room = length - len(start)
    if room <= 0:
        return start[-length:]
    offset = (agent * 7_919 + number * 104_729) % (len(_FILLER) - room)
    return start + _FILLER[offset : offset + room]
