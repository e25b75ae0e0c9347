"""What the service manager is told, through real sockets."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeshard.cli import systemd


@pytest.fixture(params=["file", pytest.param("abstract", marks=pytest.mark.skipif(
    sys.platform != "linux", reason="abstract sockets are Linux's"))])  # fmt: skip
def manager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's socket, which does not block."""
    with contextlib.ExitStack() as stack:
        # a socket's path is short: below tmp_path it may be too long
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        name = f"{folder}/notify" if request.param == "file" else f"@edgeshard-{secrets.token_hex(8)}"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        listener.setblocking(False)
        listener.bind(name.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that is logged."""
    caplog.set_level(logging.DEBUG)
    return caplog


def test_the_manager_is_told_fields_a_line_each(manager: socket.socket) -> None:
    systemd.notify(READY=1, STATUS="all is merged")
    assert b"READY=1\nSTATUS=all is merged" == manager.recv(1000)


def test_each_call_is_a_message(manager: socket.socket) -> None:
    systemd.notify(READY=1)
    systemd.notify(STOPPING=1)
    assert [b"READY=1", b"STOPPING=1"] == [manager.recv(1000), manager.recv(1000)]


def test_a_line_break_in_a_value_begins_no_field(manager: socket.socket) -> None:
    systemd.notify(STATUS="set aside\nMAINPID=1\r\nSTOPPING=1")
    assert b"STATUS=set aside MAINPID=1 STOPPING=1" == manager.recv(1000)


def test_a_name_that_is_no_utf8_is_told_escaped(manager: socket.socket) -> None:
    systemd.notify(STATUS="é \udcff")
    assert "STATUS=é \\udcff".encode() == manager.recv(1000)


def test_a_manager_that_reads_nothing_holds_nobody_up(manager: socket.socket, debug: pytest.LogCaptureFixture) -> None:
    for _ in range(10_000):
        systemd.notify(WATCHDOG=1)
        if debug.records:
            break
    assert [logging.DEBUG] == [record.levelno for record in debug.records]
    assert b"WATCHDOG=1" == manager.recv(1000)


@pytest.mark.parametrize("path", ["/nowhere/notify", "@nobody-listens-here", "x" * 200, "\udcff"])
def test_a_manager_that_is_not_there_is_logged_at_debug(
    monkeypatch: pytest.MonkeyPatch, debug: pytest.LogCaptureFixture, path: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    systemd.notify(READY=1)
    assert [("edgeshard.cli.systemd", logging.DEBUG)] == [(each.name, each.levelno) for each in debug.records]


@pytest.mark.parametrize("path", [None, ""])
def test_without_a_manager_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, debug: pytest.LogCaptureFixture, path: str | None
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if path is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setattr(socket, "socket", None)
    systemd.notify(READY=1)
    assert [] == debug.messages


@pytest.mark.parametrize(
    ("limit_us", "pid", "expected"),
    [
        (None, None, None),
        ("30000000", None, 15.0),
        ("30000000", "ours", 15.0),
        ("500000", "ours", 0.25),
        ("30000000", "1", None),
        (None, "ours", None),
        ("0", "ours", None),
        ("-5", "ours", None),
        ("soon", "ours", None),
        ("²", "ours", None),
        ("30000000", "me", None),
    ],
)
def test_the_manager_hears_from_us_twice_in_its_time(
    monkeypatch: pytest.MonkeyPatch, limit_us: str | None, pid: str | None, expected: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", limit_us), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value.replace("ours", str(os.getpid())))
    assert expected == systemd.watchdog_interval_s()


def test_a_socket_file_with_an_at_inside_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = Path(folder, "notify@host")
        listener.bind(str(path))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        systemd.notify(READY=1)
        assert b"READY=1" == listener.recv(1000)
