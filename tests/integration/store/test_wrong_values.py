"""Whatever is given for an argument of a store's or a shard's methods, the error is one of ours."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.errors import DamagedError, EdgeshardError, quoted
from tests.support.forms import others_slow
from tests.support.records import Reading

#: Nobody listens there.
DSN = "postgresql://nobody@127.0.0.1:1/x"

VALUES: list[Any] = [
    *(None, object(), True, 3.5, -1, 0, 10**30, float("nan"), float("inf"), b"x", "", "a\0b", "\ud800", "x" * 2_000),
    *(10**400, 10**5_000, "9" * 5_000),
    *((), ["x"], [None], {"a": 1}, {1: 2}, {"a": object()}, set(), int, lambda: 1),
]

#: The arguments that each method needs; one at a time is replaced by a wrong value. "{}" is the test's own folder.
STORE_METHODS: dict[str, dict[str, Any]] = {
    "__init__": {"root": "{}/data"},
    "init": {},
    "shard": {"agent": "b"},
    "line_writer": {"agent": "b"},
    "import_": {"files": ["{}/rows.ndjson"]},
    "note_budget": {"max_bytes": "1G"},
    "merge": {},
    "amerge": {},
    "query": {"sql": "select 1"},
    "aquery": {"sql": "select 1"},
    "describe_query": {"sql": "select 1"},
    "query_rows": {"sql": "select 1"},
    "query_table": {"sql": "select 1", "colour": False, "width": 80, "unicode": False},
    "read": {"cls": Reading},
    "tables": {},
    "verify": {},
    "verify_against": {"dsn": DSN},
    "accept_loss": {"why": "it broke"},
    "erase": {"table": "reading", "where": "celsius = 1"},
    "salvage": {"path": "{}/data/shards/agent.db"},
    "prune": {"keep_rows": 5},
    "snapshot": {"target": "{}/new.db"},
    "restore": {"snapshot": "{}/snapshot.db"},
    "push": {"dsn": DSN},
    "push_watcher": {"dsn": DSN},
    "watcher": {},
    "watching": {},
    "rejected": {},
    "dismiss_rejected": {"why": "it broke"},
    "pushed_ranges": {"dsn": DSN},
    "receipt": {"said": "{}/snapshot.db"},
    "forget_peer": {"database": "00" * 16},
    "export": {"target": "{}/new.bundle"},
    "confirm_clock": {},
}

SHARD_METHODS: dict[str, dict[str, Any]] = {
    "write": {"record": {"n": 1}},
    "write_many": {"records": [{"n": 1}]},
    "awrite": {"record": {"n": 1}},
    "awrite_many": {"records": [{"n": 1}]},
    "delete": {"cls": Reading},
    "lookup": {"sql": "select 1"},
    "query": {"sql": "select 1"},
    "read": {"cls": Reading},
}

#: Arguments that are functions, or that only the command line gives.
_LEFT_OUT = {"self", "key", "progress", "should_stop", "on_bad_line", "colour", "unicode", "encode"}


def _use(result: Any) -> None:
    """Do what a caller does with a result: only then some methods begin."""
    if inspect.isawaitable(result):

        async def wait() -> None:
            await result

        asyncio.run(wait())
    elif isinstance(result, Iterator):
        list(result)
    elif hasattr(result, "__exit__"):
        with result:
            pass


def _arguments(method: Any) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name not in _LEFT_OUT]


@pytest.mark.parametrize("name", others_slow(STORE_METHODS, ("accept_loss", "merge", "prune", "receipt")))
def test_a_store_raises_only_errors_of_ours(prepared: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    for argument in _arguments(getattr(edgeshard.Store, name)):
        for value in VALUES:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(prepared, folder)
            given = {key: _placed(value, folder) for key, value in STORE_METHODS[name].items()} | {argument: value}
            try:
                if name == "__init__":
                    edgeshard.Store(**given)
                else:
                    _use(getattr(edgeshard.Store(folder / "data"), name)(**given))
            except EdgeshardError as error:
                assert error.cause
                # a file that was given may be damaged, but no argument makes the master so
                assert not isinstance(error, DamagedError) or error.path != str(folder / "data" / "master.db"), error
            except Exception as error:
                raise AssertionError(f"{name}({argument}={quoted(value)}) raised {error!r}") from error


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_placed(each, folder) for each in value]
    return value.format(folder) if isinstance(value, str) else value


@pytest.mark.parametrize("name", SHARD_METHODS)
def test_a_shard_raises_only_errors_of_ours(prepared: Path, tmp_path: Path, name: str) -> None:
    store = edgeshard.Store(tmp_path / "data")
    with store.shard("agent", reference={"older": prepared / "snapshot.db"}) as shard:
        for argument in _arguments(getattr(edgeshard.Shard, name)):
            for value in VALUES:
                try:
                    _use(getattr(shard, name)(**(SHARD_METHODS[name] | {argument: value})))
                except EdgeshardError as error:
                    assert error.cause
                except Exception as error:
                    raise AssertionError(f"{name}({argument}={quoted(value)}) raised {error!r}") from error
        before = store.merge().rows
        shard.write({"n": 2})
    assert 1 == store.merge().rows, before


def test_each_public_method_with_arguments_is_called() -> None:
    for kind, called in ((edgeshard.Store, STORE_METHODS), (edgeshard.Shard, SHARD_METHODS)):
        public = [
            name
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and _arguments(method)
        ]
        assert [] == [name for name in public if name not in called]
