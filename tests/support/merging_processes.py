"""Run merging processes as a service manager does: start them, wait until they are ready, inspect and stop them.

There are two kinds. "watch" is ``python -m edgeshard.merge ROOT --watch``. "loop" makes the same passes, one per
interval, and does not watch in between: the cost of watching is measured against it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from edgeshard.cli import verbs
from edgeshard.files import locks
from edgeshard.merge import merger
from edgeshard.merge import merger as merger_module
from tests.support.project import PROJECT

Kind = Literal["watch", "loop"]

#: How long to wait for what should happen at once, in seconds: the machine may be busy.
PATIENCE_S = 60.0


def has_option(name: str) -> bool:
    """Return whether this version's merge command has an option: campaigns also run on older and newer versions."""
    return name in verbs.parser_of("merge").format_help()


# -- a process, from outside ------------------------------------------------------------------------------------------


@attrs.frozen
class Figures:
    """What the system reports about a process at one moment."""

    rss_kib: int
    descriptors: int
    threads: int


def figures(pid: int) -> Figures | None:
    """Return the figures of a process, or None if it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return Figures(int(fields["VmRSS"].split()[0]), descriptors, int(fields["Threads"]))
    except (OSError, KeyError):  # a process that has ended, and was not waited for, has no VmRSS
        return None


def cpu_s(pid: int) -> float:
    """Return the processor time of a process, including ended threads, in seconds, precise to the nanosecond.

    By clock_getcpuclockid(3), whose arithmetic Python does not offer for other processes.
    """
    return time.clock_gettime((~pid << 3) | 2)


def ticks_s(pid: int) -> float:
    """Return the processor time as utime and stime in /proc/PID/stat, in steps of 10 ms."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S, every_s: float = 0.01) -> float:
    """Wait until a condition becomes true, and return how long that took, in seconds.

    Raises:
        TimeoutError: it did not become true in time.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"{what}: not in {timeout_s:g} s")
        time.sleep(every_s)
    return time.monotonic() - began


# -- a merging process ------------------------------------------------------------------------------------------------


class Notices:
    """A service manager's end of NOTIFY_SOCKET (sd_notify(3)). It keeps reading, so that no sender has to wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            if b"READY=1" in message.splitlines():
                self.ready.set()
            if message == b"END":
                break
        self._socket.close()

    def close(self) -> None:
        """Stop reading."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", str(self.path))
        self.path.unlink()


class Merger:
    """A merging process on a store, from its start to its end.

    Attributes:
        process: the process.
        log: the file with what it wrote to stdout and stderr.
    """

    def __init__(self, root: Path, scratch: Path, *options: object, kind: Kind = "watch", name: str = "merger") -> None:
        self.log = scratch / f"{name}.log"
        self._notices = Notices(scratch / f"{name}.sock")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                _command(kind, root, options),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env={**os.environ, "NOTIFY_SOCKET": str(self._notices.path)},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_ready(self) -> bool:
        """Return whether it has reported that it watches."""
        return self._notices.ready.is_set()

    def wait_ready(self) -> Merger:
        """Wait until it watches.

        Raises:
            RuntimeError: it ended instead.
        """
        wait_until(lambda: self.is_ready or self.process.poll() is not None, "ready")
        if self.process.poll() is not None:
            raise RuntimeError(f"the merger ended with {self.process.returncode}: {self.log.read_text()}")
        return self

    def end(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> int:
        """Send a signal that ends it, wait for the end, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end in time; it is killed.
        """
        self.process.send_signal(how)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.close()

    def close(self) -> None:
        """Kill the process if it still runs, and close everything."""
        self.process.kill()
        self.process.wait()
        if self._notices.path.exists():
            self._notices.close()

    def __enter__(self) -> Merger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _command(kind: Kind, root: Path, options: Sequence[object]) -> list[str]:
    given = list(map(str, options))
    if kind == "watch":
        return [sys.executable, "-m", "edgeshard.merge", str(root), "--watch", *given]
    interval = given[given.index("--interval") + 1] if "--interval" in given else "1.0"
    return [sys.executable, "-m", "tests.support.merging_processes", str(root), interval]


# -- the loop ---------------------------------------------------------------------------------------------------------


def merge_at_intervals(root: str, interval_s: float) -> None:
    """Make the passes that a watching merger makes under load, and a last one when told to end."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    signal.signal(signal.SIGHUP, lambda *_: None)
    merger = merger_module.Merger(Path(root), watching=True)
    _tell_ready()
    while not over.wait(interval_s):
        _pass(merger, Path(root), 0.0)
    _pass(merger, Path(root), PATIENCE_S)
    merger.close()


def _pass(merger: merger.Merger, root: Path, lock_wait_s: float) -> None:
    held = locks.lock(root / "merge.lock", lock_wait_s)
    if held is not None:
        try:
            merger.run()
        finally:
            held.release()


def _tell_ready() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command (``-m edgeshard ...``) to its end."""
    started = [sys.executable, *map(str, command)]
    return subprocess.run(started, capture_output=True, text=True, check=False, **options)


if __name__ == "__main__":
    merge_at_intervals(sys.argv[1], float(sys.argv[2]))
