"""The process that forks the agents, before anything is opened: ``python -m edgeshard.bench.agent_host``.

If the system allows one process only, the agents are threads of this one instead.

It imports what the agents need first, so a hundred of them start in a fraction of a second. It exchanges pickles with
the benchmark over its stdin and stdout:

    benchmark -> host    (place, workload)
    host -> benchmark    Ready
    benchmark -> host    when to begin, on the monotonic clock
    host -> benchmark    a list of Finished
    benchmark -> host    "report"
    host -> benchmark    a list of Timings
    benchmark -> host    "close"

At any time the host may send Failed instead. If the benchmark dies, the host reads the end of its stdin and kills its
process group.
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
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import connection as connections
from typing import IO, Any, Final

from edgeshard.bench.agent import Agent
from edgeshard.bench.messages import AgentError, Failed, Ready
from edgeshard.bench.reader import run_reader
from edgeshard.bench.system import Place
from edgeshard.bench.workload import Workload

#: How long agents may take to get ready, or to finish their last commit, in seconds.
TIMEOUT_S: Final = 300.0

#: An agent's process or thread, and our end of the pipe to it.
_Child = tuple[Any, Any]


def main() -> None:
    """Run agents for the benchmark at the other end of stdin and stdout."""
    source, target = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an agent prints must not get between the pickles

    def send(message: object) -> None:
        pickle.dump(message, target)
        target.flush()

    place, workload = pickle.load(source)  # noqa: S301  # from our own parent
    children = _start_all(place, workload)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(source, requests), daemon=True).start()  # no fork comes after this
    try:
        _gather_answers(children)
        send(Ready([getattr(process, "pid", None) or os.getpid() for process, _ in children]))
        for answers in _serve(children, requests):
            send(answers)
        for process, _ in children:
            process.join()  # so that none is left as a zombie
    except AgentError as error:
        send(Failed(str(error)))
    os._exit(0)  # a normal exit would wait for the thread that reads stdin


def _start_all(place: Place, workload: Workload) -> list[_Child]:
    """Start the agents, and the reader if the workload has a fixed rate: only then does staleness mean something."""
    for name in place.modules:
        importlib.import_module(name)
    gc.freeze()  # a collection in an agent would copy every page that it shares with us
    readers = 0 if workload.rate is None else 1
    start = _start_thread if place.in_threads else _fork
    return [start(place, workload, number) for number in range(workload.agents + readers)]


def _start_thread(place: Place, workload: Workload, number: int) -> _Child:
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=_run_child, args=(place, workload, number, theirs), daemon=True)
    thread.start()
    return thread, ours


def _fork(place: Place, workload: Workload, number: int) -> _Child:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_child, args=(place, workload, number, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the agent's death shows as the end of the pipe
    return process, ours


def _run_child(place: Place, workload: Workload, number: int, pipe: Any) -> None:
    try:
        if number < workload.agents:
            Agent(place, workload, number).run(pipe)
        else:
            run_reader(place, pipe)
    except BaseException:  # whatever it is, the benchmark reports it
        pipe.send(RuntimeError(traceback.format_exc()))


def _receive(source: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    """Queue the benchmark's requests; when it is gone, kill our whole process group."""
    with contextlib.suppress(EOFError):
        while True:
            requests.put(pickle.load(source))  # noqa: S301  # from our own parent
    os.killpg(0, signal.SIGKILL)


def _serve(children: list[_Child], requests: queue.SimpleQueue[Any]) -> Iterator[list[Any]]:
    """Forward each request to all agents and yield their answers, until they have closed."""
    while True:
        request = requests.get()
        for _, pipe in children:
            pipe.send(request)
        answers = _gather_answers(children)
        if request == "close":
            return
        yield answers


def _gather_answers(children: list[_Child]) -> list[Any]:
    """Return one answer from each agent, in their order.

    Raises:
        AgentError: an agent failed or does not answer.
    """
    answers: dict[int, Any] = {}
    unanswered = {pipe: number for number, (_, pipe) in enumerate(children)}
    while unanswered:
        readable: list[Any] = connections.wait(list(unanswered), TIMEOUT_S)
        if not readable:
            raise AgentError(f"{len(unanswered)} agents have not answered for {TIMEOUT_S:g} s")
        for pipe in readable:
            try:
                answer = pipe.recv()
            except EOFError as error:
                raise AgentError("an agent died") from error
            if isinstance(answer, BaseException):
                raise AgentError("".join(traceback.format_exception(answer)))
            answers[unanswered.pop(pipe)] = answer
    return [answers[number] for number in range(len(children))]


if __name__ == "__main__":
    main()
