"""The simulator of power cuts finds every fault that is put into edgeshard."""

from __future__ import annotations

import pytest

from tests.crash.powercut.command import campaign
from tests.mutants.powercut_mutants import MUTANTS

pytestmark = pytest.mark.slow

#: For each mutant a seed, the number of a trial shortly before the one that finds it, so that CI is quick, and within
#: how many it must be found, so that another SQLite may order its operations otherwise. In the comments: how many
#: trials it took from number 0, with the seeds 1, 2 and 3.
FOUND_WITHIN = {
    "no new stream an opening": (1, 0, 300),  # 4, 86, 34
    "master at NORMAL": (3, 0, 300),  # 4, 13, 4
    "truncate before the commit": (3, 0, 100),  # 2, 2, 2
    "truncate everything": (3, 0, 100),  # 1, 5, 4
    "ranges in a transaction of their own": (3, 0, 100),  # 2, 2, 1
    "no durable commit of its own before truncation": (3, 0, 500),  # 4, 29, 3
    "OR IGNORE with a wrong range": (3, 0, 100),  # 1, 1, 1
    "truncation is not noted": (3, 0, 500),  # 4, 40, 3
    "a removal that syncs no folder": (1, 0, 1_000),  # 3, 439, 178
    "a folder's own name is not synced": (3, 0, 1_000),  # 46, 111, 8
    "sync at power does nothing": (4, 140, 600),  # seeds 3 and 4: 207, 157; 2: none from 90 to 390
    "prune at NORMAL": (2, 50, 600),  # 114, 56, 100
    "a range goes with its pruned rows": (3, 0, 100),  # 2, 2, 2
    "prunings in a transaction of their own": (2, 8, 300),  # 21, 14, 16
    "prunings are not noted": (3, 0, 100),  # 2, 2, 2
    "rows are pruned and their block is not cut": (3, 0, 100),  # 2, 2, 2
    "what was replaced goes in a transaction of its own": (2, 0, 400),  # 25, 112, 106
    "what was replaced is not counted": (2, 0, 100),  # 6, 3, 10
    "a clock that runs back": (2, 0, 100),  # 7, 3, 10
    "a deletion is collected too early": (1, 210, 800),  # 218, more than 400
    "a prune divides transactions": (2, 0, 100),  # 2, 2, 9
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_simulator_finds_every_mutant(mutant: str) -> None:
    seed, first, trials = FOUND_WITHIN[mutant]
    code, output = campaign("--mutant", mutant, "--seed", seed, "--first", first, "--trials", trials)
    assert (1, True) == (code, "VIOLATION" in output), f"not found in {trials} trials"
