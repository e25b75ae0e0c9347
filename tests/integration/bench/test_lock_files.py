"""The lock files of the shared SQLite: they exclude, they survive deaths, and the fair one is fair."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeshard.bench.systems.lock_files import FileLock, Flock, TicketLock

FORK = multiprocessing.get_context("fork")
LOCKS = [Flock, TicketLock]


@pytest.mark.parametrize("make", LOCKS)
def test_one_process_at_a_time_has_the_lock(make: Callable[[Path], FileLock], tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")

    def add() -> None:
        lock = make(tmp_path / "lock")
        for _ in range(50):
            with lock:
                count.write_text(str(int(count.read_text()) + 1))
        lock.close()

    processes = [FORK.Process(target=add) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert ["200", 0, 0, 0, 0] == [count.read_text(), *(process.exitcode for process in processes)]


@pytest.mark.parametrize("make", LOCKS)
def test_a_process_that_dies_releases_the_lock(make: Callable[[Path], FileLock], tmp_path: Path) -> None:
    ours, theirs = FORK.Pipe()

    def hold() -> None:
        with make(tmp_path / "lock"):
            theirs.send("held")
            time.sleep(600)

    process = FORK.Process(target=hold)
    process.start()
    assert "held" == ours.recv()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with make(tmp_path / "lock"):
        pass


def test_the_fair_lock_is_taken_in_the_order_of_arrival_also_by_who_had_it(tmp_path: Path) -> None:
    lock = TicketLock(tmp_path / "lock")
    order = tmp_path / "order"
    processes: list[Any] = []

    def wait_and_note(number: int) -> None:
        own = TicketLock(tmp_path / "lock")
        with own, open(order, "a") as file:
            file.write(f"{number} ")

    with lock:
        for number in range(5):
            processes.append(FORK.Process(target=wait_and_note, args=(number,)))
            processes[-1].start()
            began = time.monotonic()
            while lock._last[0] < number + 2:  # it has drawn its ticket
                assert time.monotonic() - began < 60
                time.sleep(0.001)
    with lock, open(order, "a") as file:  # a plain flock would let us have it again at once
        file.write("again")
    for process in processes:
        process.join()
    assert "0 1 2 3 4 again" == order.read_text()
