"""Cut the power, tear writes and kill at the operations of one procedure after another."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from tests.crash.powercut.cuts import Cuts
from tests.crash.powercut.disk import Crash
from tests.crash.powercut.procedures import PROCEDURES
from tests.crash.powercut.scheduler import Cut
from tests.crash.powercut.trials import playground
from tests.support.forms import others_slow, short_and_full

#: What the fast tests try: each kind of cut twice.
ALWAYS: Final = [
    ("first opening", Crash.TORN),
    ("init", Crash.POWER),
    ("removal", Crash.KILL),
    ("restore", Crash.POWER),
    ("accept loss", Crash.TORN),
    ("budget merge", Crash.KILL),
]

#: How many more cuts after the end are tried until one leaves what the whole procedure should leave.
_MORE_CUTS: Final = 40


@pytest.mark.parametrize("most", short_and_full(6, 24))
@pytest.mark.parametrize(("procedure", "how"), others_slow(itertools.product(PROCEDURES, Crash), ALWAYS))
def test_what_a_cut_leaves_is_what_the_procedure_promises(procedure: str, how: Crash, most: int) -> None:
    with playground() as folder:
        cuts = Cuts(folder, PROCEDURES[procedure]())
        cuts.prepare()
        for seed, cut in enumerate(cuts.cuts(most), 1):
            cuts.check(how, cut, seed)
        # what is not synced at the end is there after some cuts, and not after others
        for more in range(seed + 1, seed + _MORE_CUTS if most >= 24 else 0):
            if cuts.procedure.outcomes[-1] in cuts.counts:
                break
            cuts.check(how, Cut(cuts.operations + 1, at_sync=False), more)
    assert seed >= min(most, cuts.operations) // 2
    assert cuts.counts.keys() <= set(cuts.procedure.outcomes)
    assert most < 24 or {cuts.procedure.outcomes[0], cuts.procedure.outcomes[-1]} <= cuts.counts.keys()
