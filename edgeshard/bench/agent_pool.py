"""Control the agents of one trial from the benchmark's process."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from typing import IO, Any

from edgeshard.bench import agent_host
from edgeshard.bench.messages import AgentError, Failed, Finished, Ready, Timings
from edgeshard.bench.servers import python_environment
from edgeshard.bench.system import Place
from edgeshard.bench.workload import Workload


class AgentPool:
    """All agents of a trial, as a context manager that leaves no process behind.

    Call the methods in their order here.

    Args:
        place: the system that the agents write to.
        workload: what they write.
    """

    def __init__(self, place: Place, workload: Workload) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", agent_host.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=python_environment(),
            start_new_session=True,
        )
        self._send((place, workload))

    def wait_ready(self) -> list[int]:
        """Wait until all agents are ready, and return their process ids."""
        answer: Ready = self._receive()
        return answer.pids

    def begin(self, at_ns: int) -> None:
        """Make all agents begin at a moment of the monotonic clock."""
        self._send(at_ns)

    def wait_finished(self) -> list[Finished]:
        """Wait until all agents have written their last row."""
        answer: list[Finished] = self._receive()
        return answer

    def timings(self) -> list[Timings]:
        """Return what the agents timed."""
        self._send("report")
        answer: list[Timings] = self._receive()
        return answer

    def close(self) -> None:
        """Make the agents close their connections, and wait for them."""
        self._send("close")
        if self._process.wait(agent_host.TIMEOUT_S):
            raise AgentError(f"the agents' host process exited with {self._process.returncode}")

    def _send(self, message: object) -> None:
        stream = _pipe(self._process.stdin)
        try:
            pickle.dump(message, stream)
            stream.flush()
        except BrokenPipeError as error:
            raise AgentError("the agents' host process has exited; its errors are above") from error

    def _receive(self) -> Any:
        try:
            answer = pickle.load(_pipe(self._process.stdout))  # noqa: S301  # from our own child
        except EOFError as error:
            raise AgentError("the agents' host process has exited; its errors are above") from error
        if isinstance(answer, Failed):
            raise AgentError(answer.reason)
        return answer

    def __enter__(self) -> AgentPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its agents too, whatever state they are in
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # unsent bytes, which no process is left to read
                _pipe(stream).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the process has no pipe")
    return stream
