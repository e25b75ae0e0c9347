"""Write the rows of the soak, and record what was acknowledged.

The content of row n of a session follows from agent, session and n. A session is one opening of one shard, and so one
stream. Before a write its writer records in the ledger how far the write will go, and after it that the write was
acknowledged. If it is killed in between, the master must have the whole write, or nothing of it.

Run as ``python -m tests.crash.soak.writer JOB``, with the job as JSON, this is a writer.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import mmap
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import attrs

import edgeshard
from edgeshard.options import Durability

NOON = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)

#: Sessions that a life may have; the number of a session is life * SESSIONS_MAX + its place.
SESSIONS_MAX = 100
#: Every so many rows one is larger by a factor: it takes several pages in a shard and in a master.
LARGE_EVERY = 50
LARGE = 60


@attrs.frozen
class Sample:
    """An ordinary row."""

    session: int
    n: int
    text: str


@edgeshard.table(index=["session"])
@attrs.frozen
class Measurement:
    """A row of an indexed table with columns of other types, one of them often NULL."""

    session: int
    n: int
    text: str
    at: datetime.datetime
    value: float | None


@attrs.frozen
class Picture:
    """A row with bytes."""

    session: int
    n: int
    text: bytes


def text_of(agent: str, session: int, n: int) -> str:
    """Return the text that row n of a session must hold."""
    digest = hashlib.blake2b(f"{agent}/{session}/{n}".encode(), digest_size=12).hexdigest()
    return digest * (1 if n % LARGE_EVERY else LARGE)


def table_of(n: int) -> str:
    """Return the table of row n of a session."""
    return ("agent_data", "agent_data", "sample", "measurement", "picture")[n % 5]


def record_of(agent: str, session: int, n: int) -> Any:
    """Return row n of a session."""
    text, table = text_of(agent, session, n), table_of(n)
    if table == "sample":
        return Sample(session, n, text)
    if table == "measurement":
        return Measurement(session, n, text, NOON + datetime.timedelta(seconds=n), n / 7 if n % 2 else None)
    if table == "picture":
        return Picture(session, n, text.encode())
    return {"session": session, "n": n, "text": text}


#: What a writer prints on stderr each time the shard is in use.
IN_USE = "IN USE"
#: How long it keeps trying, in seconds.
OPENING_S = 10.0


# -- the ledger -------------------------------------------------------------------------------------------------------

_ENTRY = struct.Struct("<qq16s")


@attrs.frozen
class Entry:
    """What is known about a session's rows.

    Attributes:
        begun: how many rows it may have written.
        acknowledged: how many of them were acknowledged.
        stream: the stream's id, or zeros if the first write was not acknowledged.
    """

    begun: int
    acknowledged: int
    stream: bytes

    @property
    def knows_stream(self) -> bool:
        return any(self.stream)


class Ledger:
    """A mapped file: its content outlives the writer, however that is killed.

    Each number is stored by one assignment of eight bytes, so it is never read half-written.
    """

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._numbers = memoryview(self._map).cast("q")

    @staticmethod
    def make(path: Path, sessions: int) -> None:
        path.write_bytes(bytes(_ENTRY.size * sessions))

    def begin(self, place: int, rows: int) -> None:
        self._numbers[place * _ENTRY.size // 8] = rows

    def acknowledge(self, place: int, rows: int, stream: str) -> None:
        start = place * _ENTRY.size
        self._map[start + 16 : start + 32] = bytes.fromhex(stream)
        self._numbers[start // 8 + 1] = rows

    @staticmethod
    def read(path: Path) -> list[Entry]:
        return [Entry(*values) for values in _ENTRY.iter_unpack(path.read_bytes())]


# -- the writer -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Session:
    """One opening of a shard: which agent opens it, how it writes, and for how long at most."""

    agent: str
    pace: str
    seconds: float
    rows_max: int
    durability: str


@attrs.frozen
class Job:
    """What a writer process shall do, from its start to its end."""

    root: str
    ledger: str
    life: int
    sessions: list[Session]

    def as_json(self) -> str:
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        values = json.loads(text)
        return cls(**{**values, "sessions": [Session(**session) for session in values["sessions"]]})


# (rows of a write at the most, writes before a pause, seconds of the pause)
_Beat = tuple[int, int, float]

#: How writers write: bursts and pauses; a row every few milliseconds; a row after a long quiet time; without pause.
PACES: dict[str, Callable[[random.Random], _Beat]] = {
    "burst": lambda rng: (rng.choice([1, 1, 12, 300]), rng.randrange(1, 60), rng.uniform(0.1, 2.0)),
    "trickle": lambda rng: (1, 1, rng.uniform(0.002, 0.05)),
    "quiet": lambda rng: (rng.choice([1, 1, 3]), 1, rng.uniform(1.0, 5.0)),
    "flood": lambda rng: (rng.choice([1, 1, 1, 12]), 50, 0.0),
}


class Writer:
    """Plays the sessions of a job one after the other, until told to stop."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._ledger = Ledger(Path(job.ledger))
        self._over = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._over.set())

    def run(self) -> None:
        for place, session in enumerate(self._job.sessions):
            if self._over.is_set():
                return
            with self._open(session) as shard:
                self._play(shard, place, session)

    def _open(self, session: Session) -> edgeshard.Shard:
        """Open the shard; retry while a merger that was stopped while removing the empty shard holds its lock."""
        store, durability = edgeshard.Store(self._job.root), cast(Durability, session.durability)
        end = time.monotonic() + OPENING_S
        while True:
            try:
                return store.shard(session.agent, durability=durability)
            except edgeshard.ShardInUseError as error:
                print(f"{IN_USE}: {error}", file=sys.stderr, flush=True)
                if time.monotonic() > end:
                    raise

    def _play(self, shard: edgeshard.Shard, place: int, session: Session) -> None:
        number = self._job.life * SESSIONS_MAX + place
        rng = random.Random(f"session-{number}")
        n = 0
        for size in self._sizes(rng, session):
            records = [record_of(session.agent, number, n + k) for k in range(size)]
            self._ledger.begin(place, n + size)
            write(shard, records, rng, n)
            n += size
            self._ledger.acknowledge(place, n, shard.stream)

    def _sizes(self, rng: random.Random, session: Session) -> Iterator[int]:
        """Yield the size of each write when it is time for it."""
        end = time.monotonic() + session.seconds
        rows = 0
        while time.monotonic() < end and not self._over.is_set():
            size_max, writes, pause_s = PACES[session.pace](rng)
            for _ in range(writes):
                size = min(rng.randint(1, size_max), session.rows_max - rows)
                if size <= 0 or self._over.is_set():
                    return
                yield size
                rows += size
            self._over.wait(pause_s)


def write(shard: edgeshard.Shard, records: list[Any], rng: random.Random, before: int) -> None:
    """Write records in one transaction, in one of several ways."""
    if len(records) == 1:
        seq = shard.write(records[0])
        assert seq == before + 1, f"seq {seq} after {before} rows"
    elif rng.random() < 0.5:
        assert shard.write_many(records) == len(records)
    else:
        with shard.transaction():
            for record in records:
                shard.write(record)


if __name__ == "__main__":
    Writer(Job.from_json(sys.argv[1])).run()
