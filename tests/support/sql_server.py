"""Run SQL by the standard library's sqlite3 in a process that is started once.

To start an interpreter for each statement takes 30 times as long as the statement. The process has a database open only
while it runs a call, so for edgeshard it is the same as a process that came and went.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SERVER = """
import json, os, sqlite3, sys, traceback
from contextlib import closing
for line in sys.stdin:
    path, statements, mask = json.loads(line)
    os.umask(mask)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            answer = json.dumps([connection.execute(sql).fetchall() for sql in statements][-1])
    except Exception:
        answer = json.dumps(traceback.format_exc())
    print(answer, flush=True)
"""


class SqlServer:
    """The process, which ends with the one that started it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        self._turn = threading.Lock()
        atexit.register(self.close, os.getpid())

    def run(self, path: str, statements: Sequence[str]) -> list[list[Any]]:
        """Return the rows of the last statement."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            mask = os.umask(0)
            os.umask(mask)
            self._process.stdin.write(json.dumps([os.path.abspath(path), list(statements), mask]) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        assert not isinstance(answer, str), answer
        rows: list[list[Any]] = answer
        return rows

    def close(self, pid: int) -> None:
        """End the process, if this is the one who started it."""
        if pid == os.getpid():
            self._process.kill()
            self._process.communicate()
