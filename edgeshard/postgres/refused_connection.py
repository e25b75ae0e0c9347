"""Find the SQLSTATE with which a server refuses a connection, because libpq does not pass it on.

So we connect once more, let libpq trace to memory what the server says, and find it there.
"""

from __future__ import annotations

import os
import re
import select
import time
from typing import Any, Final

#: How long that may take, in seconds.
_DEADLINE_S: Final = 5.0

#: What libpq's trace shows when a server refuses a connection.
_REFUSED: Final = re.compile(rb'\tErrorResponse\t S "[A-Z]+" V "[A-Z]+" C "([0-9A-Z]{5})"')


def find_sqlstate(psycopg: Any, dsn: str) -> str | None:
    """Return the SQLSTATE, or None if the server does not get as far as sending one.

    If libpq cannot trace, it is only known whether the server wanted a password.
    """
    connection = psycopg.pq.PGconn.connect_start(dsn.encode())
    try:
        if not hasattr(os, "memfd_create"):
            _connect(psycopg.pq, connection, None)
            return "28P01" if connection.needs_password or connection.used_password else None
        with open(os.memfd_create("edgeshard"), "r+b") as trace:
            _connect(psycopg.pq, connection, trace.fileno())
            trace.seek(0)
            found = _REFUSED.search(trace.read())
        if found is None:
            return "28P01" if connection.needs_password else None  # libpq has no password to send, and hung up
        return found[1].decode()
    finally:
        connection.finish()


def _connect(pq: Any, connection: Any, trace: int | None) -> None:
    """Continue to connect until that is done, has failed, or takes too long."""
    waits = {pq.PollingStatus.READING: ([0], []), pq.PollingStatus.WRITING: ([], [0])}
    deadline = time.monotonic() + _DEADLINE_S
    status = pq.PollingStatus.WRITING
    while status in waits and connection.status != pq.ConnStatus.BAD and time.monotonic() < deadline:
        if trace is not None:
            connection.trace(trace)  # libpq forgets it with each socket that it tries
        reading, writing = ([connection.socket for _ in side] for side in waits[status])
        select.select(reading, writing, [], max(0.0, deadline - time.monotonic()))
        status = connection.connect_poll()
    if trace is not None:
        connection.untrace()
