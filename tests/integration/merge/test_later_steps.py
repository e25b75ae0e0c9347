"""What a merge does after it has copied a source's rows fails for that source alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard.errors import DamagedError
from edgeshard.master import shard_states
from edgeshard.merge import conflicts, late_changes, reap
from edgeshard.merge.target import Target
from tests.support.keyed_schema_versions import plain, version
from tests.support.schema_versions import write
from tests.support.stores import numbers, shard_path

EVIL = plain(None, {"key": "k", "name": "evil"}, k=str)

GOOD = version(k=str, a=int)

#: Each step that runs after `apply.copy`, in the order in which a merge takes them.
STEPS: list[tuple[Any, str]] = [
    (late_changes, "find"),
    (conflicts, "settle"),
    (late_changes, "find_kept"),
    (shard_states, "record_merge"),
    (reap, "has_agent_ended"),
]

ERRORS = [apsw.SQLError("no such column"), DamagedError("merge", "x", "it is bad")]


def fail_for_evil_rows(real: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """Return a step that fails in the transaction part in which the table `evil` has rows, or for its shard."""

    def step(*arguments: Any) -> Any:
        is_evil = any("evil" in argument.columns for argument in arguments if isinstance(argument, Target))
        if is_evil or any("evil" in argument for argument in arguments if isinstance(argument, str)):
            raise error
        return real(*arguments)

    return step


@pytest.mark.parametrize("evil", ["a-evil", "z-evil"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("module", "name"), STEPS)
def test_a_step_that_fails_for_one_shard_keeps_no_other_from_being_merged(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception, evil: str
) -> None:
    write(store, "good", GOOD("p", 1), GOOD("p", 2), *({"n": n} for n in range(3)))
    write(store, evil, EVIL("x"), EVIL("x"))
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail_for_evil_rows(getattr(module, name), error))
        report = store.merge()
    assert [str(shard_path(store, evil))] == [item.path for item in report.quarantined]
    assert (5, [0, 1, 2]) == (report.rows, numbers(store))
    assert [(2,)] == store.query("SELECT a FROM sample")
    assert (2, True) == ((report := store.merge()).rows, report.complete)  # once it is no longer at fault
    assert store.verify(deep=True).ok


def test_rows_of_all_sources_of_one_transaction_are_settled_together(store: edgeshard.Store) -> None:
    for number in range(5):
        write(store, f"agent{number}", GOOD("p", number), GOOD("q", number))
    assert 10 == store.merge().rows
    assert [("p", 4), ("q", 4)] == store.query("SELECT k, a FROM sample ORDER BY k")
    assert 8 == store.query("SELECT count(*) FROM sample_history")[0][0]
    assert store.verify(deep=True).ok
