"""Helpers for the tests: raw looks into databases, each in a process of its own where SQLite's locks matter."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs

import edgeshard
from edgeshard import arrivals

_STDLIB = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
rows = [connection.execute(sql).fetchall() for sql in sys.argv[2:]][-1]
connection.close()
print(json.dumps(rows))
"""


@edgeshard.table(index=["sensor"])
@attrs.frozen
class Reading:
    """The README's record."""

    sensor: str
    celsius: float
    at: datetime.datetime


NOON = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)
DAY_S = 86_400


class Clock:
    """A clock that is set by hand: the fixture `clock`."""

    def __init__(self) -> None:
        self.now_s = float(arrivals.SENSIBLE_S + 100 * DAY_S)

    def __call__(self) -> float:
        return self.now_s


def sql(path: Path | str, *statements: str) -> list[list[Any]]:
    """The rows of the last statement, run by the standard library's sqlite3 in another process."""
    done = subprocess.run(
        [sys.executable, "-c", _STDLIB, str(path), *statements], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in another interpreter, to its end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def merge_command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m edgeshard.merge``."""
    command = [sys.executable, "-m", "edgeshard.merge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m edgeshard``, which is ``edgeshard``."""
    started = [sys.executable, "-m", "edgeshard", *map(str, arguments)]
    settings = {"capture_output": True, "text": True, "check": False, "timeout": 120, **options}
    return subprocess.run(started, **settings)


def numbers(store: edgeshard.Store) -> list[int]:
    """The field n of all dicts in the master, in order of n, doubled ones doubled."""
    return sorted(record.data["n"] for record in store.read(edgeshard.AgentData))


def shard_path(store: edgeshard.Store, agent: str) -> Path:
    """Where a plainly named agent's shard is."""
    return store.root / "shards" / f"{agent}.db"
