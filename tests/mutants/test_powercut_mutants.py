"""The power-cut simulator finds every fault put into edgeshard."""

from __future__ import annotations

import pytest

from tests.crash.powercut.command import campaign
from tests.crash.powercut.contents import ViolationError
from tests.crash.powercut.cuts import Cuts
from tests.crash.powercut.disk import Crash
from tests.crash.powercut.machine import patched
from tests.crash.powercut.procedures import PROCEDURES
from tests.crash.powercut.scheduler import Cut
from tests.crash.powercut.trials import playground
from tests.mutants.powercut_mutants import MUTANTS, PROCEDURE_MUTANTS

pytestmark = pytest.mark.slow

#: For each mutant: a seed, the number of a trial shortly before the one that finds it (to keep CI quick), and the number
#: of trials within which it must be found (another SQLite may order its operations differently). The comments say how
#: many trials it took from number 0, with the seeds 1, 2 and 3.
FOUND_WITHIN = {
    "continue the last stream": (1, 0, 300),  # 4, 86, 34
    "master at NORMAL": (3, 0, 300),  # 4, 13, 4
    "truncate before the commit": (3, 0, 100),  # 2, 2, 2
    "truncate everything": (3, 0, 100),  # 1, 5, 4
    "write ranges in a separate transaction": (3, 0, 100),  # 2, 2, 1
    "truncate without a durable commit": (3, 0, 500),  # 4, 29, 3
    "OR IGNORE with a wrong range": (3, 0, 100),  # 1, 1, 1
    "do not record truncations": (3, 0, 500),  # 4, 40, 3
    "do not sync at durability power": (1, 360, 400),  # 378, ?, 486
    "prune at NORMAL": (2, 50, 600),  # 114, 56, 100
    "delete the ranges of pruned rows": (3, 0, 100),  # 2, 2, 2
    "record pruned rows in a separate transaction": (2, 8, 300),  # 21, 14, 16
    "do not record pruned rows": (3, 0, 100),  # 2, 2, 2
    "prune rows without cutting their blocks": (3, 0, 100),  # 2, 2, 2
    "delete superseded rows in a separate transaction": (2, 0, 400),  # 25, 112, 106
    "do not count superseded rows": (2, 0, 100),  # 5, 1, 9
    "a clock that goes backwards": (2, 0, 100),  # 7, 3, 10
    "divide transactions in a prune": (2, 0, 100),  # 2, 2, 9
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_simulator_finds_every_mutant(mutant: str) -> None:
    seed, first, trials = FOUND_WITHIN[mutant]
    code, output = campaign("--mutant", mutant, "--seed", seed, "--first", first, "--trials", trials)
    assert (1, True) == (code, "VIOLATION" in output), f"not found in {trials} trials"


@pytest.mark.parametrize("mutant", PROCEDURE_MUTANTS)
def test_cuts_of_one_procedure_find_every_mutant(mutant: str) -> None:
    name, patches = PROCEDURE_MUTANTS[mutant]
    with playground() as folder, patched(patches), pytest.raises(ViolationError):
        cuts = Cuts(folder, PROCEDURES[name]())
        cuts.prepare()
        points = [*cuts.cuts(60)][::-1]  # the last ones find most of them
        # what a cut loses is random: some are found by one of a hundred
        whole = [Cut(cuts.operations + 1, at_sync=False)] * 100
        for seed, cut in enumerate([*points, *whole, *points * 4]):
            for how in Crash:
                cuts.check(how, cut, seed)
