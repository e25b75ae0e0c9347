"""Fork processes that a test may kill, and that count their work in memory shared with the test."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import traceback
from collections.abc import Callable

import attrs


@attrs.define
class Life:
    """A process, from its fork to its end.

    Attributes:
        pid: the process.
        shared: its counter, which only grows.
        run: the number of its run of rows; -1 if it writes none.
        rows: how many rows it shall write.
        killed: whether it was killed.
        status: its exit status; None while it is alive.
    """

    pid: int
    shared: mmap.mmap
    run: int = -1
    rows: int = 0
    killed: bool = False
    status: int | None = None

    @property
    def count(self) -> int:
        """Return its count."""
        number: int = struct.unpack("q", self.shared[:])[0]
        return number

    def is_alive(self) -> bool:
        """Return whether it is alive; a process that ended by itself must have succeeded."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended(status)
        return self.status is None

    def kill(self) -> bool:
        """Send SIGKILL; return False if the process had ended before."""
        if not self.is_alive():
            return False
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.killed = os.WIFSIGNALED(status)
        self._ended(status)
        return self.killed

    def wait(self) -> None:
        """Wait until it ends by itself."""
        if self.status is None:
            self._ended(os.waitpid(self.pid, 0)[1])

    def _ended(self, status: int) -> None:
        self.status = status
        assert self.killed or status == 0, f"a process ended with {os.waitstatus_to_exitcode(status)}"


Count = Callable[[int], None]


def begin(work: Callable[[Count], None], run: int = -1) -> Life:
    """Fork a process that does this work. No database may be open here."""
    shared = mmap.mmap(-1, 8)

    def count(number: int) -> None:
        shared[:] = struct.pack("q", number)

    pid = os.fork()
    if pid:
        return Life(pid, shared, run)
    try:
        work(count)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)
