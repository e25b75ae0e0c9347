"""An agent: a process that writes rows, and notes how long each commit took; and a reader, that notes how old it sees.

All clocks are the system's monotonic one, which its processes share.
"""

from __future__ import annotations

import time
import traceback
from array import array
from collections.abc import Callable
from typing import Any, Final

import attrs

from edgeshard.bench.system import BusyError, Place, Writer
from edgeshard.bench.workload import Result, Workload, payload

#: How often a reader looks, in seconds.
READ_EVERY_S: Final = 0.01
_NS: Final = 1_000_000_000


@attrs.frozen
class Done:
    """That an agent has written its last row.

    Attributes:
        rows: acknowledged rows, the first commit included.
        timed_rows: those of them that were written in the measured time.
        ended_ns: when the last of them was acknowledged.
        cpu_s: processor time that it took for them, in seconds.
        refused: how many times the system refused a write.
    """

    rows: int
    timed_rows: int
    ended_ns: int
    cpu_s: float
    refused: int


@attrs.frozen
class Report:
    """What an agent measured, in ns as the bytes of an array of unsigned 64-bit numbers.

    Attributes:
        commits: for each commit, how long it took, with all that was refused before.
        behind: the same from the moment at which it was due; empty where no pace was asked for.
        stale: of the reader: how old each row was when it was first seen.
    """

    commits: bytes = b""
    behind: bytes = b""
    stale: bytes = b""


def run(place: Place, workload: Workload, number: int, line: Any) -> None:
    """Be an agent, or beyond the last of them the reader, as the bench at the other end of the line wants it.

    Args:
        place: where to write.
        workload: what.
        number: the agent's.
        line: a connection of multiprocessing.
    """
    try:
        if number < workload.agents:
            _Agent(place, workload, number).run(line)
        else:
            _read(place, line)
    except BaseException:  # told to the bench, whatever it is
        line.send(RuntimeError(traceback.format_exc()))


class _Agent:
    """One agent's state."""

    def __init__(self, place: Place, workload: Workload, number: int) -> None:
        self._writer: Writer = place.open_writer(number)
        self._workload = workload
        self._number = number
        self._next = 0  # the number of the next row
        self._refused = 0
        self._commits = array("Q")
        self._behind = array("Q")

    def run(self, line: Any) -> None:
        workload = self._workload
        self._commit(0)  # prepares statements, makes files: no user measures that
        line.send("ready")
        begin_ns: int = line.recv()
        first = self._next
        del self._commits[:]
        _sleep_until(begin_ns)
        cpu_s = time.process_time()
        end_ns = begin_ns + int(workload.length_s * _NS)
        if workload.rate is None:
            self._saturate(end_ns)
        else:
            self._keep_pace(begin_ns, end_ns, workload.rate)
        ended_ns = time.monotonic_ns()
        cpu_s = time.process_time() - cpu_s
        line.send(Done(self._next, self._next - first, ended_ns, cpu_s, self._refused))
        line.recv()
        line.send(Report(self._commits.tobytes(), self._behind.tobytes()))
        line.recv()
        self._writer.close()
        line.send("closed")

    def _saturate(self, end_ns: int) -> None:
        while self._commit(end_ns) and time.monotonic_ns() < end_ns:
            pass

    def _keep_pace(self, begin_ns: int, end_ns: int, rate: float) -> None:
        workload = self._workload
        step_ns = workload.commit_rows / rate * _NS
        phase_ns = step_ns * self._number / workload.agents  # they do not all come at once
        turn = 0
        while True:
            due_ns = begin_ns + int(phase_ns + turn * step_ns)
            if due_ns >= end_ns or time.monotonic_ns() >= end_ns:
                return
            _sleep_until(due_ns)
            if not self._commit(end_ns):
                return
            self._behind.append(max(0, time.monotonic_ns() - due_ns))
            turn += 1

    def _commit(self, give_up_ns: int) -> bool:
        """Write a commit, and again where it is refused; False: it was refused until after that moment."""
        write = self._next_commit()
        began_ns = time.monotonic_ns()
        while True:
            try:
                write()
                break
            except BusyError:
                self._refused += 1
                if give_up_ns and time.monotonic_ns() > give_up_ns:
                    return False
        self._commits.append(time.monotonic_ns() - began_ns)
        self._next += self._workload.commit_rows
        return True

    def _next_commit(self) -> Callable[[], object]:
        count, length = self._workload.commit_rows, self._workload.payload_bytes
        agent, now_ns = self._number, time.monotonic_ns()
        if count == 1:
            row = Result(agent, self._next, now_ns, payload(agent, self._next, length))
            return lambda: self._writer.write(row)
        numbers = range(self._next, self._next + count)
        rows = [Result(agent, number, now_ns, payload(agent, number, length)) for number in numbers]
        return lambda: self._writer.write_many(rows)


def _read(place: Place, line: Any) -> None:
    """Look at the final database every so often, until the agents are done and what they wrote is there."""
    reader = place.open_reader()
    reader.fresh()
    line.send("ready")
    begin_ns: int = line.recv()
    line.send(Done(0, 0, begin_ns, 0.0, 0))
    stale = array("Q")
    is_over = False
    while not is_over:
        is_over = line.poll(READ_EVERY_S)  # then all is there, and one more look finds it
        rows = reader.fresh()
        now_ns = time.monotonic_ns()
        stale.extend(now_ns - at_ns for at_ns in rows if at_ns >= begin_ns)
    line.recv()
    line.send(Report(stale=stale.tobytes()))
    line.recv()
    reader.close()
    line.send("closed")


def _sleep_until(moment_ns: int) -> None:
    wait_ns = moment_ns - time.monotonic_ns()
    if wait_ns > 0:
        time.sleep(wait_ns / _NS)
