"""Read what processes used and what the disk wrote, from /proc and /sys. Other systems report nothing.

There are two counts of bytes written. The disk's own counter is what reached the device, from every process and
including the file system's journal. Between two calls of sync, on an otherwise idle machine, it is exactly what a
system wears its flash by. write_bytes in /proc/PID/io belongs to one process, but counts memory that the process made
dirty, in units of the size in which the kernel keeps it: with ext4's large folios, a write of 8 KB to PostgreSQL's log
counted as ten times as much (measured, Linux 6.18). So the tables show the disk's counter; the JSON has both.
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
class ProcessUsage:
    """Total usage of some processes so far.

    Attributes:
        cpu_s: processor time in seconds, including ended children that their parent waited for.
        dirtied_bytes: write_bytes minus cancelled_write_bytes; see the module.
    """

    cpu_s: float
    dirtied_bytes: int

    def __sub__(self, other: ProcessUsage) -> ProcessUsage:
        return ProcessUsage(self.cpu_s - other.cpu_s, self.dirtied_bytes - other.dirtied_bytes)


def is_supported() -> bool:
    """Whether this operating system reports the usage of processes."""
    return sys.platform == "linux"


def with_descendants(pids: Iterable[int]) -> list[int]:
    """Return the processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    to_visit = list(pids)
    while to_visit:
        found.append(pid := to_visit.pop())
        to_visit += children.get(pid, [])
    return found


def process_usage(pids: Iterable[int]) -> ProcessUsage:
    """Sum up the usage of processes; those that have ended count as nothing."""
    cpu_s, dirtied = 0.0, 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            cpu_s += _cpu_s(pid)
            fields = _fields(Path(f"/proc/{pid}/io").read_text())
            dirtied += int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])
    return ProcessUsage(cpu_s, dirtied)


def _cpu_s(pid: int) -> float:
    """Return a process's CPU time, its own to the nanosecond.

    Python wraps clock_getcpuclockid(3) for threads only, so we compute the clock's id as that function does.
    """
    own = time.clock_gettime((~pid << 3) | 2)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes; a page that several of them share counts once (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, KeyError):
            fields = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
            total += int(fields["Pss"].split()[0]) * _KIB
    return total


def peak_memory_bytes(pids: Iterable[int]) -> int:
    """Return the sum of each process's peak resident memory; shared pages count for each process."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, KeyError):
            total += int(_fields(Path(f"/proc/{pid}/status").read_text())["VmHWM"].split()[0]) * _KIB
    return total


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def device_bytes_written(folder: Path) -> int | None:
    """Return what all processes have written to the folder's block device, or None if it cannot be determined."""
    device = os.stat(folder).st_dev
    with contextlib.suppress(OSError):
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        return int(fields[6]) * _SECTOR
    return None


def disk_bytes(folder: Path) -> int:
    """Return the disk space that the files below a folder occupy."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(base, name)).st_blocks * 512
    return total
