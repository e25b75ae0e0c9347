"""An agent process: write rows, and time every commit.

The conversation with the benchmark, through a pipe: send "ready"; receive when to begin; send Finished; receive a
request; send Timings; receive a request; close; send "closed". All times come from the system's monotonic clock, which
all processes share.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import Any, Final

from edgeshard.bench.messages import Finished, Timings
from edgeshard.bench.system import BusyError, Place, Writer
from edgeshard.bench.workload import Result, Workload, payload

_NS: Final = 1_000_000_000


class Agent:
    """One writer and its timings.

    Args:
        place: the system to write to.
        workload: what to write.
        number: the agent's number, from 0.
    """

    def __init__(self, place: Place, workload: Workload, number: int) -> None:
        self._writer: Writer = place.open_writer(number)
        self._workload = workload
        self._number = number
        self._next_row = 0
        self._refused = 0
        self._commits = array("Q")
        self._behind = array("Q")

    def run(self, pipe: Any) -> None:
        """Write for the time of the workload, as the other end of a multiprocessing pipe requests."""
        workload = self._workload
        self._commit(0)  # prepares statements and creates files: users do not pay for that at every commit
        pipe.send("ready")
        begin_ns: int = pipe.recv()
        first = self._next_row
        del self._commits[:]
        sleep_until(begin_ns)
        end_ns = begin_ns + int(workload.length_s * _NS)
        if workload.rate is None:
            self._write_continuously(end_ns)
        else:
            self._write_at_rate(begin_ns, end_ns, workload.rate)
        ended_ns = time.monotonic_ns()
        pipe.send(Finished(self._next_row, self._next_row - first, ended_ns, self._refused))
        pipe.recv()
        pipe.send(Timings(self._commits.tobytes(), self._behind.tobytes()))
        pipe.recv()
        self._writer.close()
        pipe.send("closed")

    def _write_continuously(self, end_ns: int) -> None:
        while self._commit(end_ns) and time.monotonic_ns() < end_ns:
            pass

    def _write_at_rate(self, begin_ns: int, end_ns: int, rate: float) -> None:
        workload = self._workload
        interval_ns = workload.commit_rows / rate * _NS
        offset_ns = interval_ns * self._number / workload.agents  # so that the agents do not all write at once
        number = 0
        while True:
            due_ns = begin_ns + int(offset_ns + number * interval_ns)
            if due_ns >= end_ns or time.monotonic_ns() >= end_ns:
                return
            sleep_until(due_ns)
            if not self._commit(end_ns):
                return
            self._behind.append(max(0, time.monotonic_ns() - due_ns))
            number += 1

    def _commit(self, deadline_ns: int) -> bool:
        """Write one commit, retrying refused attempts. Return False if it is still refused after the deadline.

        A deadline of 0 retries forever.
        """
        write = self._next_commit()
        began_ns = time.monotonic_ns()
        while True:
            try:
                write()
                break
            except BusyError:
                self._refused += 1
                if deadline_ns and time.monotonic_ns() > deadline_ns:
                    return False
        self._commits.append(time.monotonic_ns() - began_ns)
        self._next_row += self._workload.commit_rows
        return True

    def _next_commit(self) -> Callable[[], object]:
        count, length = self._workload.commit_rows, self._workload.payload_bytes
        agent, now_ns = self._number, time.monotonic_ns()
        if count == 1:
            row = Result(agent, self._next_row, now_ns, payload(agent, self._next_row, length))
            return lambda: self._writer.write(row)
        numbers = range(self._next_row, self._next_row + count)
        rows = [Result(agent, number, now_ns, payload(agent, number, length)) for number in numbers]
        return lambda: self._writer.write_many(rows)


def sleep_until(moment_ns: int) -> None:
    """Sleep until a moment of the monotonic clock."""
    wait_ns = moment_ns - time.monotonic_ns()
    if wait_ns > 0:
        time.sleep(wait_ns / _NS)
