"""What systemd wants to be told: that the service is ready, alive, or ends (sd_notify(3)).

Outside of systemd there is no NOTIFY_SOCKET, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(**fields: object) -> None:
    """Send fields to the service manager, such as ``READY=1``, ``STATUS="all is merged"``, ``WATCHDOG=1``.

    Does nothing where no service manager asked to be told. One that cannot be reached is logged at debug, no more: a
    merger that merges is worth more than one that is stopped for its manners; systemd itself notices what it misses.

    Args:
        fields: the names and values that sd_notify(3) lists; a line break in a value becomes a space.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    # each line is an assignment: a text of somebody else's must not become one
    lines = (f"{name}={' '.join(str(value).splitlines())}" for name, value in fields.items())
    message = "\n".join(lines).encode(errors="backslashreplace")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # a manager that does not read must not hold up a merge
            sender.sendto(message, _address(path))
    except (OSError, ValueError) as error:  # ValueError: no path has a NUL in it
        logger.debug("cannot notify the service manager at %s: %s", path, error)


def watchdog_interval_s() -> float | None:
    """How often to send ``WATCHDOG=1``, in seconds: twice in the time that WatchdogSec= allows.

    Returns:
        None where nobody waits for it: no service manager, or it waits for another process of this service.
    """
    limit_us = _number("WATCHDOG_USEC")
    pid = _number("WATCHDOG_PID")
    if not limit_us or pid not in (None, os.getpid()):
        return None
    return limit_us / 2 / 1e6


def _address(path: str) -> str | bytes:
    """A socket's file, or a name in Linux's abstract namespace, which is written with an @ for its first byte, NUL."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith("@") else path


def _number(name: str) -> int | None:
    """An environment variable's value; None where there is none, 0 where it is no number."""
    text = os.environ.get(name, "")
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() else 0
