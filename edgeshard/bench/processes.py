"""What the system says of processes and of the disk. From /proc and /sys; elsewhere nothing is said.

Bytes written are known in two ways. The disk's own counter is what reached it, the file system's journal included, of
everybody on the machine: between two calls of sync, on a machine that does nothing else, it is what a system wears its
flash by. /proc/PID/io's write_bytes is of single processes, but counts memory that a process made dirty, by as much as
the kernel keeps together: where ext4 keeps large folios, a write of 8 KB into PostgreSQL's log counted as ten times as
much (measured, Linux 6.18). So the disk's counter is shown, and the other is kept beside it in the JSON.
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
        dirtied_bytes: write_bytes less cancelled_write_bytes; see the module.
    """

    cpu_s: float
    dirtied_bytes: int

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.cpu_s - other.cpu_s, self.dirtied_bytes - other.dirtied_bytes)


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
    cpu_s, dirtied = 0.0, 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            cpu_s += _cpu_s(pid)
            fields = _fields(Path(f"/proc/{pid}/io").read_text())
            dirtied += int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])
    return Usage(cpu_s, dirtied)


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
