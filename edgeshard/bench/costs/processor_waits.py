"""The curve turns: how long processes that only compute wait for a processor, over the number of processes.

If there are more processes than processors, the scheduler stops each process in the middle of its work until its next
turn, and so it stops commits. With as many busy agents, no way to store rows has a worst commit below this wait.

``python -m edgeshard.bench.costs.processor_waits PROCESSES SECONDS`` prints each process's longest wait in ns, one per
line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.curve import Curve, Scale, empty_lines
from edgeshard.bench.spread import Spread

_NS: Final = 1_000_000_000
#: Time for all processes to start, in ns.
_LEAD_NS: Final = 300_000_000
#: How long the processes compute, in seconds: about as long as agents write in the short profile.
_LENGTH_S: Final = 0.7


def turns_curve(_: Path, scale: Scale) -> Curve:
    """Measure the longest wait of processes that only read the clock: the median and the worst process."""
    median, worst = "the median process", "the worst process"
    lines = empty_lines([median, worst])
    for processes in scale.processes:
        rounds = [longest_waits_s(processes, _LENGTH_S) for _ in range(scale.rounds)]
        lines[median].append((processes, Spread.from_values(sorted(waits)[len(waits) // 2] for waits in rounds)))
        lines[worst].append((processes, Spread.from_values(map(max, rounds))))
    return Curve("turns", "The longest wait of processes that only compute", "processes", "s", lines)


def longest_waits_s(processes: int, length_s: float) -> list[float]:
    """Return the longest wait of each process, in seconds, while all of them only read the clock."""
    command = [sys.executable, "-m", __name__, str(processes), str(length_s)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [int(line) / _NS for line in output.split()]


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
