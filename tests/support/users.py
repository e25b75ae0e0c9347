"""Run functions as other users, in processes of their own. Only root can do this."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any

import attrs
import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@attrs.frozen
class User:
    """Whom a process runs as.

    Attributes:
        uid: the user's id.
        gid: the id of the primary group.
        groups: the ids of the other groups.
        umask: the process's umask.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o022

    def become(self) -> None:
        """Become this user, for good."""
        os.chdir("/")
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)
        os.umask(self.umask)


def run_as(user: User, function: Callable[[], Any]) -> Any:
    """Return what the function returns in a child process of that user, as JSON brings it back.

    Raises:
        AssertionError: it raised an exception, whose traceback is the message.
    """

    def steps() -> Generator[Any]:
        yield function()

    with steps_as(user, steps) as step:
        return step()


@contextlib.contextmanager
def steps_as(user: User, steps: Callable[[], Generator[Any]]) -> Iterator[Callable[[], Any]]:
    """Run a generator in a child process of that user, up to its next value with each call of what this yields.

    The child cannot import what only root may read, so run the same as root once before. The generator is closed at the
    end of the block.

    Raises:
        AssertionError: it raised an exception, whose traceback is the message.
    """
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            user.become()
            _serve(its, steps)
        finally:
            os._exit(0)
    its.close()

    def step() -> Any:
        ours.sendall(b"\n")
        done, result = json.loads(replies.readline())
        assert done, result
        return result

    try:
        with ours, ours.makefile() as replies:
            yield step
    finally:
        os.waitpid(pid, 0)


def _serve(its: socket.socket, steps: Callable[[], Generator[Any]]) -> None:
    values = steps()
    with its.makefile("rw") as stream:
        while stream.readline():
            try:
                reply = [True, next(values)]
            except BaseException:
                reply = [False, traceback.format_exc()]
            stream.write(json.dumps(reply) + "\n")
            stream.flush()
    values.close()
