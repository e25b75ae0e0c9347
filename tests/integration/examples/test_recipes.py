"""The recipes for gunicorn, pools, task queues, asyncio, logging and LLM agents, run with the real libraries."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from tests.support.project import EXAMPLES

RECIPES = ("gunicorn_app", "http_service", "huey_tasks", "llm_agents", "log_handler", "worker_pools")

#: How long the slowest step may take on a busy machine, in seconds.
PATIENCE_S = 60


def run(script: str, *arguments: object) -> list[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    return done.stdout.splitlines()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def server(port: int, command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own until the block ends; wait until it answers."""
    process = subprocess.Popen(
        command, cwd=EXAMPLES, env={**os.environ, **environment}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until(lambda: can_connect(port), process)
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return False
    return True


def until(condition: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.returncode
        assert time.monotonic() < deadline
        time.sleep(0.05)


def request(port: int, method: str, path: str, body: Any = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(method, path, body if isinstance(body, (str, type(None))) else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def is_answered(port: int) -> bool:
    """Return whether a worker answers: a connection that a worker had accepted when it was killed is reset."""
    try:
        return 200 == request(port, "GET", "/are-you-there")[0]
    except (ConnectionError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short_and_listed(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 60
    assert f"({name}.py)" in (EXAMPLES / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_both_pools_write_each_task_once(tmp_path: Path, start: str) -> None:
    printed = run("worker_pools.py", tmp_path, "--start", start)
    assert ["Pool: 200 tasks", "ProcessPoolExecutor: 200 tasks", f"the store is {tmp_path}"] == printed
    assert [(400,)] == edgeshard.Store(tmp_path).query("select count(*) from square")


@pytest.mark.slow
def test_log_records_of_all_processes_arrive(tmp_path: Path) -> None:
    assert [f"{lines} in {tmp_path}" for lines in ("ERROR 8", "INFO 400")] == run("log_handler.py", tmp_path)
    assert 1 < len(edgeshard.Store(tmp_path).query("select distinct agent_id from log_line_with_agent"))


@pytest.mark.slow
def test_agents_build_on_what_the_others_found(tmp_path: Path) -> None:
    *printed, last = run("llm_agents.py", tmp_path)
    assert f"the store is {tmp_path}" == last
    assert ["parser,", "cache,", "network,", "storage,"] == [line.split()[2] for line in printed]
    store = edgeshard.Store(tmp_path)
    assert [(20, 5)] == store.query("select count(*), count(distinct agent_id) from finding_with_agent")
    assert [(20,)] == store.query("select count(*) from tool_calls")
    assert store.query("select 1 from finding where json_array_length(builds_on) > 0")


@pytest.mark.slow
def test_each_task_of_a_queue_is_one_row(tmp_path: Path) -> None:
    assert [f"100 rows of 100 tasks in {tmp_path / 'data'}"] == run("huey_tasks.py", tmp_path)


@pytest.mark.slow
def test_each_request_to_gunicorn_is_a_row_and_another_worker_merges_if_one_is_killed(tmp_path: Path) -> None:
    port, store = free_port(), edgeshard.Store(tmp_path / "visits")
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn_app.py", "gunicorn_app:application"]
    answered: list[int] = []

    def visit(times: int) -> None:
        for n in range(times):
            status, pid = request(port, "GET", f"/{n}")
            assert 200 == status
            answered.append(int(pid))

    def all_are_merged() -> bool:
        return bool(store.has_master() and [(len(answered),)] == counted())

    def counted() -> list[Any]:
        try:
            return list(store.query("select count(*) from visit where path <> '/are-you-there'"))
        except edgeshard.QueryError:  # no such table yet
            return []

    with server(port, command, STORE=str(store.root), BIND=f"127.0.0.1:{port}") as process:
        visit(40)
        until(all_are_merged, process)
        for pid in set(answered):  # one of these is the merger; gunicorn starts others in their place
            os.kill(pid, signal.SIGKILL)
        until(lambda: is_answered(port), process)
        visit(20)
        until(all_are_merged, process)
    store.merge()
    visits = store.query("select pid from visit where path <> '/are-you-there'")
    assert sorted(answered) == sorted(row.pid for row in visits)


@pytest.mark.slow
def test_each_request_to_the_http_service_is_a_row_or_the_client_s_mistake(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-W", "error", "http_service.py", str(tmp_path), "--port", str(port)]
    with server(port, command):
        for n in range(1, 6):
            reading = {"sensor": f"s{n % 2}", "celsius": float(n)}
            assert (201, f'{{"seq": {n}}}') == request(port, "POST", "/readings", reading)
        for wrong in ({"sensor": "s"}, {"sensor": "s", "celsius": "warm"}, "{"):
            status, text = request(port, "POST", "/readings", wrong)
            assert 400 == status
            assert "error" in json.loads(text)
        status, text = request(port, "GET", "/readings")
        assert [{"sensor": "s0", "celsius": 4.0}, {"sensor": "s1", "celsius": 5.0}] == json.loads(text)
    assert [(5,)] == edgeshard.Store(tmp_path).query("select count(*) from reading")
