"""Run a system's servers as child processes that never outlive the benchmark, even if it is killed (on Linux)."""

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

#: How long a server may take to start or to stop, in seconds; the machine may be busy.
TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.005
_PR_SET_PDEATHSIG: Final = 1


class Server:
    """A server process.

    Args:
        command: the command line to run.
        log: the file for its output.
        ends_by: the signal that shuts it down cleanly.
        dies_by: the signal that it gets if we are killed (Linux).
        user: the user to run it as; None means our own.
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
                env=python_environment(),
                start_new_session=True,  # Ctrl-C reaches only us, so that we can stop it cleanly
                preexec_fn=_death_signal_request(dies_by),  # safe: this process has one thread
                **credentials(user),
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait until the server is ready.

        Raises:
            NotRunError: it exited, or is not ready in time.
        """
        began = time.monotonic()
        while not is_ready():
            if self.process.poll() is not None:
                raise NotRunError(f"{self._name} exited with {self.process.returncode}: {self.log_tail()}")
            if time.monotonic() - began > TIMEOUT_S:
                raise NotRunError(f"{self._name} is not ready after {TIMEOUT_S:g} s: {self.log_tail()}")
            time.sleep(_POLL_S)

    def log_tail(self) -> str:
        """Return the last words of its log."""
        return _tail(self._log.read_text(errors="replace"))

    def stop(self) -> None:
        """Stop the server; kill it if it does not stop in time."""
        if self.process.poll() is None:
            self.process.send_signal(self._ends_by)
            try:
                self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def python_environment() -> dict[str, str]:
    """Return an environment in which a child Python imports from the same folders as this one.

    It keeps compiled modules, as Python does unless it is told not to: a process that compiles edgeshard anew takes
    0.1 s longer (measured).
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _death_signal_request(number: signal.Signals) -> Callable[[], None] | None:
    """Return a function by which a child asks for a signal when its parent dies, or None if unsupported."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # load it here: between fork and exec a child should not
    return lambda: prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def credentials(user: str | None) -> dict[str, Any]:
    """Return the arguments of `subprocess.Popen` that run a command as a user."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def run(command: Sequence[str], user: str | None, folder: Path) -> None:
    """Run a program in a folder and wait for it.

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
        output, _ = process.communicate()
    except BaseException:
        _kill_group(process)  # including its children, which write into our folder
        raise
    if process.returncode:
        raise NotRunError(f"{os.path.basename(command[0])} exited with {process.returncode}: {_tail(output)}")


def _tail(text: str) -> str:
    return " ".join(text.split()[-60:])


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children, and wait until they have ended."""
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):  # raised once the last of them has ended
        while time.monotonic() - began < TIMEOUT_S:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(_POLL_S)


def is_open_to_all(path: Path) -> bool:
    """Whether every user may pass through this folder and all folders above it."""
    with contextlib.suppress(OSError):
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))
    return False
