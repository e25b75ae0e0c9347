"""Run edgeshard's commands in processes that are forked from one that has imported edgeshard already.

Starting an interpreter and importing edgeshard takes 0.2 s of processor time, and the tests run some 400 commands. A
forked command has a process, an environment, a working folder and files of its own, like one that a shell starts.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: What an interpreter reads as it starts: where these differ from the server's, a command needs an interpreter of its own.
_READ_AT_START = ("PYTHON", "LANG", "LC_")


class CommandServer:
    """The process that commands are forked from."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.command_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        self._pid = os.getpid()
        self._environment = _read_at_start()
        atexit.register(self.close)

    def serves(self) -> bool:
        """Return whether a command forked from this server behaves like one that is started here and now."""
        return self._pid == os.getpid() and self._environment == _read_at_start()

    def run(
        self, module: str, arguments: Sequence[str], cwd: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m MODULE ARGUMENTS`` to its end.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        mask = os.umask(0)
        os.umask(mask)
        request = {"module": module, "arguments": arguments, "cwd": cwd, "umask": mask, "environment": dict(os.environ)}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as asked:
            asked.write(json.dumps(request).encode())
            asked.seek(0)
            socket.send_fds(self._socket, [b"run"], [asked.fileno(), out.fileno(), err.fileno()])
            pid = int(self._socket.recv(64))
            self._socket.settimeout(timeout_s)
            try:
                code = int(self._socket.recv(64))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._socket.settimeout(None)
                self._socket.recv(64)
                raise subprocess.TimeoutExpired([module, *arguments], timeout_s) from None
            self._socket.settimeout(None)
            return subprocess.CompletedProcess([module, *arguments], code, _text(out), _text(err))

    def close(self) -> None:
        """End the server."""
        if self._pid == os.getpid():
            self._socket.close()
            self._process.wait()


def _text(file: Any) -> str:
    file.seek(0)
    text: str = file.read().decode()
    return text.replace("\r\n", "\n")


def _read_at_start() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_START)}


# -- the server -------------------------------------------------------------------------------------------------------


def _serve(requests: socket.socket) -> None:
    atexit.register(_leave)  # before all others, so it is called after them
    _load()
    while True:
        _, descriptors, _, _ = socket.recv_fds(requests, 16, 3)
        if not descriptors:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            _become(*descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def _load() -> None:
    """Load what commands load when they need it; else each of them would load it anew."""
    importlib.import_module("edgeshard").load_all()
    verbs = importlib.import_module("edgeshard.cli.verbs")
    for verb in verbs.VERBS:
        verbs.module_of(verb)
    with contextlib.suppress(ImportError):
        importlib.import_module("psycopg")


def _become(asked: int, out: int, err: int) -> None:
    """Run what is asked for in this process, as ``python -m`` would."""
    with open(asked, "rb") as file:
        request = json.load(file)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False, buffering=1)  # noqa: SIM115
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    for name in os.environ.keys() - request["environment"].keys():
        del os.environ[name]
    os.environ.update(request["environment"])
    sys.argv = ["", *request["arguments"]]
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        _exit_codes.append(ended.code)
        raise


#: What this process is about to exit with, if it is a command.
_exit_codes: list[Any] = []


def _leave() -> None:
    """End a command at once: to take apart all that was loaded would take four times as long as the command."""
    if _exit_codes:
        sys.stdout.flush()
        sys.stderr.flush()
        (code,) = _exit_codes
        os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    # an interrupt is for the command, and not for the server that it is forked from
    _serve(socket.socket(fileno=int(sys.argv[1])))
