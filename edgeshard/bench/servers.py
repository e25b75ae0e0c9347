"""Servers that a system needs, as children that end with us, whatever becomes of us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from edgeshard.bench.system import NotRunError

#: How long a server may take to start or to end, in seconds; the machine is busy at times.
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.005
_PR_SET_PDEATHSIG: Final = 1


class Server:
    """A process that serves.

    Args:
        command: what to run.
        log: the file for what it says.
        ends_by: the signal that ends it in good order.
        dies_by: the signal that it gets where we are killed (Linux).
        user: whom to run it as; None: as whom we run.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        ends_by: signal.Signals = signal.SIGTERM,
        dies_by: signal.Signals = signal.SIGKILL,
        user: str | None = None,
    ) -> None:
        self._name = os.path.basename(command[0])
        self._log = log
        self._ends_by = ends_by
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=environment(),
                start_new_session=True,  # Ctrl-C is ours: we end it, in good order
                preexec_fn=_follower(dies_by),  # this process has one thread
                **credentials(user),
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait until it serves.

        Raises:
            NotRunError: it ended instead, or does not begin.
        """
        began = time.monotonic()
        while not is_ready():
            if self.process.poll() is not None:
                raise NotRunError(f"{self._name} ended with {self.process.returncode}: {self.said()}")
            if time.monotonic() - began > PATIENCE_S:
                raise NotRunError(f"{self._name} does not serve after {PATIENCE_S:g} s: {self.said()}")
            time.sleep(_POLL_S)

    def said(self) -> str:
        """The last lines of its log."""
        return " ".join(self._log.read_text(errors="replace").split()[-60:])

    def stop(self) -> None:
        """End it; by force where it does not in time."""
        if self.process.poll() is None:
            self.process.send_signal(self._ends_by)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment() -> dict[str, str]:
    """What a Python that we start needs in order to find what we found, wherever it is started."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path)}


def _follower(number: signal.Signals) -> Callable[[], None] | None:
    """What a child calls in order to get a signal when its parent dies."""
    if sys.platform != "linux":
        return None
    set_process = ctypes.CDLL(None, use_errno=True).prctl  # loaded here: a child between fork and exec should not
    return lambda: set_process(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def credentials(user: str | None) -> dict[str, Any]:
    """What subprocess needs in order to run something as a user."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def run(command: Sequence[str], user: str | None, folder: Path) -> None:
    """Run a program to its end.

    Raises:
        NotRunError: it failed.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        start_new_session=True,
        **credentials(user),
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        _kill_group(process)  # its children too, which write into our folder
        raise
    if process.returncode:
        raise NotRunError(
            f"{os.path.basename(command[0])} ended with {process.returncode}: {' '.join(said.split()[-60:])}"
        )


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children, and wait for their end."""
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):  # the last of them is gone
        while time.monotonic() - began < PATIENCE_S:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(_POLL_S)


def is_open_to_all(path: Path) -> bool:
    """Whether any user can reach what is below a folder: each folder above it lets others through."""
    with contextlib.suppress(OSError):
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))
    return False
