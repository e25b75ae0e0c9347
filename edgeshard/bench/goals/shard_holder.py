"""A process with many open shards, whose agents are alive: ``python -m edgeshard.bench.goals.shard_holder``.

Its arguments are the store, the number of its first agent, and how many shards to open. It says "ready" on stdout. For
each line on its stdin, a number of rows and of payload bytes, it writes as many rows to each shard in one transaction,
and says "done". It closes the shards at the end of its stdin.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.sample_rows import fill_opened
from edgeshard.bench.servers import python_environment
from edgeshard.store import Store

#: Shards per process: an open shard takes 6 file descriptors, and many systems allow 1,024.
_SHARDS_PER_PROCESS: Final = 100


class LiveShards:
    """Shards of agents that are alive, as a context manager that leaves no process behind.

    Args:
        root: the store.
        count: number of shards.
    """

    def __init__(self, root: Path, count: int) -> None:
        self._root = root
        self._count = count
        self._holders: list[subprocess.Popen[str]] = []

    def __enter__(self) -> LiveShards:
        try:
            for first in range(0, self._count, _SHARDS_PER_PROCESS):
                shards = min(_SHARDS_PER_PROCESS, self._count - first)
                command = [sys.executable, "-m", __name__, str(self._root), str(first), str(shards)]
                self._holders.append(_start(command))
            self._expect("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def write(self, rows: int, payload_bytes: int) -> None:
        """Write rows to each shard, in one transaction of each."""
        for holder in self._holders:
            if holder.stdin is not None:
                holder.stdin.write(f"{rows} {payload_bytes}\n")
                holder.stdin.flush()
        self._expect("done")

    def _expect(self, word: str) -> None:
        for holder in self._holders:
            line = "" if holder.stdout is None else holder.stdout.readline()
            if line.strip() != word:
                raise RuntimeError(f"a process that holds shards has failed; its error is above (it said {line!r})")

    def __exit__(self, *exc_info: object) -> None:
        for holder in self._holders:
            with contextlib.suppress(BrokenPipeError):  # it has failed, and said why
                holder.communicate()


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=python_environment())


def _main(root: str, first: int, count: int) -> None:
    store = Store(root)
    with contextlib.ExitStack() as opened:
        shards = [opened.enter_context(store.shard(f"agent-{number}")) for number in range(first, first + count)]
        _say("ready")
        for rows, payload_bytes in _requests():
            for shard in shards:
                fill_opened(shard, rows, payload_bytes)
            _say("done")


def _requests() -> Iterator[tuple[int, int]]:
    for line in sys.stdin:
        rows, payload_bytes = map(int, line.split())
        yield rows, payload_bytes


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
