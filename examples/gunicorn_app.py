"""A web application in four workers of gunicorn, each with a shard of its own; one of them merges.

cd examples && STORE=/srv/visits gunicorn --config gunicorn_app.py gunicorn_app:application

gunicorn reads this file twice: as its configuration, and in each worker as the application.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import edgeshard

workers = 4
bind = os.environ.get("BIND", "127.0.0.1:8000")

store = edgeshard.Store(os.environ.get("STORE", "visits"))
shard: edgeshard.Shard
opened = contextlib.ExitStack()


@dataclass
class Visit:
    at: datetime
    path: str
    pid: int


def post_fork(server: Any, worker: Any) -> None:
    """Open what a worker needs; gunicorn calls this in each, after the fork."""
    import gunicorn_app  # the application, of which this configuration is another copy

    gunicorn_app.start()


def worker_exit(server: Any, worker: Any) -> None:
    import gunicorn_app

    gunicorn_app.opened.close()


def start() -> None:
    global shard
    shard = opened.enter_context(store.shard(f"web-{os.getpid()}"))
    opened.enter_context(store.watching(standby=True))  # one worker merges; if it ends, another goes on


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    shard.write(Visit(datetime.now(UTC), environ["PATH_INFO"], os.getpid()))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}\n".encode()]
