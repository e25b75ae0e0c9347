"""Tell systemd that the service is ready, alive or stopping (sd_notify(3)).

Outside of systemd there is no NOTIFY_SOCKET, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import re
import socket

logger = logging.getLogger(__name__)


def notify(**fields: object) -> None:
    """Send fields to the service manager, such as ``READY=1``, ``STATUS="all is merged"``, ``WATCHDOG=1``.

    Without a service manager this does nothing. If it cannot be reached, that is only logged, at debug level: the
    service should keep working, and systemd itself detects missing notifications.

    Args:
        fields: the names and values that sd_notify(3) lists; a line break in a value becomes a space.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    # each line is an assignment: text from elsewhere must not become one
    lines = (f"{name}={' '.join(str(value).splitlines())}" for name, value in fields.items())
    message = "\n".join(lines).encode(errors="backslashreplace")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # a manager that does not read must not block a merge
            sender.sendto(message, _address(path))
    except (OSError, ValueError) as error:  # ValueError: the path has a NUL in it
        logger.debug("cannot notify the service manager at %s: %s", path, error)


def watchdog_interval_s() -> float | None:
    """Return how often to send ``WATCHDOG=1``, in seconds: twice per WatchdogSec=.

    Returns:
        None if no notification is expected: there is no service manager, or it watches another process of this service.
    """
    limit_us = _number("WATCHDOG_USEC")
    pid = _number("WATCHDOG_PID")
    if not limit_us or pid not in (None, os.getpid()):
        return None
    return limit_us / 2 / 1e6


def _address(path: str) -> str | bytes:
    """Return a socket's path, or its name in Linux's abstract namespace: that begins with NUL, written as @."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith("@") else path


def _number(name: str) -> int | None:
    """Return an environment variable's value, None if it is not set, or 0 if it is not a number."""
    text = os.environ.get(name, "")
    if not text:
        return None
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0  # no int() of 5000 digits
