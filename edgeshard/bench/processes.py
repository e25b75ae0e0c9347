"""What the system says of processes: processor time, bytes written, memory. From /proc; elsewhere nothing is said.

Written bytes are /proc/PID/io's write_bytes: pages that a process made dirty, each counted again once it had been
written out, without those that were dropped before (cancelled_write_bytes). That is what goes to the disk on these
processes' behalf, without the file system's own journal. The disk's own counter has that too, but also what everybody
else writes on the machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import attrs

_KIB = 1024
_SECTOR = 512


@attrs.frozen
class Usage:
    """What processes have used up so far.

    Attributes:
        cpu_s: processor time, in seconds, children that have ended included where their parent waited for them.
        written_bytes: as the module says.
    """

    cpu_s: float
    written_bytes: int

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.cpu_s - other.cpu_s, self.written_bytes - other.written_bytes)


def are_visible() -> bool:
    """Whether this system says anything of processes."""
    return sys.platform == "linux"


def family(pids: Iterable[int]) -> list[int]:
    """Processes, and all their descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        found.append(pid := waiting.pop())
        waiting += children.get(pid, [])
    return found


def usage(pids: Iterable[int]) -> Usage:
    """What processes have used up."""
    cpu_s, written = 0.0, 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            cpu_s += _cpu_s(pid)
            fields = _fields(Path(f"/proc/{pid}/io").read_text())
            written += int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])
    return Usage(cpu_s, written)


def _cpu_s(pid: int) -> float:
    """Processor time by clock_getcpuclockid(3), to the nanosecond; Python offers its arithmetic for itself alone."""
    own = time.clock_gettime((~pid << 3) | 2)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Iterable[int]) -> int:
    """The memory of processes, in which a page that several of them share counts as one (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, KeyError):
            fields = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
            total += int(fields["Pss"].split()[0]) * _KIB
    return total


def peak_bytes(pids: Iterable[int]) -> int:
    """The sum of the most resident memory that each of the processes ever had; what they share counts for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, KeyError):
            total += int(_fields(Path(f"/proc/{pid}/status").read_text())["VmHWM"].split()[0]) * _KIB
    return total


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def device_bytes(folder: Path) -> int | None:
    """What has been written to the block device below a folder, by everybody; None where nothing says."""
    device = os.stat(folder).st_dev
    with contextlib.suppress(OSError):
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        return int(fields[6]) * _SECTOR
    return None


def disk_bytes(folder: Path) -> int:
    """The room that the files below a folder take on the disk."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(base, name)).st_blocks * 512
    return total
