"""A process that may open few files: a verb works, or it says so, and no shard is blamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeshard
from tests.support.forms import others_slow, short_and_full
from tests.support.processes import python
from tests.support.stores import numbers

# in a process of its own, which may open as many files as it has open, and a number more
_VERBS = """
import json, logging, os, resource, shutil, sys
import edgeshard
from edgeshard.errors import EdgeshardError, OutOfDescriptorsError
logging.disable(logging.CRITICAL)
folder, verb, frees = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def run(store):
    if verb == "dry run":
        return store.merge(dry_run=True)
    if verb in ("export", "snapshot"):
        return getattr(store, verb)(os.path.join(store.root, "file"))
    if verb == "merge others":
        return store.merge([os.path.join(folder, "other", "master.db")])
    if verb == "prune":
        return store.prune(keep_rows=1)
    if verb == "write":
        with store.shard("new") as shard:
            return shard.write({"n": 1})
    return getattr(store, verb)()
def told(store):
    try:
        done = run(store)
    except OutOfDescriptorsError as error:
        return "refused" if "ulimit -n" in error.cause else str(error)
    except Exception as error:
        return repr(error)
    reasons = [item.reason for item in getattr(done, "quarantined", ())]
    if verb == "status":
        reasons = [item.reason for item in done.shards if item.reason]
    return reasons[0] if reasons else "done"
found = []
for free in [None, *frees]:
    copy = os.path.join(folder, "copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(os.path.join(folder, "data"), copy)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/dev/fd")) - 1
    if free is not None:  # the first time, it imports what it needs
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, limits[1]))
    found.append(told(edgeshard.Store(copy)))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert used == len(os.listdir("/dev/fd")) - 1, f"{free}: descriptors were left open"
print(json.dumps(found))
"""

VERBS = ["dry run", "merge", "merge others", "status", "verify", "prune", "export", "snapshot", "ranges", "write"]


@pytest.mark.parametrize("frees", short_and_full([0, 3, 4, 5, 6, 12, 24], [*range(64)]))
@pytest.mark.parametrize("verb", others_slow(VERBS, always=("dry run", "merge")))
def test_a_verb_that_may_open_few_files_works_or_says_so(
    verb: str, frees: list[int], store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("first") as shard:
        shard.write({"n": 0})
    store.merge()
    other = edgeshard.Store(tmp_path / "other")
    for each, agents in ((store, range(1, 10)), (other, [11])):
        for n in agents:
            with each.shard(f"agent{n}") as shard:
                shard.write({"n": n})
    other.merge()
    done = python(_VERBS, tmp_path, verb, json.dumps(frees))
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)[1:]
    assert {"done", "refused"} == {*found}
    # it works from some number on, and that number is small
    assert ["refused"] * found.count("refused") + ["done"] * found.count("done") == found
    assert found.count("refused") <= 8
    if verb == "merge":
        assert [*range(10)] == numbers(edgeshard.Store(tmp_path / "copy"))
