"""Work in a process that is killed at its nth SQL statement: what edgeshard does then, it does nowhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import apsw

from tests.support.forks import Count, Life, begin


def killed_at(number: int, work: Callable[[Count], None]) -> Life:
    """Do work in a forked process that kills itself before its nth SQL statement; no database may be open here.

    Returns:
        The process, which has ended; `killed` says whether it got that far.
    """
    left = [number]

    def strike(*_: Any) -> bool:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def traced(count: Count) -> None:
        apsw.connection_hooks.append(lambda connection: connection.set_exec_trace(strike))
        work(count)

    life = begin(traced)
    life.killed = True  # it kills itself
    life.wait()
    life.killed = life.status == signal.SIGKILL
    return life
