"""The agents' parent: a process that forks them before anything is opened, and ends with whoever started it.

It has imported what agents need, so a hundred of them start in a fraction of a second. It speaks with the bench in
pickles, over its stdin and stdout:

    bench -> crew      (place, workload)
    crew  -> bench     Ready(the agents' process ids)
    bench -> crew      when to begin
    crew  -> bench     Done(rows and times, without the latencies)
    bench -> crew      "report"
    crew  -> bench     the agents' reports
    bench -> crew      "close"

or, at any time, ``Failed``. When the bench dies, the crew reads the end of its stdin, and kills its process group.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import connection as connections
from typing import IO, Any, Final

import attrs

from edgeshard.bench import agents
from edgeshard.bench.servers import environment
from edgeshard.bench.system import Place
from edgeshard.bench.workload import Workload

#: How long agents may take to get ready, or to finish their last commit, in seconds.
PATIENCE_S: Final = 300.0
#: Not -m: what it sends us must be of this module, and not of one named __main__.
_MAIN: Final = f"from {__name__} import main; main()"


class AgentError(Exception):
    """An agent failed; the text is its traceback."""


@attrs.frozen
class Ready:
    """All agents are connected, and have written their first commit."""

    pids: list[int]


@attrs.frozen
class Failed:
    """An agent failed."""

    why: str


# -- the bench's side -------------------------------------------------------------------------------------------------


class Crew:
    """Agents at work; a context manager that leaves none behind.

    Args:
        place: where they write.
        workload: what they write.
    """

    def __init__(self, place: Place, workload: Workload) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self._send((place, workload))

    def ready(self) -> list[int]:
        """Wait until all agents are ready; their process ids."""
        answer: Ready = self._receive()
        return answer.pids

    def go(self, at_ns: int) -> None:
        """Let them begin, at a moment of the monotonic clock."""
        self._send(at_ns)

    def done(self) -> list[agents.Done]:
        """Wait until all have written their last row."""
        answer: list[agents.Done] = self._receive()
        return answer

    def reports(self) -> list[agents.Report]:
        """What they measured."""
        self._send("report")
        answer: list[agents.Report] = self._receive()
        return answer

    def close(self) -> None:
        """Let them close what they have open, and wait for that."""
        self._send("close")
        if self._process.wait(PATIENCE_S):
            raise AgentError(f"the agents' parent ended with {self._process.returncode}")

    def _send(self, message: object) -> None:
        stream = _stream(self._process.stdin)
        try:
            pickle.dump(message, stream)
            stream.flush()
        except BrokenPipeError as error:
            raise AgentError("the agents' parent has ended; its errors are above") from error

    def _receive(self) -> Any:
        try:
            answer = pickle.load(_stream(self._process.stdout))  # noqa: S301  # of our own child
        except EOFError as error:
            raise AgentError("the agents' parent has ended; its errors are above") from error
        if isinstance(answer, Failed):
            raise AgentError(answer.why)
        return answer

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its agents too, whatever state they are in
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what was not sent has nobody to read it
                _stream(stream).close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the process has no pipe")
    return stream


# -- the crew's side --------------------------------------------------------------------------------------------------

#: An agent's process, and the line to it.
_Hand = tuple[Any, Any]


def main() -> None:
    """Run agents for the bench at the other end of stdin and stdout."""
    source, target = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an agent prints must not get between the pickles

    def hear() -> Any:
        return pickle.load(source)  # noqa: S301  # of our own parent

    def say(message: object) -> None:
        pickle.dump(message, target)
        target.flush()

    place, workload = hear()
    for name in place.modules:
        importlib.import_module(name)
    gc.freeze()  # a collection in an agent would copy each page of what it shares with us
    readers = 0 if workload.rate is None else 1  # how old what a reader sees is means something only at a pace
    hands = [_hire(place, workload, number) for number in range(workload.agents + readers)]
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_hear_all, args=(source, orders), daemon=True).start()  # no fork comes after this
    try:
        _ask_all(hands)
        say(Ready([process.pid or 0 for process, _ in hands]))
        for answer in _rounds(hands, orders):
            say(answer)
        for process, _ in hands:
            process.join()  # else nobody but init waits for them
    except AgentError as error:
        say(Failed(str(error)))
    os._exit(0)  # the interpreter would wait for the thread that reads stdin


def _hear_all(source: IO[bytes], orders: queue.SimpleQueue[Any]) -> None:
    """Pass on what the bench says; at its end, kill everybody here."""
    with contextlib.suppress(EOFError):
        while True:
            orders.put(pickle.load(source))  # noqa: S301  # of our own parent
    os.killpg(0, signal.SIGKILL)


def _rounds(hands: list[_Hand], orders: queue.SimpleQueue[Any]) -> Iterator[list[Any]]:
    """Pass each order to all agents, and yield their answers; until they close."""
    while True:
        order = orders.get()
        for _, hand in hands:
            hand.send(order)
        answers = _ask_all(hands)
        if order == "close":
            return
        yield answers


def _hire(place: Place, workload: Workload, number: int) -> _Hand:
    """Fork an agent."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=agents.run, args=(place, workload, number, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its end shows as the end of the line
    return process, ours


def _ask_all(hands: list[_Hand]) -> list[Any]:
    """An answer of each agent, in their order.

    Raises:
        AgentError: one failed.
    """
    answers: dict[int, Any] = {}
    waiting = {hand: number for number, (_, hand) in enumerate(hands)}
    while waiting:
        heard: list[Any] = connections.wait(list(waiting), PATIENCE_S)
        if not heard:
            raise AgentError(f"{len(waiting)} agents do not answer for {PATIENCE_S:g} s")
        for hand in heard:
            try:
                answer = hand.recv()
            except EOFError as error:
                raise AgentError("an agent died") from error
            if isinstance(answer, BaseException):
                raise AgentError("".join(traceback.format_exception(answer)))
            answers[waiting.pop(hand)] = answer
    return [answers[number] for number in range(len(hands))]
