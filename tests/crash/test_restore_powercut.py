"""Cut the power, tear writes and kill at the operations of a restore."""

from __future__ import annotations

import pytest

from tests.crash.powercut.disk import Crash
from tests.crash.powercut.restores import Restores
from tests.crash.powercut.scheduler import Cut
from tests.crash.powercut.trials import playground
from tests.support.forms import short_and_full


@pytest.mark.parametrize("every", short_and_full(6, 1))
@pytest.mark.parametrize("how", list(Crash))
def test_a_restore_that_is_cut_short_leaves_the_old_or_the_new_master(how: Crash, every: int) -> None:
    """The short form cuts at some operations, and right before and after the last syncs."""
    with playground() as folder:
        restores = Restores(folder)
        restores.prepare()
        cuts = 0
        for at_sync, step in ((True, every), (False, every * every)):
            number = 1
            while restores.check(how, Cut(number, at_sync, after=at_sync and number % 2 == 0), number):
                number += step
                cuts += 1
    assert cuts > (100 if every == 1 else 5)
    assert "old master" in restores.counts
    assert every > 1 or "new master" in restores.counts
