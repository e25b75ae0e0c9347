"""Run ``edgeshard`` on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios


def read_all(terminal: int) -> str:
    """What comes from a terminal until the last process has left it."""
    parts = []
    while True:
        try:
            part = os.read(terminal, 10_000)
        except OSError:  # EIO: nobody is there any more
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


def on_terminal(*arguments: object, typed: str = "", columns: int = 60, **environment: str) -> tuple[int, str]:
    """Run ``edgeshard`` on a terminal of its own; its exit code, and what was shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeshard", *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**settings, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, typed.encode())
        shown = read_all(ours)
        return process.wait(60), shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)
