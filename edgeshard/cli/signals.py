"""Signals: the first request to stop is heard when the shard at hand is done, a second one interrupts at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: What a terminal, a service manager, and `kill` send to end a process.
_STOPS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether this process was asked to stop.

    Attributes:
        by: the number of the signal; 0: it was not.
    """

    def __init__(self) -> None:
        self.by = 0

    def is_asked(self) -> bool:
        """Whether it was."""
        return self.by != 0


@contextlib.contextmanager
def stop_on_signals(
    on_stop: Callable[[], None] | None = None, on_hangup: Callable[[], None] | None = None
) -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM ask to stop; whichever comes second raises KeyboardInterrupt.

    Args:
        on_stop: called, between any two instructions of the main thread, when the first comes.
        on_hangup: called likewise for each SIGHUP.
    """
    stop = Stop()

    def ask_to_stop(number: int, _: FrameType | None) -> None:
        if stop.is_asked():
            raise KeyboardInterrupt
        stop.by = number
        if on_stop is not None:
            on_stop()

    handlers: dict[int, Any] = dict.fromkeys(_STOPS, ask_to_stop)
    if on_hangup is not None:
        handlers[signal.SIGHUP] = lambda *_: on_hangup()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
