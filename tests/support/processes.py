"""Run SQL, Python and the commands in separate processes.

A database that edgeshard has open must not be opened by another SQLite library in the same process: when that library
closes the file, edgeshard's locks on it are dropped. So `sql` uses another process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.command_server import CommandServer
from tests.support.sql_server import SqlServer

#: How long a command may take, in seconds.
_TIMEOUT_S = 120


def sql(path: Path | str, *statements: str) -> list[list[Any]]:
    """Return the rows of the last statement, run by the standard library's sqlite3 in another process."""
    return _sql_server(os.getpid(), os.geteuid()).run(os.fspath(path), statements)


@functools.cache
def _sql_server(pid: int, user: int) -> SqlServer:
    """Return the server of this process, with the rights of this user."""
    return SqlServer()


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in another interpreter, to its end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def merge_command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python -m edgeshard.merge``."""
    return _run("edgeshard.merge", arguments, options)


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python -m edgeshard``, which is ``edgeshard``."""
    return _run("edgeshard", arguments, options)


def unwrapped(text: str) -> str:
    """Return what a command printed for people as one line, without the breaks that its width needs."""
    return " ".join(text.replace(" \\\n", " ").split())


@functools.cache
def _command_server() -> CommandServer:
    return CommandServer()


def _run(module: str, arguments: tuple[object, ...], options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    texts = [os.fspath(item) if isinstance(item, os.PathLike) else str(item) for item in arguments]
    if options.keys() <= {"cwd"} and _command_server().serves():
        return _command_server().run(module, texts, os.fspath(options.get("cwd", os.getcwd())), _TIMEOUT_S)
    settings = {"capture_output": True, "text": True, "check": False, "timeout": _TIMEOUT_S, **options}
    return subprocess.run([sys.executable, "-m", module, *texts], **settings)


_PAUSED = """
import sys, edgeshard
from edgeshard.format import blocks
blocks.CHUNK_BYTES = 2_000
def progress(done, to_do):
    if (done == to_do) == (sys.argv[4] == "end"):
        print(done, to_do, flush=True)
        sys.stdin.readline()
getattr(edgeshard.Store(sys.argv[1]), sys.argv[2])(sys.argv[3], force=True, progress=progress)
"""


@contextlib.contextmanager
def paused(root: Path, method: str, target: Path, moment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process copy a store to a file, and pause until it reads a line.

    Args:
        root: the store's folder.
        method: "snapshot" or "export".
        target: the file.
        moment: when to pause: in the "middle", or at the "end", with all copied but the file not yet under its name.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _PAUSED, root, method, target, moment],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
