"""The reader process: poll the final database, and record how old each row is when it first appears."""

from __future__ import annotations

import time
from array import array
from typing import Any, Final

from edgeshard.bench.messages import Finished, Timings
from edgeshard.bench.system import Place

#: Interval between two polls, in seconds.
POLL_S: Final = 0.01


def run_reader(place: Place, pipe: Any) -> None:
    """Poll until the benchmark says that every row can be read; then poll once more, and send the timings.

    The conversation is the agents' (see `agent`), except that the reader sends its Finished at the beginning.
    """
    reader = place.open_reader()
    reader.fresh()
    pipe.send("ready")
    begin_ns: int = pipe.recv()
    pipe.send(Finished(0, 0, begin_ns, 0))
    stale = array("Q")
    is_over = False
    while not is_over:
        is_over = pipe.poll(POLL_S)  # by then every row can be read, so one more poll finds the rest
        rows = reader.fresh()
        now_ns = time.monotonic_ns()
        stale.extend(now_ns - at_ns for at_ns in rows if at_ns >= begin_ns)
    pipe.recv()
    pipe.send(Timings(stale=stale.tobytes()))
    pipe.recv()
    reader.close()
    pipe.send("closed")
