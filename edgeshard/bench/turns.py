"""How long processes wait that only compute: what the machine itself does to the worst commit of many agents.

With more processes than processors each is stopped in the middle of its work until it is its turn again, and so is a
commit. No way to store rows has a worst commit below this, where as many agents are always busy.

``python -m edgeshard.bench.turns PROCESSES SECONDS`` prints each process's longest wait, in ns, one a line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

_NS: Final = 1_000_000_000
#: Until all are there and begin.
_LEAD_NS: Final = 300_000_000


def longest_waits_s(processes: int, length_s: float) -> list[float]:
    """The longest wait of each process, in seconds, in a crew that does nothing but look at the clock."""
    command = [sys.executable, "-m", __name__, str(processes), str(length_s)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [int(line) / _NS for line in printed.split()]


def _main(processes: int, length_s: float) -> None:
    begin_ns = time.monotonic_ns() + _LEAD_NS
    reading, writing = os.pipe()
    for _ in range(processes):
        if os.fork() == 0:
            os.write(writing, b"%d\n" % _longest_wait_ns(begin_ns, begin_ns + int(length_s * _NS)))
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as lines:
        sys.stdout.write(lines.read())
    for _ in range(processes):
        os.wait()


def _longest_wait_ns(begin_ns: int, end_ns: int) -> int:
    time.sleep(max(0.0, (begin_ns - time.monotonic_ns()) / _NS))
    longest, last = 0, time.monotonic_ns()
    while last < end_ns:
        now = time.monotonic_ns()
        longest = max(longest, now - last)
        last = now
    return longest


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]))
