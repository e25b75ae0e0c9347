"""Signals: the first request to stop takes effect after the current shard or step, a second one interrupts at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: What a terminal, a service manager, and `kill` send to end a process.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """The request of a signal to stop this process.

    Attributes:
        by: the number of the signal, or 0 if there was none.
    """

    def __init__(self) -> None:
        self.by = 0

    def is_requested(self) -> bool:
        """Return whether there was such a signal."""
        return self.by != 0


@contextlib.contextmanager
def stop_on_signals(
    on_stop: Callable[[], None] | None = None, on_hangup: Callable[[], None] | None = None
) -> Iterator[Stop]:
    """Let SIGINT and SIGTERM request a stop within the block; the second of them raises KeyboardInterrupt.

    Args:
        on_stop: called for the first one, between any two instructions of the main thread.
        on_hangup: called in the same way for each SIGHUP.
    """
    stop = Stop()

    def request_stop(number: int, _: FrameType | None) -> None:
        if stop.is_requested():
            raise KeyboardInterrupt
        stop.by = number
        if on_stop is not None:
            on_stop()

    handlers: dict[int, Any] = dict.fromkeys(_STOP_SIGNALS, request_stop)
    if on_hangup is not None:
        handlers[signal.SIGHUP] = lambda *_: on_hangup()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
